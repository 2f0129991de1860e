"""Runs that begin and end over nothing, a record or many; another one has nothing to do and leaves no trace."""

import asyncio
import gzip
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

from pipeline import Pipeline
from stages import batchers, sinks, sources
from stages.sinks.files import Roll

__all__ = ("cycle",)


def cycle(folder: Path, chance: Random) -> str:
    """Run twice over an input of some size: the second run reads and writes nothing, and nothing else lies about."""
    count = chance.choice([0, 0, 1, 1, 2, 50, 500])
    recipe = (
        Pipeline("cycle", checkpoint={"path": str(folder / "state.db"), "interval": 0.05})
        | _source(folder, chance, count)
        | batchers.Fixed(size=chance.choice([1, 20, 1000]))
        | _sink(folder, chance)
    )
    first = asyncio.run(recipe.run())
    before = _outputs(folder)
    second = asyncio.run(recipe.run())
    known = {"in", "out", "state"}
    strays = [path.name for path in folder.iterdir() if path.name.split(".")[0].split("-")[0] not in known]
    left = [path.name for path in folder.iterdir() if path.name.endswith(("-wal", "-shm", "-journal", ".new"))]
    checks = {
        f"read {first.account.read} and wrote {first.account.written} of {count}": first.account.read
        == first.account.written
        == count,
        f"the second read {second.account.read}": second.account.read == 0,
        "the second changed an output": _outputs(folder) == before,
        f"left behind: {strays + left}": not strays and not left,
        f"ended {first.outcome}, {second.outcome}": (first.outcome, second.outcome) == ("done", "done"),
    }
    return "; ".join(text for text, good in checks.items() if not good)


def _source(folder: Path, chance: Random, count: int) -> Any:
    lines = [json.dumps({"n": n}) for n in range(count)]
    kind = chance.choice(["jsonl", "gz", "csv", "lines", "sqlite"])
    if kind == "sqlite":
        with closing(sqlite3.connect(folder / "in.db")) as connection:
            connection.execute("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            connection.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(count)])
            connection.commit()
        return sources.Sqlite(path=str(folder / "in.db"), table="t", cursor="n")
    text = "".join(f"{line}\n" for line in lines)
    if kind == "csv":
        (folder / "in.csv").write_text(
            "n\n" * (count > 0 or chance.random() < 0.5) + "".join(f"{n}\n" for n in range(count))
        )
        return sources.Csv(path=str(folder / "in.csv"))
    if kind == "gz":
        (folder / "in.jsonl.gz").write_bytes(gzip.compress(text.encode()) if count or chance.random() < 0.5 else b"")
        return sources.Jsonl(path=str(folder / "in.jsonl.gz"))
    (folder / "in.jsonl").write_text(text[:-1] if chance.random() < 0.3 else text)  # the last newline may be missing
    source = sources.Jsonl if kind == "jsonl" else sources.Lines
    return source(path=str(folder / "in.jsonl"))


def _sink(folder: Path, chance: Random) -> Any:
    kind = chance.choice(["jsonl", "gz", "csv", "parts", "sqlite"])
    if kind == "sqlite":
        return sinks.Sqlite(path=str(folder / "out.db"), table="t")
    if kind == "csv":
        return sinks.Csv(path=str(folder / "out.csv"))
    if kind == "parts":
        return sinks.Jsonl(path=str(folder / "out" / "part.jsonl"), roll=Roll(size=1000))
    return sinks.Jsonl(path=str(folder / f"out.jsonl{'.gz' * (kind == 'gz')}"))


def _outputs(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Return content and inode of every output, but of a database its rows: a run notes there that it began."""
    found = {
        str(path): (path.read_bytes(), path.stat().st_ino)
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).parts[0].startswith("out") and path.suffix != ".db"
    }
    if (folder / "out.db").exists():
        with closing(sqlite3.connect(f"file:{folder / 'out.db'}?mode=ro", uri=True)) as connection:
            tables = connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 't'").fetchone()[0]
            rows = connection.execute("SELECT * FROM t").fetchall() if tables else []
        found["rows"] = (json.dumps(rows).encode(), 0)
    return found
