"""From a kind to the class that declares it, and from ``module:name`` to the object: checked before the import.

Kinds are entry points; only those that are named are loaded, and the packages that are installed are looked through
only for a kind that is not built in. Python's own way to import runs whatever stands in a
module, so a name in a config is imported only from where the user said that code may come from: the directory of the
config, or the prefixes of ``--allow-code``.
"""

import importlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.nearest import did_you_mean
from pipeline.plan.builtin import BUILT_IN
from pipeline.plan.schema import ROLE_CLASSES
from pipeline.stage import Stage

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ("NotFoundError", "Registry")

T = TypeVar("T")

_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*):([A-Za-z_][A-Za-z0-9_]*)")

# Modules of config directories that were imported, and from where: another config may have one of the same name.
_imported: dict[str, Path] = {}


class NotFoundError(Exception):
    """Raised for a kind or a function that there isn't, or that may not be imported; one line that says what to do."""


class Registry:
    """Finds what a config names.

    ``directory`` is where the config lies, None for a config without a place; ``allow_code`` are prefixes of modules
    that may be imported from anywhere on Python's path. ``kinds`` stands in for the installed entry points.
    """

    def __init__(
        self,
        directory: Path | None = None,
        allow_code: Sequence[str] = (),
        kinds: Mapping[str, Mapping[str, type[Stage]]] | None = None,
    ) -> None:
        self._directory = directory.resolve() if directory is not None else None
        self._allowed = tuple(allow_code)
        self._given = kinds
        self.foreign = False
        """Whether code of others was imported for the config."""
        self._points: dict[str, dict[str, EntryPoint]] = {}

    def kinds(self, role: str) -> list[str]:
        """Return the names of all kinds of a role, sorted, without loading any."""
        return sorted(self._given.get(role, {}) if self._given is not None else self._entry_points(role))

    def stage(self, role: str, kind: str) -> type[Stage]:
        """Return the class that declares a kind, or that ``module:Class`` names.

        :raises NotFoundError: when there is none, or it can't be loaded.
        """
        if ":" in kind:
            return _checked(self.imported(kind), role, kind)
        if self._given is not None and kind in self._given.get(role, {}):
            return self._given[role][kind]
        if self._given is None and (place := BUILT_IN[role].get(kind)) is not None:
            return _checked(_built_in(place, f"{role} '{kind}'"), role, kind)
        point = self._entry_points(role).get(kind) if self._given is None else None
        if point is None:
            raise NotFoundError(f"unknown {role} '{kind}'{self._elsewhere(role, kind)}")
        self.foreign = True
        package = point.dist.name if point.dist else point.value
        loaded = _run(point.load, f"{role} '{kind}' of package '{package}' can't be loaded")
        return _checked(loaded, role, kind)

    def function(self, name: str) -> Any:
        """Return the function, or class of callable objects, that ``module:name`` names.

        :raises NotFoundError: when it may not be imported, can't be, or isn't callable.
        """
        found = self.imported(name)
        if not callable(found):
            raise NotFoundError(f"'{name}' is no function, but of type {type(found).__name__}")
        return found

    def imported(self, name: str) -> Any:
        """Return the object that ``module:name`` names, after the module was imported.

        :raises NotFoundError: when it may not be imported, can't be, or has no such name.
        """
        match = _NAME.fullmatch(name)
        if match is None:
            raise NotFoundError(f"'{name}' is no name of code; expected module:name, like enrich:add_weather")
        self.foreign = True
        module = self._module(match[1])
        try:
            return getattr(module, match[2])
        except AttributeError:
            near = did_you_mean(match[2], (each for each in vars(module) if not each.startswith("_")))
            raise NotFoundError(f"module '{match[1]}' has no '{match[2]}'{near}") from None

    def _module(self, name: str) -> ModuleType:
        top = name.partition(".")[0]
        if self._directory is not None and (place := _file_of(name, self._directory)) is not None:
            return self._own_module(name, place, self._directory)
        if not any(name == prefix or name.startswith(f"{prefix}.") for prefix in self._allowed):
            raise NotFoundError(self._refusal(name))
        _forget(top, None)
        return _run(lambda: importlib.import_module(name), f"module '{name}' can't be imported")

    def _own_module(self, name: str, place: Path, directory: Path) -> ModuleType:
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names:
            raise NotFoundError(f"'{place.name}' has the name of a module of Python's own; give the file another name")
        _forget(top, directory)
        if top in sys.modules and top not in _imported and not _lies_in(sys.modules[top], directory):
            raise NotFoundError(f"'{place.name}' has the name of an installed module; give the file another name")
        if str(directory) in sys.path:
            sys.path.remove(str(directory))
        sys.path.insert(0, str(directory))
        importlib.invalidate_caches()
        _imported[top] = directory
        return _run(lambda: importlib.import_module(name), f"module '{name}' can't be imported")

    def _refusal(self, name: str) -> str:
        where = f"there is no {name.replace('.', '/')}.py beside the config, and " if self._directory else ""
        return f"module '{name}' may not be imported: {where}no --allow-code names it"

    def _entry_points(self, role: str) -> "dict[str, EntryPoint]":
        if role not in self._points:
            # Slow to import, and slow to ask: it reads what every installed package says of itself.
            from importlib.metadata import entry_points

            self._points[role] = {point.name: point for point in entry_points(group=f"pipeline.{role}s")}
        return self._points[role]

    def _elsewhere(self, role: str, kind: str) -> str:
        roles = [other for other in ROLE_CLASSES if other != role and kind in self.kinds(other)]
        if near := did_you_mean(kind, self.kinds(role)):
            return near
        if roles:
            return f"; '{kind}' is a {' and a '.join(roles)}"
        return f"; expected one of {', '.join(self.kinds(role)) or 'none, since no package that has any is installed'}"


def _built_in(place: str, what: str) -> Any:
    module, _, name = place.partition(":")
    return _run(lambda: getattr(importlib.import_module(module), name), f"{what} of package 'pipeline' can't be loaded")


def _checked(found: Any, role: str, kind: str) -> type[Stage]:
    base = ROLE_CLASSES[role]
    if not isinstance(found, type) or not issubclass(found, base):
        raise NotFoundError(f"'{kind}' is no {role}: expected a class derived from pipeline.stage.{base.__name__}")
    return found


def _file_of(name: str, directory: Path) -> Path | None:
    """Return the file of a module that really lies in a directory, links followed; a name has no dots but its own."""
    path = directory.joinpath(*name.split("."))
    for file in (path.with_name(f"{path.name}.py"), path / "__init__.py"):
        if file.is_file() and file.resolve().is_relative_to(directory):
            return file
    return None


def _forget(top: str, directory: Path | None) -> None:
    """Take a module out that the config of another directory brought in: here the name means something else."""
    if _imported.get(top, directory) != directory:
        for name in [each for each in sys.modules if each == top or each.startswith(f"{top}.")]:
            del sys.modules[name]
        del _imported[top]


def _lies_in(module: ModuleType, directory: Path) -> bool:
    file = getattr(module, "__file__", None)
    return file is not None and Path(file).resolve().is_relative_to(directory)


def _run(load: Callable[[], T], what: str) -> T:
    """Run code of others; whatever it raises becomes one line."""
    try:
        return load()
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split()) or "no reason given"
        raise NotFoundError(f"{what}: {type(error).__name__}: {text[:300]}{_line_of(error)}") from error


def _line_of(error: BaseException) -> str:
    """Return the place of an error in the module that was imported, not in the machinery around it."""
    trace, place = error.__traceback__, ""
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and Path(file).name != "registry.py" and "importlib" not in Path(file).parts:
            place = f" ({Path(file).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
