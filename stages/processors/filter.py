"""Keep the records for which something holds."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

from pipeline.errors import ConfigError
from pipeline.expression import compile_predicate, paths_read
from pipeline.projection import Access
from pipeline.stage import Each, EachAsync, Processor, StageContext, Work, key
from stages.processors.functions import is_async, is_generator, name_of, refuse_timeout
from stages.processors.records import compiled

__all__ = ("Filter",)


class Filter(Processor):
    """Keep the records for which ``where`` holds; the others are filtered, which settles them.

    A function takes the record, may be asynchronous, and what it returns counts by its truth.
    """

    where: Annotated[
        str | Callable[[Any], Any],
        key("Expression that holds for the records to keep; in Python also a function of the record.", expression=True),
    ]

    def problems(self) -> Iterable[tuple[str, str]]:
        """Refuse generators, and a timeout where nothing can be interrupted."""
        if not isinstance(self.where, str) and is_generator(self.where):
            yield "where", f"{name_of(self.where)} is a generator; return whether to keep the record"
        if isinstance(self.where, str) or not is_async(self.where):
            yield from refuse_timeout(self)

    def nonfinite(self, fields: frozenset[str] | None) -> frozenset[str] | None:
        """Return the same fields: an expression changes none; what a function does nobody knows."""
        return fields if isinstance(self.where, str) else None

    def access(self) -> Access | None:
        """Return the fields that the expression reads."""
        if not isinstance(self.where, str) or type(self).open is not Filter.open:
            return None
        reads = paths_read(self.where)
        return Access(reads) if reads is not None else None

    def per_record(self) -> bool:
        """Tell that it takes single records."""
        return True

    async def open(self, context: StageContext) -> Work:
        """Compile the expression.

        :raises ConfigError: when it is not one.
        """
        where = self.where
        if isinstance(where, str):
            place = f"stage '{context.name}' (processor filter)"
            predicate = compiled(place, "where", lambda: compile_predicate(where))
            return Each(predicate.function, gives="keep", origins=predicate.uses_origin, loop=predicate.loop)
        if not callable(where):
            raise ConfigError(f"stage '{context.name}' (processor filter): where: expected an expression or a function")
        return EachAsync(_keeping(where)) if is_async(where) else Each(where, gives="keep")


def _keeping(where: Callable[[Any], Any]) -> Callable[..., Any]:
    async def keep(record: Any) -> Any:
        return record if await where(record) else None

    return keep
