"""Every way in which a run can end, and the code that it ends with."""

import errno
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline import Pipeline
from pipeline.batch import Batch
from pipeline.errors import Exit, PipelineError
from pipeline.flow.supervisor import Supervisor
from pipeline.stage import Sink, SinkContext, Writer
from stages import processors, sinks, sources
from tests.end_to_end.running import Gate, exactly, numbered, run_beside, standing

pytestmark = pytest.mark.anyio


class Full(Sink):
    """A sink whose disk is full."""

    async def open(self, context: SinkContext) -> Writer:
        return _FullWriter()


class _FullWriter(Writer):
    async def write(self, batch: Batch) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def copying(folder: Path, *between: Any) -> Pipeline:
    pipeline = exactly("copy", folder) | sources.Jsonl(path=str(folder / "in.jsonl"))
    for stage in between:
        pipeline |= stage
    return pipeline | sinks.Jsonl(path=str(folder / "out.jsonl"))


async def _done(folder: Path) -> None:
    await copying(folder).run()


async def _failed(folder: Path) -> None:
    await copying(folder, processors.Filter(lambda record: 1 / 0)).run()


async def _misconfigured(folder: Path) -> None:
    await copying(folder, processors.Filter("n >")).run()


async def _locked(folder: Path) -> None:
    gate = Gate()

    async def second(supervisor: Supervisor) -> None:
        await standing(supervisor, 5)
        try:
            await copying(folder).run()
        finally:
            gate.open()

    try:
        await run_beside(copying(folder, processors.Call(gate.pass_through, batch=True)), second)
    except ExceptionGroup as group:
        raise group.exceptions[0] from None


async def _foreign(folder: Path) -> None:
    (folder / "state.db").write_text("not a state file, and long enough to have a header of its own" * 10)
    await copying(folder).run()


async def _unknown_output(folder: Path) -> None:
    (folder / "out.jsonl").write_text("somebody's data\n")
    await copying(folder).run()


async def _storage(folder: Path) -> None:
    await (Pipeline("full", checkpoint="none") | sources.Jsonl(path=str(folder / "in.jsonl")) | Full()).run()


@pytest.mark.parametrize(
    ("end", "code", "words"),
    [
        (_done, Exit.DONE, ""),
        (_failed, Exit.FAILED, "in.jsonl:1 "),
        (_misconfigured, Exit.CONFIG, "where"),
        (_locked, Exit.LOCKED, "in use by"),
        (_foreign, Exit.STATE, "state.db"),
        (_unknown_output, Exit.STATE, "out.jsonl"),
        (_storage, Exit.STORAGE, "No space left on device"),
    ],
)
async def test_a_run_ends_with_the_code_of_its_outcome(
    end: Callable[[Path], Awaitable[None]], code: int, words: str, tmp_path: Path
) -> None:
    numbered(tmp_path / "in.jsonl", 100)
    try:
        await end(tmp_path)
    except PipelineError as error:
        assert error.exit_code == code
        assert words in str(error)
        return
    assert code == Exit.DONE


async def test_what_is_in_the_way_is_left_as_it_was(tmp_path: Path) -> None:
    numbered(tmp_path / "in.jsonl", 100)
    with pytest.raises(PipelineError):
        await _unknown_output(tmp_path)
    assert (tmp_path / "out.jsonl").read_text() == "somebody's data\n"
