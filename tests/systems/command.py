"""The command as a user runs it: a process of its own, in a folder of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ("Ended", "ROOT", "command", "start")

ROOT = Path(__file__).parents[2]
_PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the log events of a name, from the lines of ``--log json``."""
        lines = [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == name]

    def event(self, name: str) -> dict[str, Any]:
        """Return the only log event of a name."""
        (found,) = self.events(name)
        return found


def start(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
    """Start ``pipeline ARGUMENTS`` in a folder; the caller waits for it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PIPELINE__")}
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **(environ or {})},
    )


def command(folder: Path, *arguments: str, environ: Mapping[str, str] | None = None) -> Ended:
    """Run ``pipeline ARGUMENTS`` in a folder to its end."""
    with start(folder, *arguments, environ=environ) as process:
        try:
            out, err = process.communicate(timeout=_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Ended(process.returncode, out, err)
