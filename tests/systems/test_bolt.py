"""Rows B of the checklist: what the "batch processor" example of Bolt promises."""

import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from pipeline import Pipeline
from pipeline.errors import Unavailable
from pipeline.stage import RateLimit, Retry
from pipeline.testing import ListSource, ManualClock
from pipeline.testing.clock import settle
from stages import batchers, processors, sinks, sources
from tests.benchmarks.passing import BATCH, Counted, passing
from tests.systems.command import ROOT, Ended, command, start
from tests.systems.virtual import run as run_virtually

pytestmark = pytest.mark.anyio

STEPS = '''
import asyncio
from pathlib import Path

import anyio

class Meeting:
    """Notes how many calls are under way, and lets none go before so many have met, or 2 seconds have passed."""

    def __init__(self, expected):
        self.expected = expected
        self.inside = self.most = 0
        self.met = asyncio.Event()

    async def __call__(self, record):
        self.inside += 1
        self.most = max(self.most, self.inside)
        if self.inside >= self.expected:
            self.met.set()
        with anyio.move_on_after(2):
            await self.met.wait()
        self.met.set()
        await asyncio.sleep(0)
        self.inside -= 1
        return {"most": self.most}

def refuse(record):
    with open("calls", "a") as calls:
        calls.write("called\\n")
    raise ConnectionError("the gateway is down")

def take(record):
    return record

def pay(record):
    if record["n"] % 7 == 3:
        raise ValueError("no such account")
    return record

busy = [True]

def pay_once_more(record):
    if record["n"] == 5 and busy:
        busy.clear()
        raise ConnectionError("busy")
    return pay(record)

def spoilt(record):
    if 1000 <= record["n"] < 1200:
        raise ValueError("no such account")
    return record

class Till:
    async def __aenter__(self):
        Path("opened").touch()
        return self.take

    async def __aexit__(self, *exc_info):
        Path("closed").touch()

    async def take(self, record):
        await asyncio.sleep(0.002)
        return record

async def never(record):
    Path("reached").touch()
    await asyncio.sleep(3600)

async def settle_later(record):
    await asyncio.sleep(0.002 if record["n"] % 3 else 0.006)
    return record
'''
BATCHED = """
name: payments
on_failure: skip
checkpoint: none
stages:
  - source: generate
    with: {count: 250, rate: 100000/s}
  - batcher: fixed
    with: {size: 10, linger: 1m}
  - processor: call
    with: {function: "steps:pay"}
  - sink: discard
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the functions of the tests."""
    (tmp_path / "steps.py").write_text(STEPS)
    return tmp_path


def run(folder: Path, config: str, *arguments: str, environ: dict[str, str] | None = None) -> Ended:
    (folder / "payments.yaml").write_text(config)
    return command(folder, "run", "payments.yaml", "--log", "json", *arguments, environ=environ)


def test_b1_the_environment_sets_how_many_work_at_a_time(folder: Path) -> None:
    """``concurrency`` is the pool of workers of a stage, and the environment overrides it, like any value."""
    ended = run(folder, MEETING, environ={"PIPELINE__STAGES__CALL__CONCURRENCY": "5"})

    assert ended.code == 0, ended.err
    assert ended.event("configured")["workers"]["call"] == 5
    met = [json.loads(line)["most"] for line in (folder / "met.jsonl").read_text().splitlines()]
    assert max(met) == 5


def test_b1_what_the_workers_have_not_taken_waits_in_bounded_channels(folder: Path) -> None:
    """Before workers that take nothing, an endless source stands still after a bounded number of records."""
    config = STUCK.replace("50ms", "300ms")
    (folder / "payments.yaml").write_text(config)
    process = start(folder, "run", "payments.yaml", "--log", "json")
    wait_for(folder / "reached")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)

    finished = Ended(process.returncode, "", err).event("finished")
    # Ten records a batch: 2 workers with twice as many batches, two in each of two channels, and those in between.
    assert 0 < finished["unsettled"] == finished["read"] <= 5000


MEETING = """
name: payments
stages:
  - source: generate
    with: {count: 100}
  - processor: call
    with: {function: "steps:Meeting", arguments: {expected: 5}}
    concurrency: 1
  - sink: jsonl
    with: {path: met.jsonl}
"""
STUCK = """
name: payments
checkpoint: none
drain: 50ms
stages:
  - source: generate
  - batcher: fixed
    with: {size: 10}
  - processor: call
    with: {function: "steps:never"}
    concurrency: 2
  - sink: discard
"""


def test_b2_the_environment_sets_the_size_of_a_batch(folder: Path) -> None:
    """The size of a batch is a key that the environment overrides."""
    config = BATCHED.replace("steps:pay", "steps:take")
    configured = run(folder, config, "--log-level", "debug")
    overridden = run(folder, config, "--log-level", "debug", environ={"PIPELINE__STAGES__FIXED__WITH__SIZE": "100"})

    assert {each["size"] for each in configured.events("batch")} == {10}
    assert [each["size"] for each in overridden.events("batch")] == [100, 100, 50]


def test_b3_three_attempts_are_three_in_all_each_retry_is_warned_of_and_the_last_failure_is_an_error(
    folder: Path,
) -> None:
    """``retry.attempts`` counts executions; each retry is a warning, and what fails after the last is an error."""
    ended = run(folder, REFUSED, environ={"PIPELINE__STAGES__CALL__RETRY__ATTEMPTS": "3"})

    assert ended.code == 1
    assert (folder / "calls").read_text() == "called\n" * 3
    assert [(each["level"], each["attempt"]) for each in ended.events("retry")] == [("warning", 1), ("warning", 2)]
    assert "the gateway is down" in ended.events("retry")[0]["error"]
    finished = ended.event("finished")
    assert finished["level"] == "error"
    assert "the gateway is down" in finished["error"]
    assert finished["unsettled"] == 1


REFUSED = """
name: payments
stages:
  - source: generate
    with: {count: 1}
  - processor: call
    with: {function: "steps:refuse"}
    retry: {attempts: 7, backoff: 1ms..2ms}
  - sink: jsonl
    with: {path: paid.jsonl}
"""


@pytest.fixture(scope="module")
def long_run(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Return a run of a little over five seconds, 560 records a seventh of which fails."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "steps.py").write_text(STEPS)
    return run(folder, BATCHED.replace("count: 250, rate: 100000/s", "count: 560, rate: 100/s"))


def test_b6_progress_is_told_every_five_seconds(long_run: Ended) -> None:
    """Every 5 s a run tells total, processed, failed, remaining, and what has ended as a share of the total."""
    (progress,) = long_run.events("progress")

    assert progress["total"] == 560
    assert progress["failed"] > 0
    done = progress["processed"] + progress["failed"]
    assert 400 <= done < 560
    assert progress["remaining"] == 560 - done
    assert progress["progress_pct"] == pytest.approx(100 * done / 560, abs=0.01)  # pyright: ignore[reportUnknownMemberType]
    assert progress["rate"] == pytest.approx(100, rel=0.2)  # pyright: ignore[reportUnknownMemberType]


def test_b6_without_a_known_total_progress_goes_without_it() -> None:
    """Where nobody knows the total, the progress has the counts all the same."""
    from pipeline.cli.progress import Meter
    from pipeline.watch.report import Account, SourceStatus, Status

    account = Account(read=30, written=20, skipped=5)
    source = SourceStatus("queue", 30, 5, 30, None)
    status = Status("payments", "running", 5.0, account, [], [], [source], 0, 0, 0, None, 0.0, "")

    fields = Meter().look(status).fields()

    assert (fields["processed"], fields["failed"]) == (20, 5)
    assert (fields["total"], fields["remaining"], fields["progress_pct"]) == (None, None, None)


def test_b7_the_life_of_a_run_is_told_in_structured_log_lines(long_run: Ended) -> None:
    """Started (service, version), configured (workers, batch size, total), finished: JSON lines with a level."""
    lines = [json.loads(line) for line in long_run.err.splitlines()]

    assert all({"ts", "level", "event"} <= line.keys() for line in lines)
    names = [line["event"] for line in lines if line["event"] != "batch"]
    started_stages = [line for line in lines if line["event"] == "stage_started"]
    assert {(each["stage"], each["workers"]) for each in started_stages} == {
        (stage, 1) for stage in ("generate", "fixed", "call", "discard")
    }
    ended_stages = {line["stage"]: line for line in lines if line["event"] == "stage_completed"}
    assert {name: line["records"] for name, line in ended_stages.items()} == {
        "generate": 560,
        "fixed": 560,
        "call": 560,
        "discard": 480,
    }
    assert (ended_stages["call"]["failed"], ended_stages["call"]["batches"]) == (80, 56)
    assert names[:2] == ["started", "configured"]
    assert names[-1] == "finished"
    started, configured = long_run.event("started"), long_run.event("configured")
    assert (started["service"], started["pipeline"]) == ("payments", "payments")
    assert started["version"]
    assert configured["workers"] == {"generate": 1, "fixed": 1, "call": 1, "discard": 1}
    assert configured["batch_size"] == {"fixed": 10}
    assert configured["total"] == 560


def test_b8_each_record_is_told_with_its_time_its_retries_and_its_failure_only_when_asked(folder: Path) -> None:
    """JSON lines for each record: written, with its time; tried again, with the error; failed for good."""
    config = BATCHED.replace("on_failure: skip", "on_failure: dead_letter").replace("checkpoint: none\n", "")
    config = config.replace("count: 250", "count: 20").replace("steps:pay", "steps:pay_once_more")
    config = config.replace(
        "  - sink: discard", "    retry: {attempts: 2, backoff: 1ms}\n  - sink: jsonl\n    with: {path: paid.jsonl}"
    )
    quiet = run(folder, config)
    assert quiet.code == 0, quiet.err
    assert not quiet.events("record") + quiet.events("failed")

    told = run(
        folder, config, "--log-level", "trace", "--fresh", "--repeat", "--set", "stages.jsonl.with.mode=overwrite"
    )

    written = told.events("record")
    assert len(written) == told.event("finished")["written"] == 17
    assert {each["level"] for each in written} == {"trace"}
    assert all(each["seconds"] >= 0 and each["stage"] == "jsonl" for each in written)
    assert [each["position"] for each in written][:4] == ["n=0", "n=1", "n=2", "n=4"]
    (again,) = [each for each in told.events("retry") if "busy" in each["error"]]
    assert (again["level"], again["attempt"]) == ("warning", 1)
    failed = told.events("failed")
    assert [(each["position"], each["outcome"]) for each in failed] == [(f"n={n}", "dead_letter") for n in (3, 10, 17)]
    assert [each["key"] for each in told.events("dead_letter")] == [each["key"] for each in failed]


def test_b12_metrics_are_exported_every_so_often_to_whoever_takes_them(folder: Path) -> None:
    """Processed, failed and active workers, in the text of Prometheus, each interval and at the end."""
    saving = "import sys; open('pushed', 'a').write(sys.stdin.read())"
    (folder / "save.py").write_text(saving)
    config = BATCHED.replace("count: 250, rate: 100000/s", "count: 250, rate: 100/s")
    config = config.replace(
        "stages:", f"metrics: {{push: [{json.dumps(sys.executable)}, save.py], every: 1s}}\nstages:"
    )

    ended = run(folder, config)

    assert ended.code == 0, ended.err
    pushes = (folder / "pushed").read_text().split("# HELP pipeline_info ")[1:]
    assert len(pushes) == 3
    processed = [values(push, "pipeline_source_records_total", outcome="written") for push in pushes]
    failed = [values(push, "pipeline_source_records_total", outcome="skipped") for push in pushes]
    assert 0 < processed[0] < processed[1] < processed[2] == 214
    assert failed[2] == 36
    assert values(pushes[0], "pipeline_workers", stage="call") == 1
    assert values(pushes[2], "pipeline_workers_active", stage="call") == 0


def values(text: str, name: str, **labels: str) -> float:
    """Return a value of a metric of this pipeline in the text of a push."""
    said = ",".join(f'{label}="{value}"' for label, value in {"pipeline": "payments", **labels}.items())
    return float(text.split(f"\n{name}{{{said}}} ")[1].split("\n")[0])


def test_b17_a_failure_rate_over_the_last_while_is_an_alert_also_late_in_a_long_run(folder: Path) -> None:
    """Over 10 % in the window, not of all the run, tells a command; and so does its end."""
    (folder / "call.py").write_text("import sys; open('calls', 'a').write(sys.stdin.read() + chr(10))")
    config = BATCHED.replace("count: 250, rate: 100000/s", "count: 2500, rate: 500/s").replace(
        "steps:pay", "steps:spoilt"
    )
    alerts = f"{{failure_rate: 0.1, window: 1s, command: [{json.dumps(sys.executable)}, call.py]}}"
    ended = run(folder, config.replace("stages:", f"alerts: {alerts}\nstages:"))

    assert ended.code == 0, ended.err
    raised, cleared = ended.events("alert")
    assert (raised["level"], raised["state"], raised["rule"]) == ("warning", "raised", "failure_rate")
    # Of all records so far it would be less than a tenth.
    assert ended.event("finished")["skipped"] / ended.event("finished")["read"] < 0.1
    assert (cleared["level"], cleared["state"]) == ("info", "cleared")
    told = [json.loads(line) for line in (folder / "calls").read_text().splitlines()]
    assert [(each["pipeline"], each["state"]) for each in told] == [("payments", "raised"), ("payments", "cleared")]


async def test_b18_the_throughput_is_that_of_the_last_seconds() -> None:
    """What came in the last seconds over their length: a run that was fast and stands still is slow at once."""
    clock = ManualClock()

    async def bursts() -> AsyncIterator[int]:
        for n in range(1000):
            yield n
        await clock.sleep(100)
        for n in range(50):
            yield n
            await clock.sleep(0.2)

    supervisor = (Pipeline("rates") | bursts() | sinks.Discard()).supervisor(clock=clock)
    seen: list[tuple[float, float]] = []
    for at in (5.0, 90.0, 109.5):
        clock.call_at(
            clock.now() + at, lambda: seen.append((supervisor.lately(10).rate, supervisor.status().lately.rate))
        )
    report = await clock.finish(supervisor.run())

    assert seen[0][0] == 200
    assert seen[1] == (0, 0)
    assert seen[2][0] == pytest.approx(5, rel=0.1)  # pyright: ignore[reportUnknownMemberType]
    assert report.throughput == pytest.approx(1050 / 110, rel=0.01)  # pyright: ignore[reportUnknownMemberType]


def test_b9_the_run_ends_with_its_summary(long_run: Ended, folder: Path) -> None:
    """The end tells the total, successes, failures, duration and throughput, and the exit code how it went."""
    finished = long_run.event("finished")

    assert long_run.code == finished["exit_code"] == 0
    assert (finished["read"], finished["written"], finished["skipped"], finished["unsettled"]) == (560, 480, 80, 0)
    assert finished["seconds"] == pytest.approx(5.6, rel=0.2)  # pyright: ignore[reportUnknownMemberType]
    assert finished["rate"] == pytest.approx(560 / finished["seconds"], rel=0.01)  # pyright: ignore[reportUnknownMemberType]

    (folder / "payments.yaml").write_text(BATCHED)
    told = command(folder, "run", "payments.yaml")
    assert told.code == 0
    account = "read 250 = written 214 + filtered 0 + skipped 36 + collected 0 + dead-lettered 0 + unsettled 0"
    assert account in told.err.splitlines()
    assert "records/s" in told.err

    failed = run(folder, BATCHED.replace("on_failure: skip", "on_failure: stop"))
    assert failed.code == failed.event("finished")["exit_code"] == 1


def test_b10_a_signal_drains_the_run_and_its_resources_are_let_go(folder: Path) -> None:
    """On SIGTERM reading stops, what is under way is written, what was opened is closed, and nothing is left."""
    (folder / "payments.yaml").write_text(TILL)
    process = start(folder, "run", "payments.yaml", "--log", "json")
    wait_for(folder / "paid.jsonl", at_least=2000)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=20)

    ended = Ended(process.returncode, "", err)
    finished = ended.event("finished")
    assert (ended.code, finished["outcome"]) == (0, "drained")
    assert finished["unsettled"] == 0
    written = [json.loads(line)["n"] for line in (folder / "paid.jsonl").read_text().splitlines()]
    assert written == list(range(finished["read"]))
    assert (folder / "opened").exists()
    assert (folder / "closed").exists()


def test_b10_a_drain_has_a_deadline(folder: Path) -> None:
    """What does not finish within ``drain`` is given up and told, with an exit code of its own."""
    (folder / "payments.yaml").write_text(STUCK)
    process = start(folder, "run", "payments.yaml", "--log", "json")
    wait_for(folder / "reached")
    process.send_signal(signal.SIGTERM)
    asked = time.monotonic()
    _, err = process.communicate(timeout=20)

    finished = Ended(process.returncode, "", err).event("finished")
    assert (process.returncode, finished["outcome"]) == (7, "late")
    assert "deadline" in finished["error"]
    assert finished["unsettled"] > 0
    assert time.monotonic() - asked < 5


@pytest.mark.anyio
async def test_b13_the_highest_priority_is_taken_first_and_the_lowest_is_not_starved() -> None:
    taken: list[str] = []

    async def take(records: list[str]) -> list[str]:
        taken.extend(records)
        await clock.sleep(1.0)
        return records

    clock = ManualClock()
    pipeline = (
        Pipeline("prioritised")
        | sources.Inlet(patience="30s")
        | batchers.Fixed(size=1)
        | processors.Call(take, batch=True)
        | sinks.Discard()
    )

    async def submit_all() -> None:
        async with pipeline.service(clock=clock) as service, anyio.create_task_group() as group:
            await service.pause()
            for name, priority in [("normal", 5), ("low", 1), ("critical", 10), ("high", 8), ("critical too", 10)]:
                group.start_soon(partial(service.submit, name, priority=priority))
            await settle()
            await service.resume()
            for n in range(40):
                group.start_soon(partial(service.submit, f"critical {n}", priority=10))
                await clock.sleep(1.0)

    await clock.finish(submit_all())
    # Those that the batcher had taken already are not overtaken, and "low" goes before the others after half a minute.
    assert taken[:2] == ["critical", "critical too"]
    assert taken.index("high") < taken.index("normal") < taken.index("low") < taken.index("critical 39")


TILL = """
name: payments
stages:
  - source: generate
    with: {rate: 5000/s, record: {n: n}}
  - batcher: fixed
    with: {size: 100, linger: 1m}
  - processor: call
    with: {function: "steps:Till"}
    concurrency: 20
  - sink: jsonl
    with: {path: paid.jsonl}
"""


def test_b16_a_checkpoint_is_where_a_killed_run_goes_on_although_its_workers_finish_out_of_order(folder: Path) -> None:
    """Progress is saved every interval; after a kill -9 the run goes on from there: nothing lost, nothing twice."""
    (folder / "payments.yaml").write_text(SAVED)
    process = start(folder, "run", "payments.yaml", "--log", "json")
    wait_for(folder / "paid.jsonl", at_least=6000)
    process.kill()
    process.communicate(timeout=20)
    killed_at = len((folder / "paid.jsonl").read_text().splitlines())
    assert 0 < killed_at < 1500

    ended = command(folder, "run", "payments.yaml", "--log", "json")

    assert ended.code == 0, ended.err
    started, finished = ended.event("started"), ended.event("finished")
    assert (started["run"], started["resumed"]) == (2, True)
    assert finished["read"] < 1500
    written = [json.loads(line)["n"] for line in (folder / "paid.jsonl").read_text().splitlines()]
    assert sorted(written) == list(range(1500))


SAVED = """
name: payments
delivery: exactly_once
checkpoint: {interval: 50ms}
stages:
  - source: generate
    with: {count: 1500, record: {n: n}}
  - batcher: fixed
    with: {size: 10}
  - processor: call
    with: {function: "steps:settle_later"}
    concurrency: 4
    ordered: false
  - sink: jsonl
    with: {path: paid.jsonl}
"""


def wait_for(path: Path, at_least: int = 0) -> None:
    """Wait until a file is there and has so many bytes."""
    until = time.monotonic() + 20
    while not path.exists() or path.stat().st_size < at_least:
        assert time.monotonic() < until, f"{path.name} did not come"
        time.sleep(0.01)


def test_b11_what_fails_as_often_as_allowed_goes_to_the_dead_letter_queue_and_back_once_mended(folder: Path) -> None:
    """A record is a dead letter once its retries are used up, and can be replayed when the cause is gone."""
    config = ACCOUNTS.format(function="steps:pay")
    ended = run(folder, config, "--fail-on-dlq")

    assert ended.code == 3
    assert [each["attempt"] for each in ended.events("retry")] == [1, 2] * 2
    listed = command(folder, "dlq", "list", "payments.yaml", "--json").out.splitlines()
    letters = [json.loads(line) for line in listed]
    assert [(each["record"]["n"], each["attempts"], each["error_type"]) for each in letters] == [
        (3, 3, "ValueError"),
        (10, 3, "ValueError"),
    ]
    (folder / "payments.yaml").write_text(ACCOUNTS.format(function="steps:take"))
    assert command(folder, "dlq", "replay", "payments.yaml").code == 0
    assert command(folder, "dlq", "list", "payments.yaml", "--json").out == ""
    paid = [json.loads(line)["n"] for line in (folder / "paid.jsonl").read_text().splitlines()]
    assert sorted(paid) == list(range(14))


ACCOUNTS = """
name: payments
stages:
  - source: generate
    with: {{count: 14, record: {{n: n}}}}
  - processor: call
    with: {{function: "{function}"}}
    retry: {{attempts: 3, backoff: 1ms..2ms}}
    on_failure: dead_letter
  - sink: jsonl
    with: {{path: paid.jsonl}}
"""


@pytest.mark.anyio
async def test_b4_waits_grow_have_jitter_and_a_cap_and_hold_no_worker() -> None:
    """Waits between attempts are drawn below a bound that doubles up to a cap; meanwhile others use the worker."""
    clock = ManualClock()
    waits: list[tuple[int, float]] = []
    ended: dict[int, float] = {}

    async def work(record: int) -> int:
        await clock.sleep(0.1)
        if record < 2:
            raise Unavailable
        ended[record] = clock.now()
        return record

    pipeline = (
        Pipeline("waits", checkpoint="none", on_failure="skip")
        | ListSource(records=list(range(22)), chunk=100)
        | processors.Call(work, concurrency=2, retry=Retry(attempts=8, backoff=(1.0, 8.0)))
        | sinks.Discard()
    )
    supervisor = pipeline.supervisor(
        clock=clock,
        subscribers=[
            lambda name, fields: waits.append((fields["attempt"], fields["wait"])) if name == "retry" else None
        ],
    )
    report = await clock.finish(supervisor.run())

    assert report.account.skipped == 2 and len(waits) == 14
    assert all(wait <= min(8.0, 2.0 ** (attempt - 1)) for attempt, wait in waits)
    assert len({wait for _, wait in waits}) == 14
    # Twenty records of 0.1 s each by two workers, while two others are tried again: as if these weren't there.
    assert max(ended.values()) < 1.0 + 8 * 0.2


@pytest.mark.anyio
async def test_b5_what_fails_is_listed_with_record_error_attempts_and_place() -> None:
    """Under ``collect`` the report has an outcome for each record that failed; all others were written."""
    clock = ManualClock()

    def pay(record: int) -> int:
        if record in (3, 8):
            raise ValueError(f"no account {record}")
        return record

    pipeline = (
        Pipeline("outcomes", checkpoint="none", on_failure="collect")
        | ListSource(records=list(range(10)), name="orders")
        | processors.Call(pay, name="pay", retry=Retry(attempts=3, backoff=0.01))
        | sinks.Discard()
    )
    report = await run_virtually(pipeline, clock)

    found = [(each["stage"], each["position"], each["record"], each["attempts"]) for each in report.errors]
    assert found == [("pay", "orders[3]", "3", 3), ("pay", "orders[8]", "8", 3)]
    assert "no account 3" in report.errors[0]["error"]
    assert report.account.written == 8


def test_b14_a_breaker_round_a_call_is_told_when_it_opens_and_when_records_go_through_again(folder: Path) -> None:
    """A call that is refused five times on end opens the breaker, with a warning; the next success closes it."""
    (folder / "steps.py").write_text(FLAKY)
    config = REFUSED.replace("count: 1}", "count: 20}").replace("attempts: 7", "attempts: 20")
    ended = run(folder, config.replace("  - sink", "    circuit_breaker: {failures: 5, reset: 50ms}\n  - sink"))

    assert ended.code == 0, ended.err
    told = ended.events("breaker")
    states = [each["state"] for each in told]
    assert states == [*["open"] * (len(told) - 1), "closed"] and len(told) > 1
    assert told[0]["level"] == "warning" and "the gateway is down" in told[0]["error"]
    assert len((folder / "paid.jsonl").read_text().splitlines()) == 20


FLAKY = """
calls = 0

def refuse(record):
    global calls
    calls += 1
    if calls <= 16:
        raise ConnectionError("the gateway is down")
    return record
"""


@pytest.mark.anyio
async def test_b15_a_rate_of_100_a_second_with_a_burst_of_10_is_the_stages_not_each_workers() -> None:
    """``rate_limit`` is one bucket for the stage: ten workers together make 100 calls a second, and 10 at once."""
    clock = ManualClock()
    calls: list[float] = []

    async def work(record: int) -> int:
        calls.append(clock.now())
        await anyio.lowlevel.checkpoint()
        return record

    pipeline = (
        Pipeline("limited", checkpoint="none")
        | ListSource(records=list(range(500)), chunk=500)
        | processors.Call(work, concurrency=10, rate_limit=RateLimit(rate="100/s", burst=10))
        | sinks.Discard()
    )
    await run_virtually(pipeline, clock)

    assert sum(at < 0.005 for at in calls) == 10
    assert calls[-1] == pytest.approx(4.9, abs=0.05)


async def test_b19_the_engine_takes_less_than_a_millisecond_for_a_batch_of_100() -> None:
    """Processor time that the engine takes for a batch of 100 with nothing to do; the manual says what it was."""
    batches, spent = 100, list[float]()
    while not spent or (min(spent) >= 0.001 and len(spent) < 10):
        counted, began = Counted(), time.process_time()
        await passing(range(batches * BATCH), counted).run()
        spent.append((time.process_time() - began) / batches)
        assert counted.count == batches * BATCH, "counters are exact"

    assert min(spent) < 0.001
    assert "µs of processor time for a batch of 100" in (ROOT / "README.md").read_text()


async def test_b19_ten_workers_take_more_than_a_thousand_records_a_second() -> None:
    """Ten at a time, 5 ms each: 2,000 a second at most, and more than half of that by the clock."""
    rates: list[float] = []

    async def work(record: int) -> int:
        await anyio.sleep(0.005)
        return record

    while not rates or (max(rates) <= 1000 and len(rates) < 10):
        pipeline = (
            Pipeline("ten", checkpoint="none")
            | sources.Iterable(range(500))
            | processors.Call(work, concurrency=10)
            | sinks.Discard()
        )
        began = time.perf_counter()
        report = await pipeline.run()
        rates.append(report.account.written / (time.perf_counter() - began))

    assert max(rates) > 1000
