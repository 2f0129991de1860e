# ruff: noqa: ASYNC240  what is under test writes files on the loop, and so may its test
import os
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from pipeline.errors import ConfigError, StateError
from stages.sinks.csv import Csv
from stages.sinks.files import Roll
from stages.sinks.jsonl import Jsonl
from stages.sinks.parts import final_name, parts_of, path_of, writing_name
from tests.stages.sinks.saved import Saved, batch
from tests.stages.sinks.test_files import contents, read, records, text

pytestmark = pytest.mark.anyio


def small(folder: Path, name: str = "out.jsonl", mode: Any = "create") -> Jsonl:
    """Parts that are full as soon as anything is in them."""
    return Jsonl(path=str(folder / name), roll=Roll(size=1), mode=mode)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def test_a_part_is_hidden_until_a_checkpoint_holds_it(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(small(tmp_path))
    await writer.write(batch(*records(0, 2)))
    assert names(tmp_path) == [".out-000001.jsonl.01234567.inprogress"]

    await saved.save(await saved.freeze(writer))
    assert names(tmp_path) == [".out-000001.jsonl.01234567.inprogress"]
    await writer.committed()
    assert names(tmp_path) == ["out-000001.jsonl"]

    await writer.write(batch(*records(2, 3)))
    await saved.end(writer)
    assert contents(tmp_path) == {"out-000001.jsonl": text(0, 2), "out-000002.jsonl": text(2, 3)}


async def test_a_part_closes_by_size_or_by_age_and_no_sooner(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(tmp_path / "out.jsonl"), roll=Roll(size=20, age=60.0)))
    await writer.write(batch(*records(0, 2)))
    await saved.cut(writer)
    assert names(tmp_path)[0].startswith(".out-000001")

    await writer.write(batch(*records(2, 3)))
    await saved.cut(writer)
    assert names(tmp_path) == ["out-000001.jsonl"]

    await writer.write(batch(*records(3, 4)))
    saved.clock.time += 59
    await saved.cut(writer)
    assert "out-000002.jsonl" not in names(tmp_path)
    saved.clock.time += 1
    await saved.cut(writer)
    assert names(tmp_path) == ["out-000001.jsonl", "out-000002.jsonl"]
    await writer.close()


async def test_the_age_of_a_part_goes_on_over_a_crash(tmp_path: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out.jsonl"), roll=Roll(age=60.0))
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 1)))
    await saved.cut(writer)
    saved.clock.time += 60

    await saved.cut(await saved.open(sink))

    assert contents(tmp_path) == {"out-000001.jsonl": text(0, 1)}


async def test_the_end_of_the_input_finishes_the_open_part(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(tmp_path / "out.jsonl"), roll=Roll(size="1MiB")))
    await writer.write(batch(*records(0, 1)))
    await saved.end(writer)

    assert contents(tmp_path) == {"out-000001.jsonl": text(0, 1)}


async def test_without_records_there_are_no_parts(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(small(tmp_path))
    await saved.end(writer)

    assert names(tmp_path) == []


async def test_each_part_of_a_csv_file_begins_with_the_header(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(Csv(path=str(tmp_path / "out.csv"), roll=Roll(size=1)))
    for number in range(2):
        await writer.write(batch({"id": number}))
        await saved.cut(writer)
    await writer.close()

    assert contents(tmp_path) == {"out-000001.csv": "id\n0\n", "out-000002.csv": "id\n1\n"}


async def test_a_rename_that_a_crash_prevented_is_made_up_for(tmp_path: Path) -> None:
    saved, sink = Saved(), small(tmp_path)
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 1)))
    await saved.save(await saved.freeze(writer))

    await saved.open(sink)
    assert names(tmp_path) == ["out-000001.jsonl"]
    writer = await saved.open(sink)
    await writer.write(batch(*records(1, 2)))
    await saved.end(writer)

    assert contents(tmp_path) == {"out-000001.jsonl": text(0, 1), "out-000002.jsonl": text(1, 2)}


async def test_a_part_that_a_reader_took_away_is_not_missed_and_its_name_not_used_again(tmp_path: Path) -> None:
    saved, sink = Saved(), small(tmp_path)
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 1)))
    await saved.end(writer)
    (tmp_path / "out-000001.jsonl").unlink()

    writer = await saved.open(sink)
    await writer.write(batch(*records(1, 2)))
    await saved.end(writer)

    assert names(tmp_path) == ["out-000002.jsonl"]


async def test_a_part_begun_after_the_last_checkpoint_is_removed(tmp_path: Path) -> None:
    saved, sink = Saved(), small(tmp_path)
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 1)))
    (tmp_path / ".out-000009.jsonl.01234567.inprogress").touch()
    (tmp_path / ".out-000009.jsonl.fedcba98.inprogress").touch()

    await saved.open(sink)

    assert names(tmp_path) == [".out-000009.jsonl.fedcba98.inprogress"]


async def test_at_least_once_keeps_a_part_begun_after_the_last_checkpoint_but_for_its_torn_end(tmp_path: Path) -> None:
    saved, sink = Saved(), small(tmp_path)
    writer = await saved.open(sink, delivery="at_least_once")
    await writer.write(batch(*records(0, 1)))
    with next(tmp_path.iterdir()).open("a") as file:
        file.write('{"id')

    writer = await saved.open(sink, delivery="at_least_once")
    await writer.write(batch(*records(0, 1)))
    await saved.end(writer)

    assert contents(tmp_path) == {"out-000001.jsonl": text(0, 1), "out-000002.jsonl": text(0, 1)}


async def test_a_finished_part_is_never_replaced(tmp_path: Path) -> None:
    saved, sink = Saved(), small(tmp_path)
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 1)))
    (tmp_path / "out-000001.jsonl").write_text("theirs")

    with pytest.raises(StateError, match=r"out-000001\.jsonl exists"):
        await saved.cut(writer)
    with pytest.raises(StateError, match=r"out-000001\.jsonl"):
        await saved.open(sink)
    assert read(tmp_path / "out-000001.jsonl") == "theirs"


async def test_a_part_that_was_made_and_never_announced_is_made_anew(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(small(tmp_path))
    (tmp_path / ".out-000001.jsonl.01234567.inprogress").write_text("garbage")
    await writer.write(batch(*records(0, 1)))
    await saved.end(writer)

    assert contents(tmp_path) == {"out-000001.jsonl": text(0, 1)}


@pytest.mark.parametrize("name", ["new.jsonl", "{id}.jsonl"])
async def test_only_parts_that_are_the_sink_s_own_are_taken_away(tmp_path: Path, name: str) -> None:
    saved = Saved()
    writer = await saved.open(small(tmp_path, "7.jsonl"))
    await writer.write(batch(*records(0, 2)))
    await writer.close()
    # What this sink named while it was another one, and the part of another sink in this folder.
    saved.named = [structs.replace(file, lineage=f"{saved.lineage}/2") for file in saved.named]
    (tmp_path / ".b-000001.csv.01234567.inprogress").write_text("of another sink")
    (tmp_path / ".new-000001.jsonl.01234567.inprogress").touch()

    await (await saved.open(small(tmp_path, name))).close()

    left = names(tmp_path)
    assert ".7-000001.jsonl.01234567.inprogress" in left
    assert ".b-000001.csv.01234567.inprogress" in left
    assert ".new-000001.jsonl.01234567.inprogress" not in left


async def test_a_name_that_is_taken_stops_the_next_part_before_it_is_begun(tmp_path: Path) -> None:
    saved, sink = Saved(), small(tmp_path)
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 1)))
    await saved.cut(writer)
    (tmp_path / "out-000002.jsonl").write_text("theirs")

    with pytest.raises(StateError, match=r"out-000002\.jsonl exists"):
        await writer.write(batch(*records(1, 2)))
    assert names(tmp_path) == ["out-000001.jsonl", "out-000002.jsonl"]


async def test_parts_that_the_state_does_not_know_are_treated_as_the_mode_says(tmp_path: Path) -> None:
    part = tmp_path / "out-000007.jsonl"
    part.write_text("theirs\n")
    with pytest.raises(StateError, match="left alone"):
        await Saved().open(small(tmp_path))
    with pytest.raises(StateError, match="left alone"):
        await Saved().open(small(tmp_path, mode="append"))

    saved = Saved()
    writer = await saved.open(small(tmp_path, mode="append"), fresh=True)
    await writer.write(batch(*records(0, 1)))
    await saved.end(writer)
    assert contents(tmp_path) == {"out-000007.jsonl": "theirs\n", "out-000008.jsonl": text(0, 1)}

    fresh = Saved("fedcba9876543210")
    fresh.named = saved.named
    with pytest.raises(StateError, match="earlier lineage"):
        await fresh.open(small(tmp_path, mode="append"), fresh=True)
    writer = await fresh.open(small(tmp_path, mode="overwrite"), fresh=True)
    await writer.write(batch(*records(5, 6)))
    await fresh.end(writer)
    assert contents(tmp_path) == {"out-000001.jsonl": text(5, 6)}


async def test_an_older_checkpoint_takes_back_the_parts_finished_since(tmp_path: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out.jsonl"), roll=Roll(size=10))
    writer = await saved.open(sink)
    for number in range(6):
        await writer.write(batch(*records(number, number + 1)))
        await saved.cut(writer)
    assert names(tmp_path) == [f"out-00000{number}.jsonl" for number in (1, 2, 3)]
    del saved.positions[3:]

    writer = await saved.open(sink)
    assert contents(tmp_path) == {
        "out-000001.jsonl": text(0, 2),
        ".out-000002.jsonl.01234567.inprogress": text(2, 3),
    }
    await writer.write(batch(*records(3, 4)))
    await saved.end(writer)
    assert contents(tmp_path) == {"out-000001.jsonl": text(0, 2), "out-000002.jsonl": text(2, 4)}


async def test_without_a_state_file_the_parts_are_finished_when_the_run_ends(tmp_path: Path) -> None:
    context = Saved().context(saved=False, announce=None, lineage="")
    writer = await small(tmp_path, "out.jsonl.gz").open(context)
    await writer.write(batch(*records(0, 1)))
    await writer.close()

    assert contents(tmp_path) == {"out-000001.jsonl.gz": text(0, 1)}


@pytest.mark.parametrize("roll", [Roll(), Roll(size=0)])
async def test_a_roll_without_a_bound_is_refused(tmp_path: Path, roll: Roll) -> None:
    with pytest.raises(ConfigError, match="roll"):
        await Saved().open(Jsonl(path=str(tmp_path / "out.jsonl"), roll=roll))


def test_names_of_parts_keep_the_suffixes_together(tmp_path: Path) -> None:
    assert final_name("a.b/out.jsonl.zst", 12) == "a.b/out-000012.jsonl.zst"
    assert final_name("out", 1) == "out-000001"
    assert writing_name("a/out.jsonl", 1, "0123456789") == "a/.out-000001.jsonl.01234567.inprogress"
    for path in ("a/out.jsonl", "out", "a.b/out-000001.tar.gz"):
        assert path_of(writing_name(path, 12, "0123456789"), "0123456789") == path
    assert path_of("out.jsonl", "0123456789") is None
    for name in ("out-000010.jsonl", "out-000002.jsonl", "out-1.jsonl", "out-000001.jsonl.gz", "out.jsonl"):
        (tmp_path / name).touch()
    assert [os.path.basename(path) for path in parts_of(str(tmp_path / "out.jsonl"))] == [
        "out-000002.jsonl",
        "out-000010.jsonl",
    ]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "cut", "cut", "freeze", "save", "rewind", "crash"]), st.integers(1, 20)
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(STEPS, st.sampled_from(["out.jsonl", "out.jsonl.zst", "out/{part}.jsonl.gz"]))
def test_wherever_a_run_crashes_the_whole_parts_hold_each_record_once(steps: list[tuple[str, int]], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_crash_and_resume, Path(folder), steps, name)


async def _crash_and_resume(folder: Path, steps: list[tuple[str, int]], name: str) -> None:
    saved, kept, done = Saved(), [0], 0
    sink = Jsonl(path=str(folder / name), roll=Roll(size=150))
    writer = await saved.open(sink)
    for step, argument in [*steps, ("end", 0)]:
        if step == "write":
            await writer.write(batch(*({"id": n, "part": n % 2} for n in range(done, done + argument))))
            done += argument
            continue
        if step in ("cut", "end"):
            await saved.cut(writer, final=step == "end")
        elif step == "freeze":
            await saved.freeze(writer)
        elif step == "save":
            await saved.save(await saved.freeze(writer))
        if step in ("cut", "end", "save"):
            kept.append(done)
        if step == "rewind" and len(kept) > argument:
            del saved.positions[-argument:], kept[-argument:]
        if step in ("crash", "rewind", "save", "freeze"):
            writer = await saved.open(sink)
            done = kept[-1]
    found = contents(folder)
    assert not [path for path in found if "inprogress" in path]
    lines = [line for path in sorted(found) for line in found[path].splitlines()]
    expected = [f'{{"id":{n},"part":{n % 2}}}' for n in range(done)]
    assert lines == (sorted(expected, key=lambda line: line[-2]) if "{part}" in name else expected)
