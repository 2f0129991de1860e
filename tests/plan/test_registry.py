"""Kinds and functions: found where they may be, and nowhere else."""

import importlib
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from pipeline.plan.builtin import BUILT_IN
from pipeline.plan.registry import NotFoundError, Registry
from pipeline.stage import Sink
from tests.plan.kinds import KINDS

SINK = "from pipeline.stage import Sink\n\nclass Warehouse(Sink, kw_only=True):\n    table: str\n"


@pytest.fixture(autouse=True)
def _imports_undone() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    path, modules = list(sys.path), dict(sys.modules)
    yield
    sys.path[:] = path
    for name in sys.modules.keys() - modules.keys():
        del sys.modules[name]


def installed(folder: Path, points: str) -> None:
    """Install a package that has these entry points."""
    info = folder / "shop-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shop\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(points)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()


def test_a_kind_is_an_entry_point_and_only_the_named_one_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "shop_sinks.py").write_text(SINK)
    installed(tmp_path, "[pipeline.sinks]\nwarehouse = shop_sinks:Warehouse\nother = shop_other:Other\n")
    registry = Registry()

    assert {"warehouse", "other"} <= set(registry.kinds("sink"))
    assert "shop_sinks" not in sys.modules
    assert issubclass(registry.stage("sink", "warehouse"), Sink)
    assert "shop_other" not in sys.modules


def test_what_is_built_in_is_what_the_entry_points_of_this_package_say() -> None:
    for role, kinds in BUILT_IN.items():
        points = entry_points(group=f"pipeline.{role}s")
        assert kinds == {point.name: point.value for point in points if point.value.startswith("stages.")}


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("raise RuntimeError('no\\nlicence')", "RuntimeError: no licence (shop_sinks.py, line 1)"),
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all' (shop_sinks.py, line 1)"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("x = (", "SyntaxError: '(' was never closed"),
        ("Warehouse = 3", "'warehouse' is no sink: expected a class derived from pipeline.stage.Sink"),
        ("class Warehouse: pass", "'warehouse' is no sink"),
        ("", "AttributeError: module 'shop_sinks' has no attribute 'Warehouse'"),
    ],
)
def test_a_broken_package_is_told_in_one_line(tmp_path: Path, module: str, said: str) -> None:
    (tmp_path / "shop_sinks.py").write_text(module)
    installed(tmp_path, "[pipeline.sinks]\nwarehouse = shop_sinks:Warehouse\n")

    with pytest.raises(NotFoundError) as raised:
        Registry().stage("sink", "warehouse")

    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_an_unknown_kind_says_the_nearest_or_where_else_it_is() -> None:
    registry = Registry(kinds=KINDS)

    with pytest.raises(NotFoundError, match=r"unknown sink 'sqlit'; did you mean 'sqlite'\?"):
        registry.stage("sink", "sqlit")
    with pytest.raises(NotFoundError, match="unknown sink 'generate'; 'generate' is a source"):
        registry.stage("sink", "generate")
    with pytest.raises(NotFoundError, match="unknown batcher 'zzz'; expected one of adaptive, fixed"):
        registry.stage("batcher", "zzz")


def test_a_class_beside_the_config_is_a_kind(tmp_path: Path) -> None:
    (tmp_path / "own_sinks.py").write_text(SINK)

    assert Registry(tmp_path).stage("sink", "own_sinks:Warehouse").__name__ == "Warehouse"
    with pytest.raises(NotFoundError, match="'own_sinks:Warehouse' is no source"):
        Registry(tmp_path).stage("source", "own_sinks:Warehouse")


@pytest.mark.parametrize(
    "name",
    [
        *(
            "os:system",
            "subprocess:run",
            "builtins:eval",
            "sys:exit",
            "pipeline.plan.load:load",
            "importlib:import_module",
        ),
        *("posix:system", "nt:system", "os.path:join", "tests.plan.kinds:registry", "own_missing:f", "pkg.missing:f"),
    ],
)
def test_a_module_from_elsewhere_is_refused_before_its_import(tmp_path: Path, name: str) -> None:
    (tmp_path / "own_code.py").write_text("def f(r): return r\n")
    before = set(sys.modules)

    with pytest.raises(NotFoundError, match="may not be imported"):
        Registry(tmp_path).function(name)
    assert set(sys.modules) == before


@pytest.mark.parametrize(
    "name",
    [
        *(
            "own_code:f.g",
            "own_code:f:g",
            "own_code",
            ":f",
            "own_code:",
            "..own_code:f",
            ".own_code:f",
            "../own_code:f",
        ),
        *("own_code:f()", "own code:f", "/etc/own_code:f", "own_code:\n", "own_code.py/x:f", "own_code:é", ""),
    ],
)
def test_what_is_no_plain_name_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "own_code.py").write_text("def f(r): return r\n")

    with pytest.raises(NotFoundError, match="no name of code"):
        Registry(tmp_path).function(name)


def test_code_beside_the_config_may_use_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "own_pkg").mkdir()
    (tmp_path / "own_pkg" / "steps.py").write_text("from own_tools import double\n\ndef f(r): return double(r)\n")
    (tmp_path / "own_tools.py").write_text("def double(r): return 2 * r\n")

    assert Registry(tmp_path).function("own_pkg.steps:f")(4) == 8


def test_two_configs_may_each_have_a_module_of_one_name(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own_steps.py").write_text(f"def f(): return {folder!r}\n")
    functions = [Registry(tmp_path / folder).function("own_steps:f") for folder in ("one", "two", "one")]

    assert [function() for function in functions] == ["one", "two", "one"]


def test_a_link_out_of_the_folder_is_not_beside_the_config(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.py").write_text("def f(r): return r\n")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "own_link.py").symlink_to(tmp_path / "elsewhere.py")

    with pytest.raises(NotFoundError, match="may not be imported"):
        Registry(tmp_path / "configs").function("own_link:f")


@pytest.mark.parametrize(("name", "said"), [("json", "of Python's own"), ("msgspec", "of an installed module")])
def test_a_file_must_not_take_the_name_of_another_module(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / f"{name}.py").write_text("def f(r): return r\n")

    with pytest.raises(NotFoundError, match=said):
        Registry(tmp_path).function(f"{name}:f")


def test_allowed_prefixes_go_by_whole_parts_of_a_name(tmp_path: Path) -> None:
    for module in ("shop_code", "shop_code_evil"):
        (tmp_path / f"{module}.py").write_text("def f(r): return r\n")
    sys.path.insert(0, str(tmp_path))
    importlib.invalidate_caches()
    registry = Registry(None, ["shop_code"])

    assert registry.function("shop_code:f")(1) == 1
    with pytest.raises(NotFoundError, match="module 'shop_code_evil' may not be imported: no --allow-code names it"):
        registry.function("shop_code_evil:f")


def test_a_name_that_is_not_there_or_can_not_be_called_is_told(tmp_path: Path) -> None:
    (tmp_path / "own_names.py").write_text("def enrich(r): return r\n\nlimit = 3\n")
    registry = Registry(tmp_path)

    with pytest.raises(NotFoundError, match=r"module 'own_names' has no 'enrch'; did you mean 'enrich'\?"):
        registry.function("own_names:enrch")
    with pytest.raises(NotFoundError, match="'own_names:limit' is no function, but of type int"):
        registry.function("own_names:limit")
