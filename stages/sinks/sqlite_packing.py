"""Records on their way to the process that writes them: as MessagePack, their values as SQLite would take them."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, cast

import msgspec

from pipeline.errors import RecordError, RecordErrors
from stages.sinks.sqlite_columns import PLAIN, to_sql

__all__ = ("pack", "unpack")

_REFUSALS = (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError)
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Any]).decode


def pack(records: Sequence[Any]) -> bytes:
    """Return records as bytes. Dates, decimals and nested values become what the table would get for them.

    :raises RecordErrors: names those that can't be stored.
    """
    try:
        if set(map(type, records)) == {dict} and PLAIN.issuperset(
            map(type, chain.from_iterable(map(_values, records)))
        ):
            return _pack(records)
    except _REFUSALS:
        pass
    errors: dict[int, Exception] = {}
    plain: list[Any] = []
    for index, record in enumerate(records):
        try:
            plain.append(_plain(record))
        except RecordError as error:
            errors[index] = error
    if errors:
        raise RecordErrors(errors)
    return _pack(plain)


def unpack(packed: bytes) -> list[Any]:
    """Return the records."""
    return _unpack(packed)


def _values(record: dict[str, Any]) -> Any:
    return record.values()


def _plain(record: Any) -> Any:
    if isinstance(record, msgspec.Struct):
        record = msgspec.structs.asdict(record)
    if not isinstance(record, Mapping):
        raise RecordError(f"expected a record with fields, not a {type(record).__name__}")
    made: dict[Any, Any] = {}
    fields = cast("Mapping[Any, Any]", record)  # type: ignore[redundant-cast]  # pyright needs it
    for name, value in fields.items():
        try:
            made[name] = to_sql(value)
            _pack((name, made[name]))
        except RecordError as error:
            raise RecordError(f"field {name!r}: {error}") from None
        except _REFUSALS as error:
            raise RecordError(f"field {name!r}: {_reason(value, error)}") from None
    return made


def _reason(value: Any, error: Exception) -> str:
    if isinstance(error, UnicodeEncodeError):
        return "the text holds a lone surrogate, which UTF-8 has no bytes for"
    return f"{value} is over 64 bits" if type(value) is int else str(error)
