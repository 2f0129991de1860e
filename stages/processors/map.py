"""Compute, rename, keep and drop fields."""

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec

from pipeline.expression import Expression, Loop, Rebuilt, compile_assignments, may_be_nonfinite, paths_read
from pipeline.projection import Access
from pipeline.stage import Each, Processor, StageContext, Work, key
from pipeline.widening import fill
from stages.processors.functions import refuse_timeout
from stages.processors.records import Shape, compiled, shape_of

__all__ = ("Map",)


class Map(Processor, kw_only=True):
    """Compute fields, then rename, then keep or drop; in this order, whichever order the keys are written in.

    A record whose expressions fail is left as it was. A typed record becomes one of a new type, with the fields that
    are left; computed fields come last, or where the field was that they replace.
    """

    set: Annotated[
        dict[str, str],
        key("Fields to compute: an expression each, all over the record as it came in.", expression=True),
    ] = msgspec.field(default_factory=dict[str, str])
    rename: Annotated[
        dict[str, str], key("New names by old ones; a field that has the new name already is replaced.")
    ] = msgspec.field(default_factory=dict[str, str])
    keep: Annotated[list[str] | None, key("Fields to keep, by their new names; all others are dropped.")] = None
    drop: Annotated[list[str] | None, key("Fields to drop, by their new names.")] = None

    def problems(self) -> Iterable[tuple[str, str]]:
        """Refuse keys that contradict each other, and a timeout."""
        if not (self.set or self.rename or self.drop) and self.keep is None:
            yield "set", "nothing to do; give one of set, rename, keep and drop"
        if self.keep is not None and self.drop is not None:
            yield "drop", "can't be given with keep, which drops all other fields anyway"
        for old, new in self.rename.items():
            if new in self.set:
                yield "rename", f"'{old}' would replace '{new}', which is computed by set"
            if list(self.rename.values()).index(new) != list(self.rename).index(old):
                yield "rename", f"two fields can't both be called '{new}'"
        yield from self._renamed_away()
        yield from refuse_timeout(self)

    def _renamed_away(self) -> Iterable[tuple[str, str]]:
        for name, fields in (("keep", self.keep), ("drop", self.drop)):
            for field in fields or ():
                if field in self.rename and field not in self.rename.values():
                    yield name, f"'{field}' is called '{self.rename[field]}' by then, because of rename"

    def nonfinite(self, fields: frozenset[str] | None) -> frozenset[str] | None:
        """Return these fields, and those that are computed, by the names that they are left under."""
        if fields is None:
            return None
        computed = (fields - self.set.keys()) | self._doubtful()
        names = {self.rename.get(name, name) for name in computed}
        return frozenset(filter(self._keeps, names))

    def access(self) -> Access | None:
        """Return the fields that the expressions read and set; None where fields are renamed or dropped."""
        if self.rename or self.drop or self.keep is not None or type(self).open is not Map.open:
            return None
        reads: set[tuple[str, ...]] = set()
        for text in self.set.values():
            paths = paths_read(text)
            if paths is None:
                return None
            reads |= paths
        return Access(frozenset(reads), tuple(self.set), self._doubtful())

    def per_record(self) -> bool:
        """Tell that it takes single records."""
        return True

    async def open(self, context: StageContext) -> Work:
        """Compile the expressions.

        :raises ConfigError: when one is not an expression.
        """
        place = f"stage '{context.name}' (processor map)"
        assign = compiled(place, "set", self._assignments)
        steps = [step for step in (_renamer(self.rename), _chooser(self.keep, self.drop)) if step is not None]
        if not steps:
            return Each(assign.function, gives="record", origins=assign.uses_origin, loop=assign.loop)
        function = _followed(assign.function, steps, assign.uses_origin)
        loop = _followed_loop(assign.loop, steps, function) if assign.loop is not None else None
        return Each(function, gives="record", origins=assign.uses_origin, loop=loop)

    def _assignments(self) -> Expression:
        shapes: dict[type[msgspec.Struct], Shape] = {}
        names = tuple(self.set)

        def shaped(old: type[msgspec.Struct]) -> Shape:
            shape = shapes.get(old)
            if shape is None:
                shape = shapes[old] = shape_of(old, added=list(self.set), names=self.rename, kept=self._keeps)
            return shape

        def changing(compute: Callable[..., Any]) -> Callable[..., Any]:
            def change(record: msgspec.Struct, *origin: Any) -> Any:
                values = compute(record, *origin)
                return record if fill(record, names, values) else shaped(type(record)).make(record, values)

            return change

        def rebuilt(old: type[msgspec.Struct]) -> Rebuilt:
            shape = shaped(old)
            return Rebuilt(shape.type, shape.parts)

        return compile_assignments(self.set, rebuild=changing, rebuilt=rebuilt)

    def _doubtful(self) -> frozenset[str]:
        return frozenset(name for name, text in self.set.items() if may_be_nonfinite(text))

    def _keeps(self, name: str) -> bool:
        return name in self.keep if self.keep is not None else name not in (self.drop or ())


def _followed(
    assign: Callable[..., Any], steps: list[Callable[[dict[str, Any]], dict[str, Any]]], origins: bool
) -> Callable[..., Any]:
    """Return a function that assigns, then takes the steps with dicts; a typed record is done when it is assigned."""

    def finish(record: Any, made: Any) -> Any:
        if made is record:  # a typed record became another one
            for step in steps:
                made = step(made)
        return made

    def change(record: Any) -> Any:
        return finish(record, assign(record))

    def change_with_origin(record: Any, origin: Any) -> Any:
        return finish(record, assign(record, origin))

    return change_with_origin if origins else change


def _followed_loop(
    assign: Loop, steps: list[Callable[[dict[str, Any]], dict[str, Any]]], function: Callable[[Any], Any]
) -> Loop:
    """Return a loop that does what ``function`` does."""

    def loop(records: Iterable[Any], append: Callable[[Any], None]) -> None:
        fetched = list(records)
        kinds = set(map(type, fetched))
        if kinds == {dict}:
            assign_then_step(fetched, append)
        elif all(issubclass(kind, msgspec.Struct) for kind in kinds):
            assign(fetched, append)
        else:
            for record in fetched:
                append(function(record))

    def assign_then_step(records: list[Any], append: Callable[[Any], None]) -> None:
        assigned: list[dict[str, Any]] = []
        try:
            assign(records, assigned.append)
        finally:  # those ahead of one that fails are assigned to, and must not be a second time
            for record in assigned:
                for step in steps:
                    record = step(record)
                append(record)

    return loop


def _renamer(names: dict[str, str]) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    def rename(record: dict[str, Any]) -> dict[str, Any]:
        replaced = {new for old, new in names.items() if old in record}
        return {names.get(name, name): value for name, value in record.items() if name in names or name not in replaced}

    return rename if names else None


def _chooser(keep: list[str] | None, drop: list[str] | None) -> Callable[[dict[str, Any]], dict[str, Any]] | None:
    def choose(record: dict[str, Any]) -> dict[str, Any]:
        return {name: record[name] for name in keep or () if name in record}

    def discard(record: dict[str, Any]) -> dict[str, Any]:
        for name in drop or ():
            record.pop(name, None)
        return record

    if keep is not None:
        return choose
    return discard if drop else None
