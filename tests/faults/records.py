"""The records that go through the fault suite: each can prove that it is one of ours and undamaged."""

import csv
import gzip
import io
import json
import sqlite3
import zlib
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

__all__ = ("Ident", "ident", "jsonl_records", "made", "rows", "table", "write_csv", "write_gzips", "write_jsonl")

Ident = Hashable
"""What tells one record of an output from every other; None for one that is damaged or was never sent."""

_PAD = 'a line of about a hundred bytes, with quotes " and , and ü in it; '


def made(number: int, **more: Any) -> dict[str, Any]:
    """Return the record of a number, with a checksum over what tells it apart."""
    record = {"seq": number, "key": f"k{number % 7}", **more}
    return {**record, "crc": _checksum(record), "pad": _PAD * (number % 3)}


def ident(record: Mapping[str, Any]) -> Ident:
    """Return the number of a record, with its ``part`` if it is one of several; None if it is damaged."""
    try:
        part = record.get("part")
        whole = {"seq": int(record["seq"]), "key": record["key"]}
        if _checksum(whole) != int(record["crc"]) or record["pad"] != _PAD * (whole["seq"] % 3):
            return None
        return whole["seq"] if part is None else (whole["seq"], int(part))
    except (LookupError, TypeError, ValueError):  # what was flipped may be the name of a field
        return None


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records, one a line."""
    path.write_bytes(b"".join(json.dumps(record).encode() + b"\n" for record in records))


def write_gzips(folder: Path, count: int, files: int = 5) -> None:
    """Write records to compressed files ``in-0.jsonl.gz`` and on, in the order of their names."""
    share = -(-count // files)
    for index in range(files):
        numbers = range(index * share, min((index + 1) * share, count))
        lines = b"".join(json.dumps(made(number)).encode() + b"\n" for number in numbers)
        (folder / f"in-{index}.jsonl.gz").write_bytes(gzip.compress(lines, 1))


def write_csv(path: Path, count: int) -> None:
    """Write records with a header."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=["seq", "key", "crc", "pad"])
    writer.writeheader()
    writer.writerows(made(number) for number in range(count))
    path.write_text(text.getvalue())


def jsonl_records(*paths: Path) -> Iterator[dict[str, Any]]:
    """Read back what sinks wrote, in the order of the files; compressed ones by their suffix."""
    for path in paths:
        for line in _plain(path).splitlines():
            yield msgspec.json.decode(line, type=dict[str, Any])


def table(path: Path, name: str) -> list[tuple[Any, ...]]:
    """Read a table in the order in which it was written."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return connection.execute(f"SELECT * FROM {name} ORDER BY rowid").fetchall()


def rows(path: Path, name: str) -> Iterator[dict[str, Any]]:
    """Read a table as records."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        cursor = connection.execute(f"SELECT * FROM {name} ORDER BY rowid")
        columns = [column[0] for column in cursor.description]
        yield from (dict(zip(columns, row, strict=True)) for row in cursor)


def _plain(path: Path) -> bytes:
    content = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(content)
    if path.suffix == ".zst":
        import zstandard

        with zstandard.ZstdDecompressor().stream_reader(content, read_across_frames=True) as reader:
            return reader.read()
    return content


def _checksum(record: Mapping[str, Any]) -> int:
    return zlib.crc32(f"{record['seq']}:{record['key']}".encode())
