"""From a config file to a plan, with everything that is wrong with it in one pass."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any, cast

from msgspec import Struct

from pipeline.errors import ConfigError, Problem
from pipeline.nearest import did_you_mean
from pipeline.plan.characters import MAX_BYTES
from pipeline.plan.checks import check_plan, stage_text
from pipeline.plan.code import resolve_functions
from pipeline.plan.document import Document, Path, parse
from pipeline.plan.drafts import Draft, Drafting
from pipeline.plan.interpolation import HIDDEN, Secrets, hide, interpolate
from pipeline.plan.keys import PipelineConfig
from pipeline.plan.letters import with_sink
from pipeline.plan.naming import ROLES, check_name
from pipeline.plan.overrides import override
from pipeline.plan.registry import Registry
from pipeline.plan.scalars import INVALID, kind_of_value
from pipeline.plan.schema import keys_of
from pipeline.plan.topology import PlannedStage, Topology, Veil, assemble
from pipeline.plan.values import build, check_keys

__all__ = ("Loaded", "load", "load_text")


class Loaded(Struct, frozen=True):
    """What a config file says. ``document`` has the place of everything, ``secrets`` what must never be shown.

    ``foreign`` tells whether it names code of others.
    """

    config: PipelineConfig
    stages: list[PlannedStage]
    topology: Topology
    document: Document
    secrets: Secrets
    foreign: bool


def load(
    path: str | os.PathLike[str],
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    allow_code: Sequence[str] = (),
    confined: bool = False,
) -> Loaded:
    """Read and check a config file. Modules that it names, and may name, are imported.

    ``overrides`` are texts like ``stages.archive.with.table=late``. A ``confined`` config came from a stranger: it gets
    nothing of the environment, of files and of the code beside it.

    :raises ConfigError: with every problem, in the order of the file.
    """
    file = os.fspath(path)
    try:
        with open(file, "rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
        raise ConfigError(Problem(file, 0, 0, f"can't be read: {reason}")) from None
    return load_text(content, file, overrides=overrides, environ=environ, allow_code=allow_code, confined=confined)


def load_text(
    content: bytes | str,
    file: str,
    *,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
    allow_code: Sequence[str] = (),
    confined: bool = False,
    registry: Registry | None = None,
) -> Loaded:
    """Check a config whose text is at hand; ``file`` names it in problems, and its folder is where code may lie."""
    environ = os.environ if environ is None else environ
    document = parse(content, file)
    override(document, overrides, {} if confined else environ)
    secrets = interpolate(document, environ, confined=confined)
    if confined:
        _refuse_outside(document)
    if registry is None:
        registry = Registry(None if confined else FilePath(file).absolute().parent, allow_code)
    return _Loading(document, secrets, registry).load()


_OUTSIDE: tuple[Path, ...] = (("alerts", "webhook"), ("alerts", "command"), ("metrics", "push"))


def _refuse_outside(document: Document) -> None:
    """A stranger's config starts no programs, and sends nothing anywhere."""
    for path in _OUTSIDE:
        if document.find(path) is not None:
            document.refused.append((path, "a config from elsewhere can't start programs or post to addresses"))


_KINDS = tuple((role,) for role in ROLES)
"""Paths of the keys that open a stage: their text names the kind itself."""


class _EnoughError(Exception):
    """So many problems were found that nobody reads them; a stranger's config must not keep us busy."""


_MAX_STAGES = 200
_MAX_PROBLEMS = 200
_QUOTED = re.compile(r"'[^']*'?")
_MAX_TEXT = 600  # cut only after secrets are hidden: half of one would not be found


class _Loading:
    """One document on its way to a plan."""

    def __init__(self, document: Document, secrets: Secrets, registry: Registry) -> None:
        self._document = document
        self._secrets = secrets
        self._problems: list[Problem] = document.problems[:_MAX_PROBLEMS]
        self._registry = registry
        self._drafting = Drafting(registry, self._report)

    def load(self) -> Loaded:
        """Return the plan.

        :raises ConfigError: with every problem.
        """
        try:
            return self._load()
        except _EnoughError:
            raise self._failed() from None

    def _load(self) -> Loaded:
        data: object = self._document.data()
        if not isinstance(data, dict):
            if self._document.root is not None or not self._problems:
                self._report((), f"expected a mapping with 'name' and 'stages', got {kind_of_value(data)}")
            raise self._failed()
        config = self._config(cast("dict[str, Any]", data))
        listed = self._listed(cast("dict[str, Any]", data))
        if listed is not None:
            self._drafting.read(listed)
        for where, text in self._document.refused:
            self._report(where, text)
        stages = self._planned()
        if self._problems or config is None:
            raise self._failed()
        topology = assemble(config.name, config, stages)
        topology.veil = Veil(self._secrets.mask if self._secrets else None, self._hidden(cast("dict[str, Any]", data)))
        check_plan(topology, stages, self._say)
        if self._problems:
            raise self._failed()
        return Loaded(config, stages, topology, self._document, self._secrets, self._registry.foreign)

    def _hidden(self, data: Mapping[str, Any]) -> frozenset[str]:
        return frozenset(name for name in data if name != "stages" and self._document.tainted((name,)))

    def _config(self, data: dict[str, Any]) -> PipelineConfig | None:
        before = len(self._problems)
        given = {name: value for name, value in data.items() if name != "stages"}
        if "dead_letter" in given:
            given["dead_letter"] = with_sink(given["dead_letter"], self._registry, self._report)
        keys = keys_of(PipelineConfig)
        values = check_keys(given, keys, (), self._report, ("stages",))
        values = resolve_functions(keys, values, self._registry, self._report)
        name = values.get("name")
        if isinstance(name, str) and (problem := check_name(name)):
            self._report(("name",), problem)
        if len(self._problems) > before or INVALID in values.values():
            return None
        made = build(PipelineConfig, values, (), self._report)
        if not isinstance(made, PipelineConfig):
            return None
        for key, text in made.problems():
            self._report(tuple(key.split(".")), text)
        return made if len(self._problems) == before else None

    def _listed(self, data: dict[str, Any]) -> list[object] | None:
        if "stages" not in data:
            if not any(did_you_mean(key, ("stages",)) for key in data):
                self._report((), "missing key 'stages', a list of stages")
            return None
        listed: object = data["stages"]
        if isinstance(listed, list):
            if len(stages := cast("list[object]", listed)) <= _MAX_STAGES:
                return stages
            self._report(("stages", _MAX_STAGES), f"more than {_MAX_STAGES} stages")
            return None
        if listed is not INVALID:
            self._report(("stages",), f"expected a list of stages, got {kind_of_value(listed)}")
        return None

    def _planned(self) -> list[PlannedStage]:
        return [
            PlannedStage(
                name=draft.name,
                role=draft.role,
                kind=draft.kind,
                spec=draft.spec,
                inputs=draft.inputs,
                mark=self._document.mark(("stages", draft.index)),
                hidden=frozenset(name for name in draft.values if self._document.tainted(draft.path_of(name))),
            )
            for draft in self._drafting.drafts
            if draft.spec is not None
        ]

    def _say(self, stage: str | None, where: Path, text: str) -> None:
        draft = next((draft for draft in self._drafting.drafts if draft.name == stage), None)
        self._report(("stages", draft.index, *where) if draft else where, text)

    def _report(self, where: Path, text: str, *, key: bool = False, offset: int | None = None) -> None:
        mark = self._document.mark(where, key=key) if offset is None else self._document.within(where, offset)
        if own := self._document.secrets_in(where):
            text = _QUOTED.sub(lambda quoted: hide(quoted[0], own), text)
            text = "not an expression; it has a secret in it and is not shown" if offset is not None else text
        text = self._secrets.mask(self._worded(where[:-1] if key else where, text))
        self._problems.append(mark.problem(" ".join(_shortened(text).split())))
        if len(self._problems) >= _MAX_PROBLEMS:
            raise _EnoughError

    def _worded(self, where: Path, text: str) -> str:
        if where[:1] != ("stages",) or len(where) < 2:
            return stage_text(None, where, text)
        draft = next((draft for draft in self._drafting.drafts if draft.index == where[1]), None)
        return stage_text(self._title(draft) if draft else None, () if where[2:] in _KINDS else where[2:], text)

    def _title(self, draft: Draft) -> str:
        who = f"{draft.role} {draft.kind}".strip()
        if not draft.name or not who:
            return f"stage {draft.index + 1}"
        at: Path = ("stages", draft.index)
        kinds, names = self._document.secrets_in((*at, draft.role)), self._document.secrets_in((*at, "name"))
        # A name that was not given is made of the kind.
        name = HIDDEN if kinds and draft.given_name is None else hide(draft.name, names)
        return f"stage '{name}' ({hide(who, kinds)})"

    def _failed(self) -> ConfigError:
        """Return the error, what a file says by its lines, what was set beside it behind that."""
        beside = {problem for problem in self._problems if problem.line == 0}
        unique = sorted(set(self._problems), key=lambda problem: (problem in beside, problem))
        return ConfigError(*unique)


def _shortened(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}..."
