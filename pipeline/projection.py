"""JSON records of which only those fields are decoded that a stage reads; the rest of the text passes through.

What a database calls projection: to filter by one field of thirty and to write the records again, the other
twenty-nine need not become objects of Python only to be turned into the same text. A source decodes such a record as a
`Projected`, expressions work on it, and behind the last of them it is text again, with the computed fields at its end
(`Seal`). It means what the dict would mean that the line holds: `whole` returns it, and is what everybody else is
given, a dead letter first of all.

How a record is written depends on its line alone, never on its neighbours: a run that was killed and resumed cuts its
chunks elsewhere, and is to write the same bytes.
"""

from collections.abc import Callable, Iterable
from itertools import starmap
from keyword import iskeyword
from operator import attrgetter
from typing import Any, ClassVar, NamedTuple, cast

import msgspec

from pipeline.finite import nonfinite_in, sums_up

__all__ = ("Access", "Projected", "Projection", "Seal", "project", "whole")


class Access(NamedTuple):
    """What a processor does with the fields of a record, where expressions are all it consists of.

    ``reads`` are paths (``("http", "ms")``), ``sets`` the fields it computes, ``doubtful`` those of them that may come
    out as NaN or infinity.
    """

    reads: frozenset[tuple[str, ...]]
    sets: tuple[str, ...] = ()
    doubtful: frozenset[str] = frozenset()


_NOTHING = object()


class Projected(msgspec.Struct, gc=False):
    """A record by some of its fields, and its line. Those to be computed are `msgspec.UNSET` until they are.

    It can't be encoded: whoever got one by mistake would write some fields of it and lose the others.
    """

    whole_line: bytes = b""
    """Its JSON text, to the brace and the newline at its end."""
    __computed__: ClassVar[tuple[str, ...]] = ()
    """The fields that are computed, in the order in which they are written."""
    uncodable: object = _NOTHING


class Projection(NamedTuple):
    """How the records of a source are decoded: as ``type``, a class of `Projected`.

    ``doubtful`` are those of the fields computed on the way that may be NaN or infinite. ``last`` is the stage behind
    which a record is text again.
    """

    type: type[Projected]
    doubtful: frozenset[str]
    last: str

    def decoder(self) -> Callable[[bytes], Projected]:
        """Return what decodes a line, but for ``whole_line``.

        It raises what `msgspec` raises for a line that must be read whole: it is no object, or not such as the
        expressions have it, or has a field already that is to be computed. Of the rest of a line it is sure that it is
        JSON, but not that it is UTF-8.
        """
        return msgspec.json.Decoder(self.type, dec_hook=_refuse).decode


class _Absent:
    """The type of a field that a line must not have."""


def project(accesses: Iterable[Access], last: str) -> Projection | None:
    """Return the projection for processors in order, None where lines must be read whole.

    That is so where a field is computed that an expression reads from the line: it would have to be cut out of the
    text.
    """
    reads: set[tuple[str, ...]] = set()
    sets: dict[str, None] = {}
    doubtful: frozenset[str] = frozenset()
    for access in accesses:
        reads |= {path for path in access.reads if path[0] not in sets}
        sets |= dict.fromkeys(access.sets)
        doubtful |= access.doubtful
    names = {name for path in reads for name in path}.union(sets)
    if not all(map(_fits, names)) or any(path[0] in sets for path in reads):
        return None
    fields = [*_fields(reads), *((name, _Absent, msgspec.UNSET) for name in sets)]
    made = msgspec.defstruct("Projected", fields, bases=(Projected,), namespace={"__computed__": tuple(sets)}, gc=False)
    return Projection(cast(type[Projected], made), doubtful, last)


def whole(record: Any) -> Any:
    """Return a record with all its fields: as a dict if it is a `Projected` or text, any other as it is.

    A field that nobody has read may hold a number beyond those of Python; it is infinite then.

    :raises msgspec.MsgspecError: for text that is not JSON: somebody's own.
    :raises RecursionError: when values are nested more deeply than the stack has room for here.
    """
    if isinstance(record, msgspec.Raw):
        return _read(bytes(record))
    if not isinstance(record, Projected):
        return record
    fields = _read(record.whole_line)
    for name in record.__computed__:
        if (value := getattr(record, name)) is not msgspec.UNSET:
            fields[name] = value
    return fields


class Seal:
    """Makes text of projected records, and dicts of those that can't be written: a sink says why it can't."""

    def __init__(self, projection: Projection) -> None:
        sets = projection.type.__computed__
        self._type = projection.type
        self._json = msgspec.json.Encoder()
        self._gather = _gatherer(msgspec.defstruct("Computed", sets, gc=False))
        self._doubtful = [attrgetter(name) for name in sets if name in projection.doubtful]

    def __call__(self, records: list[Any]) -> list[Any]:
        """Return the records as `msgspec.Raw`, in order; what was read whole stays what it is."""
        kinds = set(map(type, records))
        if self._type not in kinds:
            return records
        if len(kinds) == 1:
            return self._sealed(records)
        sealed = iter(self._sealed([record for record in records if type(record) is self._type]))
        return [next(sealed) if type(record) is self._type else record for record in records]

    def _sealed(self, records: list[Any]) -> list[Any]:
        try:
            if all(sums_up(map(value, records)) for value in self._doubtful):
                return self._together(records)
        except _UNWRITABLE:
            pass
        return list(map(self._alone, records))

    def _together(self, records: list[Any]) -> list[Any]:
        computed = self._gather(records)
        if not computed:
            return [msgspec.Raw(record.whole_line[:-1]) for record in records]
        # What is within a text or a list has no newline, so these are the first braces and nothing else.
        tails = self._json.encode_lines(computed)[1:-1].split(b"\n{")
        heads = [record.whole_line[:-2] for record in records]
        return list(map(msgspec.Raw, map(b",".join, zip(heads, tails, strict=True))))

    def _alone(self, record: Any) -> Any:
        try:
            computed = self._gather([record])
            if next(nonfinite_in(msgspec.to_builtins(computed, str_keys=True)), None) is None:
                return self._together([record])[0]
        except _UNWRITABLE:
            pass
        try:
            return whole(record)
        except RecursionError:
            return record  # it can't be encoded either, which is said of it alone


def _gatherer(computed: type[msgspec.Struct]) -> Callable[[list[Any]], list[Any]]:
    """Return what makes one of the type of each record, of its attributes of the same names."""
    names = computed.__struct_fields__
    if not names:
        return lambda records: []
    values = attrgetter(*names)
    if len(names) == 1:
        return lambda records: list(map(computed, map(values, records)))
    return lambda records: list(starmap(computed, map(values, records)))


_UNWRITABLE = (TypeError, ValueError, OverflowError, RecursionError)


def _refuse(declared: Any, value: Any) -> Any:
    raise ValueError("it is there already")


def _fits(name: str) -> bool:
    """Tell whether a field can be an attribute, by a name that code can be written with."""
    plain = name.isascii() and name.isidentifier() and not iskeyword(name) and not name.startswith("_")
    return plain and name not in Projected.__struct_fields__


def _fields(paths: Iterable[tuple[str, ...]]) -> list[tuple[str, Any, Any]]:
    """Return what `msgspec.defstruct` takes: an object of which only some fields are read is a Struct as well."""
    below: dict[str, set[tuple[str, ...]]] = {}
    for path in paths:
        below.setdefault(path[0], set()).add(path[1:])
    return [(name, Any if () in rest else _inner(rest), None) for name, rest in below.items()]


def _inner(paths: Iterable[tuple[str, ...]]) -> Any:
    return msgspec.defstruct("Inner", _fields(paths), gc=False) | None


def _read(line: bytes) -> dict[str, Any]:
    try:
        fields: dict[str, Any] = _decode(line)
    except msgspec.ValidationError:
        import json  # takes what is out of range, and is hardly ever needed

        fields = json.loads(line, parse_int=_whole_number)
    return fields


def _whole_number(text: str) -> int | float:
    return int(text) if len(text.lstrip("-")) < _MANY_DIGITS else float(text)


_MANY_DIGITS = 4300
_decode = msgspec.json.Decoder().decode
