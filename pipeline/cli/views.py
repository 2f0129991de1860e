"""The ways in which a run is watched on standard error: log lines, plain lines, or a live picture on a terminal."""

import logging
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from pipeline import __version__
from pipeline.cause import with_kind
from pipeline.cli.progress import Progress, batch_text, progress_line
from pipeline.cli.say import err, number, span
from pipeline.errors import PipelineError
from pipeline.watch.log import JsonFormatter, TextFormatter, escape, log_events
from pipeline.watch.report import Status

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.live import Live
    from rich.text import Text

__all__ = ("Lines", "Logged", "Screen", "View")

Mask = Callable[[str], str]

_SHOWN = 5
"""Retries, dead letters and the like told one by one; of further ones only the number, at the end."""
_LINE_EVERY = 5.0
_BAR = 24
_WIDE = 80  # below it a bar would take the place of figures


class View(Protocol):
    """Watches a run."""

    every: float
    """Seconds between two calls of `progress`."""

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Take note of a log event."""
        ...

    def progress(self, status: Status, progress: Progress) -> None:
        """Show how far the run has come."""
        ...

    def say(self, text: str) -> None:
        """Say a sentence."""
        ...

    def finish(self, lines: list[str], fields: Mapping[str, Any]) -> None:
        """Say how the run ended."""
        ...

    def fail(self, error: PipelineError) -> None:
        """Say that the run could not be started, or not be ended."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was."""
        ...


class _Ear(logging.Handler):
    """Hears what user code logs, which would otherwise go to standard error as it is, secrets and escapes included."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Say it in a line."""
        self._say(f"{record.levelname.lower()}: {record.name}: {record.getMessage()}")


class Lines:
    """Plain lines: what happens that is worth a sentence, and the progress every five seconds."""

    every = _LINE_EVERY

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._told: dict[str, int] = {}
        self._ear = _Ear(self.say)
        if not logging.getLogger().handlers:
            logging.getLogger().addHandler(self._ear)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Say what a person wants to know at once."""
        sentence = _SENTENCES.get(name)
        if sentence is None:
            return
        count = self._told[name] = self._told.get(name, 0) + 1
        if count <= _SHOWN:
            self.say(sentence(fields))
        if count == _SHOWN:
            self.say(f"further lines like these ({name}) are left out; --log text has them all")

    def progress(self, status: Status, progress: Progress) -> None:
        """Say the progress in a line."""
        self.say(f"{status.pipeline}: {progress_line(status, progress)}")

    def say(self, text: str) -> None:
        """Write a line."""
        err(escape(self._mask(text)))

    def finish(self, lines: list[str], fields: Mapping[str, Any]) -> None:
        """Write the lines of the ending."""
        for line in lines:
            self.say(line)

    def fail(self, error: PipelineError) -> None:
        """Write the error, a line for each of its lines."""
        for line in str(error).split("\n"):
            self.say(f"error: {line}")

    def close(self) -> None:
        """Leave logging as it was."""
        logging.getLogger().removeHandler(self._ear)


class Screen(Lines):
    """A live picture at the bottom of a terminal, with plain lines above it."""

    every = 0.2

    def __init__(self, mask: Mask, console: "Console") -> None:
        super().__init__(mask)
        self._console = console
        self._live: Live | None = None

    def progress(self, status: Status, progress: Progress) -> None:
        """Draw the picture anew."""
        if self._live is None:
            from rich.live import Live

            # Standard output is left alone: it may be where the records go.
            self._live = Live(console=self._console, auto_refresh=False, transient=True, redirect_stdout=False)
            self._live.start()
        self._live.update(_picture(status, progress, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        """Write a line above the picture."""
        if self._live is None:
            super().say(text)
        else:
            from rich.text import Text

            self._console.print(Text(escape(self._mask(text))), soft_wrap=True)

    def finish(self, lines: list[str], fields: Mapping[str, Any]) -> None:
        """Take the picture away and write the lines of the ending."""
        self.close()
        super().finish(lines, fields)

    def close(self) -> None:
        """Take the picture away."""
        super().close()
        live, self._live = self._live, None
        if live is not None:
            live.stop()


class Logged:
    """Log events, through Python's logging, so that what user code logs comes out the same way."""

    every = _LINE_EVERY

    def __init__(self, mask: Mask, kind: str, level: str = "info") -> None:
        self._handler = logging.StreamHandler(sys.stderr)
        self._handler.setFormatter(JsonFormatter(mask) if kind == "json" else TextFormatter(mask))
        self._root = logging.getLogger()
        self._root.addHandler(self._handler)
        self._logger = logging.getLogger("pipeline")
        self._before = self._logger.level
        self._logger.setLevel(level.upper())
        self._tell = log_events(self._logger)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Log an event, but for those that are logged with more fields from here."""
        if name in ("progress", "finished"):
            return
        if name == "started":
            fields = {"service": fields.get("pipeline"), "version": __version__, **fields}
        self._tell(name, fields)

    def progress(self, status: Status, progress: Progress) -> None:
        """Log the progress."""
        batches = {stage.name: stage.last_batch for stage in status.stages if stage.role == "batcher"}
        more = {"batch": batches, "dead_letters": status.dead_letters, "seconds": round(status.seconds, 3)}
        self._tell("progress", {"pipeline": status.pipeline, **progress.fields(), **more})

    def say(self, text: str) -> None:
        """Log a sentence."""
        self._tell("notice", {"text": text})

    def finish(self, lines: list[str], fields: Mapping[str, Any]) -> None:
        """Log the account."""
        self._tell("finished", fields)

    def fail(self, error: PipelineError) -> None:
        """Log the error."""
        self._tell("error", {"text": str(error), "exit_code": int(error.exit_code)})

    def close(self) -> None:
        """Leave logging as it was."""
        self._root.removeHandler(self._handler)
        self._logger.setLevel(self._before)


def _picture(status: Status, progress: Progress, width: int) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    cells = [Text(status.pipeline, style="bold"), Text(status.state)]
    if progress.share is not None:
        bar = [_bar(progress.share)] if width >= _WIDE else []
        cells += [*bar, Text(f"{progress.share:4.0%}")]
    cells += [Text(f"{number(progress.read)} read"), Text(f"{number(progress.rate)}/s", style="cyan")]
    cells += [Text(span(status.seconds))]
    if progress.eta is not None:
        cells.append(Text(f"ETA {span(progress.eta)}"))
    return Group(_row(cells), _row([Text(part) for part in _details(status, progress)]))


def _row(cells: list["Text"]) -> "Text":
    """Return cells in one line: what is too long for the terminal is cut off, because what wraps can't be read."""
    from rich.text import Text

    row = Text("  ").join(cells)
    row.no_wrap, row.overflow = True, "crop"
    return row


def _bar(share: float) -> "Text":
    from rich.text import Text

    full = round(share * _BAR)
    return Text.assemble(("━" * full, "green"), ("─" * (_BAR - full), "dim"))


def _details(status: Status, progress: Progress) -> list[str]:
    found = [
        f"{stage.name}: {batch_text(stage)}" for stage in status.stages if stage.role == "batcher" and stage.last_batch
    ]
    found += [f"{channel.stage} {_gauge(channel.fill)}" for channel in status.channels[:6]]
    if progress.failed:
        found.append(f"failed {number(progress.failed)}")
    if status.dead_letters:
        found.append(f"dead letters {number(status.dead_letters)}")
    return found


def _gauge(fill: float) -> str:
    return "▁▂▃▄▅▆▇█"[min(7, int(fill * 8))]


def _started(fields: Mapping[str, Any]) -> str:
    if "letters" in fields:
        return f"{fields.get('pipeline')}: run {fields.get('run')}, replays {number(fields['letters'])} dead letters"
    how = "goes on from its last checkpoint" if fields.get("resumed") else "begins at the start"
    return f"{fields.get('pipeline')}: run {fields.get('run')}, {how}"


def _breaker(fields: Mapping[str, Any]) -> str:
    who = f"breaker: stage '{fields.get('stage')}'"
    if fields.get("state") != "open":
        return f"{who} gets through again"
    every = span(float(fields.get("reset") or 0))
    return f"{who} can't be reached: {fields.get('error')}; its batches wait, and one call is tried in {every}"


_SENTENCES: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "started": _started,
    "warning": lambda fields: f"warning: {fields.get('text')}",
    "dead_letter": lambda fields: (
        f"dead letter: stage '{fields.get('stage')}': {fields.get('position')}: "
        f"{with_kind(str(fields.get('error_type')), str(fields.get('error')))}"
    ),
    "retry": lambda fields: (
        f"retry: stage '{fields.get('stage')}': attempt {fields.get('attempt')} failed: {fields.get('error')}; "
        f"again in {span(float(fields.get('wait') or 0))}"
    ),
    "restart": lambda fields: f"restart: {fields.get('error')}",
    "alert": lambda fields: f"alert {fields.get('state')}: {fields.get('text')}",
    "notice": lambda fields: str(fields.get("text")),
    "breaker": _breaker,
}
