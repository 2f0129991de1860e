"""Fuzzed configs in one process: each gives a plan or well-formed errors within a second, and no traceback."""

import json
import sys
import traceback
from pathlib import Path

from tests.faults.apart import found_apart, peak
from tests.faults.row import Row
from tests.plan.test_fuzz import load, mutants

__all__ = ("run_fuzz",)

_MEMORY = 200 * 2**20
_PATIENCE = 3600.0


def run_fuzz(folder: Path, row: Row, count: int, seed: int) -> None:
    """Load so many configs in one child, and check that it came to its end."""
    found = found_apart(folder, row, ["tests.faults.fuzz", str(count), str(seed)], f"seed {seed}", _PATIENCE)
    if found is None:
        return
    row.runs += count
    row.failures.extend(f"{row.name} [seed {seed}]: {text}" for text in found["failed"][:20])
    if found["bytes"] > _MEMORY:
        row.failures.append(f"{row.name} [seed {seed}]: took {found['bytes']:,} bytes")


def _load_all(count: int, seed: int) -> dict[str, object]:
    failed: list[str] = []
    for number, text in enumerate(mutants(seed, count)):
        try:
            load(text)
        except Exception:  # whatever comes out is what is looked for
            failed.append(f"config {number}: {traceback.format_exc(limit=-3)}\n{text[:2000]}")
    return {"failed": failed, "bytes": peak()}


if __name__ == "__main__":
    sys.stdout.write(f"{json.dumps(_load_all(int(sys.argv[1]), int(sys.argv[2])))}\n")
