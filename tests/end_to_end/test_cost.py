"""What a record costs, in calls: the hot path gets no slower unnoticed, on whatever machine."""

import json
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline import Pipeline
from pipeline.stage import Processor
from stages import batchers, processors, sinks, sources
from stages.sources.formats import Decoded
from stages.sources.jsonl import ProjectedLines
from tests.benchmarks.calls import calls_per_record

ALLOWED = 1.05
"""Times the measured count. Fewer calls are welcome: then the count here is brought down."""

MEASURED = {
    "expressions": {(3, 11): 5.7, (3, 12): 5.6, (3, 13): 5.65},
    "functions": {(3, 11): 4.15, (3, 12): 4.0, (3, 13): 4.0},
    "files": {(3, 11): 5.5, (3, 12): 5.4, (3, 13): 5.45},
    "whole files": {(3, 11): 6.6, (3, 12): 6.55, (3, 13): 6.6},
}
"""Calls of a record by the version of Python, batches of 100."""


def expressions(*more: Processor) -> Callable[[int], Pipeline]:
    """Return the recipe of a pipeline whose expressions are evaluated for each record."""

    def recipe(records: int) -> Pipeline:
        rows = [{"n": n, "a": {"b": n}} for n in range(records)]
        pipeline = Pipeline("cost", checkpoint="none") | sources.Iterable(rows)
        for stage in (processors.Filter("n % 5 != 0"), processors.Map(set={"m": "a.b * 2"}), *more):
            pipeline = pipeline | stage
        return pipeline | batchers.Fixed(size=100) | sinks.Discard()

    return recipe


def functions(*more: Processor) -> Callable[[int], Pipeline]:
    """Return the recipe of a pipeline with a function for each record and one for each batch."""

    def recipe(records: int) -> Pipeline:
        pipeline = Pipeline("cost", checkpoint="none") | sources.Iterable(range(records))
        for stage in (processors.Call(same), *more):
            pipeline = pipeline | stage
        return pipeline | batchers.Fixed(size=100) | processors.Call(same, batch=True) | sinks.Discard()

    return recipe


def files(folder: Path, *stages: Processor) -> Callable[..., Callable[[int], Pipeline]]:
    """Return what makes the recipe of a pipeline from a file to a file, with checkpoints."""
    numbers = count()

    def made(*more: Processor) -> Callable[[int], Pipeline]:
        def recipe(records: int) -> Pipeline:
            at = folder / str(next(numbers))
            at.mkdir()
            rows = [{"n": n, "text": "x" * 40} for n in range(records)]
            lines = [json.dumps(row, separators=(",", ":")) + "\n" for row in rows]
            (at / "in.jsonl").write_text("".join(lines))
            pipeline = Pipeline("cost", checkpoint={"path": str(at / "state.db")})
            pipeline = pipeline | sources.Jsonl(path=str(at / "in.jsonl"))
            for stage in (processors.Filter("n != 3"), *stages, *more):
                pipeline = pipeline | stage
            return pipeline | batchers.Fixed(size=100) | sinks.Jsonl(path=str(at / "out.jsonl"))

        return recipe

    return made


def same(value: Any) -> Any:
    return value


@pytest.fixture(params=MEASURED)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(kind: str, tmp_path: Path) -> Callable[..., Callable[[int], Pipeline]]:
    whole = files(tmp_path, processors.Filter("len(_record) > 1"))
    return {"expressions": expressions, "functions": functions, "files": files(tmp_path), "whole files": whole}[kind]


def most(kind: str) -> float:
    return MEASURED[kind][sys.version_info[:2]] * ALLOWED


def test_a_record_takes_no_more_calls_than_were_measured(
    kind: str, made: Callable[..., Callable[[int], Pipeline]]
) -> None:
    assert calls_per_record(made()) <= most(kind)


def test_one_call_more_for_each_record_is_noticed(
    kind: str, made: Callable[..., Callable[[int], Pipeline]], monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind != "files":
        assert calls_per_record(made(processors.Call(same))) > most(kind)
        return
    # A function of the user's would have the records decoded as a whole.
    decode = ProjectedLines.decode

    def slower(self: ProjectedLines, raw: bytes, last: bool) -> Decoded:
        return decode(self, b"".join([same(line) for line in raw.splitlines(True)]), last)

    monkeypatch.setattr(ProjectedLines, "decode", slower)
    assert calls_per_record(made()) > most(kind)
