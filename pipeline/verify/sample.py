"""The head of what the sources read, copied to where a run can be broken without touching anything of the user's."""

import errno
import gzip
import io
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing
from glob import glob
from pathlib import Path
from typing import IO, Any

from pipeline.errors import ConfigError
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.stage import Sink, Source, file_keys

__all__ = ("outputs", "places", "refusals")

_SQLITE = b"SQLite format 3\0"
_GZIP, _ZSTD = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"
_ENDLESS: Mapping[str, Any] = {"follow": False, "poll": None, "rate": None}
"""Keys with which a source never ends, or takes its time, and their values for a sample."""


def refusals(topology: Topology) -> Iterator[str]:
    """Yield why a pipeline can't be broken and compared without touching what is outside."""
    if topology.checkpoint_path is None:
        yield "there is no checkpoint, so every run starts anew and there is nothing to verify"
    for stage in topology.stages.values():
        who = f"stage '{stage.name}' ({stage.role} {stage.kind})"
        texts = [text for texts in _texts(stage).values() for text in texts]
        if isinstance(stage.spec, Source):
            if "-" in texts or not stage.spec.replays():
                yield f"{who}: can't be read twice; name a file with --set stages.{stage.name}.with.path=FILE"
            elif not texts and not hasattr(stage.spec, "count"):
                yield f"{who}: names no file, so no sample of it can be made"
        elif isinstance(stage.spec, Sink) and stage.spec.durable() and not texts:
            yield f"{who}: names no file, so a broken run would reach what is outside"


def places(topology: Topology, records: int, folder: Path) -> dict[str, dict[str, Any]]:
    """Copy the first records of each source below a folder, and return new values for keys of sources.

    :raises ConfigError: when something can't be read.
    """
    found: dict[str, dict[str, Any]] = {}
    for stage in topology.sources:
        found[stage.name] = {name: value for name, value in _ENDLESS.items() if hasattr(stage.spec, name)}
        if hasattr(stage.spec, "count"):
            found[stage.name]["count"] = min(getattr(stage.spec, "count", None) or records, records)
        for key, texts in _texts(stage).items():
            try:
                copies = list(_copies(stage, texts, records, folder / stage.name))
            except (OSError, EOFError, sqlite3.Error) as error:
                raise _unreadable(stage, key, texts[0], error) from None
            if not copies:
                raise _unreadable(stage, key, texts[0], FileNotFoundError(errno.ENOENT, "no file has such a name"))
            found[stage.name][key] = copies if len(copies) > 1 else copies[0]
    return found


def outputs(topology: Topology, folder: Path) -> dict[str, dict[str, Any]]:
    """Return new values for the keys of sinks that name files: each sink has a folder of its own."""
    return {
        stage.name: {
            key: str(folder / stage.name / texts[0].lstrip("/").replace("..", "up"))
            for key, texts in _texts(stage).items()
            if texts
        }
        for stage in topology.sinks
    }


def _unreadable(stage: PlannedStage, key: str, text: str, error: Exception) -> ConfigError:
    path, reason = text, str(error)
    if isinstance(error, OSError) and error.strerror:
        path, reason = error.filename or text, error.strerror
    return ConfigError(f"stage '{stage.name}' ({stage.role} {stage.kind}): {key}: {path}: {reason}")


def _texts(stage: PlannedStage) -> dict[str, list[str]]:
    """Return the paths that a stage names, by key."""
    found: dict[str, list[str]] = {}
    for key in file_keys(type(stage.spec)):
        value: Any = getattr(stage.spec, key)
        if value:
            found[key] = [value] if isinstance(value, str) else list(value)
    return found


def _copies(stage: PlannedStage, texts: list[str], records: int, folder: Path) -> Iterator[str]:
    left = records
    for text in texts:
        for path in sorted(glob(text)) if set("*?[") & set(text) and not os.path.exists(text) else [text]:
            if left <= 0:
                return
            folder.mkdir(parents=True, exist_ok=True)
            copy = folder / f"{len(os.listdir(folder))}-{os.path.basename(path)}"
            left -= _copy_head(stage, path, copy, left)
            yield str(copy)


def _copy_head(stage: PlannedStage, path: str, copy: Path, records: int) -> int:
    """Copy the first records of a file; return how many there are."""
    with open(path, "rb") as file:
        head = file.read(len(_SQLITE))
        file.seek(0)
        if head == _SQLITE:
            return _copy_database(stage, path, copy, records)
        lines = list(_head(stage, _plain(file, head), records))
    content = b"".join(lines)
    copy.write_bytes(_packed(content, head))
    return len(lines)


def _plain(file: IO[bytes], head: bytes) -> IO[bytes]:
    if head.startswith(_GZIP):
        return gzip.open(file)  # type: ignore[return-value]
    if head.startswith(_ZSTD):
        import zstandard

        return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))
    return file


def _packed(content: bytes, head: bytes) -> bytes:
    if head.startswith(_GZIP):
        return gzip.compress(content, 1)
    if head.startswith(_ZSTD):
        import zstandard

        return zstandard.ZstdCompressor().compress(content)
    return content


def _head(stage: PlannedStage, file: IO[bytes], records: int) -> Iterator[bytes]:
    """Yield the lines of the first records: of text with quotes, a record may have several."""
    quote = str(getattr(stage.spec, "quote", "")).encode()
    left = records + (getattr(stage.spec, "header", False) is True)
    is_open = False
    for line in file:
        if left <= 0:
            return
        yield line
        if quote:
            is_open ^= line.count(quote) % 2 == 1
        left -= not is_open


def _copy_database(stage: PlannedStage, path: str, copy: Path, records: int) -> int:
    """Copy a database; of the table that is read only the first rows."""
    table = getattr(stage.spec, "table", None)
    cursor = getattr(stage.spec, "cursor", None) or "rowid"
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source, closing(sqlite3.connect(copy)) as made:
        source.backup(made)
        if isinstance(table, str):
            name, column = _quoted(table), _quoted(cursor)
            first = f"SELECT {column} FROM {name} ORDER BY {column} LIMIT {int(records)}"
            made.execute(f"DELETE FROM {name} WHERE {column} NOT IN ({first})")
            made.commit()
    return records


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
