"""Batches: whatever is done to them, each record keeps its origin and each number its settling."""

from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as some

from pipeline.batch import Batch, Failed, Many, Origin, Ticket, exact_spans
from pipeline.testing import batch_of


@some.composite
def batches(draw: some.DrawFn, sources: tuple[str, ...] = ("a",)) -> Batch:
    """Return an ascending batch as it may be on its way: some records gone, some become several."""
    parts: list[Batch] = []
    starts = dict.fromkeys(sources, 0)
    for source in draw(some.lists(some.sampled_from(sources), min_size=1, max_size=4)):
        count = draw(some.integers(1, 6))
        parts.append(
            batch_of(*[(source, starts[source] + n) for n in range(count)], source=source, start=starts[source])
        )
        starts[source] += count
    batch = Batch.join(parts)
    # One that comes from several sources ascends in each.
    batch.ascending = True
    if draw(some.booleans()):
        batch.keep(draw(some.lists(some.booleans(), min_size=len(batch), max_size=len(batch))))
    if draw(some.booleans()):
        counts = draw(
            some.lists(some.one_of(some.none(), some.integers(0, 3)), min_size=len(batch), max_size=len(batch))
        )
        explode(batch, counts)
    return batch


def explode(batch: Batch, counts: list[int | None]) -> None:
    records = [
        record if count is None else (*record, child)
        for record, count in zip(batch.records, counts, strict=True)
        for child in range(1 if count is None else count)
    ]
    batch.explode(counts, records)


def carried(batch: Batch) -> list[tuple[Any, Origin]]:
    return list(zip(batch.records, batch.origins(), strict=True))


def shares(*some_batches: Batch) -> Counter[tuple[str, int]]:
    return Counter(
        (source, number) for batch in some_batches for source, low, high in batch.spans for number in range(low, high)
    )


@given(batches(("a", "b")), some.data())
def test_a_split_conserves_records_and_settles_each_number_once_but_for_those_it_says_are_shared(
    batch: Batch, data: some.DataObject
) -> None:
    before, owed = carried(batch), shares(batch)
    at = data.draw(some.integers(0, len(batch)))
    head, tail, shared = batch.split(at)

    assert carried(head) + carried(tail) == before
    assert len(head) == at
    assert shares(head, tail) == owed + Counter(shared)
    assert set(exact_numbers(head)) <= set(shares(head))
    assert set(exact_numbers(tail)) <= set(shares(tail))
    assert {*exact_numbers(head)} & {*exact_numbers(tail)} == set(shared)
    assert head.size + tail.size <= max(batch.size, len(before))


def exact_numbers(batch: Batch) -> set[tuple[str, int]]:
    return {(origin.source, origin.number) for origin in batch.origins()}


@given(batches(("a", "b")), some.data())
def test_what_is_not_kept_goes_and_its_number_stays(batch: Batch, data: some.DataObject) -> None:
    mask = data.draw(some.lists(some.booleans(), min_size=len(batch), max_size=len(batch)))
    before, owed = carried(batch), shares(batch)
    batch.keep(mask)

    assert carried(batch) == [each for each, kept in zip(before, mask, strict=True) if kept]
    assert shares(batch) == owed


@given(some.lists(batches(("a", "b")), min_size=1, max_size=4))
def test_a_join_conserves_records_origins_and_spans(parts: list[Batch]) -> None:
    before = [each for part in parts for each in carried(part)]
    owed = shares(*parts)
    joined = Batch.join(parts)

    assert carried(joined) == before
    assert shares(joined) == owed
    if joined.ascending and len(parts) > 1:
        numbers = list(joined.numbers)
        assert isinstance(joined.sources, str) and numbers == sorted(numbers)


@given(batches(), some.integers(0, 20), some.integers(0, 20))
def test_what_was_split_and_joined_again_is_as_it_was(batch: Batch, one: int, other: int) -> None:
    before, owed = carried(batch), shares(batch)
    low, high = sorted((min(one, len(batch)), min(other, len(batch))))
    head, rest, shared = batch.split(low)
    middle, tail, more = rest.split(high - low)
    joined = Batch.join([head, middle, tail])

    assert carried(joined) == before
    assert shares(joined) == owed + Counter(shared) + Counter(more)


@given(batches(("a", "b")), some.data())
def test_explode_gives_each_record_children_of_its_own(batch: Batch, data: some.DataObject) -> None:
    counts = data.draw(
        some.lists(some.one_of(some.none(), some.integers(0, 3)), min_size=len(batch), max_size=len(batch))
    )
    before, owed = carried(batch), shares(batch)
    origins_before = len(set(batch.origins()))
    explode(batch, counts)

    expected = [
        (record, origin) if count is None else ((*record, child), origin)
        for (record, origin), count in zip(before, counts, strict=True)
        for child in range(1 if count is None else count)
    ]
    assert batch.records == [record for record, _ in expected]
    for (_, parent), origin in zip(expected, batch.origins(), strict=True):
        assert origin[:2] == parent[:2] and origin.child.startswith(parent.child)
    if origins_before == len(before):
        assert len(set(batch.origins())) == len(batch), "two records with one origin"
    assert shares(batch) == owed
    assert batch.distinct() == len(exact_numbers(batch))


def test_a_record_that_became_one_has_a_child_index_too() -> None:
    batch = batch_of("x", "y", "z")
    batch.explode([1, None, 0], ["x0", "y"])
    assert list(batch.origins()) == [Origin("source", 0, "0"), Origin("source", 1, "")]
    batch.explode([2, 2], ["a", "b", "c", "d"])
    assert [origin.child for origin in batch.origins()] == ["0.0", "0.1", "0", "1"]


@given(batches(("a", "b")))
def test_a_branch_is_a_batch_of_its_own_with_the_same_settling(batch: Batch) -> None:
    before, owed = carried(batch), shares(batch)
    branch = batch.branch("left", list(batch.records))
    branch.keep([False] * len(branch))

    assert carried(batch) == before
    assert shares(branch) == owed
    named = batch.branch("left", list(batch.records))
    assert [origin.child.rpartition(".")[2] for origin in named.origins()] == ["@left"] * len(batch)
    assert len(set(named.origins())) == len(set(batch.origins()))
    assert carried(batch.branch(None, list(batch.records))) == before


@given(batches(("a", "b")))
def test_runs_of_one_source_cover_the_batch_in_order(batch: Batch) -> None:
    seen = [
        Origin(source, number, children[index] if children else "")
        for source, numbers, children in batch.by_source()
        for index, number in enumerate(numbers)
    ]
    assert seen == list(batch.origins())


@given(batches(("a", "b")))
def test_exact_spans_are_the_numbers_of_the_records(batch: Batch) -> None:
    assert {(s, n) for s, low, high in exact_spans(batch) for n in range(low, high)} == exact_numbers(batch)


def test_neighbouring_chunks_join_to_one_range_and_one_span() -> None:
    joined = Batch.join([batch_of(1, 2), batch_of(3, start=2)])

    assert joined.numbers == range(3) and isinstance(joined.numbers, range)
    assert joined.spans == [("source", 0, 3)]
    assert joined.size == 3


def test_a_join_out_of_order_is_not_ascending() -> None:
    assert not Batch.join([batch_of(1, start=5), batch_of(2, start=3)]).ascending
    assert Batch.join([batch_of(1, start=3), batch_of(2, start=5)]).ascending


def test_a_ticket_tells_when_the_last_part_has_ended_and_not_before() -> None:
    ended: list[Ticket] = []
    ticket = Ticket(ended.append)
    ticket.open += 1
    ticket.close()
    assert ended == []
    ticket.close()
    assert ended == [ticket] and ticket.smooth


def test_a_failed_result_keeps_the_error_or_makes_one_of_a_text() -> None:
    error = KeyError("x")
    assert Failed({"a": 1}, error).error is error
    assert isinstance(Failed(1, "too long").error, ValueError)
    assert str(Failed(1, "too long").error) == "too long"


def test_many_may_be_empty_and_is_a_tuple() -> None:
    assert tuple(Many([1, 2])) == (1, 2) and not Many([])


def test_a_batch_shows_how_many_records_it_has_and_what_it_settles() -> None:
    assert repr(batch_of("a", "b")) == "Batch(2 records, [('source', 0, 2)])"
