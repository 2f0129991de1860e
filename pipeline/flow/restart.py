"""How often a broken stage may be opened again."""

from typing import Any, cast

from pipeline.cause import cause_of
from pipeline.control.policy import Kind, classify
from pipeline.errors import PipelineError, StageError, StorageError
from pipeline.flow.run import Run
from pipeline.stage import Restart

__all__ = ("Restarts", "root_of")


class Restarts:
    """Counts the restarts of one stage within its interval. For bugs of the stage; storage is never tried again."""

    def __init__(self, run: Run, stage: str, allowed: Restart | None) -> None:
        self._run = run
        self._stage = stage
        self._allowed = allowed
        self._made: list[float] = []

    def check(self, error: Exception) -> None:
        """Note a restart because of an error.

        :raises StageError: when there may be none; names the stage and what broke it.
        """
        planned = self._run.topology.stages[self._stage]
        error = root_of(error)
        if isinstance(error, PipelineError) and not isinstance(error, StageError):
            raise error
        if isinstance(error, OSError) and classify(error) is Kind.FAULT:
            raise StorageError(f"stage '{self._stage}' ({planned.role} {planned.kind}): {error}") from error
        text = cause_of(error) if not isinstance(error, StageError) else str(error)
        if not text.startswith(f"stage '{self._stage}'"):
            text = f"stage '{self._stage}' ({planned.role} {planned.kind}): {text}"
        if self._allowed is None:
            raise StageError(text) from error
        now = self._run.clock.now()
        within: Any = self._allowed.within
        self._made = [at for at in self._made if now - at < within]
        if len(self._made) >= self._allowed.attempts:
            raise StageError(f"{text} (after {len(self._made)} restarts)") from error
        self._made.append(now)
        self._run.events.emit("restart", stage=self._stage, error=text)


def root_of(error: Exception) -> Exception:
    """Return the error that a group is about: storage before all else, then what is ours, then the first."""
    if not isinstance(error, ExceptionGroup):
        return error
    members = cast(tuple[Exception, ...], error.exceptions)  # pyright: ignore[reportUnknownMemberType]
    inner = [root_of(each) for each in members]
    ours = [each for each in inner if isinstance(each, PipelineError)]
    return next((each for each in ours if isinstance(each, StorageError)), ours[0] if ours else inner[0])
