"""Compressed files that are cut, damaged, followed by garbage or blown up: what is whole arrives, the rest is told."""

import asyncio
import gzip
import json
import zlib
from pathlib import Path
from random import Random

from pipeline import Pipeline
from pipeline.errors import PipelineError
from pipeline.watch.report import Report
from stages import batchers, sinks, sources
from tests.faults.apart import peak
from tests.faults.records import ident, jsonl_records, made

__all__ = ("corrupt",)

_GROWTH = 64 * 2**20
"""Bytes that a bomb may take, however much is in it."""
_BOMB = 128
"""MiB of zeros in a bomb, which are a hundred KiB."""


def corrupt(folder: Path, chance: Random) -> str:
    """Run over such a file, mend it and go on: never a clean end over damage, and all records in the end."""
    count = chance.randrange(50, 2_000)
    members = [_packed(range(first, min(first + 300, count))) for first in range(0, count, 300)]
    kind = chance.choice(["whole", "cut", "cut", "flip", "flip", "cut", "flip", "garbage", "garbage", "padded", "bomb"])
    whole = b"".join(members)
    damaged = _damaged(whole, kind, chance)
    path = folder / "in.jsonl.gz"
    path.write_bytes(damaged)
    before = peak()
    code, said = _run(folder)
    grown = peak() - before
    found = _found(folder)
    fine = kind in ("whole", "padded") or damaged == whole
    sound = _members_before(members, damaged)
    checks = {
        f"exit {code} over a whole file: {said}": not fine or code == 0,
        f"exit 0 with {len(found)} of {count}": code != 0 or found == list(range(count)),
        f"exit {code}: {said}": code in (0, 1),
        f"does not say where: {said}": code == 0 or "byte" in said or ":" in said,
        f"only {len(found)} of the {sound} records of good members": code != 1 or len(found) >= sound or kind == "flip",
        f"what was written is not the beginning: {found[:3]}…": kind == "flip" or found == list(range(len(found))),
        f"grew by {grown:,} bytes": grown <= _GROWTH,
    }
    if problems := [text for text, good in checks.items() if not good]:
        return f"{kind}: {'; '.join(problems)}"
    return "" if code == 0 or kind == "flip" else _mended(folder, path, whole, count, kind)


def _mended(folder: Path, path: Path, whole: bytes, count: int, kind: str) -> str:
    path.write_bytes(whole)
    code, said = _run(folder)
    if code == 0 and _found(folder) == list(range(count)):
        return ""
    return f"{kind}, then mended: exit {code} with {len(_found(folder))} of {count}: {said}"


def _run(folder: Path) -> tuple[int, str]:
    recipe = (
        Pipeline("corrupt", checkpoint={"path": str(folder / "state.db"), "interval": 0.01})
        | sources.Jsonl(path=str(folder / "in.jsonl.gz"))
        | batchers.Fixed(size=50)
        | sinks.Jsonl(path=str(folder / "out.jsonl"))
    )
    try:
        report: Report = asyncio.run(recipe.run())
    except PipelineError as error:
        return error.exit_code, str(error)
    return report.exit_code, ""


def _found(folder: Path) -> list[object]:
    path = folder / "out.jsonl"  # not made where the first bytes of the file are damaged already
    return [ident(record) for record in jsonl_records(path)] if path.exists() else []


def _packed(numbers: range) -> bytes:
    return gzip.compress(b"".join(json.dumps(made(number)).encode() + b"\n" for number in numbers), 1)


def _damaged(whole: bytes, kind: str, chance: Random) -> bytes:
    if kind == "cut":
        return whole[: chance.randrange(1, len(whole))]
    if kind == "flip":
        place = chance.randrange(len(whole))
        return whole[:place] + bytes([whole[place] ^ (1 << chance.randrange(8))]) + whole[place + 1 :]
    if kind == "garbage":
        return whole + chance.randbytes(chance.randrange(20, 2_000)).replace(b"\x1f\x8b", b"..")
    if kind == "padded":
        return whole + bytes(chance.randrange(1, 100_000))
    return whole + _bomb() if kind == "bomb" else whole


def _bomb() -> bytes:
    """Return a member that holds nothing but zeros, made without holding them."""
    deflate = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**20)
    return b"".join([deflate.compress(zeros) for _ in range(_BOMB)] + [deflate.flush()])


def _members_before(members: list[bytes], damaged: bytes) -> int:
    """Return how many records the members hold that are there unharmed before the damage."""
    length = records = 0
    for member in members:
        length += len(member)
        if damaged[length - len(member) : length] != member:
            break
        records += gzip.decompress(member).count(b"\n")
    return records
