"""One pipeline under test: its input, its config, and what its outputs must be in the end."""

import os
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.verify.audit import Audit, audit
from tests.faults import steps
from tests.faults.records import Ident, ident

__all__ = ("Output", "Scenario")


def _every(count: int) -> Sequence[Ident]:
    return range(count)


def _one_lane(_: Ident) -> Hashable:
    return None


@dataclass(frozen=True, slots=True)
class Output:
    """What one sink must hold. ``image`` is what must be the same as after an unbroken run, bytes or rows."""

    read: Callable[[Path], Iterable[Mapping[str, Any]]]
    expected: Callable[[int], Sequence[Ident]] = _every
    lane: Callable[[Ident], Hashable] | None = _one_lane
    image: Callable[[Path], object] | None = None
    ident: Callable[[Mapping[str, Any]], Ident] = ident


@dataclass(frozen=True, slots=True)
class Scenario:
    """A pipeline under test; ``count`` input records. ``script`` is Python that runs it in place of the command.

    ``at_risk`` says how many records a kill at this moment may repeat; none where it is left out.
    """

    name: str
    prepare: Callable[[Path, int], None]
    outputs: Mapping[str, Output]
    config: str = ""
    script: str = ""
    count: int = 12_000
    at_risk: Callable[[Path], int] | None = None

    def arguments(self) -> list[str]:
        """Return what to run in the folder, after the interpreter."""
        if self.script:
            return ["compose.py"]
        return ["-m", "pipeline", "run", "pipeline.yaml", "--log", "json"]

    def make_inputs(self, folder: Path) -> None:
        """Write the input once for all runs."""
        folder.mkdir(parents=True)
        self.prepare(folder, self.count)

    def set_up(self, folder: Path, inputs: Path) -> None:
        """Make a folder to run in, with links to the inputs."""
        folder.mkdir(parents=True)
        for path in inputs.iterdir():
            os.link(path, folder / path.name)
        shutil.copy(steps.__file__, folder / "steps.py")
        (folder / ("compose.py" if self.script else "pipeline.yaml")).write_text(self.script or self.config)

    def images(self, folder: Path) -> dict[str, object]:
        """Return what later runs are compared with."""
        return {name: output.image(folder) for name, output in self.outputs.items() if output.image is not None}

    def audit(self, folder: Path, images: Mapping[str, object]) -> Audit:
        """Compare all outputs with what they must be, and with an unbroken run's."""
        result = Audit()
        for name, output in self.outputs.items():
            found = map(output.ident, output.read(folder))
            result.add(audit(output.expected(self.count), found, output.lane))
            if output.image is not None and name in images and output.image(folder) != images[name]:
                result.add(Audit(differs=(name,)))
        return result
