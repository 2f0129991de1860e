"""The records of the workload `etl`: log lines of about 300 bytes, nested, with text that is not ASCII."""

import json
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from random import Random

import msgspec

from tests.benchmarks.contest import Answer

__all__ = ("answer", "input_path", "prepare")

_LEVELS = ("DEBUG", "INFO", "INFO", "WARN", "ERROR")
_TEXTS = ("accepted", "caché périmé", 'said "no"\tand left', "再試行", "timed out", "slow \\ path")


def input_path(folder: Path, records: int) -> Path:
    """Return where the input of so many records is."""
    return folder / f"logs-{records}.jsonl"


def prepare(folder: Path, records: int) -> None:
    """Write the input, the same each time."""
    path = input_path(folder, records)
    if not path.exists():
        with path.open("w", encoding="utf-8") as file:
            file.writelines(_lines(records))


def answer(folder: Path) -> Answer:
    """Return count and checksum of what is in the files ``out*``, whatever their order and that of their fields."""
    count = total = 0
    encode, decode = msgspec.json.Encoder(order="sorted").encode, msgspec.json.Decoder().decode
    for path in sorted(folder.glob("out*")):
        with path.open("rb") as file:
            for line in file:
                count += 1
                total += int.from_bytes(blake2b(encode(decode(line)), digest_size=8).digest())
    return count, f"{total % 2**64:016x}"


def _lines(records: int) -> Iterator[str]:
    random = Random(5)
    for n in range(records):
        yield json.dumps(_record(n, random), ensure_ascii=n % 3 == 0, separators=(",", ":")) + "\n"


def _record(n: int, random: Random) -> dict[str, object]:
    return {
        "id": n,
        "ts": 1_700_000_000 + n * 0.137,
        "level": _LEVELS[n % 5],
        "host": f"web-{n % 40:02d}",
        "service": "checkout" if n % 2 else "search",
        "text": _TEXTS[n % 6],
        "user": {
            "id": random.randrange(10**6),
            "name": f"user{n % 977}",
            "geo": {"lat": round(random.uniform(-90, 90), 5), "lon": round(random.uniform(-180, 180), 5)},
        },
        "http": {"path": f"/api/v1/{n % 89}", "bytes": random.randrange(1, 10**5), "ms": random.randrange(1, 2000)},
        "tags": ["a", "b", f"t{n % 7}"],
    }
