"""Dead letters while a pipeline runs: their bound, their copies, and who is told of them."""

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipeline import Pipeline, PipelineError
from pipeline.errors import ConfigError
from pipeline.settle.cut import Letter
from stages import processors, sinks, sources
from tests.end_to_end.running import exactly, numbered, numbers_in, records_in

pytestmark = pytest.mark.anyio


class Odd:
    """Fails on odd numbers until it is mended."""

    def __init__(self) -> None:
        self.mended = False

    def __call__(self, record: dict[str, Any]) -> dict[str, Any]:
        if record["n"] % 2 and not self.mended:
            raise ValueError(f"odd {record['n']}")
        return record


def piped(folder: Path, odd: Odd, **keys: Any) -> Pipeline:
    """Return a pipeline of ten records, of which five fail."""
    path = folder / "in.jsonl"
    if not path.exists():
        numbered(path, 10)
    return (
        exactly("letters", folder, on_failure="dead_letter", **keys)
        | sources.Jsonl(path=path)
        | processors.Call(odd)
        | sinks.Jsonl(path=folder / "out.jsonl")
    )


async def test_a_full_box_stops_the_run_before_the_record_and_room_lets_it_go_on(tmp_path: Path) -> None:
    odd = Odd()
    pipeline = piped(tmp_path, odd, dead_letter={"max": 3})
    with pytest.raises(PipelineError, match="at their bound of 3; replay some") as raised:
        await pipeline.run()
    assert raised.value.exit_code == 1
    assert len(await pipeline.dead_letters()) == 3
    assert numbers_in(tmp_path / "out.jsonl") == [0, 2, 4, 6]
    odd.mended = True
    report = await pipeline.replay()
    assert report.account.written == 3
    assert report.dead_letters == 0
    await pipeline.run()
    assert sorted(numbers_in(tmp_path / "out.jsonl")) == list(range(10))


async def test_letters_that_fail_again_fit_into_a_full_box(tmp_path: Path) -> None:
    pipeline = piped(tmp_path, Odd(), dead_letter={"max": 5})
    await pipeline.run()
    report = await pipeline.replay()
    assert (report.account.dead_lettered, report.dead_letters) == (5, 5)


async def test_a_copy_of_each_letter_goes_to_a_sink_and_stays_when_the_letter_goes(tmp_path: Path) -> None:
    odd = Odd()
    pipeline = piped(tmp_path, odd, dead_letter={"sink": sinks.Jsonl(path=tmp_path / "bad.jsonl")})
    await pipeline.run()
    copies = records_in(tmp_path / "bad.jsonl")
    assert [(each["record"], each["stage"], each["error"].partition(" (")[0]) for each in copies] == [
        ({"n": n}, "call", f"odd {n}") for n in (1, 3, 5, 7, 9)
    ]
    await pipeline.run()
    odd.mended = True
    await pipeline.replay()
    assert records_in(tmp_path / "bad.jsonl") == copies


async def test_copies_may_go_to_a_database(tmp_path: Path) -> None:
    copies = sinks.Sqlite(path=tmp_path / "bad.db", table="bad")
    pipeline = piped(tmp_path, Odd(), dead_letter={"sink": copies})
    await pipeline.run()
    await pipeline.replay()
    with closing(sqlite3.connect(tmp_path / "bad.db")) as connection:
        rows = connection.execute("SELECT record, replays FROM bad ORDER BY replays, number").fetchall()
    assert rows == [(f'{{"n":{n}}}', replays) for replays in (0, 1) for n in (1, 3, 5, 7, 9)]


async def test_copies_in_another_place_begin_anew_and_leave_the_old_ones(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 10)
    for name in ("old", "new"):
        await piped(tmp_path, Odd(), dead_letter={"sink": sinks.Jsonl(path=tmp_path / f"{name}.jsonl")}).run()
        numbered(tmp_path / "in.jsonl", 2, first=100)
    assert len(records_in(tmp_path / "old.jsonl")) == 5
    assert [each["record"]["n"] for each in records_in(tmp_path / "new.jsonl")] == [101]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_hook_is_told_of_letters_that_are_saved(tmp_path: Path, asynchronous: bool) -> None:
    told: list[tuple[Any, int | None, int]] = []

    def tell(letter: Letter, attempts: int) -> None:
        told.append((letter.record, letter.id, attempts))

    async def tell_later(letter: Letter, attempts: int) -> None:
        await asyncio.sleep(0)
        tell(letter, attempts)

    await piped(tmp_path, Odd(), on_dead_letter=tell_later if asynchronous else tell).run()
    assert told == [({"n": n}, place, 1) for place, n in enumerate((1, 3, 5, 7, 9), 1)]


async def test_what_a_hook_raises_is_a_warning_and_loses_no_letter(tmp_path: Path) -> None:
    def fail(letter: Letter, attempts: int) -> None:
        raise RuntimeError("nobody is at home")

    pipeline = piped(tmp_path, Odd(), on_dead_letter=fail)
    report = await pipeline.run()
    assert report.dead_letters == 5
    assert all("; the letter is saved" in note for note in report.notes)
    assert len([note for note in report.notes if "nobody is at home (tests/end_to_end/test_letters.py:" in note]) == 5


async def test_records_are_corrected_in_python(tmp_path: Path) -> None:
    pipeline = piped(tmp_path, Odd())
    await pipeline.run()
    report = await pipeline.replay(corrected={1: {"n": 20}, 2: {"n": 21}})
    assert (report.account.written, report.account.dead_lettered) == (1, 1)
    again = await pipeline.dead_letters(ids=[2])
    assert [(each.record, each.replays) for each in again] == [({"n": 21}, 1)]


def test_what_is_wrong_with_the_sink_for_copies_is_said_by_place(tmp_path: Path) -> None:
    config = tmp_path / "c.yaml"
    config.write_text(
        "name: c\n"
        "dead_letter:\n"
        "  sink: jsonl\n"
        "  with: {pth: bad.jsonl}\n"
        "  max: none\n"
        "stages: [{source: jsonl, with: {path: in.jsonl}}, {sink: discard}]\n"
    )
    with pytest.raises(ConfigError) as raised:
        Pipeline.from_yaml(config)
    said = str(raised.value)
    assert "c.yaml:4:10: key 'dead_letter.with': unknown key 'pth'; did you mean 'path'?" in said
    assert "c.yaml:5:8: key 'dead_letter.max': expected a whole number" in said
