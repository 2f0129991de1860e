"""What the engine and its state file do for a file sink, so that a test can crash and resume it."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from pipeline.batch import Batch
from pipeline.stage import NamedFile, PositionWriter, SinkContext
from stages.sinks.files import FileSink


class StoppedClock:
    """A clock that stands where the test puts it."""

    def __init__(self) -> None:
        self.time = 1000.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds

    def call_at(self, when: float, callback: Callable[[], object]) -> Callable[[], None]:
        raise AssertionError("a file sink sets no timers")


class Saved:
    """A state file in memory: the last position, all older ones, and the files named in it."""

    def __init__(self, lineage: str = "0123456789abcdef") -> None:
        self.lineage = lineage
        self.positions: list[Any] = []
        self.named: list[NamedFile] = []
        self.announcements: list[list[str]] = []
        self.warnings: list[str] = []
        self.clock = StoppedClock()

    def context(self, **changes: Any) -> SinkContext:
        keys: dict[str, Any] = {
            "lineage": self.lineage,
            "delivery": "exactly_once",
            "position": self.positions[-1] if self.positions else None,
            "named": list(self.named),
            "announce": self.announce,
            "warn": self.warnings.append,
        }
        return SinkContext("out", "test", self.clock, **(keys | changes))

    async def announce(self, files: Sequence[NamedFile]) -> None:
        self.announcements.append([file.path for file in files])
        anew = {file.path for file in files}
        self.named = [file for file in self.named if file.path not in anew]
        encoded = msgspec.json.encode(files)
        self.named.extend(msgspec.json.decode(encoded, type=list[NamedFile]))

    async def open(self, sink: FileSink, **changes: Any) -> PositionWriter:
        writer = await sink.open(self.context(**changes))
        assert isinstance(writer, PositionWriter)
        return writer

    async def cut(self, writer: PositionWriter, final: bool = False) -> None:
        """Take a checkpoint and save it."""
        await self.save(await self.freeze(writer, final))
        await writer.committed()

    async def freeze(self, writer: PositionWriter, final: bool = False) -> Any:
        """Take a checkpoint as far as its sync, but do not save it."""
        await writer.prepare(final)
        position = writer.position()
        await writer.sync()
        return position

    async def save(self, position: Any) -> None:
        self.positions.append(msgspec.json.decode(msgspec.json.encode(position)))

    async def end(self, writer: PositionWriter) -> None:
        """End a run as the engine does."""
        await self.cut(writer, final=True)
        await writer.close()


def batch(*records: Any) -> Batch:
    return Batch(list(records))
