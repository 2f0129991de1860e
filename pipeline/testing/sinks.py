"""The contract of a sink, as a check that any sink can be put to."""

import copy
import inspect
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.batch import Batch
from pipeline.chain import Chain
from pipeline.errors import PipelineError, RecordErrors, StorageError
from pipeline.pipeline import Pipeline
from pipeline.spans import Held
from pipeline.stage import NamedFile, PositionWriter, Resume, Sink, TransactionWriter, Writer
from pipeline.testing.cancelling import cancel_points, interrupted
from pipeline.testing.crashes import CrashAt
from pipeline.testing.judging import same, through_json
from pipeline.testing.lists import ListSource
from pipeline.testing.opening import batch_of, context_for

__all__ = ("check_sink",)

ReadBack = Callable[[Any], list[Any] | Awaitable[list[Any]]]


async def check_sink(
    make: Callable[[], Sink],
    read_back: ReadBack | None,
    *,
    records: Sequence[Any] | None = None,
    bad: Any = None,
) -> None:
    """Check that a sink keeps the contract of `pipeline.stage.Sink`.

    ``make`` returns a declaration with an empty place of its own each time; ``read_back(sink)``, which may be
    asynchronous, returns what is in that place, in the order of writing, as equal to what was written (None for a sink
    whose records nobody can read). ``records`` are what is written, at least 12, and ``bad`` is a record that the sink
    can't write, if there is one. Checked are: order, opening and closing twice, that a batch is left as it was, that a
    write which was cancelled or failed leaves nothing behind, and that what comes again after a crash is there once if
    the sink says that it is.

    :raises AssertionError: says what is broken.
    """
    given = list(records) if records is not None else [{"id": n, "text": f"record {n}"} for n in range(12)]
    if len(given) < 12:
        raise AssertionError("a check of a sink needs at least 12 records")
    check = _Check(make, read_back, given)
    await check.order()
    await check.every_await()
    if bad is not None:
        await check.bad_record(bad)
    if make().durable():
        await check.open_twice()
        await check.replay()
        await check.crashes()


class _Saved:
    """What a state file keeps for a sink."""

    def __init__(self, sink: Sink) -> None:
        self.sink = sink
        self.position: Any = None
        self.named: list[NamedFile] = []
        self.frontier = 0

    async def open(self) -> Writer:
        context = context_for(
            self.sink,
            position=self.position,
            named=list(self.named),
            announce=self._announce,
            held_from={"source": self.frontier},
        )
        writer = await self.sink.open(context)
        kinds = {Resume.POSITION: PositionWriter, Resume.TRANSACTION: TransactionWriter}
        wanted = kinds.get(self.sink.resumes(), Writer)
        if not isinstance(writer, wanted):
            raise AssertionError(f"a sink that resumes by {self.sink.resumes().value} must open a {wanted.__name__}")
        return writer

    async def cut(self, writer: Writer, frontier: int, final: bool = False) -> None:
        """Take a checkpoint as the engine does."""
        if isinstance(writer, PositionWriter):
            await writer.prepare(final)
            position = through_json(writer.position(), "a position")
            await writer.sync()
            self.position, self.frontier = position, frontier
            await writer.committed()
        elif isinstance(writer, TransactionWriter):
            await writer.seal()
            self.frontier = frontier
            await writer.prune({"source": frontier})

    async def _announce(self, files: Sequence[NamedFile]) -> None:
        anew = {file.path for file in files}
        self.named = [file for file in self.named if file.path not in anew] + list(files)


class _Check:
    def __init__(self, make: Callable[[], Sink], read_back: ReadBack | None, records: list[Any]) -> None:
        self._make = make
        self._read_back = read_back
        self._records = records

    def batch(self, low: int, high: int) -> Batch:
        return batch_of(*copy.deepcopy(self._records[low:high]), start=low)

    async def order(self) -> None:
        """Batches are written in order, and left as they were."""
        saved = _Saved(self._make())
        writer = await saved.open()
        try:
            for low in range(0, 12, 4):
                batch = self.batch(low, low + 4)
                await writer.write(batch)
                same(self._records[low : low + 4], batch.records, "after a write, the batch holds")
            await saved.cut(writer, 12, final=True)
        finally:
            await writer.close()
        await self._holds(saved.sink, self._records[:12], "three batches were written")

    async def every_await(self) -> None:
        """A write that is cancelled writes all or nothing, and can be made again."""
        for at in cancel_points():
            saved = _Saved(self._make())
            writer = await saved.open()
            try:
                await writer.write(self.batch(0, 4))
                outcome = await interrupted(writer.write(self.batch(4, 8)), at)
                written = 8 if outcome.completed else 4
                await saved.cut(writer, written)
                if not outcome.completed and self._read_back is not None:
                    await self._begins(saved.sink, written, f"a second batch was cancelled at await {at}")
                for low in range(written, 12, 4):
                    await writer.write(self.batch(low, low + 4))
                await saved.cut(writer, 12, final=True)
            finally:
                await writer.close()
            await self._holds(saved.sink, self._records[:12], f"a write was cancelled at await {at} and made again")
            if outcome.completed:
                return

    async def bad_record(self, bad: Any) -> None:
        """A batch that can't be written leaves nothing, and its good records can be written."""
        saved = _Saved(self._make())
        writer = await saved.open()
        try:
            await writer.write(self.batch(0, 4))
            batch = batch_of(self._records[4], copy.deepcopy(bad), self._records[5], start=4)
            try:
                await writer.write(batch)
            except RecordErrors as errors:
                if set(errors.errors) != {1}:
                    raise AssertionError(f"record 1 is bad, and RecordErrors names {sorted(errors.errors)}") from errors
            except StorageError:
                raise
            except Exception as error:
                # Whoever does not know which record it was lets the engine find out.
                if isinstance(error, PipelineError):
                    raise AssertionError(f"a bad record broke the sink: {error}") from error
            else:
                raise AssertionError("the bad record was written")
            await writer.write(batch.pick([0, 2]))
            await saved.cut(writer, 7, final=True)
        finally:
            await writer.close()
        await self._holds(saved.sink, self._records[:6], "a batch with a bad record failed and was written without it")

    async def open_twice(self) -> None:
        """A sink goes on behind its last checkpoint."""
        saved = _Saved(self._make())
        for low in (0, 4, 8):
            writer = await saved.open()
            try:
                await writer.write(self.batch(low, low + 4))
                await saved.cut(writer, low + 4, final=True)
            finally:
                await writer.close()
        await self._holds(saved.sink, self._records[:12], "it was opened, written to and closed three times")

    async def replay(self) -> None:
        """What was written behind the last checkpoint is dropped when it comes again, or replaced."""
        resumes = self._make().resumes()
        if resumes is Resume.NONE:
            return
        saved = _Saved(self._make())
        writer = await saved.open()
        try:
            await writer.write(self.batch(0, 4))
            await saved.cut(writer, 4)
            await writer.write(self.batch(4, 8))
        finally:
            await writer.close()
        again = await saved.open()
        try:
            held = again.held() if isinstance(again, TransactionWriter) else Held()
            if resumes is Resume.TRANSACTION and not all(("source", number, "") in held for number in range(4, 8)):
                raise AssertionError(
                    "what its transactions wrote behind the last checkpoint is not among what it holds"
                )
            batch = self.batch(4, 12)
            missing = [index for index, origin in enumerate(batch.origins()) if origin not in held]
            await again.write(batch.pick(missing))
            await saved.cut(again, 12, final=True)
        finally:
            await again.close()
        await self._holds(saved.sink, self._records[:12], "a crash behind the first checkpoint, and the rest again")

    async def crashes(self) -> None:
        """In an engine that crashes before each chunk and at the end, records are there once, or at least once."""
        exact = self._make().resumes() is not Resume.NONE
        chance = 0
        while True:
            chance += 1
            sink, crash = self._make(), CrashAt(chance)
            with TemporaryDirectory() as folder:
                await self._run(sink, crash, folder)
                if crash.happened:
                    await self._run(sink, CrashAt(0), folder)
            if exact:
                await self._holds(sink, self._records[:12], f"a run crashed {crash.where or 'nowhere'} and was resumed")
            if not crash.happened:
                return

    async def _run(self, sink: Sink, crash: CrashAt, folder: str) -> None:
        source = ListSource(copy.deepcopy(self._records[:12]), chunk=4, crash=crash)
        state = {"path": str(Path(folder, "state.db")), "interval": 0.001}
        try:
            report = await (Pipeline("check", checkpoint=state) | Chain((source, sink))).run()
        except PipelineError as error:
            if not crash.happened:
                raise AssertionError(f"a run failed: {error}") from error
            return
        if report.account.unsettled:
            raise AssertionError(f"at the end of a run the account is: {report.account}")

    async def _holds(self, sink: Sink, expected: list[Any], after: str) -> None:
        if self._read_back is not None:
            same(expected, await self._found(sink), f"after {after}")

    async def _begins(self, sink: Sink, count: int, after: str) -> None:
        same(self._records[:count], await self._found(sink), f"after {after}")

    async def _found(self, sink: Sink) -> list[Any]:
        assert self._read_back is not None
        found = self._read_back(sink)
        return list(await found if inspect.isawaitable(found) else found)
