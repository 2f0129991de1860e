"""The floors of the house: lower ones never import upper ones, there are no circles, and no back doors."""

import ast

import pytest

from tests.rules.reading import Import, Module, modules

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "pipeline.errors",
        "pipeline.units",
        "pipeline.spans",
        "pipeline.clock",
        "pipeline.chain",
        "pipeline.cause",
        "pipeline.standard",
        "pipeline.nearest",
        "pipeline.unsynced",
        "pipeline.finite",
        "pipeline.functions",
        "pipeline.collecting",
    ),
    ("pipeline.projection",),
    ("pipeline.widening",),
    ("pipeline.batch", "pipeline.expression", "pipeline.keywords", "pipeline.sizes"),
    ("pipeline.control",),
    ("pipeline.stage",),
    ("pipeline.watch",),
    ("pipeline.settle", "pipeline.plan"),
    ("pipeline.flow",),
    ("pipeline.pipeline",),
    ("pipeline",),
    ("pipeline.workers",),
    ("pipeline.service", "pipeline.testing"),
    ("pipeline.cases", "pipeline.verify"),
    ("pipeline.cli",),
    ("pipeline.__main__",),
)
"""From the ground up. A module may import from lower floors and from its own package, and from nothing else of ours."""

DOORS_OF_PIPELINE = {("pipeline.pipeline", "pipeline.service.service")}
"""`Pipeline.service` opens a door from below: imported when it is called, so that nobody else pays for it."""

FOR_STAGES = {"stage", "batch", "errors", "units", "clock", "expression", "spans", "control"} | {
    "cause",
    "sizes",
    "standard",
    "unsynced",
    "finite",
    "functions",
    "projection",
    "widening",
}

PIPELINE, STAGES = modules("pipeline"), modules("stages")
EVERY = {module.name: module for module in (*PIPELINE, *STAGES)}


def home(name: str) -> str:
    """Return the module or package that stands on a floor: ``pipeline.flow`` for ``pipeline.flow.channel``."""
    return ".".join(name.split(".")[:2])


def floor_of(name: str) -> int:
    found = [number for number, names in enumerate(FLOORS) if home(name) in names]
    assert found, f"{name} stands on no floor; give it one in FLOORS, or move it"
    return found[0]


def targets(found: Import) -> list[str]:
    """Return the modules of ours that an import names."""
    inner = [f"{found.module}.{name}" for name in found.names if f"{found.module}.{name}" in EVERY]
    return inner or ([found.module] if found.module in EVERY else [])


def of_ours(module: Module) -> list[tuple[Import, str]]:
    return [(found, target) for found in module.imports for target in targets(found)]


@pytest.mark.parametrize("module", PIPELINE, ids=str)
def test_a_module_imports_only_from_lower_floors_and_its_own_package(module: Module) -> None:
    for found, target in of_ours(module):
        if home(target) == home(module.name) and home(module.name) != "pipeline":
            continue
        if (module.name, target) in DOORS_OF_PIPELINE and (found.for_types or not found.at_once):
            continue
        if module.name == "pipeline" and floor_of(target) < floor_of("pipeline"):
            continue
        assert floor_of(target) < floor_of(module.name), (
            f"{module.path}:{found.line}: {module.name} imports {target}, which is not below it"
        )


def test_the_engine_never_imports_stages() -> None:
    wrong = [f"{m.path}:{i.line}" for m in PIPELINE for i in m.imports if i.module.split(".")[0] == "stages"]
    assert not wrong, f"built-in stages are entry points, as a stranger's would be: {wrong}"


def test_stages_import_the_interface_and_the_ground_only() -> None:
    wrong = [
        f"{module.path}:{found.line}: {target}"
        for module in STAGES
        for found, target in of_ours(module)
        if target.split(".")[0] == "pipeline" and ([*target.split("."), ""])[1] not in FOR_STAGES
    ]
    assert not wrong, f"what the interface lacks it should get; there is no back door: {wrong}"


def test_no_modules_import_one_another_in_a_circle() -> None:
    # Importing a.b.c imports the packages a and a.b too, but those of ours hold nothing that could come too late.
    graph = {
        module.name: {target for found, target in of_ours(module) if found.at_once and not found.for_types}
        for module in EVERY.values()
    }
    done: set[str] = set()

    def visit(name: str, way: tuple[str, ...]) -> None:
        assert name not in way, f"a circle: {' -> '.join((*way[way.index(name) :], name))}"
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, (*way, name))
            done.add(name)

    for name in graph:
        visit(name, ())


@pytest.mark.parametrize("module", [*PIPELINE, *STAGES], ids=str)
def test_nobody_uses_what_another_module_keeps_to_itself(module: Module) -> None:
    modules_here = {name for found in module.imports for name in found.names if f"{found.module}.{name}" in EVERY}
    for found in module.imports:
        ours = found.module.split(".")[0] in ("pipeline", "stages")
        private = [part for part in (*found.module.split("."), *found.names) if part[:1] == "_" and part[:2] != "__"]
        assert not (ours and private), f"{module.path}:{found.line}: imports {private[0]} of {found.module}"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and node.attr[:1] == "_" and node.attr[:2] != "__":
            holder = ast.unparse(node.value)
            assert holder not in modules_here, f"{module.at(node)}: uses {holder}.{node.attr}"


def test_aiostream_is_imported_only_by_its_adapter_and_only_when_it_is_used() -> None:
    for module in EVERY.values():
        for found in module.imports:
            if found.module.split(".")[0] == "aiostream":
                assert module.name == "stages.streams", f"{module.path}:{found.line}: imports aiostream"
                assert not found.at_once, f"{module.path}:{found.line}: imports aiostream at once"


def test_every_stage_kind_is_an_entry_point() -> None:
    from importlib.metadata import entry_points

    for role in ("sources", "batchers", "processors", "sinks"):
        named = {point.value.replace(":", ".") for point in entry_points(group=f"pipeline.{role}")}
        package = EVERY[f"stages.{role}"]
        assert {point.rpartition(".")[2] for point in named if point.startswith("stages.")} == set(package.all or ())
