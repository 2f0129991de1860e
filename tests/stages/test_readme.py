"""The code in stages/README.md runs."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import anyio
import pytest

from pipeline.stage import RecordError, StageContext
from stages import processors

pytestmark = pytest.mark.anyio

README = Path(processors.__file__).parent.parent / "README.md"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def code() -> dict[str, Any]:
    """Return what the code blocks define, taken together."""
    module = ModuleType("readme")
    text = README.read_text()
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        line = text.count("\n", 0, block.start(1))
        exec(compile("\n" * line + block[1], str(README), "exec"), module.__dict__)
    return module.__dict__


async def test_the_processor_of_the_readme_works_as_it_says(code: dict[str, Any]) -> None:
    await code["try_mask"]()


async def test_the_processor_of_the_readme_leaves_a_record_that_failed_as_it_was(code: dict[str, Any]) -> None:
    work = await code["Mask"](field="card").open(StageContext("mask", "cards", code["SystemClock"]()))
    record = {"card": 4111}
    with pytest.raises(RecordError, match="field 'card' is not a text"):
        work.function(record)
    assert record == {"card": 4111}
    assert [key for key, _ in code["Mask"](field="card", timeout=1.0).problems()] == ["timeout"]


async def test_the_source_of_the_readme_goes_on_behind_its_cursor(code: dict[str, Any]) -> None:
    await code["try_countdown"]()


async def test_the_sink_of_the_readme_writes_a_batch_whole(code: dict[str, Any], tmp_path: Path) -> None:
    await code["try_folder"](str(tmp_path))
    assert [path.name async for path in anyio.Path(tmp_path).iterdir()] == ["countdown-0.json"]


def test_every_processor_of_the_package_is_named_in_the_entry_points() -> None:
    text = (README.parent.parent / "pyproject.toml").read_text()
    section = text.partition('[project.entry-points."pipeline.processors"]')[2].partition("\n[")[0]
    named = dict(re.findall(r'^(\w+) = "([\w.:]+)"$', section, re.MULTILINE))

    assert {kind.title() for kind in named} == set(processors.__all__)
    assert all(target == f"stages.processors.{kind}:{kind.title()}" for kind, target in named.items())
