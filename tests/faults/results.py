"""What tier L has found so far, a line of JSON for each stretch of runs, so that it can be broken off and resumed."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from tests.faults.row import Row

__all__ = ("Results", "code_digest")

_ROOT = Path(__file__).parents[2]


def code_digest() -> str:
    """Return a hash of the code under test and of the suite: what was found of other code does not count."""
    hashed = blake2b(digest_size=8)
    for folder in ("pipeline", "stages", "tests/faults"):
        for path in sorted((_ROOT / folder).rglob("*")):
            if path.suffix in (".py", ".c"):
                hashed.update(f"{path.relative_to(_ROOT)}\0".encode() + path.read_bytes())
    return hashed.hexdigest()


@dataclass(slots=True)
class Results:
    """The stretches in a file that are of this code and seed; more are appended, from any thread.

    A stretch that failed is kept, and is not run again: what was found once is true.
    """

    path: Path
    seed: int
    code: str
    _rows: dict[str, dict[int, Row]] = field(default_factory=dict[str, dict[int, Row]])
    _lock: Lock = field(default_factory=Lock)

    @classmethod
    def read(cls, path: Path, seed: int, code: str) -> "Results":
        """Read a file, or begin one; a last line that was torn is passed over."""
        results = cls(path, seed, code)
        for line in path.read_text().splitlines() if path.exists() else ():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("seed") == seed and entry.get("code") == code:
                results._rows.setdefault(entry["name"], {})[entry["first"]] = _row(entry)
        return results

    def has(self, name: str, first: int) -> bool:
        """Tell whether the stretch that begins with this run was done."""
        return first in self._rows.get(name, {})

    def add(self, first: int, row: Row) -> None:
        """Append a stretch."""
        with self._lock:
            self._rows.setdefault(row.name, {})[first] = row
            torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n") and self.path.stat().st_size > 0
            with self.path.open("a") as lines:
                entry = {"seed": self.seed, "code": self.code, "first": first, **asdict(row), "passed": row.passed}
                lines.write("\n" * torn + json.dumps(entry) + "\n")

    def total(self, name: str) -> Row:
        """Return all stretches of a row as one."""
        return _sum(name, self._rows.get(name, {}).values())


def _row(entry: dict[str, Any]) -> Row:
    return msgspec.convert(entry, Row)


def _sum(name: str, rows: Iterable[Row]) -> Row:
    total = Row(name)
    for row in rows:
        total.runs += row.runs
        total.audit.add(row.audit)
        total.failures += row.failures
        total.seconds += row.seconds
        for note, count in row.notes.items():
            if note.endswith("most"):
                total.most(note, count)
            else:
                total.count(note, count)
    return total
