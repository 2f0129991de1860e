"""Where records part and meet: fan-out, fan-in, `when` and `otherwise`; each counted once whatever its ways."""

from pathlib import Path

import pytest

from pipeline import Pipeline
from stages import batchers, processors, sinks, sources
from tests.end_to_end.running import exactly, numbered, numbers_in, records_in

pytestmark = pytest.mark.anyio


def source(folder: Path, count: int = 1_000) -> Pipeline:
    """Return a pipeline that reads numbered records in batches."""
    read = sources.Jsonl(path=numbered(folder / "in.jsonl", count))
    return exactly("branches", folder) | read | batchers.Fixed(size=64)


def out(folder: Path, name: str, when: str | None = None) -> sinks.Jsonl:
    """Return a sink for a branch."""
    return sinks.Jsonl(path=str(folder / f"{name}.jsonl"), name=name, when=when)


async def test_a_record_takes_the_branches_that_want_it_and_otherwise_the_rest(tmp_path: Path) -> None:
    ways = [
        out(tmp_path, "even", "n % 2 == 0"),
        out(tmp_path, "third", "n % 3 == 0"),
        out(tmp_path, "rest", "otherwise"),
    ]
    report = await (source(tmp_path) | ways).run()
    assert numbers_in(tmp_path / "even.jsonl") == [n for n in range(1_000) if n % 2 == 0]
    assert numbers_in(tmp_path / "third.jsonl") == [n for n in range(1_000) if n % 3 == 0]
    assert numbers_in(tmp_path / "rest.jsonl") == [n for n in range(1_000) if n % 2 and n % 3]
    assert (report.account.read, report.account.written, report.account.filtered) == (1_000, 1_000, 0)


async def test_a_record_that_no_branch_wants_is_filtered(tmp_path: Path) -> None:
    report = await (source(tmp_path) | [out(tmp_path, "few", "n < 10"), out(tmp_path, "more", "n < 100")]).run()
    assert (report.account.written, report.account.filtered, report.account.unsettled) == (100, 900, 0)


async def test_branches_that_meet_again_give_a_record_once_for_each_way_it_took(tmp_path: Path) -> None:
    left = processors.Map(set={"way": "'left'"}, name="left", when="n % 2 == 0")
    right = processors.Map(set={"way": "'right'"}, name="right", when="n % 4 == 0")
    report = await (source(tmp_path) | [left, right] | out(tmp_path, "all")).run()
    found = sorted((record["n"], record["way"]) for record in records_in(tmp_path / "all.jsonl"))
    expected = [(n, way) for n in range(0, 1_000, 2) for way in ("left", "right") if way == "left" or n % 4 == 0]
    assert found == expected
    assert (report.account.written, report.account.filtered) == (500, 500)


@pytest.mark.parametrize("limit", [130, 500])
async def test_branches_that_meet_again_go_on_after_a_stop(limit: int, tmp_path: Path) -> None:
    left = processors.Map(set={"way": "'left'"}, name="left", when="n % 3 == 0")
    right = processors.Map(set={"way": "'right'"}, name="right", when="otherwise")
    pipeline = source(tmp_path) | [left, right] | out(tmp_path, "all")
    await pipeline.run(limit=limit)
    await pipeline.run()
    assert sorted(numbers_in(tmp_path / "all.jsonl")) == list(range(1_000))


async def test_a_branch_does_not_see_what_its_sibling_did_to_a_record(tmp_path: Path) -> None:
    changed = processors.Map(set={"n": "n * 10"}) | out(tmp_path, "changed")
    await (source(tmp_path, 100) | [changed, out(tmp_path, "untouched")]).run()
    assert numbers_in(tmp_path / "changed.jsonl") == [n * 10 for n in range(100)]
    assert numbers_in(tmp_path / "untouched.jsonl") == list(range(100))


async def test_two_sources_merge_each_in_its_order_and_go_on_after_a_stop(tmp_path: Path) -> None:
    low = exactly("merged", tmp_path) | sources.Jsonl(path=numbered(tmp_path / "low.jsonl", 700), name="low")
    high = Pipeline("other") | sources.Jsonl(path=numbered(tmp_path / "high.jsonl", 500, first=1_000), name="high")
    pipeline = Pipeline.merge(low, high) | batchers.Fixed(size=64) | out(tmp_path, "all")
    first = await pipeline.run(limit=150)
    assert first.account.read == 300
    await pipeline.run()
    found = numbers_in(tmp_path / "all.jsonl")
    assert [n for n in found if n < 1_000] == list(range(700))
    assert [n for n in found if n >= 1_000] == list(range(1_000, 1_500))
