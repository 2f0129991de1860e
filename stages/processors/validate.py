"""Check records against a schema."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal, cast

import msgspec

from pipeline.errors import ConfigError, RecordError
from pipeline.stage import Each, Processor, StageContext, Work, key
from stages.processors.functions import refuse_timeout
from stages.processors.records import by_sort, shape_of
from stages.processors.rules import Rule, explain, read_rule, type_of

__all__ = ("Validate",)

_SCHEMA = (
    "Fields and what their values must be, like `int >= 0`, `str?` (may be null or missing), `list[str]`, "
    "`str len <= 80`, or {type: str, pattern: ..., one_of: [...]}; types: str, int, float, bool, list, dict, date, "
    "time, datetime, any."
)


class Validate(Processor):
    """Let records pass as they are when they fit the schema; one that doesn't is a bad record.

    Values are checked, never converted: ``"1"`` is not an int. Whole numbers are floats too, and an ISO 8601 text is a
    date, time or datetime too; both stay what they are. `stages.processors.rules` has the grammar of types.
    """

    schema: Annotated[dict[str, str | dict[str, Any]], key(_SCHEMA)]
    unknown: Annotated[
        Literal["keep", "drop", "forbid"], key("What becomes of a record's fields that the schema doesn't name.")
    ] = "keep"

    def problems(self) -> Iterable[tuple[str, str]]:
        """Say which fields of the schema can't be read."""
        for name, text in self.schema.items():
            try:
                read_rule(text)
            except ValueError as error:
                yield "schema", f"'{name}': {error}"
        yield from refuse_timeout(self)

    def per_record(self) -> bool:
        """Tell that it takes single records."""
        return True

    async def open(self, context: StageContext) -> Work:
        """Build the check.

        :raises ConfigError: when the schema can't be read.
        """
        if problems := [text for name, text in self.problems() if name == "schema"]:
            raise ConfigError(*(f"stage '{context.name}' (processor validate): schema: {text}" for text in problems))
        rules = {name: read_rule(text) for name, text in self.schema.items()}
        return Each(_checker(rules, self.unknown), gives="record")


def _checker(rules: dict[str, Rule], unknown: str) -> Callable[[Any], Any]:
    wanted = type_of(rules, forbid_unknown=unknown == "forbid")
    convert = msgspec.convert

    def check(record: Any) -> Any:
        try:
            convert(record, wanted, from_attributes=True)
        except msgspec.ValidationError as error:
            raise RecordError(explain(str(error), record)) from None
        return record

    if unknown == "keep":
        return check
    names = frozenset(rules)
    if unknown == "forbid":
        return by_sort(check, _knowing(check, names), False)
    return by_sort(_cut(check, names), _cut_typed(check, names), False)


def _knowing(check: Callable[[Any], Any], names: frozenset[str]) -> Callable[[Any], Any]:
    # Reading attributes, msgspec doesn't see the ones that it wasn't asked for.
    def known(record: msgspec.Struct) -> Any:
        for name in record.__struct_fields__:
            if name not in names:
                raise RecordError(f"field '{name}' is unknown")
        return check(record)

    return known


def _cut(check: Callable[[Any], Any], names: frozenset[str]) -> Callable[[Any], Any]:
    def cut(record: Any) -> Any:
        fields = cast(dict[str, Any], check(record))
        return fields if names.issuperset(fields) else {name: fields[name] for name in fields if name in names}

    return cut


def _cut_typed(check: Callable[[Any], Any], names: frozenset[str]) -> Callable[[Any], Any]:
    shapes: dict[type[msgspec.Struct], Callable[..., Any]] = {}

    def cut(record: msgspec.Struct) -> Any:
        check(record)
        kind = type(record)
        if kind not in shapes:
            shapes[kind] = shape_of(kind, kept=names.__contains__).make
        return shapes[kind](record, ())

    return cut
