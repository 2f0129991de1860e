"""From a file of cases to cases that are ready to run, with everything that is wrong with them in one pass."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path as FilePath
from typing import Any, cast

from msgspec import structs

from pipeline.batch import Failed
from pipeline.cases.declared import Case, CaseFile, Rule
from pipeline.errors import ConfigError, Problem
from pipeline.nearest import did_you_mean
from pipeline.plan.characters import MAX_BYTES
from pipeline.plan.checks import label
from pipeline.plan.code import check_expressions
from pipeline.plan.document import Document, Mark, Path, parse
from pipeline.plan.load import Loaded, load_text
from pipeline.plan.naming import repeated
from pipeline.plan.scalars import INVALID, kind_of_value
from pipeline.plan.schema import keys_of
from pipeline.plan.topology import PlannedStage, Topology
from pipeline.plan.values import check_keys, check_value
from pipeline.stage import RecordError
from pipeline.testing import Wait
from pipeline.units import parse_duration

__all__ = ("Ready", "case_file", "load_cases")


@dataclass(frozen=True, slots=True)
class Ready:
    """A case with the plan that it is about. ``inputs`` has the records of each source, with markers among them."""

    case: Case
    loaded: Loaded
    mark: Mark
    inputs: Mapping[str, list[Any]]
    outputs: Mapping[str, list[Any]]


def case_file(config: str) -> str:
    """Return where the cases of a config lie: ``delays.tests.yaml`` beside ``delays.yaml``."""
    path = FilePath(config)
    return str(path.with_name(f"{path.stem}.tests{path.suffix or '.yaml'}"))


def load_cases(
    config: str,
    cases: str,
    *,
    overrides: Sequence[str] = (),
    allow_code: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> list[Ready]:
    """Read a config and its cases, and check them against each other.

    :raises ConfigError: with every problem of both files.
    """
    content = _read(config)
    loading = _Loading(_parsed(cases))
    environ = os.environ if environ is None else environ

    def plan(variables: Mapping[str, str]) -> Loaded | ConfigError:
        try:
            return load_text(
                content, config, overrides=overrides, environ={**environ, **variables}, allow_code=allow_code
            )
        except ConfigError as error:
            return error

    ready: list[Ready] = []
    wrong: list[Problem] = []
    # Without a case that can be read, the config is checked all the same.
    listed = loading.listed()
    for index, data in enumerate(listed or [{}]):
        case = loading.case(data, index)
        loaded = plan(case.environment if case is not None else {})
        if isinstance(loaded, ConfigError):
            wrong.extend(loaded.problems)
            continue
        inputs, outputs = loading.check(data, index, loaded.topology)
        if case is not None:
            ready.append(Ready(case, loaded, loading.mark(index), inputs, outputs))
    loading.check_names(listed)
    if wrong or loading.problems:
        raise ConfigError(*dict.fromkeys(wrong), *sorted(dict.fromkeys(loading.problems)))
    return ready


def _parsed(path: str) -> Document:
    try:
        return parse(_read(path), path)
    except ConfigError as error:
        hint = "; that is where the cases are (--cases names another file)"
        return Document(path, problems=[replace(each, text=each.text + hint) for each in error.problems])


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise ConfigError(Problem(path, 0, 0, f"can't be read: {reason}")) from None


class _Loading:
    """A file of cases on its way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self.problems: list[Problem] = list(document.problems)

    def listed(self) -> list[Any]:
        """Return the cases as they are written; what is wrong around them is reported."""
        data: object = self._document.data()
        if not isinstance(data, dict):
            if self._document.root is not None or not self.problems:
                self._report((), f"expected a mapping with 'cases', got {kind_of_value(data)}")
            return []
        top = cast("dict[str, Any]", data)
        # The cases are checked one by one, so that each can be named in what is wrong with it.
        keys = [structs.replace(each, annotation=list[Any]) for each in keys_of(CaseFile)]
        found = check_keys(top, keys, (), self._report).get("cases", [])
        if found == [] and top.get("cases") == []:
            self._report(("cases",), "expected at least one case")
        return found if isinstance(found, list) else []  # pyright: ignore[reportUnknownVariableType]

    def mark(self, index: int) -> Mark:
        """Return the place of a case."""
        return self._document.mark(("cases", index))

    def case(self, data: object, index: int) -> Case | None:
        """Return a case that is right by itself; otherwise what is wrong is reported."""
        if data == {}:
            return None
        at: Path = ("cases", index)
        before = len(self.problems)
        mocks = self._mocks(_mapping(data).get("mocks"), (*at, "mocks"))
        alone = {name: value for name, value in _mapping(data).items() if name != "mocks" or mocks is None}
        case: Any = check_value(alone or data, Case, at, self._report)
        if case is INVALID or len(self.problems) > before:
            return None
        if case.output is None and not case.failures:
            self._report(at, "expects nothing; add 'output:' or 'failures:'")
        case.mocks = mocks or {}
        return cast("Case", case)

    def _mocks(self, given: object, where: Path) -> dict[str, Rule | list[Rule]] | None:
        """Return the mocks, each rule checked by itself; None where they are no mapping."""
        if not isinstance(given, dict):
            return None
        found: dict[str, Rule | list[Rule]] = {}
        for name, rules in _mapping(cast("object", given)).items():
            if isinstance(rules, list):
                found[name] = [self._rule(each, (*where, name, place)) for place, each in enumerate(_list(rules))]  # pyright: ignore[reportUnknownArgumentType]
            else:
                found[name] = self._rule(rules, (*where, name))
        return found

    def _rule(self, given: object, where: Path) -> Rule:
        rule: Any = check_value(given, Rule, where, self._report)
        if rule is INVALID:
            return Rule()
        for key, text in rule.misfits():
            self._report((*where, key) if key else where, text)
        check_expressions(keys_of(Rule), {"when": rule.when}, self._report, where)
        return cast("Rule", rule)

    def check(self, data: object, index: int, topology: Topology) -> tuple[dict[str, list[Any]], dict[str, list[Any]]]:
        """Return a case's records by source and by sink; what does not fit the plan is reported.

        Works on what is written, so that a case with a wrong key is checked against the plan all the same.
        """
        if not isinstance(data, dict) or not data:
            return {}, {}
        case, at = cast("dict[str, Any]", data), ("cases", index)
        inputs = self._by_stage(case.get("input"), topology.sources, "source", (*at, "input"), every=True)
        outputs = self._by_stage(case.get("output"), topology.sinks, "sink", (*at, "output"), every=False)
        for number, expected in enumerate(_list(case.get("failures"))):
            stage: object = _mapping(expected).get("stage")
            if isinstance(stage, str):
                self._known(stage, topology.stages, "stage", (*at, "failures", number, "stage"))
        for name, rules in _mapping(case.get("mocks")).items():
            self._check_mock(name, rules, topology, (*at, "mocks", name))
        records = {
            name: [self._record(record, (*where, place)) for place, record in enumerate(given)]
            for name, (where, given) in inputs.items()
        }
        return records, {name: given for name, (_, given) in outputs.items()}

    def check_names(self, listed: Sequence[object]) -> None:
        """Report names that two cases have, since a case is run by its name."""
        names = [str(_mapping(each).get("name", "")) for each in listed]
        twice = repeated([name for name in names if name])
        for index, name in enumerate(names):
            if name in twice and name in names[:index]:
                self._report(("cases", index, "name"), "another case has the same name")

    # --- a case and its plan ---

    def _by_stage(
        self, given: object, stages: Sequence[PlannedStage], role: str, where: Path, *, every: bool
    ) -> dict[str, tuple[Path, list[Any]]]:
        """Return the records of each stage of a role, each with its place in the file."""
        names = [stage.name for stage in stages]
        if isinstance(given, list):
            if len(names) == 1:
                return {names[0]: (where, _list(given))}  # pyright: ignore[reportUnknownArgumentType]
            self._report(where, f"there are {len(names)} {role}s ({', '.join(names)}); write a list for each, by name")
            return {}
        found = {name: ((*where, name), _list(records)) for name, records in _mapping(given).items()}
        for name in found:
            self._known(name, names, role, (*where, name), key=True)
        missing = [name for name in names if every and given is not None and name not in found]
        if missing and len(missing) < len(names):
            self._report(where, f"no records for {role} {', '.join(map(repr, missing))}; an empty list gives none")
        return found

    def _check_mock(self, name: str, rules: object, topology: Topology, where: Path) -> None:
        if not self._known(name, topology.stages, "stage", where, key=True):
            return
        role = topology.stages[name].role
        if role not in ("processor", "sink"):
            instead = "what it gives is 'input'" if role == "source" else "it only gathers records"
            self._report(where, f"a {role} is not mocked; {instead}", key=True)
        gives = any({"set", "give"} & set(_mapping(rule)) for rule in _list(rules) or [rules])
        if role == "sink" and gives:
            self._report(where, "a sink gives nothing; its mock has 'error' or 'unavailable'", key=True)

    def _known(self, name: str, known: Any, what: str, where: Path, *, key: bool = False) -> bool:
        if name in known:
            return True
        near = did_you_mean(name, known) or f"; expected one of {', '.join(known)}"
        self._report(where, f"no {what} '{name}'{near}", key=key)
        return False

    def _record(self, record: Any, where: Path) -> Any:
        """Return a record, or the marker that it stands for."""
        if isinstance(record, dict) and len(record) == 1:  # pyright: ignore[reportUnknownArgumentType]
            if "_wait" in record:
                return self._wait(cast("object", record["_wait"]), (*where, "_wait"))
            if "_failed" in record:
                return Failed(None, RecordError(str(record["_failed"])))  # pyright: ignore[reportUnknownArgumentType]
        return cast("object", record)

    def _wait(self, value: object, where: Path) -> Wait:
        try:
            return Wait(parse_duration(value if isinstance(value, str) else ""))
        except ValueError:
            self._report(where, "expected a duration with a unit, like 250ms")
            return Wait(0)

    # --- reporting ---

    def _report(self, where: Path, text: str, *, key: bool = False, offset: int | None = None) -> None:
        mark = self._document.mark(where, key=key) if offset is None else self._document.within(where, offset)
        named = label((where[:-1] if key else where)[2:])
        said = ": ".join(filter(None, (self._title(where), named and f"key '{named}'", text)))
        self.problems.append(mark.problem(" ".join(said.split())))

    def _title(self, where: Path) -> str:
        if where[:1] != ("cases",) or len(where) < 2:
            return ""
        found = self._document.find((*where[:2], "name"))
        name: object = found.value if found is not None else None
        return f"case '{name}'" if isinstance(name, str) and name else f"case {int(where[1]) + 1}"


def _mapping(value: object) -> dict[str, Any]:
    """Return a mapping as it is; anything else, which is reported by itself, as an empty one."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]
