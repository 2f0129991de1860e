"""Saved keyed state: what a resume asks for is there, what nothing can ask for goes."""

import sqlite3
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import StateError
from pipeline.settle.cut import Change, Cut, SourcePoint
from pipeline.settle.history import KEPT
from pipeline.settle.state import StateFile
from tests.settle.states import change, cut_at, opened

pytestmark = pytest.mark.anyio


async def test_changes_come_back_by_ascending_number_whatever_was_settled_first(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(1, changes=[change(9, ["a", 1], {"late": True})]))
        await state.save(cut_at(5, changes=[change(4, ["a", 1], "early"), change(2, "\ud800", 0)]))
        found = await state.changes_of("dedupe")
    assert [(each.key, each.source, each.number, each.value) for each in found] == [
        ("\ud800", "csv", 2, 0),
        (["a", 1], "csv", 4, "early"),
        (["a", 1], "csv", 9, {"late": True}),
    ]


async def test_changes_of_other_stages_stay_apart(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as state:
        other = Change(stage="other", key="k", source="csv", number=1, value=2)
        await state.save(cut_at(1, changes=[change(1, "k", 1), other]))
        assert await state.changes_of("other") == [other]


@pytest.mark.parametrize(
    "damage", ["key = '[\"a'", "key = x'ff'", "value = '{\"a\" 1}'", "number = NULL", "number = x'07'", "number = 'n'"]
)
async def test_what_was_changed_in_the_file_is_a_corrupt_state(tmp_path: Path, damage: str) -> None:
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(1, changes=[change(1, "a", {"a": 1}), change(2, "b", 2)]))
        with closing(sqlite3.connect(tmp_path / "x.db")) as connection:
            # No statement of ours writes this, but a disk may.
            connection.execute("CREATE TABLE bare AS SELECT * FROM changes")
            connection.execute("DROP TABLE changes")
            connection.execute("ALTER TABLE bare RENAME TO changes")
            connection.execute(f"UPDATE changes SET {damage} WHERE key LIKE '%a%'")
            connection.commit()
        with pytest.raises(StateError, match="the state file is corrupt"):
            await state.changes_of("dedupe")


async def _settle(state: StateFile, number: int) -> None:
    """Save as many cuts at a frontier as it takes until every one of the last stands there."""
    for _ in range(KEPT + 10):
        await state.save(cut_at(number, taken_at=0.0))


async def test_earlier_values_go_once_the_frontier_of_all_last_cuts_has_passed_the_newer_ones(tmp_path: Path) -> None:
    changes = [change(1, "a", 1), change(5, "a", 2), change(20, "a", 3), change(2, "b", 1), change(6, "b", None)]
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(0, changes=changes))
        await _settle(state, 3)
        assert len(await state.changes_of("dedupe")) == 5
        await _settle(state, 10)
        assert [each.number for each in await state.changes_of("dedupe")] == [5, 20]
        await _settle(state, 30)
        assert [each.number for each in await state.changes_of("dedupe")] == [20]


async def test_a_key_that_another_source_put_in_stays_out(tmp_path: Path) -> None:
    changes = [change(1, "a", 1, source="other"), change(2, "a", None)]
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(0, changes=changes))
        await _settle(state, 10)
        assert len(await state.changes_of("dedupe")) == 2


async def test_a_rewind_further_back_than_state_is_kept_is_refused(tmp_path: Path) -> None:
    async with opened(tmp_path / "x.db") as state:
        await state.save(cut_at(3, changes=[change(1, "a", 1)]))
        first = (await state.cuts())[0].id
        for minute in range(1, KEPT):
            await state.save(cut_at(3, taken_at=60.0 * minute))
        await state.save(cut_at(6, changes=[change(5, "a", 2)], taken_at=3000.0))
        for _ in range(KEPT + 10):
            await state.save(cut_at(10, taken_at=3100.0))
        assert first in [cut.id for cut in await state.cuts(1000)]
        with pytest.raises(StateError, match="isn't kept as far back"):
            await state.rewind(first)
        assert [each.value for each in await state.changes_of("dedupe")] == [2]


def _value(changes: list[Change], key: Any, number: int) -> Any:
    below = [each for each in changes if each.key == key and each.number < number]
    return below[-1].value if below else None


@given(st.integers(0, 2**32))
@settings(max_examples=5, deadline=None)
async def test_what_a_resume_or_a_rewind_asks_for_is_never_pruned(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance = Random(seed)
    everything: list[Change] = []
    async with opened(tmp_path_factory.mktemp("state") / "x.db") as state:
        frontier = 0
        frontiers: dict[int, int] = {}
        for _ in range(chance.randint(60, 90)):
            step = chance.randint(0, 4)
            new = [
                change(number, chance.randint(0, 3), chance.choice([None, number]))
                for number in range(frontier, frontier + step)
            ]
            everything += new
            frontier += step
            await state.save(Cut(sources={"csv": SourcePoint(number=frontier)}, changes=new))
            frontiers[(await state.cuts(1))[0].id] = frontier
        back = (await state.cuts(KEPT))[chance.randrange(KEPT)].id
        await state.rewind(back)
        found = await state.changes_of("dedupe")
    for number in range(frontiers[back], frontiers[back] + 3):
        expected = [each for each in everything if each.number < frontiers[back]]
        for key in range(4):
            assert _value(found, key, number) == _value(expected, key, number)
