"""The run that ``pipeline verify`` breaks, in a process of its own: ``pipeline run`` but for what goes wrong in it."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec

from pipeline.cli.config import ConfigFile
from pipeline.cli.running import Request, execute
from pipeline.cli.signals import Signals
from pipeline.plan.load import Loaded
from pipeline.verify.faults import Faults, Script

__all__ = ("main",)


@dataclass(frozen=True, slots=True)
class _Rigged(ConfigFile):
    """A config whose plan goes wrong as a script says."""

    faults: Faults | None = None
    folder: str = "."

    def load(self) -> Loaded:
        """Read and check the config where the user is, and go to where nothing of the user's is."""
        loaded = ConfigFile.load(self)
        os.chdir(self.folder)
        return self.faults.rig(loaded) if self.faults is not None else loaded


def main(script: str, folder: str) -> int:
    """Run a script in a folder and return the exit code of the run."""
    from pipeline.cli.main import complain
    from pipeline.errors import PipelineError

    signals = Signals()
    signals.install()
    told = msgspec.json.decode(Path(script).read_bytes(), type=Script)
    faults = Faults(told, Path(folder).absolute())
    config = _Rigged(told.config, told.settings, told.allow_code, faults, folder)
    try:
        code = execute(Request(config, log="json", log_level="warning"), signals)
    except PipelineError as error:
        return complain(error)
    faults.end()
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
