"""What is public: named in ``__all__``, documented, and reached by one path."""

import importlib
import inspect
from typing import Any

import pytest

from tests.rules.reading import Module, modules

EVERY = [module for module in modules("pipeline", "stages") if module.name != "pipeline.__main__"]
NAMED = {module.name: module for module in EVERY}
PLAIN = [module for module in EVERY if not module.is_package or module.all is not None]


@pytest.mark.parametrize("module", PLAIN, ids=str)
def test_all_is_a_tuple_of_names_that_are_there(module: Module) -> None:
    assert module.all is not None, f"{module.path}: needs `__all__`, a tuple of texts"
    assert len(set(module.all)) == len(module.all), f"{module.path}: a name twice in __all__"
    loaded = importlib.import_module(module.name)
    missing = [name for name in module.all if not hasattr(loaded, name)]
    assert not missing, f"{module.path}: __all__ names {missing}, which is not there"


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_every_public_name_says_what_it_is_for(module: Module) -> None:
    loaded = importlib.import_module(module.name)
    assert loaded.__doc__, f"{module.path}: needs a docstring"
    for name in module.all or ():
        value = getattr(loaded, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert _documented(value), f"{module.path}: {name} needs a docstring of its own"


def _documented(value: Any) -> bool:
    return bool(vars(value).get("__doc__") if inspect.isclass(value) else value.__doc__)


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_what_other_packages_import_is_public(module: Module) -> None:
    for found in module.imports:
        source = NAMED.get(found.module)
        if source is None or source.all is None or _package(source.name) == _package(module.name):
            continue
        inner = {name for name in found.names if f"{found.module}.{name}" in NAMED}
        hidden = set(found.names) - set(source.all) - inner - {"__version__"}
        assert not hidden, f"{module.path}:{found.line}: {found.module} does not offer {sorted(hidden)} in __all__"


def _package(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_the_front_door_is_what_it_says() -> None:
    import pipeline

    assert pipeline.__version__
    assert set(pipeline.__all__) >= {"Batch", "Failed", "Many", "Pipeline", "PipelineError", "Report"}
    assert {
        name for name in pipeline.__all__ if getattr(pipeline, name).__module__.split(".")[0] != "pipeline"
    } == set()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pipeline.nothing
