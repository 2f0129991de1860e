"""What a child writes down of each record that a sink is handed, so that it survives a kill."""

import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import anyio

from pipeline.batch import Batch
from pipeline.plan.topology import Topology
from pipeline.settle.view import open_view
from pipeline.spans import Spans

__all__ = ("Books", "begun", "forget_books", "may_repeat")

_NAME = "books.bin"
_LINE = struct.Struct("=qqq")


class Books:
    """Written before each write of a sink: the sink, and the source and the number of each record."""

    def __init__(self, folder: Path, topology: Topology) -> None:
        self._file = os.open(folder / _NAME, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._sinks, self._sources = _places(topology)

    def hand(self, sink: str, batch: Batch) -> None:
        """Take note that a sink is about to write a batch."""
        place, sources = self._sinks[sink], self._sources
        lines = (_LINE.pack(place, sources[origin.source], origin.number) for origin in batch.origins())
        os.write(self._file, b"".join(lines))


def begun(folder: Path) -> bool:
    """Tell whether the stages of a child are open."""
    return (folder / _NAME).exists()


def forget_books(folder: Path) -> None:
    """Make room for the books of the next child."""
    (folder / _NAME).unlink(missing_ok=True)


def may_repeat(folder: Path, state: Path, topology: Topology) -> Counter[str]:
    """Return how many records each sink may be handed again: of what it was handed, what no checkpoint has settled."""
    if not begun(folder):
        return Counter()
    settled = anyio.run(_settled, state) if state.exists() else {}
    sinks, sources = _places(topology)
    names, of = list(sinks), {place: settled.get(name, Spans()) for name, place in sources.items()}
    return Counter(names[sink] for sink, source, number in _lines(folder) if number not in of[source])


async def _settled(state: Path) -> dict[str, Spans]:
    async with open_view(state) as view:
        cuts = await view.cuts(limit=1)
    points = cuts[0].sources if cuts else {}
    return {name: Spans([(0, point.number), *point.islands]) for name, point in points.items()}


def _lines(folder: Path) -> Iterator[tuple[int, int, int]]:
    content = (folder / _NAME).read_bytes()
    yield from _LINE.iter_unpack(content[: len(content) // _LINE.size * _LINE.size])


def _places(topology: Topology) -> tuple[dict[str, int], dict[str, int]]:
    return (
        {stage.name: place for place, stage in enumerate(topology.sinks)},
        {stage.name: place for place, stage in enumerate(topology.sources)},
    )
