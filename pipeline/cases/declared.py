"""The keys of a file of cases."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, field

from pipeline.stage import OnFailure, key

__all__ = ("Case", "CaseFile", "Expected", "Rule")


class Rule(Struct, kw_only=True):
    """What a mock does with the records that it is for, in place of the stage."""

    when: Annotated[
        str | None, key("Expression that says which records the rule is for; all of them.", expression=True)
    ] = None
    set: Annotated[dict[str, Any] | None, key("Fields that each record gets.")] = None
    give: Annotated[Any, key("What each record becomes: a record, a list of records, or null for none.")] = UNSET
    error: Annotated[str | None, Meta(min_length=1), key("Each record fails with this text; its own fault.")] = None
    unavailable: Annotated[
        str | None, Meta(min_length=1), key("Each attempt fails with this text; worth another attempt.")
    ] = None
    times: Annotated[int | None, Meta(ge=1), key("With unavailable: attempts that fail before the stage is back.")] = (
        None
    )

    def misfits(self) -> Iterable[tuple[str, str]]:
        """Yield what is wrong with the keys taken together: pairs of a key and a text."""
        said = [name for name in ("set", "give", "error", "unavailable") if getattr(self, name) not in (None, UNSET)]
        said += ["give"] * (self.give is None)
        if len(said) != 1:
            got = f", got {' and '.join(said)}" if said else ""
            yield "", f"expected one of set, give, error, unavailable{got}"
        if self.times is not None and self.unavailable is None:
            yield "times", "belongs to 'unavailable'"


class Expected(Struct, kw_only=True):
    """A failure that a case expects."""

    stage: Annotated[str, key("The stage in which a record fails.")]
    error: Annotated[str, key("Part of the error, its type included.")] = ""
    outcome: Annotated[OnFailure | None, key("What becomes of the record; any, if left out.")] = None
    record: Annotated[Any, key("The dead letter's record, as the stage received it.")] = UNSET


class Case(Struct, kw_only=True):
    """One case: what goes in, and what must come out."""

    name: Annotated[str, Meta(min_length=1), key("What the case shows, in a few words.")]
    input: Annotated[
        dict[str, list[Any]] | list[Any],
        key(
            "Records by source, or a list where there is one source. `_wait: 2s` waits, `_failed: TEXT` can't be read."
        ),
    ]
    output: Annotated[
        dict[str, list[Any]] | list[Any] | None,
        key("Records by sink, or a list where there is one sink. A sink that is not named is not looked at."),
    ] = None
    failures: Annotated[list[Expected], key("Failures, in any order; others than these fail the case.")] = field(
        default_factory=list[Expected]
    )
    order: Annotated[Literal["exact", "any"], key("Whether the order of the output counts.")] = "exact"
    fields: Annotated[
        Literal["all", "named"], key("Whether a record may have fields that are not expected: named allows them.")
    ] = "all"
    mocks: Annotated[
        dict[str, Rule | list[Rule]],
        key("By processor or sink, what stands in for it: a rule, or several of which the first that fits counts."),
    ] = field(default_factory=dict[str, Rule | list[Rule]])
    environment: Annotated[dict[str, str], key("Variables that are set for the case.")] = field(
        default_factory=dict[str, str]
    )

    def rules(self, stage: str) -> list[Rule]:
        """Return the rules of a stage's mock."""
        found = self.mocks[stage]
        return found if isinstance(found, list) else [found]


class CaseFile(Struct, kw_only=True):
    """A file of cases."""

    cases: Annotated[list[Case], Meta(min_length=1), key("The cases.")]
