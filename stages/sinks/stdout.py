"""The sink of kind `stdout`: a line of JSON a record, for the next command of a shell."""

import os
import select
import stat
import sys

import anyio

from pipeline.batch import Batch
from pipeline.stage import Parting, Sink, SinkContext, Writer
from pipeline.standard import standard_output
from stages.sinks.jsonl import JsonlFormat

__all__ = ("Stdout", "StdoutWriter")

# A pipe that says it can be written to takes this much without waiting (POSIX: PIPE_BUF is at least 512; Linux: 4096).
_PIECE = min(select.PIPE_BUF, 4096)


class Stdout(Sink, kw_only=True):
    """Writes each record to standard output, one JSON value a line.

    At least once, and nothing of it outlives the run. When the other side closes the pipe, the run ends (exit 141).
    """

    def durable(self) -> bool:
        """Return False: what is printed is gone."""
        return False

    def parting(self, merge: bool) -> Parting | str:
        """Return why several workers can't: their lines would come in any order."""
        return "the lines of several processes would mix; write to a file"

    async def open(self, context: SinkContext) -> "StdoutWriter":
        """Return a writer to what standard output is now."""
        return StdoutWriter(_descriptor())


class StdoutWriter(Writer):
    """Writes to a file descriptor without ever holding up the loop; None writes to `sys.stdout`, where that is no file.

    A slow reader makes the write wait. A write that is cancelled meanwhile may leave part of its batch behind, and its
    last line torn; the line is completed before anything else.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor
        self._format = JsonlFormat()
        self._torn = b""
        self._piece = sys.maxsize if descriptor is None or _is_file(descriptor) else _PIECE

    async def write(self, batch: Batch) -> None:
        """Write the records' lines.

        :raises RecordErrors: names the records that JSON can't hold.
        :raises BrokenPipeError: when the other side has closed.
        """
        torn = len(self._torn)
        data = memoryview(self._torn + self._format.encode(batch.records))
        done = 0
        try:
            while done < len(data):
                await self._writable()
                done += self._put(data[done : done + self._piece])
        finally:
            self._torn = _rest_of_line(data, done, torn)

    async def close(self) -> None:
        """Leave standard output open: it is not ours."""

    async def _writable(self) -> None:
        descriptor = self._descriptor
        if descriptor is not None and not select.select([], [descriptor], [], 0)[1]:
            await anyio.wait_writable(descriptor)

    def _put(self, piece: memoryview) -> int:
        if self._descriptor is None:
            output = standard_output()
            output.write(str(piece, "utf-8"))
            output.flush()
            return len(piece)
        try:
            return os.write(self._descriptor, piece)
        except BlockingIOError:  # somebody has made the pipe non-blocking, and another writer was faster
            return 0


def _rest_of_line(data: memoryview, done: int, torn: int) -> bytes:
    """Return what is missing of the line that was begun; the first ``torn`` bytes belong to one begun before."""
    if done < torn:
        return bytes(data[done:torn])
    if done in (torn, len(data)) or data[done - 1] == ord("\n"):
        return b""
    rest = bytes(data[done:])
    return rest[: rest.index(b"\n") + 1]


def _descriptor() -> int | None:
    try:
        output = standard_output()
        output.flush()
        return output.fileno()
    except (OSError, ValueError, AttributeError):  # a notebook, or a test, has put something else in its place
        return None


def _is_file(descriptor: int) -> bool:
    return stat.S_ISREG(os.fstat(descriptor).st_mode)
