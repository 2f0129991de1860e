"""Tests of the `dedupe` processor."""

from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from pipeline.batch import Origin
from pipeline.errors import ConfigError, RecordError
from pipeline.stage import Each
from stages.processors import Dedupe
from tests.stages.processors.opened import context, opened

pytestmark = pytest.mark.anyio


class Versions:
    """Keyed state as the engine keeps it: the values that each number left, read by those of larger numbers."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[int, bytes]] = {}

    def get(self, key: Any, source: str, number: int) -> Any:
        before = [each for each in self.kept.get(key, {}) if each < number]
        return msgspec.json.decode(self.kept[key][max(before)]) if before else None

    def put(self, key: Any, source: str, number: int, value: Any) -> None:
        self.kept.setdefault(key, {})[number] = msgspec.json.encode(value)

    def settled(self, number: int) -> None:
        """Crash: what was not settled is gone."""
        for versions in self.kept.values():
            for each in [each for each in versions if each >= number]:
                del versions[each]

    def held(self, number: int = 10**9) -> int:
        return sum(key.startswith("k") and self.get(key, "s", number) is not None for key in self.kept)


async def passed(spec: Dedupe, records: Iterable[Any], state: Versions | None = None, first: int = 0) -> list[Any]:
    async with opened(spec, Each, state=state or Versions()) as work:
        return [
            record for number, record in enumerate(records, first) if work.function(record, Origin("s", number, ""))
        ]


async def test_the_first_of_each_key_passes() -> None:
    records = [{"id": 1, "n": 0}, {"id": 2, "n": 1}, {"id": 1, "n": 2}]

    assert await passed(Dedupe("id"), records) == records[:2]


async def test_the_key_is_the_whole_record_in_any_order_of_fields_if_nothing_is_said() -> None:
    assert len(await passed(Dedupe(), [{"a": 1, "b": [2]}, {"b": [2], "a": 1}, {"a": 1}])) == 2


async def test_a_function_may_make_the_key() -> None:
    assert await passed(Dedupe(str.lower), ["a", "A", "b"]) == ["a", "b"]


async def test_keys_of_different_types_are_different() -> None:
    values = [1, 1.0, "1", True, "true", [1]]

    assert await passed(Dedupe("v"), [{"v": value} for value in values * 2]) == [{"v": value} for value in values]


async def test_long_keys_are_told_apart() -> None:
    assert await passed(Dedupe(), ["x" * 200 + "a", "x" * 200 + "b", "x" * 200 + "a"]) == [
        "x" * 200 + "a",
        "x" * 200 + "b",
    ]


async def test_records_without_a_key_pass() -> None:
    assert len(await passed(Dedupe("id"), [{}, {}, {"id": None}])) == 3


async def test_a_key_may_use_the_origin() -> None:
    assert len(await passed(Dedupe("_origin.number // 2"), range(4))) == 2


async def test_what_passed_before_a_restart_is_remembered() -> None:
    state = Versions()

    assert await passed(Dedupe("id"), [{"id": 1}], state) == [{"id": 1}]
    assert await passed(Dedupe("id"), [{"id": 1}, {"id": 2}], state, first=1) == [{"id": 2}]


async def test_records_that_come_again_pass_again() -> None:
    records = [{"id": 1}, {"id": 1}, {"id": 2}]
    state = Versions()

    first = await passed(Dedupe("id"), records, state)

    assert await passed(Dedupe("id"), records, state) == first
    state.settled(1)
    assert await passed(Dedupe("id"), records[1:], state, first=1) == first[1:]


async def test_children_of_one_record_see_each_other_and_pass_again_when_asked_again() -> None:
    async with opened(Dedupe("id"), Each, state=Versions()) as work:
        children = [({"id": key}, Origin("s", 1, str(child))) for child, key in enumerate("aba")]
        assert [work.function(*child) for child in children] == [True, True, False]
        assert [work.function(*child) for child in children] == [True, True, False]
        assert not work.function({"id": "a"}, Origin("s", 2, ""))


async def test_a_key_passes_again_when_its_time_is_further_away_than_within() -> None:
    times = [0, 10, 11, 21, 22, 15]
    spec = Dedupe("id", within=10.0, time="t")

    assert [record["t"] for record in await passed(spec, [{"id": 1, "t": time} for time in times])] == [0, 11, 22]


async def test_times_may_be_texts_and_are_utc_when_they_do_not_say() -> None:
    times = ["2024-01-01T00:00:00", "2024-01-01T01:00:05+01:00", "2024-01-01T00:00:11Z"]

    records = await passed(Dedupe("id", within="10s", time="t"), [{"id": 1, "t": time} for time in times])

    assert [record["t"] for record in records] == [times[0], times[2]]


@pytest.mark.parametrize("time", [None, "yesterday", True, [], float("nan")])
async def test_a_record_without_a_readable_time_fails(time: Any) -> None:
    with pytest.raises(RecordError, match="field 't'"):
        await passed(Dedupe("id", within=10.0, time="t"), [{"id": 1, "t": time}])


async def test_a_key_that_cannot_be_written_down_fails_its_record() -> None:
    with pytest.raises(RecordError, match="can't make a key of a object"):
        await passed(Dedupe(), [object()])


async def test_the_oldest_keys_are_forgotten_beyond_the_bound_and_that_is_said_once() -> None:
    warnings: list[str] = []
    state = Versions()
    async with opened(Dedupe(max_keys=2), Each, state=state, warnings=warnings) as work:
        verdicts = [work.function(key, Origin("s", number, "")) for number, key in enumerate("abacaab")]

    assert verdicts == [True, True, False, True, True, False, True]
    assert state.held() == 2
    assert len(warnings) == 1
    assert "more than 2 keys" in warnings[0]


async def test_a_bound_that_is_lowered_between_runs_forgets_what_is_beyond_it() -> None:
    state = Versions()
    await passed(Dedupe(max_keys=10), "abcdefgh", state)

    assert await passed(Dedupe(max_keys=2), "hgx", state, first=8) == ["x"]
    assert state.held() == 2


async def test_a_bound_that_is_raised_between_runs_remembers_more() -> None:
    state = Versions()
    await passed(Dedupe(max_keys=2), "abcd", state)

    assert await passed(Dedupe(max_keys=4), "efcdbef", state, first=4) == ["e", "f", "b"]


async def test_no_key_of_the_state_is_changed_by_every_record() -> None:
    state = Versions()
    await passed(Dedupe(max_keys=5000), range(3000), state)

    assert max(map(len, state.kept.values())) == 3


async def test_a_key_that_passed_again_is_as_young_as_its_last_pass() -> None:
    spec = Dedupe("id", within=1.0, time="t", max_keys=3)
    records = [{"id": key, "t": time} for time, key in [(0, "a"), (0, "b"), (5, "a"), (5, "c"), (5, "a"), (5, "b")]]

    assert [f"{record['id']}{record['t']}" for record in await passed(spec, records)] == ["a0", "b0", "a5", "c5", "b5"]


@settings(max_examples=60)
@given(
    some.lists(some.integers(0, 6), max_size=30),
    some.integers(1, 5),
    some.integers(0, 30),
    some.integers(0, 30),
)
def test_any_crash_and_resume_decides_as_the_unbroken_run(
    keys: list[int], bound: int, settled: int, reached: int
) -> None:
    settled, reached = sorted((min(settled, len(keys)), min(reached, len(keys))))
    unbroken = _decide(Dedupe(max_keys=bound), keys, Versions(), 0)
    state = Versions()
    _decide(Dedupe(max_keys=bound), keys[:reached], state, 0)
    state.settled(settled)

    assert _decide(Dedupe(max_keys=bound), keys[settled:], state, settled) == unbroken[settled:]
    assert state.held() <= bound


@settings(max_examples=60)
@given(some.lists(some.tuples(some.integers(0, 6), some.booleans()), max_size=30), some.integers(1, 5))
def test_records_settled_beyond_the_frontier_count_though_they_do_not_come_again(
    keys: list[tuple[int, bool]], bound: int
) -> None:
    state = Versions()
    unbroken = _decide(Dedupe(max_keys=bound), [key for key, _ in keys], state, 0)
    for versions in state.kept.values():
        for number in [number for number in versions if not keys[number][1]]:
            del versions[number]
    again = [(number, key) for number, (key, settled) in enumerate(keys) if not settled]

    assert _decide_all(Dedupe(max_keys=bound), again, state) == [unbroken[number] for number, _ in again]
    assert state.held() <= bound


def _decide(spec: Dedupe, keys: list[int], state: Versions, first: int) -> list[bool]:
    return _decide_all(spec, list(enumerate(keys, first)), state)


def _decide_all(spec: Dedupe, keys: list[tuple[int, int]], state: Versions) -> list[bool]:
    coroutine = spec.open(context(state=state))
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return [stop.value.function(key, Origin("s", number, "")) for number, key in keys]
    raise AssertionError("open waited")


async def test_it_needs_a_state() -> None:
    with pytest.raises(ConfigError, match="state"):
        await Dedupe("id").open(context())


def test_what_its_state_was_made_by_is_its_identity() -> None:
    assert Dedupe("id").stateful()
    assert Dedupe("id").identity() != Dedupe("name").identity()
    assert Dedupe("id", max_keys=5).identity() == Dedupe("id").identity()


async def _later(record: Any) -> Any:
    return record


@pytest.mark.parametrize(
    ("spec", "key"),
    [
        (Dedupe(within=1.0), "within"),
        (Dedupe(time="t"), "time"),
        (Dedupe(_later), "by"),
        (Dedupe("id", timeout=1.0), "timeout"),
    ],
)
def test_keys_that_do_not_go_together_are_named(spec: Dedupe, key: str) -> None:
    assert [name for name, _ in spec.problems()] == [key]
