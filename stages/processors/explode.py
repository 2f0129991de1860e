"""Make several records of one."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any, cast

import msgspec

from pipeline.batch import Failed, Many
from pipeline.errors import ConfigError, RecordError
from pipeline.stage import Each, EachAsync, Processor, StageContext, Work, key
from stages.processors.functions import is_async, name_of, refuse_timeout
from stages.processors.records import describe

__all__ = ("Explode",)


class Explode(Processor, kw_only=True):
    """Make a record of each element of a list.

    With ``field``, each is a copy of the record with the element in the place of the list; an empty list, null or no
    such field gives none, which filters the record. With ``function``, they are what it returns for the record: a list,
    a tuple, `Many`, what a generator yields, or None for none. They must come in the same order each time.
    """

    field: Annotated[str | None, key("Field with a list: one record an element, with it in the list's place.")] = None
    function: Annotated[
        Callable[[Any], Any] | str | None,
        key("Function of a record that returns the records, as `module:name`; in Python a function.", function=True),
    ] = None

    def problems(self) -> Iterable[tuple[str, str]]:
        """Refuse both or neither of the two keys, and a timeout where nothing can be interrupted."""
        if (self.field is None) == (self.function is None):
            yield "field", "give either field or function"
        if not callable(self.function) and self.function is not None:
            return
        if self.function is None or not is_async(self.function):
            yield from refuse_timeout(self)

    def per_record(self) -> bool:
        """Tell that it takes single records."""
        return True

    async def open(self, context: StageContext) -> Work:
        """Return the work.

        :raises ConfigError: when there is nothing to explode by.
        """
        function = self.function
        if callable(function):
            return EachAsync(_all_of_async(function)) if is_async(function) else _each_of(function)
        if self.field is None:
            raise ConfigError(f"stage '{context.name}' (processor explode): function: {function!r} was not resolved")
        return Each(_elements(self.field), gives="many")


def _elements(field: str) -> Callable[[Any], list[Any]]:
    def explode(record: Any) -> list[Any]:
        if record.__class__ is dict:
            return [{**record, field: element} for element in _list_in(record.get(field), field)]
        if isinstance(record, msgspec.Struct):
            elements = _list_in(getattr(record, field, None), field)
            return [msgspec.structs.replace(record, **{field: element}) for element in elements]
        raise RecordError(f"record is a {describe(record)}, not an object with fields")

    return explode


def _list_in(value: Any, field: str) -> Iterable[Any]:
    if value.__class__ is list or isinstance(value, (list, tuple)):
        return value  # pyright: ignore[reportUnknownVariableType]
    if value is None:
        return ()
    raise RecordError(f"field '{field}' is a {describe(value)}, not a list")


def _each_of(function: Callable[[Any], Any]) -> Each:
    name = name_of(function)

    def explode(record: Any) -> Iterable[Any]:
        return _records_of(function(record), name)

    return Each(explode, gives="many", changes=True)


def _all_of_async(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    name = name_of(function)

    async def explode(record: Any) -> Many:
        return Many(_records_of(await function(record), name))

    return explode


def _records_of(result: Any, name: str) -> list[Any] | tuple[Any, ...]:
    if result is None:
        return ()
    if isinstance(result, (list, tuple)):
        return cast(list[Any], result)
    if isinstance(result, Failed):
        raise result.error
    # A dict, a text or a set is iterable too, and never what was meant: a set has no order that stays.
    if hasattr(result, "__next__"):
        return list(result)
    raise RecordError(f"{name} returned a {describe(result)}, not a list of records")
