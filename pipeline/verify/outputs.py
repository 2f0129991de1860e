"""What sinks wrote, read back as records that can be told apart: lines of files, rows of tables, dead letters."""

import csv
import gzip
import sqlite3
from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import closing
from io import StringIO
from pathlib import Path

import anyio
import msgspec

from pipeline.plan.topology import PlannedStage
from pipeline.settle.view import open_view
from pipeline.verify.audit import Audit, audit

__all__ = ("compare", "read_letters", "read_output")

_BESIDE = ("-wal", "-shm", "-journal")
_LETTERS = 1_000_000


def read_output(stage: PlannedStage, folder: Path) -> list[Hashable]:
    """Return the records in the files of a sink, in the order of the files' names."""
    found: list[Hashable] = []
    files = [path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(_BESIDE)]
    for path in sorted(files, key=lambda path: (path.parent, path.name.lstrip("."))):
        content = path.read_bytes()
        if content.startswith(b"SQLite format 3\0"):
            found.extend(_rows(path, getattr(stage.spec, "table", None)))
        else:
            found.extend(_lines(stage, _plain(content)))
    return found


def read_letters(state: Path) -> list[Hashable]:
    """Return the dead letters of a state file."""

    async def read() -> list[Hashable]:
        async with open_view(state) as view:
            letters = await view.letters(limit=_LETTERS)
        return [
            (letter.stage, letter.error_type, msgspec.json.encode(letter.record, enc_hook=repr)) for letter in letters
        ]

    return anyio.run(read)


def compare(expected: Sequence[Hashable], found: Sequence[Hashable], ordered: bool) -> Audit:
    """Compare an output with that of an unbroken run, whose equal records are told apart by their count."""
    most = Counter(expected)

    def told_apart(records: Sequence[Hashable]) -> Iterator[Hashable]:
        seen: Counter[Hashable] = Counter()
        for record in records:
            seen[record] += 1
            yield record, min(seen[record], most[record] or 1)

    def one_lane(_: Hashable) -> Hashable:
        return None

    return audit(list(told_apart(expected)), told_apart(found), one_lane if ordered else None)


def _rows(path: Path, table: str | None) -> Iterator[Hashable]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        if table is None:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        else:
            names = [table]
        for name in names:
            if not name.startswith(("sqlite_", "_pipeline_")):
                quoted = name.replace('"', '""')
                yield from connection.execute(f'SELECT * FROM "{quoted}" ORDER BY rowid')


def _lines(stage: PlannedStage, content: bytes) -> Sequence[Hashable]:
    delimiter: str | None = getattr(stage.spec, "delimiter", None)
    if delimiter is None:
        return content.splitlines()
    rows = csv.reader(StringIO(content.decode(errors="replace"), newline=""), delimiter=delimiter)
    return [*map(tuple, rows)][bool(getattr(stage.spec, "header", False)) :]


def _plain(content: bytes) -> bytes:
    if content.startswith(b"\x1f\x8b"):
        return gzip.decompress(content)
    if content.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as reader:
            return bytes(reader.read())
    return content
