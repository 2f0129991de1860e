"""Alerts and metrics of real runs: told in time, never waited for, bounded, and naming where it stands still."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from pipeline import Pipeline, Unavailable
from pipeline.flow.supervisor import Supervisor
from pipeline.settle.cut import Cut
from pipeline.settle.state import StateFile
from pipeline.testing import ManualClock
from pipeline.watch.events import Events
from stages import batchers, processors, sinks, sources

pytestmark = pytest.mark.anyio

SAVE = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10))"


class Heard:
    """The events of a run."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []

    def __call__(self, name: str, fields: Mapping[str, Any]) -> None:
        self.events.append((name, dict(fields)))

    def of(self, name: str) -> list[dict[str, Any]]:
        return [fields for event, fields in self.events if event == name]


def saving(path: Path) -> list[str]:
    return [sys.executable, "-c", SAVE, str(path)]


async def test_a_stalled_frontier_names_record_stage_batch_and_age_and_is_cleared_when_it_moves() -> None:
    clock, heard = ManualClock(), Heard()

    async def hangs(record: dict[str, int]) -> dict[str, int]:
        if record["n"] == 42:
            await clock.sleep(90)
        return record

    pipeline = (
        Pipeline("stuck", checkpoint="none", alerts={"stalled": "1m"})
        | [{"n": n} for n in range(100)]
        | batchers.Fixed(size=10)
        | processors.Call(hangs, name="ask")
        | sinks.Discard()
    )
    report = await clock.finish(pipeline.supervisor(clock=clock, subscribers=[heard]).run())

    assert report.account.written == 100
    raised, cleared = heard.of("alert")
    assert (raised["state"], raised["rule"], raised["stage"], raised["batch"]) == ("raised", "stalled", "ask", 10)
    assert raised["position"] == "iterable record 40"
    assert raised["age"] == pytest.approx(60, abs=1)  # pyright: ignore[reportUnknownMemberType]
    assert "is worked on by 'ask', in a batch of 10 that was read 60s ago" in raised["text"]
    assert cleared["state"] == "cleared"
    assert cleared["seconds"] == pytest.approx(90, abs=1)  # pyright: ignore[reportUnknownMemberType]


@pytest.mark.parametrize(
    ("batcher", "stage", "doing"), [(True, "fixed", "is gathered by"), (False, "hold", "worked on")]
)
async def test_what_only_waits_is_found_too(batcher: bool, stage: str, doing: str) -> None:
    clock, heard = ManualClock(), Heard()

    async def hold(records: list[Any]) -> list[Any]:
        await clock.sleep(200 if not batcher else 0)
        return records

    async def endless() -> Any:
        for n in range(3):
            yield n
        await clock.sleep(300)

    held = Pipeline("stuck", checkpoint="none", alerts={"stalled": 60}) | endless()
    held = held | batchers.Fixed(size=100 if batcher else 3, linger=200 if batcher else 0.001)
    held = held | processors.Call(hold, batch=True, name="hold") | sinks.Discard()
    await clock.finish(held.supervisor(clock=clock, subscribers=[heard]).run())
    raised = heard.of("alert")[0]
    assert raised["stage"] == stage
    assert doing in raised["text"]


async def test_an_open_breaker_is_told_by_its_event() -> None:
    clock, heard = ManualClock(), Heard()

    async def rows() -> Any:
        for n in range(20):
            await clock.sleep(1)
            yield n

    pipeline = Pipeline("b", alerts={"breaker": 5, "repeat": 60}) | rows() | sinks.Discard()
    events = Events((heard,))
    supervisor = Supervisor(pipeline.topology(), clock=clock, events=events)

    def change(state: str) -> Callable[[], None]:
        return lambda: events.emit("breaker", stage="discard", state=state)

    for at, state in {2.0: "open", 5.0: "half_open", 6.0: "open", 12.0: "closed"}.items():
        clock.call_at(clock.now() + at, change(state))
    await clock.finish(supervisor.run())

    assert [(each["state"], each["about"]) for each in heard.of("alert")] == [
        ("raised", "discard"),
        ("cleared", "discard"),
    ]
    assert heard.of("alert")[0]["seconds"] == pytest.approx(5, abs=0.5)  # pyright: ignore[reportUnknownMemberType]


async def test_a_program_is_handed_each_alert_with_the_run_and_its_metadata(tmp_path: Path) -> None:
    def fails(record: int) -> int:
        raise ValueError("no")

    pipeline = (
        Pipeline(
            "failing",
            on_failure="skip",
            metadata={"campaign": "spring"},
            alerts={"failure_rate": 0.5, "command": saving(tmp_path / "told")},
        )
        | sources.Generate(count=100, rate=200)
        | processors.Call(fails)
        | sinks.Discard()
    )
    await pipeline.run()

    told = [json.loads(line) for line in (tmp_path / "told").read_text().splitlines()]
    assert [each["state"] for each in told] == ["raised", "ended"]
    assert (told[0]["pipeline"], told[0]["rule"], told[0]["metadata"]) == (
        "failing",
        "failure_rate",
        {"campaign": "spring"},
    )


@pytest.mark.parametrize("key", ["alerts", "metrics"])
async def test_whoever_is_told_and_hangs_holds_nobody_up(key: str) -> None:
    heard = Heard()
    keys: dict[str, dict[str, Any]] = {
        "alerts": {"failure_rate": 0.5, "repeat": 1, "command": ["sleep", "60"], "timeout": "200ms"},
        "metrics": {"push": ["sleep", "60"], "every": 1, "timeout": "200ms"},
    }

    def fails(record: int) -> int:
        raise ValueError("no")

    pipeline = (
        Pipeline("held", on_failure="skip", **{key: keys[key]})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        | sources.Generate(count=300, rate=200)
        | processors.Call(fails)
        | sinks.Discard()
    )
    with anyio.fail_after(10):
        report = await pipeline.run(subscribers=[heard])

    assert report.seconds < 2.5
    (warning,) = [each["text"] for each in heard.of("warning")]
    assert "sleep: no answer within 0.2s" in warning


async def test_metrics_are_pushed_every_so_often_and_at_the_end(tmp_path: Path) -> None:
    pipeline = (
        Pipeline("pushed", metrics={"push": saving(tmp_path / "told"), "every": 1})
        | sources.Generate(count=250, rate=200)
        | sinks.Discard()
    )
    await pipeline.run()

    pushes = (tmp_path / "told").read_text().split("# HELP pipeline_info ")[1:]
    counts = [push.split('outcome="written"} ')[1].split("\n")[0] for push in pushes]
    assert len(counts) == 2
    assert 100 <= int(counts[0]) < 250
    assert int(counts[1]) == 250


async def test_a_checkpoint_that_can_not_be_taken_is_warned_of_once_and_shown(tmp_path: Path) -> None:
    shown: list[str] = []
    refusing = True

    async def save(self: StateFile, cut: Cut) -> None:
        if refusing:
            shown.append(supervisor.status().postponed)
            raise Unavailable("database is locked")
        await saves(self, cut)

    async def stop_refusing() -> None:
        nonlocal refusing
        await anyio.sleep(1)
        refusing = False

    heard = Heard()
    pipeline = (
        Pipeline("postponed", checkpoint={"path": str(tmp_path / "state.db"), "interval": 0.1})
        | sources.Generate(count=200, rate=100)
        | sinks.Discard()
    )
    supervisor = pipeline.supervisor(subscribers=[heard])
    saves = StateFile.save
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StateFile, "save", save)
        async with anyio.create_task_group() as group:
            group.start_soon(stop_refusing)
            await supervisor.run()

    assert shown[-1] == "database is locked"
    assert len(shown) > 3
    assert [each["text"] for each in heard.of("warning")] == [
        "no checkpoint could be taken: database is locked; it is tried again"
    ]
    assert [each["text"] for each in heard.of("notice")] == ["checkpoints are taken again"]
    assert supervisor.status().postponed == ""


def told_slowly(path: Path, seconds: int) -> Pipeline:
    """Return a pipeline whose records fail, and whose alerts go to a command that writes them and takes so long."""

    def fails(record: int) -> int:
        raise ValueError("no")

    tells = f"import sys, time; open(sys.argv[1], 'a').write(sys.stdin.read() + chr(10)); time.sleep({seconds})"
    alerts: Any = {"failure_rate": 0.5, "command": [sys.executable, "-c", tells, str(path)]}
    return (
        Pipeline("failing", on_failure="skip", alerts=alerts)
        | sources.Generate(count=60, rate=100)
        | processors.Call(fails)
        | sinks.Discard()
    )


async def test_an_alert_that_is_on_its_way_when_the_run_ends_is_told_once(tmp_path: Path) -> None:
    await told_slowly(tmp_path / "told", 1).run()

    told = [json.loads(line)["state"] for line in (tmp_path / "told").read_text().splitlines()]
    assert told == ["raised", "ended"]


async def test_an_alert_that_is_still_on_its_way_after_a_while_is_given_up_and_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.flow.telling.ENDING", 1.0)
    heard = Heard()

    with anyio.fail_after(10):
        await told_slowly(tmp_path / "told", 60).run(subscribers=[heard])

    told = [json.loads(line)["state"] for line in (tmp_path / "told").read_text().splitlines()]
    assert told == ["raised", "ended"]
    assert "2 alerts could not be handed over before the end of the run" in [
        each["text"] for each in heard.of("warning")
    ]
