"""Records as rows: groups of records that have the same fields, each a list of tuples."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, groupby
from operator import attrgetter, itemgetter
from typing import Any, cast

import msgspec

from pipeline.errors import RecordError
from stages.sinks.sqlite_columns import fold

__all__ = ("Rows", "rows_of")

Errors = dict[int, Exception]


@dataclass(slots=True)
class Rows:
    """Values of records that go into the same columns; ``indexes`` are the places of the records in the batch."""

    fields: tuple[str, ...]
    indexes: Sequence[int]
    values: list[tuple[Any, ...]]
    absent: Callable[[int, int], bool] = field(default=lambda row, place: False)
    """Tells, by row and place of the field, whether the record did not have it (its value here is None)."""


def rows_of(records: list[Any], selected: Sequence[str] | None, union: bool, errors: Errors) -> list[Rows]:
    """Return the records as rows, in their order; notes in ``errors`` those that are no records with fields.

    ``selected`` are the only fields wanted. ``union``: a field that a record lacks may be taken for None, so that
    records of different fields share a group.
    """
    kinds = set(map(type, records))
    if len(kinds) == 1 and issubclass(kind := next(iter(kinds)), msgspec.Struct):
        if set(selected or ()) <= set(kind.__struct_fields__):
            return [_typed(records, kind, selected)]
    indexes: Sequence[int] = range(len(records))
    if kinds != {dict}:
        indexes, records = _as_dicts(records, errors)
    if selected is not None:
        return [_selected(records, tuple(selected), indexes)] if records else []
    return _by_fields(records, indexes, union, errors)


def _typed(records: list[msgspec.Struct], kind: type[msgspec.Struct], selected: Sequence[str] | None) -> Rows:
    fields = kind.__struct_fields__
    if selected is None:
        return Rows(fields, range(len(records)), list(map(msgspec.structs.astuple, records)))
    wanted = tuple(selected)
    return Rows(wanted, range(len(records)), _tuples(attrgetter(*wanted), len(wanted), records))


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
        return Rows(fields, indexes, _tuples(_getter(fields), len(fields), records))
    except KeyError:
        return Rows(fields, indexes, [tuple(map(record.get, fields)) for record in records])


def _by_fields(records: list[dict[str, Any]], indexes: Sequence[int], union: bool, errors: Errors) -> list[Rows]:
    lengths = set(map(len, records))
    if 0 in lengths:
        for index, record in zip(indexes, records, strict=True):
            if not record:
                errors[index] = RecordError("the record has no fields")
        indexes = [index for index, record in zip(indexes, records, strict=True) if record]
        records = [record for record in records if record]
    if not records:
        return []
    if len(lengths) == 1:
        fields = tuple(records[0])
        try:
            return [Rows(fields, indexes, _tuples(_getter(fields), len(fields), records))]
        except KeyError:
            pass
    return _mixed(records, indexes, union)


def _mixed(records: list[dict[str, Any]], indexes: Sequence[int], union: bool) -> list[Rows]:
    fields = tuple(dict.fromkeys(chain.from_iterable(records)))
    # Two spellings of one column can't be in one statement.
    if union and all(type(name) is str for name in fields) and len(set(map(fold, fields))) == len(fields):
        values = [tuple(map(record.get, fields)) for record in records]
        return [Rows(fields, indexes, values, lambda row, place: fields[place] not in records[row])]
    return [
        Rows(
            fields,
            [indexes[i] for i in places],
            _tuples(_getter(fields), len(fields), [records[i] for i in places]),
        )
        for fields, places in _runs(records)
    ]


def _runs(records: list[dict[str, Any]]) -> Iterable[tuple[tuple[str, ...], list[int]]]:
    for _, group in groupby(range(len(records)), lambda i: frozenset(records[i])):
        places = list(group)
        yield tuple(records[places[0]]), places


def _getter(fields: tuple[str, ...]) -> Callable[[Any], Any]:
    return cast(Callable[[Any], Any], itemgetter(*fields))


def _tuples(getter: Callable[[Any], Any], width: int, records: list[Any]) -> list[tuple[Any, ...]]:
    # A getter of one name returns its value, not a tuple of it.
    return list(map(getter, records)) if width > 1 else list(zip(map(getter, records), strict=True))
