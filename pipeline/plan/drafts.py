"""Stages as a config lists them: role and kind, keys in their two places, names, and who reads from whom."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from msgspec import Struct, field

from pipeline.nearest import did_you_mean
from pipeline.plan.code import check_expressions, resolve_functions
from pipeline.plan.document import Path
from pipeline.plan.exceptions import check_exceptions
from pipeline.plan.naming import ROLES, check_name, default_names, unnamed_twins
from pipeline.plan.policies import policy_problems
from pipeline.plan.registry import NotFoundError, Registry
from pipeline.plan.scalars import INVALID, kind_of_value
from pipeline.plan.schema import ROLE_CLASSES, Key, keys_of
from pipeline.plan.values import Report, build, check_keys, check_value
from pipeline.plan.wiring import Wire, check_wiring, inputs_by_place
from pipeline.stage import Processor, Stage

__all__ = ("Draft", "Drafting")


class Draft(Struct):
    """A stage that is being read. ``role`` is empty while nobody knows it; ``spec`` is None when it has problems."""

    index: int
    data: Mapping[str, Any]
    role: str = ""
    kind: str = ""
    given_name: str | None = None
    name: str = ""
    reads: tuple[str, ...] | None = None
    inputs: tuple[str, ...] = ()
    declared: type[Stage] | None = None
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    spec: Stage | None = None

    @property
    def own_keys(self) -> list[Key]:
        """The keys under ``with:``."""
        return [key for key in keys_of(self.declared) if not key.engine] if self.declared else []

    @property
    def engine_keys(self) -> list[Key]:
        """The keys beside it."""
        if self.declared is not None or self.role:
            return [key for key in keys_of(self.declared or ROLE_CLASSES[self.role]) if key.engine]
        every = {key.name: key for base in ROLE_CLASSES.values() for key in keys_of(base) if key.engine}
        return list(every.values())

    def path_of(self, name: str) -> Path:
        """Return the path of a key in the document."""
        own = any(key.name == name for key in self.own_keys)
        return ("stages", self.index, "with", name) if own else ("stages", self.index, name)


class Drafting:
    """Reads the stages of a config, each by itself, and wires them to each other; all problems are reported.

    It goes two rounds: who the stages are, so that problems can name them, then what their keys say.
    """

    def __init__(self, registry: Registry, report: Report) -> None:
        self._registry = registry
        self._report_to = report
        self._reported: set[int] = set()
        self._said = 0
        self.drafts: list[Draft] = []

    def read(self, listed: Sequence[object]) -> None:
        """Read a list of stages; `drafts` has them in its order."""
        for index, data in enumerate(listed):
            if isinstance(data, dict):
                self.drafts.append(_recognise(index, cast("dict[str, Any]", data)))
        called = [(draft.role, draft.kind, draft.given_name) for draft in self.drafts]
        for draft, name in zip(self.drafts, default_names(called), strict=True):
            draft.name = name
        for index, data in enumerate(listed):
            if not isinstance(data, dict) and data is not INVALID:
                text = f"expected a stage, like 'source: jsonl', got {kind_of_value(data)}"
                self._report(("stages", index), text)
        for draft in self.drafts:
            self._check_role(draft)
            self._check_keys(draft)
        self._check_names()
        if len(self.drafts) == len(listed):
            self._wire()

    # --- one stage ---

    def _check_role(self, draft: Draft) -> None:
        at = ("stages", draft.index)
        roles = [role for role in draft.data if role in ROLES]
        for role in roles[1:]:
            self._report((*at, role), f"a stage has one role, and '{roles[0]}' is here already", key=True)
        if not roles:
            # A near miss is reported as an unknown key.
            if not any(did_you_mean(key, ROLES) for key in draft.data):
                self._report(at, f"missing its role: one of {', '.join(ROLES)}, with its kind")
            return
        kind = draft.data[draft.role]
        if not isinstance(kind, str):
            if kind is not INVALID:
                kinds = ", ".join(self._registry.kinds(draft.role))
                self._report((*at, draft.role), f"expected a kind, one of {kinds}; got {kind_of_value(kind)}")
            return
        try:
            draft.declared = self._registry.stage(draft.role, kind)
            if getattr(draft.declared, "python_only", False):
                self._report(
                    (*at, draft.role), f"{draft.role} '{kind}' is for Python only; a config can't hold what it reads"
                )
        except NotFoundError as error:
            self._report((*at, draft.role), str(error))

    def _check_keys(self, draft: Draft) -> None:
        at = ("stages", draft.index)
        engine, own = draft.engine_keys, draft.own_keys
        given = {key: value for key, value in draft.data.items() if key not in (*ROLES, "with", "from")}
        values = check_keys(given, engine, at, self._report, ("with", *ROLES, "from"), lambda key: _beneath(key, own))
        self._check_reads(draft)
        below: Any = draft.data.get("with")
        if below is not None and not isinstance(below, dict):
            if below is not INVALID:
                self._report((*at, "with"), f"expected a mapping of keys, got {kind_of_value(below)}")
        elif draft.declared is not None:
            below = cast("dict[str, Any]", below or {})
            where = (*at, "with")
            found = check_keys(below, own, where, self._report, (), lambda key: _beside(key, engine))
            values |= resolve_functions(own, found, self._registry, self._report, where)
            check_expressions(own, found, self._report, where)
        check_expressions(engine, values, self._report, at)
        check_exceptions(values, self._registry, self._report, at)
        draft.values = values
        self._build(draft)

    def _check_reads(self, draft: Draft) -> None:
        if "from" not in draft.data:
            return
        where, given = ("stages", draft.index, "from"), draft.data["from"]
        if draft.role == "source":
            self._report(where, "a source reads from no other stage", key=True)
            return
        if isinstance(given, str):
            draft.reads = (given,)
        elif not isinstance(given, list):
            if given is not INVALID:
                self._report(where, f"expected the name of a stage, or a list of names, got {kind_of_value(given)}")
        else:
            reads = check_value(cast("list[object]", given), list[str], where, self._report)
            draft.reads = tuple(cast("list[str]", reads)) if reads is not INVALID else None

    def _build(self, draft: Draft) -> None:
        if draft.declared is None or draft.index in self._reported or INVALID in draft.values.values():
            return
        at = ("stages", draft.index)
        spec = build(draft.declared, draft.values, at, self._report)
        if isinstance(spec, Stage):
            for key, text in (*spec.problems(), *policy_problems(spec)):
                self._report((*draft.path_of(key.partition(".")[0]), *key.split(".")[1:]) if key else at, text)
            draft.spec = spec if draft.index not in self._reported else None

    # --- all of them ---

    def _check_names(self) -> None:
        lines: dict[str, Draft] = {}
        for draft in self.drafts:
            where = ("stages", draft.index, "name")
            if draft.given_name is None:
                continue
            if problem := check_name(draft.given_name):
                self._report(where, problem)
            if draft.given_name in lines:
                self._report(where, f"stage {lines[draft.given_name].index + 1} has the same name")
            lines.setdefault(draft.given_name, draft)
        called = [(draft.role, draft.kind, draft.given_name) for draft in self.drafts]
        stateful = [isinstance(draft.spec, Processor) and draft.spec.stateful() for draft in self.drafts]
        for index in unnamed_twins(called, stateful):
            draft = self.drafts[index]
            text = f"two {draft.role}s of kind '{draft.kind}' must both be named, because saved state goes by names"
            if draft.role and draft.kind:
                self._report(("stages", draft.index, draft.role), f"{text}; add 'name:'")

    def _wire(self) -> None:
        wires = [Wire(d.name, d.role, (), d.reads, d.data.get("when")) for d in self.drafts]
        said = self._said
        for draft, inputs in zip(self.drafts, inputs_by_place(wires, self._say), strict=True):
            draft.inputs = inputs
        # A link that is missing because its name is wrong would be reported at both of its ends.
        if self._said == said and all(draft.role for draft in self.drafts):
            check_wiring([Wire(d.name, d.role, d.inputs, None, d.data.get("when")) for d in self.drafts], self._say)

    # --- reporting ---

    def _say(self, stage: str | None, where: Path, text: str) -> None:
        named = [draft for draft in self.drafts if draft.name == stage]
        # Two may have the same name, which is reported too.
        draft = next((draft for draft in named if where[:1] and where[0] in draft.data), named[0] if named else None)
        if draft and where[:1] == ("from",) and isinstance(draft.data.get("from"), str):
            where = ("from",)
        self._report(("stages", draft.index, *where) if draft else where, text)

    def _report(self, where: Path, text: str, *, key: bool = False, offset: int | None = None) -> None:
        self._said += 1
        if len(where) > 1 and isinstance(where[1], int):
            self._reported.add(where[1])
        self._report_to(where, text, key=key, offset=offset)


def _recognise(index: int, data: dict[str, Any]) -> Draft:
    role = next((key for key in data if key in ROLES), "")
    kind, name = data.get(role), data.get("name")
    return Draft(
        index,
        data,
        role=role,
        kind=kind if isinstance(kind, str) else "",
        given_name=name if isinstance(name, str) else None,
    )


def _beneath(key: str, own: Sequence[Key]) -> str:
    return f"; '{key}' belongs under 'with:'" if any(each.name == key for each in own) else ""


def _beside(key: str, engine: Sequence[Key]) -> str:
    known = key == "from" or any(each.name == key for each in engine)
    return f"; '{key}' belongs beside 'with:', not under it" if known else ""
