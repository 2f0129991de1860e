"""Whatever does not fit what is to be resumed is refused with exit 5 or 4, at once, and nothing is overwritten."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL, SIGTERM

import anyio

from pipeline.settle.view import open_view
from pipeline.verify.child import Child, Ended, run
from tests.faults.kills import Bench, Wrong
from tests.faults.row import Row

__all__ = ("Damage", "HalfDone", "damages", "edit_config", "refuse_damage", "refuse_second", "refused")


@dataclass(frozen=True, slots=True)
class Damage:
    """What is done to one file of a run that is half done."""

    name: str
    file: str
    apply: Callable[[Path], None]


def refuse_damage(bench: Bench, row: Row, only: Callable[[str], bool] = lambda name: True) -> None:
    """Damage a half-finished run in each way: the next exits with 5 and overwrites nothing.

    In the end, with all damage mended, it goes on to the end of an unbroken run.
    """
    started = time.monotonic()
    half = HalfDone.make(bench)
    for damage in damages(bench):
        if only(damage.name):
            _, problem = refused(bench, half, damage)
            row.check(damage.name, problem=problem)
            half.mend()
    with suppress(Wrong):
        bench.finish(half.folder, row, "all damage mended")
        half.remove()
    row.seconds += time.monotonic() - started


def refused(bench: Bench, half: "HalfDone", damage: Damage) -> tuple[Ended, str]:
    """Run what is damaged; return how it ended and what shows that it was not refused, or not left alone."""
    damage.apply(half.folder / damage.file)
    before = half.contents()
    ended = run(half.folder, bench.scenario.arguments())
    problem = "" if ended.code == 5 and not ended.traced else f"exit {ended.code}, not 5: {_last_words(ended)}"
    after = half.contents()
    touched = sorted(name for name in before if before[name] != after.get(name))
    # Where a sink was open before the source refused, its database and the state have noted that a run began.
    touched = [name for name in touched if name == damage.file or not name.endswith(".db")]
    if touched:
        problem = "; ".join(filter(None, (problem, f"{', '.join(touched)} touched: {_last_words(ended)}")))
    return ended, problem


@dataclass(slots=True)
class HalfDone:
    """The folder of a run that was stopped in the middle; ``kept`` has its files and what was in them."""

    folder: Path
    side: Path
    kept: dict[str, bytes]

    @classmethod
    def make(cls, bench: Bench) -> "HalfDone":
        """Stop a run by a signal when it has written some batches."""
        folder, side = bench.folder / "half", bench.folder / "half.side"
        bench.scenario.set_up(folder, bench.folder / "inputs")
        for path in (bench.folder / "inputs").iterdir():
            (folder / path.name).unlink()
            shutil.copy2(path, folder)  # to be damaged, unlike the links
        _slow_down(folder)
        child = Child(folder, bench.scenario.arguments())
        while _written_to(folder) < 2**18 and child.wait(0.01) is None:
            pass
        child.send(SIGTERM)
        ended = child.wait()
        if ended is None or ended.code != 143:
            raise RuntimeError(f"half a run ends with {ended}")
        half = cls(folder, side, {})
        half.kept = half.contents()
        side.mkdir()
        return half

    def contents(self) -> dict[str, bytes]:
        """Return all files but the lock and the log, which are nobody's data."""
        return {
            path.name: path.read_bytes()
            for path in self.folder.iterdir()
            if path.is_file() and path.suffix not in (".lock", ".log")
        }

    def mend(self) -> None:
        """Bring all files back to what they were, inodes included: a file sink knows its file by that too."""
        for name in self.contents().keys() - self.kept.keys():
            (self.folder / name).unlink()
        for path in self.side.iterdir():
            path.rename(self.folder / path.name)
        for name, content in self.kept.items():
            (self.folder / name).write_bytes(content)

    def remove(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder)
        shutil.rmtree(self.side)


def refuse_second(bench: Bench, row: Row, label: str = "second", by_link: bool = False, killed: bool = False) -> None:
    """Start a run where one is under way: it exits with 4 in a second and names the holder, which goes on unharmed.

    ``by_link``: the second comes by a symbolic link to the folder. ``killed``: the holder is killed then, and the next
    run has the state at once.
    """
    started = time.monotonic()
    with suppress(Wrong), bench.broken(label) as folder:
        _slow_down(folder)
        first = Child(folder, bench.scenario.arguments())
        while "started" not in first.said() and first.wait(0.02) is None:
            pass
        place = _linked(folder) if by_link else folder
        second = run(place, bench.scenario.arguments())
        if second.seconds > 1:  # what is slow because the machine has other work is not slow twice
            second = min(second, run(place, bench.scenario.arguments()), key=lambda ended: ended.seconds)
        still_running = first.wait(0) is None
        loading = run(folder, ["-m", "pipeline", "check", "pipeline.yaml"])
        ended = first.kill() if killed else first.wait() or first.kill()
        # The start of Python alone may take a second or more where others keep the machine busy, the first run too.
        soon = second.seconds <= 1 + loading.seconds
        checks = {
            f"the first ended with {ended.code}: {_last_words(ended)}": ended.code == (-SIGKILL if killed else 0),
            f"exit {second.code}, not 4: {_last_words(second)}": second.code == 4,
            f"the holder {first.pid} is not named: {_last_words(second)}": str(first.pid) in second.said,
            f"took {second.seconds:.2f} s": soon,
            "the first was over too soon to tell": still_running,
        }
        row.most("ms to refuse a second, most", round(second.seconds * 1000))
        bench.finish(folder, row, label, "; ".join(text for text, good in checks.items() if not good))
    row.seconds += time.monotonic() - started


def edit_config(bench: Bench, row: Row) -> None:
    """Change a size, a function and the stages between two runs: the second goes on and says what changed."""
    started = time.monotonic()
    with suppress(Wrong), bench.broken("edited") as folder:
        run(folder, [*bench.scenario.arguments(), "--limit", "700"])
        config = folder / "pipeline.yaml"
        text = config.read_text().replace("size: 100", "size: 37").replace("steps:slow", "steps:slower")
        added = '  - processor: filter\n    with: {where: "seq >= 0"}\n'
        config.write_text(text.replace("  - sink:", f"{added}  - sink:", 1))
        ended = run(folder, bench.scenario.arguments())
        told = [line for line in ended.said.splitlines() if "changed since the last run" in line]
        missing = [word for word in ("fixed", "call", "filter") if not any(word in line for line in told)]
        problem = f"does not say that {', '.join(missing)} changed: {ended.said[:500]}" if missing else ""
        bench.finish(folder, row, "edited", problem)
    row.seconds += time.monotonic() - started


def damages(bench: Bench) -> list[Damage]:
    """Return every damage to a run that reads one file and writes ``out.jsonl`` or ``out.db``."""
    source = next(path.name for path in (bench.folder / "inputs").iterdir())
    state = [Damage(f"state-{name}", "state.db", apply) for name, apply in _STATE.items()]
    read = [Damage(f"source-{name}", source, apply) for name, apply in _SOURCE.items()]
    if "out.jsonl" in bench.scenario.config:
        return [*state, *read, *(Damage(f"sink-{name}", "out.jsonl", apply) for name, apply in _FILE_SINK.items())]
    return [*state, *read, *(Damage(f"sink-{name}", "out.db", apply) for name, apply in _SQL_SINK.items())]


def _linked(folder: Path) -> Path:
    link = folder.with_name(f"{folder.name}.link")
    link.symlink_to(folder, target_is_directory=True)
    return link


def _slow_down(folder: Path) -> None:
    """Make a run ten times as long, by smaller batches."""
    config = folder / "pipeline.yaml"
    config.write_text(config.read_text().replace("size: 100", "size: 10"))


def _written_to(folder: Path) -> int:
    """Return the bytes of all outputs."""
    return sum(path.stat().st_size for path in folder.glob("out.*") if path.suffix != ".db-shm")


def _last_words(ended: Ended) -> str:
    return ended.said.strip()[-400:]


def _cut(part: float) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * part)])

    return apply


def _written(content: bytes) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        path.write_bytes(content)

    return apply


def _flipped(place: Callable[[Path, int], int]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[place(path, len(content))] ^= 0x15
        path.write_bytes(content)

    return apply


def _sql(statement: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute(statement)

    return apply


def _gone(path: Path) -> None:
    path.rename(path.parent.with_name("half.side") / path.name)


def _foreign(path: Path) -> None:
    path.unlink()
    _sql("CREATE TABLE meta (key, value)")(path)


def _before_cursor(path: Path, size: int) -> int:
    async def offset() -> int:
        async with open_view(path.with_name("state.db")) as view:
            (cut,) = await view.cuts(limit=1)
        (point,) = cut.sources.values()
        return int(point.cursor["offset"])

    return anyio.run(offset) - 300


_TEXT = b"this is not a database at all\n" * 300
_STATE: dict[str, Callable[[Path], None]] = {
    "empty": _cut(0),
    "cut-to-a-half": _cut(0.5),
    "cut-by-a-page": _cut(0.95),
    "is-text": _written(_TEXT),
    "header-damaged": _flipped(lambda path, size: 5),
    "page-damaged": _flipped(lambda path, size: 4096),
    "foreign": _foreign,
    "newer": _sql("PRAGMA user_version = 999"),
    "missing": _gone,
}
_SOURCE: dict[str, Callable[[Path], None]] = {
    "head-altered": _flipped(lambda path, size: 40),
    "altered-before-the-cursor": _flipped(_before_cursor),
    "cut": _cut(0.01),
}
_FILE_SINK: dict[str, Callable[[Path], None]] = {
    "cut": _cut(0.9),
    "altered": _flipped(lambda path, size: size - 100),
    "removed": _gone,
    "replaced": _written(b'{"seq": 1}\n' * 300_000),
}
_SQL_SINK: dict[str, Callable[[Path], None]] = {
    "foreign": _written(_TEXT),
    "of-a-newer-run": _sql("UPDATE _pipeline_lineages SET run = run + 5"),
    "removed": _gone,
    "without-its-table": _sql("DROP TABLE records"),
}
