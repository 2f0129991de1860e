"""Constructs that have lost data, hung programs or opened doors elsewhere, and are not used here."""

import ast
import re

import pytest

from tests.rules.reading import Module, modules

EVERY = modules("pipeline", "stages")

CALLS = {
    "asyncio.wait_for": "swallows a cancel that comes with the result on 3.11; use asyncio.timeout or a cancel scope",
    "asyncio.Condition": "loses wake-ups on 3.11; use futures or an event",
    "eval": "runs what it is given",
    "yaml.load": "makes any object; compose with a safe loader",
    "yaml.unsafe_load": "makes any object",
    "os.system": "is a shell",
}
MODULES = {"pickle", "marshal", "shelve", "dill"}
TASKS = {
    # Ended by whoever made them: users' iterators and operators belong to one task for all their life.
    "pipeline.flow.streamed": 1,
    "pipeline.testing.clock": 1,
    "stages.sources.iterable": 1,
}
BROAD = {
    "pipeline.cli": "where the command says what went wrong",
    "pipeline.expression.loops": "where what fails of a user's class is left to its records",
    "pipeline.expression.report": "where a property of a user's record is looked at",
    "pipeline.flow": "where stages and users' functions are called",
    "pipeline.plan": "where users' modules are imported",
    "pipeline.service.http.hosted": "where one pipeline ends and the others go on",
    "pipeline.settle.checkpointer": "where sinks make durable what they hold",
    "pipeline.settle.json_text": "where a user's record is shown",
    "pipeline.workers.writer": "where a sink is called for a process that is to hear what is wrong",
    "pipeline.testing": "where a stranger's stage is called",
    "stages": "where users' functions and other libraries are called",
}
SHIELDS = {"stages.sqlite_connection"}
"""Where a cancel is held up until a transaction has ended, and comes then."""
SCOPES = re.compile(r"CancelScope|create_task_group|TaskGroup|move_on_after|fail_after|timeout")


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_no_banned_call_and_no_banned_import(module: Module) -> None:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute | ast.Name):
            name = ast.unparse(node)
            assert name not in CALLS, f"{module.at(node)}: {name} {CALLS[name]}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "exec":
            assert module.name.startswith("pipeline.expression"), f"{module.at(node)}: exec is for checked trees only"
    for found in module.imports:
        assert found.module.split(".")[0] not in MODULES, f"{module.path}:{found.line}: {found.module}"


def test_tasks_outside_of_task_groups_are_few_and_known() -> None:
    found: dict[str, int] = {}
    for module in EVERY:
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and re.search(r"\b(create_task|ensure_future)$", ast.unparse(node.func)):
                found[module.name] = found.get(module.name, 0) + 1
    assert found == TASKS


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_no_handler_swallows_what_it_should_not(module: Module) -> None:
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.ExceptHandler):
            continue
        assert node.type is not None, f"{module.at(node)}: a bare except"
        caught = ast.unparse(node.type)
        cancels = caught in ("asyncio.CancelledError", "CancelledError")
        if (cancels and module.name not in SHIELDS) or caught == "BaseException":
            passes_on = any(isinstance(each, ast.Raise) for each in ast.walk(node)) or _hands_on(node)
            assert passes_on, f"{module.at(node)}: catches {caught} and does not raise it on"
        if caught == "Exception":
            known = any(module.name == name or module.name.startswith(f"{name}.") for name in BROAD)
            assert known, f"{module.at(node)}: a broad except where no foreign code is called"


def _hands_on(handler: ast.ExceptHandler) -> bool:
    """Tell whether the error is kept, to be raised in its place (thrown into a generator, set on a future)."""
    names = {node.id for node in ast.walk(handler) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return handler.name is not None and handler.name in names


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_no_plain_async_generator_yields_within_a_cancel_scope_or_task_group(module: Module) -> None:
    for function in ast.walk(module.tree):
        if isinstance(function, ast.AsyncFunctionDef) and not _is_context_manager(function):
            for scope in ast.walk(function):
                if isinstance(scope, ast.With | ast.AsyncWith) and _cancels(scope):
                    inside = [node for node in ast.walk(scope) if isinstance(node, ast.Yield)]
                    assert not inside, f"{module.at(scope)}: {function.name} yields within a cancel scope (PEP 789)"


def _is_context_manager(function: ast.AsyncFunctionDef) -> bool:
    return any("contextmanager" in ast.unparse(each) for each in function.decorator_list)


def _cancels(scope: ast.With | ast.AsyncWith) -> bool:
    return any(SCOPES.search(ast.unparse(each.context_expr)) for each in scope.items)


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_nothing_is_left_for_later(module: Module) -> None:
    found = re.search(r"\b(TODO|FIXME|XXX|HACK)\b|simplified for now|for now,? we", module.text)
    assert found is None, f"{module.path}: {found and found[0]!r}"


@pytest.mark.parametrize("module", EVERY, ids=str)
def test_structs_are_declared_with_real_annotations(module: Module) -> None:
    if "from __future__ import annotations" in module.text:
        assert not re.search(r"^class \w+\((.*\b(Struct|Declared|Source|Sink|Processor|Batcher)\b)", module.text, re.M)
