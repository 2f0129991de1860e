"""State files damaged in hundreds of ways: cut at any length, bytes flipped anywhere, gone, foreign (C10)."""

import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests.faults.kills import Bench, Wrong
from tests.faults.refusals import Damage, HalfDone, damages, refused
from tests.faults.row import Row

__all__ = ("COUNT", "damage_state")

COUNT = 150
"""Variants for each scenario."""

_PAGE = 512


def damage_state(bench: Bench, row: Row, runs: int, seed: int, first: int = 0) -> None:
    """Resume from a damaged state file: refused with 5 and left as it is, or else proven to be harmless.

    Harmless is what ends like an unbroken run: a byte may be flipped where nothing is.
    """
    started = time.monotonic()
    half = HalfDone.make(bench)
    size = len(half.kept["state.db"])
    for damage in list(_variants(bench, size, seed))[first : first + runs]:
        ended, problem = refused(bench, half, damage)
        if ended.code == 0:
            row.count("harmless")
            row.check(damage.name, bench.scenario.audit(half.folder, bench.images))
        else:
            row.count(f"exit {ended.code}")
            row.check(damage.name, problem=problem)
        half.mend()
    with suppress(Wrong):
        before = row.runs
        bench.finish(half.folder, row, "all damage mended")
        row.runs = before
        shutil.rmtree(half.folder)
        shutil.rmtree(half.side)
    row.seconds += time.monotonic() - started


def _variants(bench: Bench, size: int, seed: int) -> Iterator[Damage]:
    """Yield `COUNT` of them, the same ones for a seed and a size of the file: of two benches other ones."""
    chance = random.Random(f"{seed}/{bench.scenario.name}/state")
    whole = [damage for damage in damages(bench) if damage.file == "state.db"]
    yield from whole
    lengths = range(_PAGE, size, _PAGE)
    cuts = sorted(chance.sample(lengths, min(len(lengths), (COUNT - len(whole)) // 2)))
    for length in cuts:
        yield Damage(f"cut to {length}", "state.db", partial(_cut_to, length=length))
    for _ in range(COUNT - len(whole) - len(cuts)):
        place, bit = chance.randrange(size), 1 << chance.randrange(8)
        yield Damage(f"byte {place} ^ {bit}", "state.db", _flip(place, bit))


def _cut_to(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def _flip(place: int, bit: int) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place % len(content)] ^= bit
        path.write_bytes(content)

    return apply
