import gc
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.collecting import YOUNG, collecting_less
from tests.cli.commands import TO_JSONL


def test_the_collector_looks_seldom_and_is_as_it_was_behind_it() -> None:
    before = gc.get_threshold()
    with pytest.raises(ZeroDivisionError), collecting_less():
        assert gc.get_threshold() == (YOUNG, *before[1:])
        assert gc.get_freeze_count() > 0
        raise ZeroDivisionError
    assert gc.get_threshold() == before
    assert gc.get_freeze_count() == 0


def test_the_collector_looks_at_nothing_while_the_command_starts(tmp_path: Path) -> None:
    tmp_path.joinpath("in.jsonl").write_text('{"n": 1}\n')
    tmp_path.joinpath("c.yaml").write_text(TO_JSONL)
    counted = (
        "import gc, os, sys; from pipeline.__main__ import main; gc.collect()\n"
        "gc.callbacks.append(lambda phase, info: os.write(1, b'looked\\n'))\n"
        "sys.argv = ['pipeline', 'run', 'c.yaml']; code = main(); gc.callbacks.clear(); sys.exit(code)"
    )
    # To compile modules makes far more than to start does; the second time they are at hand.
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path / "cache")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    said: list[str] = []
    for _ in range(2):
        tmp_path.joinpath("out.jsonl").unlink(missing_ok=True)
        shutil.rmtree(tmp_path / ".pipeline", ignore_errors=True)
        command = [sys.executable, "-c", counted]
        ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        said.append(ran.stdout)
    assert "looked" not in said[1]
