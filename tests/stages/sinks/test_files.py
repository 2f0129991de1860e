# ruff: noqa: ASYNC240  what is under test writes files on the loop, and so may its test
import errno
import gzip
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import anyio
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ConfigError, RecordErrors, StateError, StorageError, Unavailable
from pipeline.stage import NamedFile, Resume
from stages.sinks.csv import Csv
from stages.sinks.files import FileSink, Roll
from stages.sinks.jsonl import Jsonl
from stages.sinks.open_files import OpenFiles
from stages.sinks.targets import Targets
from tests.stages.sinks.saved import Saved, batch

pytestmark = pytest.mark.anyio


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def records(low: int, high: int) -> list[Any]:
    return [{"id": number} for number in range(low, high)]


def text(low: int, high: int) -> str:
    return "".join(f'{{"id":{number}}}\n' for number in range(low, high))


def read(path: Path) -> str:
    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    elif path.suffix == ".zst":
        data = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
    return data.decode()


async def written(saved: Saved, sink: FileSink, low: int, high: int, **changes: Any) -> None:
    """Run once from begin to end."""
    writer = await saved.open(sink, **changes)
    await writer.write(batch(*records(low, high)))
    await saved.end(writer)


# --- resuming ---------------------------------------------------------------------------------------------------------


async def test_a_run_that_is_resumed_goes_on_behind_its_last_checkpoint(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    await written(saved, sink, 0, 3)
    await written(saved, sink, 3, 5)

    assert read(out) == text(0, 5)
    assert sink.resumes() is Resume.POSITION


async def test_what_came_after_the_last_checkpoint_is_cut_back_and_said(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 2)))
    await saved.cut(writer)
    await writer.write(batch(*records(2, 4)))
    await saved.freeze(writer)  # a checkpoint that was never saved

    await saved.open(sink)

    assert read(out) == text(0, 2)
    assert saved.warnings == [f"{out}: cut back 18 bytes written after the last checkpoint"]


async def test_a_crash_before_the_first_checkpoint_leaves_an_empty_file(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 2)))

    writer = await saved.open(sink)

    assert read(out) == ""
    await writer.write(batch(*records(0, 1)))
    await saved.end(writer)
    assert read(out) == text(0, 1)


async def test_at_least_once_cuts_only_a_torn_last_record(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    writer = await saved.open(sink, delivery="at_least_once")
    await writer.write(batch(*records(0, 1)))
    await saved.cut(writer)
    await writer.write(batch(*records(1, 2)))
    with out.open("a") as file:
        file.write('{"id":')

    await saved.open(sink, delivery="at_least_once")

    assert read(out) == text(0, 2)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
async def test_at_least_once_cuts_a_torn_frame(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.jsonl{suffix}"
    saved, sink = Saved(), Jsonl(path=str(out))
    writer = await saved.open(sink, delivery="at_least_once")
    for number in range(3):
        await writer.write(batch(*records(number, number + 1)))
        await (saved.cut(writer) if number == 0 else writer.prepare(False))
    os.truncate(out, out.stat().st_size - 3)

    writer = await saved.open(sink, delivery="at_least_once")
    await writer.write(batch(*records(7, 8)))
    await saved.end(writer)

    assert read(out) == text(0, 2) + text(7, 8)


@pytest.mark.parametrize("change", ["missing", "shorter", "other content", "another file", "folder", "link"])
async def test_a_file_that_does_not_fit_its_checkpoint_is_refused_and_left_alone(out: Path, change: str) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    await written(saved, sink, 0, 5)
    aside = out.with_name("aside")
    out.rename(aside)
    content = {"shorter": text(0, 5)[:-1], "other content": text(5, 10), "another file": text(0, 6)}.get(
        change, text(0, 5)
    ).encode()
    if change in ("shorter", "other content"):
        aside.rename(out)
        out.write_bytes(content)
    elif change == "another file":
        out.write_bytes(content)
    elif change == "folder":
        out.mkdir()
    elif change == "link":
        out.symlink_to(aside)

    with pytest.raises((StateError, ConfigError)) as caught:
        await saved.open(sink)

    assert str(out) in str(caught.value)
    assert "\n" not in str(caught.value)
    if out.is_file():
        assert out.read_bytes() == content


async def test_of_two_files_nothing_is_cut_when_one_does_not_fit(tmp_path: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out" / "{id}.jsonl"))
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 2)))
    await saved.cut(writer)
    await writer.write(batch(*records(0, 2)))
    (tmp_path / "out" / "1.jsonl").write_text("")

    with pytest.raises(StateError):
        await saved.open(sink)

    assert read(tmp_path / "out" / "0.jsonl") == '{"id":0}\n' * 2


async def test_an_older_checkpoint_can_be_gone_back_to(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    for number in range(4):
        await written(saved, sink, number, number + 1)
    del saved.positions[2:]

    await saved.open(sink)

    assert read(out) == text(0, 2)


async def test_a_position_of_another_sink_is_refused(out: Path) -> None:
    with pytest.raises(StateError, match="not one of a file sink"):
        await Saved().open(Jsonl(path=str(out)), position={"targets": 3})


FORMATS = st.sampled_from(
    ["out.jsonl", "out.jsonl.gz", "out.jsonl.zst", "out.csv", "out/{part}.jsonl", "out/{part}.csv.gz"]
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 40)),
        st.tuples(st.sampled_from(["cut", "freeze", "prepare"]), st.just(0)),
        st.tuples(st.just("crash"), st.integers(0, 60)),
    ),
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(FORMATS, STEPS, st.booleans())
def test_wherever_a_run_crashes_the_files_hold_each_record_of_the_checkpoint_once(
    name: str, steps: list[tuple[str, int]], awkward: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        anyio.run(_crash_and_resume, Path(folder), name, steps, '"\r\n,' if awkward else "")


async def _crash_and_resume(folder: Path, name: str, steps: list[tuple[str, int]], filler: str) -> None:
    kind = Csv if ".csv" in name else Jsonl
    saved, done, kept = Saved(), list[Any](), 0
    sink = kind(path=str(folder / "crashed" / name))
    writer = await saved.open(sink)
    for step, argument in [*steps, ("end", 0)]:
        if step == "write":
            numbers = range(len(done), len(done) + argument)
            done += [{"part": f"p{n % 3}", "id": n, "text": filler * (n % 5)} for n in numbers]
            await writer.write(batch(*done[numbers.start :]))
        elif step in ("cut", "end"):
            await saved.cut(writer, final=step == "end")
            kept = len(done)
        elif step == "freeze":
            await saved.freeze(writer)
        elif step == "prepare":
            await writer.prepare(False)
        else:
            for path in folder.rglob("*.*"):
                with path.open("ab") as file:
                    file.write(b'{"torn":"\x1f\x8b'[: argument % 13] * (argument // 13))
            writer = await saved.open(sink)
            del done[kept:]
    unbroken = await Saved().open(kind(path=str(folder / "unbroken" / name)))
    for record in done:
        await unbroken.write(batch(record))
    await unbroken.prepare(True)
    assert contents(folder / "crashed") == contents(folder / "unbroken")


def contents(folder: Path) -> dict[str, str]:
    """Return what the files hold that hold anything."""
    found = {str(path.relative_to(folder)): read(path) for path in folder.rglob("*") if path.is_file()}
    return {name: text for name, text in found.items() if text}


# --- modes ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["create", "append"])
async def test_content_that_the_state_does_not_know_is_refused_and_left_alone(out: Path, mode: Any) -> None:
    out.write_text("theirs\n")

    with pytest.raises(StateError, match=r"out\.jsonl is not empty") as caught:
        await Saved().open(Jsonl(path=str(out), mode=mode))

    assert "mode: " in str(caught.value)
    assert read(out) == "theirs\n"


async def test_an_empty_file_is_taken_as_new(out: Path) -> None:
    out.touch()
    await written(Saved(), Jsonl(path=str(out)), 0, 1)

    assert read(out) == text(0, 1)


async def test_append_with_fresh_writes_behind_what_is_there_and_never_cuts_into_it(out: Path) -> None:
    out.write_text("theirs\n")
    saved, sink = Saved(), Jsonl(path=str(out), mode="append")
    writer = await saved.open(sink, fresh=True)
    await writer.write(batch(*records(0, 1)))

    await saved.open(sink)
    assert read(out) == "theirs\n"
    await written(saved, sink, 0, 2)

    assert read(out) == "theirs\n" + text(0, 2)


async def test_append_without_a_state_writes_behind_what_is_there(out: Path) -> None:
    out.write_text("no newline")
    writer = await Jsonl(path=str(out), mode="append").open(Saved().context(saved=False, announce=None, lineage=""))
    await writer.write(batch(*records(0, 1)))
    await writer.close()

    assert read(out) == "no newline\n" + text(0, 1)


async def test_overwrite_empties_a_file_once_in_a_lineage(out: Path) -> None:
    out.write_text("theirs\n")
    saved, sink = Saved(), Jsonl(path=str(out), mode="overwrite")
    await written(saved, sink, 0, 1)
    await written(saved, sink, 1, 2)
    assert read(out) == text(0, 2)

    fresh = Saved("fedcba9876543210")
    fresh.named = saved.named
    await written(fresh, sink, 5, 6, fresh=True)
    assert read(out) == text(5, 6)


async def test_a_fresh_lineage_refuses_what_an_older_one_wrote_unless_repeats_are_accepted(out: Path) -> None:
    older, fresh = Saved(), Saved("fedcba9876543210")
    await written(older, Jsonl(path=str(out)), 0, 2)
    fresh.named = older.named

    for mode in ("create", "append"):
        with pytest.raises(StateError, match="earlier lineage"):
            await fresh.open(Jsonl(path=str(out), mode=mode), fresh=True)
    await written(fresh, Jsonl(path=str(out)), 0, 2, fresh=True, repeat=True)

    assert read(out) == text(0, 2) * 2


async def test_a_dry_run_makes_and_cuts_nothing_and_still_says_what_does_not_fit(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    writer = await saved.open(sink, dry=True)
    await writer.close()
    assert not out.exists()
    await written(saved, sink, 0, 1)
    with out.open("a") as file:
        file.write("torn")

    await saved.open(sink, dry=True)
    assert read(out) == text(0, 1) + "torn"
    with pytest.raises(StateError):
        await Saved().open(sink, dry=True)


# --- naming files before their first byte -----------------------------------------------------------------------------


async def test_a_file_is_named_while_it_is_empty_and_once(out: Path) -> None:
    saved, seen = Saved(), list[int]()

    async def announce(files: Any) -> None:
        seen.extend(os.stat(file.path).st_size for file in files)
        await saved.announce(files)

    writer = await saved.open(Jsonl(path=str(out)), announce=announce)
    await writer.write(batch(*records(0, 1)))
    await writer.write(batch(*records(1, 2)))

    assert seen == [0]
    await writer.close()


async def test_all_new_files_of_a_batch_are_named_together(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(tmp_path / "out" / "{id}.jsonl")))
    await writer.write(batch(*records(0, 3)))
    await writer.write(batch(*records(2, 4)))

    assert [[Path(path).stem for path in paths] for paths in saved.announcements] == [["0", "1", "2"], ["3"]]
    await writer.close()


async def test_a_write_that_is_cancelled_while_files_are_named_leaves_nothing_behind(tmp_path: Path) -> None:
    saved = Saved()

    async def never(files: Any) -> None:
        await anyio.sleep_forever()

    writer = await saved.open(Jsonl(path=str(tmp_path / "out" / "{id}.jsonl")), announce=never)
    with anyio.move_on_after(0):
        await writer.write(batch(*records(0, 3)))

    assert list((tmp_path / "out").iterdir()) == []
    await writer.close()


# --- templates --------------------------------------------------------------------------------------------------------


async def test_records_go_to_the_files_of_their_fields_in_order(tmp_path: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out" / "{country}" / "{day}.jsonl"))
    writer = await saved.open(sink)
    await writer.write(batch(*({"country": c, "day": d} for c in ("de", "fr") for d in (1, 2) for _ in range(2))))
    await saved.end(writer)

    assert read(tmp_path / "out" / "fr" / "2.jsonl") == '{"country":"fr","day":2}\n' * 2
    assert len(list((tmp_path / "out").rglob("*.jsonl"))) == 4


async def test_values_that_only_look_the_same_share_a_file_in_order_and_equal_ones_that_do_not_are_apart(
    tmp_path: Path,
) -> None:
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(tmp_path / "out" / "{id}.jsonl")))
    await writer.write(batch(*({"id": value} for value in ("1", 1, "1", True, 2, 1.0))))
    await saved.end(writer)

    assert contents(tmp_path / "out") == {
        "1.jsonl": '{"id":"1"}\n{"id":1}\n{"id":"1"}\n',
        "true.jsonl": '{"id":true}\n',
        "2.jsonl": '{"id":2}\n',
        "1.0.jsonl": '{"id":1.0}\n',
    }


async def test_values_of_several_fields_are_kept_apart(tmp_path: Path) -> None:
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(tmp_path / "out" / "{a}" / "{b}.jsonl")))
    await writer.write(batch({"a": "x", "b": 1}, {"a": "y", "b": 1}, {"a": "x", "b": "1"}))
    await saved.end(writer)

    assert contents(tmp_path / "out") == {
        "x/1.jsonl": '{"a":"x","b":1}\n{"a":"x","b":"1"}\n',
        "y/1.jsonl": '{"a":"y","b":1}\n',
    }


@pytest.mark.parametrize(
    "bad", ["..", "../x", "a/b", "a\\b", "", ".", ".hidden", "a\0b", "a\nb", "x" * 201, None, [1], "\u202e"]
)
async def test_a_field_that_makes_an_unsafe_name_fails_its_record_and_makes_nothing(tmp_path: Path, bad: Any) -> None:
    writer = await Saved().open(Jsonl(path=str(tmp_path / "out" / "{name}.jsonl")))

    with pytest.raises(RecordErrors) as caught:
        await writer.write(batch({"name": "good"}, {"name": bad}, {"other": 1}))

    assert sorted(caught.value.errors) == [1, 2]
    assert list(tmp_path.rglob("*")) == []


async def test_a_folder_that_leads_out_of_the_fixed_one_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out-evil").mkdir()
    (tmp_path / "out" / "x").symlink_to(tmp_path / "out-evil")
    writer = await Saved().open(Jsonl(path=str(tmp_path / "out" / "{a}" / "{b}.jsonl")))

    with pytest.raises(RecordErrors, match="1 records") as caught:
        await writer.write(batch({"a": "x", "b": "1"}))

    assert "outside" in str(caught.value.errors[0])
    assert list((tmp_path / "out-evil").iterdir()) == []


async def test_a_link_in_the_place_of_a_file_is_never_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "theirs").touch()
    (tmp_path / "out" / "x.jsonl").symlink_to(tmp_path / "theirs")
    writer = await Saved().open(Jsonl(path=str(tmp_path / "out" / "{a}.jsonl")))

    with pytest.raises(ConfigError):
        await writer.write(batch({"a": "x"}))
    assert (tmp_path / "theirs").read_bytes() == b""


@pytest.mark.parametrize(
    "path", ["{a}.jsonl", "/{a}.jsonl", "out/{a", "out/{a.b}", "out/{a!r}", "out/{}", "out/{a}/../x", "out/"]
)
def test_a_path_that_can_not_be_is_a_problem_of_its_key(path: str) -> None:
    assert [name for name, _ in Jsonl(path=path).problems()] == ["path"]


async def test_many_files_are_written_with_few_descriptors_and_a_bounded_position(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenFiles.__init__, "__defaults__", (3,))
    monkeypatch.setattr(Targets.__init__, "__defaults__", (5,))
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out" / "{id}.jsonl.gz"))
    writer = await saved.open(sink)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        for low in range(0, 40, 20):
            await writer.write(batch(*records(low, low + 20)))
            assert len(os.listdir("/proc/self/fd")) <= before + 3
            await saved.cut(writer)
    assert len(saved.positions[-1]["targets"]) <= 25

    # Written to again behind the last checkpoint: those that the position left out are cut back all the same.
    await writer.write(batch(*records(0, 40)))
    await writer.prepare(False)
    writer = await saved.open(sink)
    await written(saved, sink, 0, 40)

    assert contents(tmp_path) == {f"out/{n}.jsonl.gz": text(n, n + 1) * 4 for n in range(40)}


async def test_a_rewind_takes_back_what_was_announced_again_or_says_that_it_can_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Targets.__init__, "__defaults__", (0,))
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out" / "{id}.jsonl"))
    writer = await saved.open(sink)
    await saved.cut(writer)
    for _ in range(3):
        await writer.write(batch(*records(0, 1)))
        await saved.cut(writer)
        await saved.cut(writer)
        await saved.cut(writer)
    lengths: list[int | str] = []
    for position in reversed(saved.positions):
        try:
            await saved.open(sink, position=position)
            lengths.append(len(contents(tmp_path).get("out/0.jsonl", "").splitlines()))
        except StateError as error:
            lengths.append("too old" if "not kept that far back" in str(error) else str(error))

    # Three cuts each with 3, 2 and 1 records, and the one before. Only the first of each three holds the file itself.
    assert lengths == [3, 3, 3, 2, 2, 2, "too old", "too old", 1, 0]


async def test_a_checkpoint_that_is_saved_while_new_files_are_named_forgets_none_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Targets.__init__, "__defaults__", (0,))
    saved = Saved()

    async def announce(files: Any) -> None:
        await saved.announce(files)
        await writer.committed()

    writer = await saved.open(Jsonl(path=str(tmp_path / "out" / "{id}.jsonl")), announce=announce)
    await writer.write(batch(*records(0, 1)))
    await saved.save(await saved.freeze(writer))
    await writer.write(batch(*records(0, 2)))
    await saved.end(writer)

    assert contents(tmp_path) == {"out/0.jsonl": text(0, 1) * 2, "out/1.jsonl": text(1, 2)}


async def test_leave_to_write_behind_what_is_there_lasts_for_the_lineage(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    for number in range(2):
        (tmp_path / "out" / f"{number}.jsonl").write_text("theirs\n")
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out" / "{id}.jsonl"), mode="append")
    await written(saved, sink, 0, 1, fresh=True)
    await written(saved, sink, 1, 2)

    assert contents(tmp_path) == {f"out/{n}.jsonl": "theirs\n" + text(n, n + 1) for n in range(2)}


@pytest.mark.parametrize("together", [True, False])
async def test_one_file_under_two_names_is_refused(tmp_path: Path, together: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "0.jsonl").touch()
    os.link(tmp_path / "out" / "0.jsonl", tmp_path / "out" / "1.jsonl")
    writer = await Saved().open(Jsonl(path=str(tmp_path / "out" / "{id}.jsonl"), mode="overwrite"))
    if not together:
        await writer.write(batch(*records(0, 1)))

    with pytest.raises(StateError, match="under another name"):
        await writer.write(batch(*records(0 if together else 1, 2)))
    assert read(tmp_path / "out" / "0.jsonl") == ("" if together else text(0, 1))
    await writer.close()


async def test_a_compressed_file_with_a_torn_end_is_not_written_behind(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl.gz"
    out.write_bytes(gzip.compress(b"theirs\n")[:-2])

    with pytest.raises(StateError, match="whole up to byte 0"):
        await Saved().open(Jsonl(path=str(out), mode="append"), fresh=True)


async def test_a_name_of_too_many_bytes_fails_its_record(tmp_path: Path) -> None:
    writer = await Saved().open(Jsonl(path=str(tmp_path / "out" / "{name}.jsonl")))

    with pytest.raises(RecordErrors):
        await writer.write(batch({"name": "ä" * 150}))


async def test_a_resumed_run_counts_its_announcements_on(tmp_path: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(tmp_path / "out" / "{id}.jsonl"))
    writer = await saved.open(sink)
    await saved.cut(writer)
    await writer.write(batch(*records(0, 1)))

    await saved.cut(await saved.open(sink))

    assert saved.positions[-1]["turn"] == saved.named[-1].identity["turn"] == 1


async def test_the_folders_of_new_and_of_finished_files_are_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(tmp_path / "a" / "b" / "out.jsonl"), roll=Roll(size=1)))
    await writer.write(batch(*records(0, 1)))
    await saved.freeze(writer, final=True)
    assert synced[1:] == [str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b")]
    await writer.committed()

    assert synced[4:] == [str(tmp_path / "a" / "b")]


# --- faults -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "say"), [("folder", "a folder"), ("link", "no regular file"), ("pipe", "stdout")])
async def test_only_a_regular_file_is_written_to(out: Path, kind: str, say: str) -> None:
    if kind == "folder":
        out.mkdir()
    elif kind == "link":
        out.symlink_to("elsewhere")
    else:
        os.mkfifo(out)

    with pytest.raises(ConfigError, match=say):
        await Saved().open(Jsonl(path=str(out)))


async def test_a_file_that_may_not_be_made_is_a_mistake_in_the_config(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: str, *arguments: Any, **keys: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "open", forbidden)
    with pytest.raises(ConfigError, match=r"can't open .*out\.jsonl: Permission denied"):
        await Saved().open(Jsonl(path=str(out)))


async def test_a_folder_that_may_not_be_made_is_a_mistake_in_the_config(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="can't open"):
        await Saved().open(Jsonl(path=str(tmp_path / "file" / "out.jsonl")))


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, StorageError), (errno.EIO, StorageError), (errno.EAGAIN, Unavailable)]
)
@pytest.mark.parametrize("suffix", ["", ".gz"])
async def test_a_write_that_fails_midway_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception], suffix: str
) -> None:
    out = tmp_path / f"out.jsonl{suffix}"
    saved, sink = Saved(), Jsonl(path=str(out))
    writer = await saved.open(sink)
    await writer.write(batch(*records(0, 2)))
    await writer.prepare(False)
    before = out.read_bytes()
    real = os.write

    def torn(descriptor: int, data: bytes) -> int:
        if out.stat().st_size > len(before):
            raise OSError(number, os.strerror(number))
        return real(descriptor, bytes(data[:5]))

    large = [{"id": number, "noise": os.urandom(2**18).hex()} for number in range(2)]
    monkeypatch.setattr(os, "write", torn)
    with pytest.raises(error, match=r"out\.jsonl"):
        await writer.write(batch(*large))
    monkeypatch.undo()

    assert out.read_bytes() == before
    await writer.write(batch(*records(2, 3)))
    await saved.end(writer)
    assert read(out) == text(0, 3)


async def test_a_short_write_is_continued(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(out)))
    real = os.write

    def short(descriptor: int, data: bytes) -> int:
        return real(descriptor, bytes(data[:7]))

    monkeypatch.setattr(os, "write", short)
    await writer.write(batch(*records(0, 5)))
    monkeypatch.undo()

    assert read(out) == text(0, 5)
    await saved.end(writer)


async def test_a_failed_sync_ends_the_run_and_is_never_tried_again(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def broken(descriptor: int) -> None:
        calls.append(descriptor)
        raise OSError(errno.EIO, "Input/output error")

    saved = Saved()
    writer = await saved.open(Jsonl(path=str(out)))
    await writer.write(batch(*records(0, 1)))
    monkeypatch.setattr(os, "fsync", broken)
    for _ in range(2):
        with pytest.raises(StorageError, match=r"out\.jsonl durable"):
            await saved.cut(writer)

    assert len(calls) == 1
    await writer.close()


async def test_only_what_has_changed_is_synced(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def watched(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    saved = Saved()
    writer = await saved.open(Jsonl(path=str(out)))
    for number in (1, 1, 0):
        synced.clear()
        await writer.write(batch(*records(0, number)))
        await saved.cut(writer)
        synced.append("")
        if number:
            expected = [str(out), str(out.parent), ""] if len(saved.positions) == 1 else [str(out), ""]
            assert synced == expected
    assert synced == [""]
    await writer.close()


async def test_a_file_that_somebody_else_writes_to_is_noticed_when_it_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenFiles.__init__, "__defaults__", (1,))
    writer = await Saved().open(Jsonl(path=str(tmp_path / "out" / "{id}.jsonl")))
    await writer.write(batch(*records(0, 2)))
    with (tmp_path / "out" / "0.jsonl").open("a") as file:
        file.write("theirs\n")

    with pytest.raises(StateError, match="somebody else"):
        await writer.write(batch(*records(0, 1)))
    await writer.close()


LIMITED = """
import asyncio, resource, sys
from pipeline.errors import StorageError
from stages.sinks.jsonl import Jsonl
from tests.stages.sinks.saved import Saved, batch

async def main():
    writer = await Saved().open(Jsonl(path=sys.argv[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
    try:
        for number in range(1000):
            await writer.write(batch({"id": number}, {"id": number}))
    except StorageError as error:
        print(number, error)

asyncio.run(main())
"""


@pytest.mark.parametrize("limit", [0, 1, 100, 4097])
def test_a_file_that_may_not_grow_is_a_storage_fault_and_holds_whole_batches(out: Path, limit: int) -> None:
    command = [sys.executable, "-c", LIMITED, str(out), str(limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[3])
    number, _, error = done.stdout.partition(" ")

    assert "EFBIG" in error
    assert str(out) in error
    assert read(out) == "".join(f'{{"id":{n}}}\n' * 2 for n in range(int(number)))


async def test_an_older_lineage_s_names_do_not_stand_in_the_way_of_another_path(tmp_path: Path) -> None:
    saved = Saved()
    saved.named = [
        NamedFile(str(tmp_path / "old"), {"turn": 1, "key": "old", "base": {"path": "old", "inode": [1, 2]}}, "x")
    ]

    await written(saved, Jsonl(path=str(tmp_path / "new.jsonl")), 0, 1)

    assert read(tmp_path / "new.jsonl") == text(0, 1)


def restored(out: Path, more: str = "") -> None:
    """Put a file back as a backup does: the same content in another file."""
    kept = out.read_text()
    out.rename(out.with_name("before"))
    out.write_text(kept + more)


async def test_a_file_that_was_restored_is_gone_on_with(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    await written(saved, sink, 0, 5)
    restored(out)
    await written(saved, sink, 5, 10)
    restored(out)
    await written(saved, sink, 10, 12)
    assert out.read_text() == text(0, 12)


async def test_a_copy_is_cut_back_only_where_its_last_4_kib_say_whose_it_is(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    await written(saved, sink, 0, 5)
    restored(out, text(5, 6))
    with pytest.raises(StateError, match="another file of that name"):
        await saved.open(sink)
    assert out.read_text() == text(0, 6)

    out.write_text(text(0, 5))
    await written(saved, sink, 5, 2000)
    restored(out, text(2000, 2001))
    await written(saved, sink, 2000, 2002)
    assert out.read_text() == text(0, 2002)


async def test_an_empty_file_of_the_checkpoint_is_not_taken_for_a_full_one_of_its_name(out: Path) -> None:
    saved, sink = Saved(), Jsonl(path=str(out))
    await saved.end(await saved.open(sink))
    out.rename(out.with_name("before"))
    out.write_text("somebody else's\n")
    with pytest.raises(StateError, match="another file of that name"):
        await saved.open(sink)
    assert out.read_text() == "somebody else's\n"
