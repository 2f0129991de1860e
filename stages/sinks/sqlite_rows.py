"""Records as rows: groups of records that have the same fields, each with the values of all its rows in one list."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter, countOf, itemgetter
from typing import Any, cast

import msgspec

from pipeline.errors import RecordError
from stages.sinks.sqlite_columns import fold

__all__ = ("Rows", "kinds_of", "rows_of")

Errors = dict[int, Exception]


@dataclass(slots=True)
class Rows:
    """Values of records that go into the same columns; ``indexes`` are the places of the records in the batch.

    ``values`` are those of the first row, then those of the second, and so on. A tuple a row would be 500 objects for
    the garbage collector to walk through, in each batch.
    """

    fields: tuple[str, ...]
    indexes: Sequence[int]
    values: list[Any]
    absent: Callable[[int, int], bool] = field(default=lambda row, place: False)
    """Tells, by row and place of the field, whether the record did not have it (its value here is None)."""

    def column(self, place: int) -> list[Any]:
        """Return the values of a field, one a row."""
        return self.values[place :: len(self.fields)]

    def put(self, place: int, column: Sequence[Any]) -> None:
        """Replace the values of a field."""
        self.values[place :: len(self.fields)] = column

    def rows(self, start: int = 0) -> Iterator[tuple[Any, ...]]:
        """Yield the rows from one on."""
        values = iter(self.values[start * len(self.fields) :])
        return zip(*[values] * len(self.fields), strict=True)


def kinds_of(values: Sequence[object]) -> set[type]:
    """Return the types of values."""
    # Mostly it is one, and to count it takes two thirds of what a set does.
    one = type(values[0]) if values else None
    return {one} if one is not None and countOf(map(type, values), one) == len(values) else set(map(type, values))


def rows_of(records: list[Any], selected: Sequence[str] | None, union: bool, errors: Errors) -> list[Rows]:
    """Return the records as rows, in their order; notes in ``errors`` those that are no records with fields.

    ``selected`` are the only fields wanted. ``union``: a field that a record lacks may be taken for None, so that
    records of different fields share a group.
    """
    kinds = kinds_of(records)
    if len(kinds) == 1 and issubclass(kind := next(iter(kinds)), msgspec.Struct):
        if set(selected or ()) <= set(kind.__struct_fields__):
            return _typed(records, kind, selected, errors)
    indexes: Sequence[int] = range(len(records))
    if kinds != {dict}:
        indexes, records = _as_dicts(records, errors)
    if selected is not None:
        return [_selected(records, tuple(selected), indexes)] if records else []
    return _by_fields(records, indexes, union, errors)


def _typed(
    records: list[msgspec.Struct], kind: type[msgspec.Struct], selected: Sequence[str] | None, errors: Errors
) -> list[Rows]:
    fields = kind.__struct_fields__ if selected is None else tuple(selected)
    if not fields:
        errors.update((index, _empty()) for index in range(len(records)))
        return []
    return [Rows(fields, range(len(records)), _values(attrgetter(*fields), len(fields), records))]


def _as_dicts(records: list[Any], errors: Errors) -> tuple[list[int], list[dict[str, Any]]]:
    indexes: list[int] = []
    dicts: list[dict[str, Any]] = []
    for index, record in enumerate(records):
        if isinstance(record, msgspec.Struct):
            dicts.append(msgspec.structs.asdict(record))
        elif isinstance(record, Mapping):
            dicts.append(dict(cast(Mapping[str, Any], record)))
        else:
            errors[index] = RecordError(f"expected a record with fields, not a {type(record).__name__}")
            continue
        indexes.append(index)
    return indexes, dicts


def _selected(records: list[dict[str, Any]], fields: tuple[str, ...], indexes: Sequence[int]) -> Rows:
    try:
        return Rows(fields, indexes, _values(_getter(fields), len(fields), records))
    except KeyError:
        return Rows(fields, indexes, _gotten(fields, records))


def _by_fields(records: list[dict[str, Any]], indexes: Sequence[int], union: bool, errors: Errors) -> list[Rows]:
    fields = tuple(records[0]) if records else ()
    if fields and countOf(map(len, records), len(fields)) == len(records):
        try:
            return [Rows(fields, indexes, _values(_getter(fields), len(fields), records))]
        except KeyError:
            pass  # others, though as many
    if not all(records):
        errors.update((index, _empty()) for index, record in zip(indexes, records, strict=True) if not record)
        indexes = [index for index, record in zip(indexes, records, strict=True) if record]
        records = [record for record in records if record]
    return _mixed(records, indexes, union) if records else []


def _mixed(records: list[dict[str, Any]], indexes: Sequence[int], union: bool) -> list[Rows]:
    fields = tuple(dict.fromkeys(chain.from_iterable(records)))
    # Two spellings of one column can't be in one statement.
    if union and all(type(name) is str for name in fields) and len(set(map(fold, fields))) == len(fields):
        return [Rows(fields, indexes, _gotten(fields, records), lambda row, place: fields[place] not in records[row])]
    return [
        Rows(
            fields,
            [indexes[i] for i in places],
            _values(_getter(fields), len(fields), [records[i] for i in places]),
        )
        for fields, places in _runs(records)
    ]


def _runs(records: list[dict[str, Any]]) -> Iterable[tuple[tuple[str, ...], list[int]]]:
    for _, group in groupby(range(len(records)), lambda i: frozenset(records[i])):
        places = list(group)
        yield tuple(records[places[0]]), places


def _getter(fields: tuple[str, ...]) -> Callable[[Any], Any]:
    return cast(Callable[[Any], Any], itemgetter(*fields))


def _values(getter: Callable[[Any], Any], width: int, records: list[Any]) -> list[Any]:
    # A getter of one name returns its value, not a tuple of it.
    return list(chain.from_iterable(map(getter, records)) if width > 1 else map(getter, records))


def _gotten(fields: tuple[str, ...], records: list[dict[str, Any]]) -> list[Any]:
    return list(chain.from_iterable(map(record.get, fields) for record in records))


def _empty() -> RecordError:
    return RecordError("the record has no fields")
