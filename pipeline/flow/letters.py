"""What becomes of dead letters when a cut is saved: first their copies, then the state file, then the hook."""

import inspect
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any

import anyio

from pipeline.batch import Batch
from pipeline.cause import cause_of
from pipeline.clock import Clock
from pipeline.errors import PipelineError, RecordErrors, StageError, StorageError, Unavailable
from pipeline.settle.carried import carried
from pipeline.settle.cut import Cut, Letter, SinkPoint
from pipeline.settle.json_text import encode
from pipeline.settle.letters import LETTERS, plain
from pipeline.settle.state import StateFile
from pipeline.spans import Held
from pipeline.stage import PositionWriter, Resume, Sink, SinkContext, TransactionWriter, Writer

__all__ = ("Copies", "LetterStore", "copies_name", "open_copies")

_HOOK_SECONDS = 10.0
"""How long a cut waits for the hook, all its letters together: a hook that hangs must not hold up checkpoints."""


class LetterStore:
    """Saves cuts in a state file, and does with their letters what the pipeline's keys ask for.

    A copy is written before its letter is saved, in a sink that can be cut back: so it is there once, or not at all.
    The hook is told of letters that are saved.
    """

    def __init__(
        self,
        state: StateFile,
        clock: Clock,
        warn: Callable[[str], None],
        copies: "Copies | None" = None,
        hook: Callable[..., Any] | None = None,
    ) -> None:
        self._state = state
        self._clock = clock
        self._warn = warn
        self._copies = copies
        self._hook = hook

    async def save(self, cut: Cut) -> None:
        """Save a cut; what it does not know of stays as it was in the cut before."""
        copies = self._copies
        if copies is not None and cut.letters:
            cut.sinks[copies.name] = await copies.add(cut.letters)
        await self._state.save(carried(cut, self._state.cut))
        if copies is not None and cut.letters:
            await copies.saved(cut)
        if self._hook is not None and cut.letters:
            await self._tell(self._hook, cut.letters)

    async def _tell(self, hook: Callable[..., Any], letters: Sequence[Letter]) -> None:
        """Tell a function of each letter; what goes wrong there is a warning, for the letters are saved."""
        told = 0
        with anyio.CancelScope() as scope:
            cancel = self._clock.call_at(self._clock.now() + _HOOK_SECONDS, scope.cancel)
            try:
                for letter in letters:
                    await self._tell_one(hook, letter)
                    told += 1
            finally:
                cancel()
        if told < len(letters):
            text = f"took over {_HOOK_SECONDS:g}s; it was not told of {len(letters) - told} letters, which are saved"
            self._warn(f"on_dead_letter: {text}")

    async def _tell_one(self, hook: Callable[..., Any], letter: Letter) -> None:
        try:
            answer = hook(letter, letter.attempts)
            if inspect.isawaitable(answer):
                await answer
        except Exception as error:
            self._warn(f"on_dead_letter: letter {letter.id}: {cause_of(error)}; the letter is saved")


class Copies:
    """A sink that gets a copy of every letter, written with the cut that saves it."""

    def __init__(self, name: str, writer: Writer, warn: Callable[[str], None]) -> None:
        self.name = name
        """What the state file calls it: another sink, or another place, is another name."""
        self._writer = writer
        self._warn = warn
        self._held = writer.held() if isinstance(writer, TransactionWriter) else Held()
        # Written, and not saved yet: a cut that is tried again must not write them again.
        self._written: list[Letter] = []

    async def add(self, letters: Sequence[Letter]) -> SinkPoint:
        """Write copies of letters, make them durable, and return the sink's position behind them."""
        new = [letter for letter in letters if not any(letter is each for each in self._written)]
        for batch in self._batches(new):
            await self._put(batch)
        self._written.extend(new)
        if isinstance(self._writer, TransactionWriter):
            await self._writer.seal()
            return SinkPoint(position="its own database")
        if not isinstance(self._writer, PositionWriter):
            return SinkPoint()
        await self._writer.prepare(False)
        position = self._writer.position()
        await self._writer.sync()
        return SinkPoint(position=position)

    async def saved(self, cut: Cut) -> None:
        """Take note that a cut with what was added is saved."""
        self._written.clear()
        if isinstance(self._writer, PositionWriter):
            await self._writer.committed()
        elif isinstance(self._writer, TransactionWriter):
            await self._writer.prune({name: point.number for name, point in cut.sources.items()})

    async def close(self) -> None:
        """Close the sink."""
        await self._writer.close()

    def _batches(self, letters: Sequence[Letter]) -> list[Batch]:
        """Return the copies that the sink doesn't hold, in runs of one source."""
        by_source: dict[str, list[Letter]] = {}
        for letter in letters:
            if (letter.source, letter.number, _child(letter)) not in self._held:
                by_source.setdefault(letter.source, []).append(letter)
        return [
            Batch(list(map(plain, some)), source, [each.number for each in some], list(map(_child, some)))
            for source, some in by_source.items()
        ]

    async def _put(self, batch: Batch) -> None:
        try:
            await self._writer.write(batch)
        except RecordErrors as errors:
            for error in errors.errors.values():
                self._warn(f"dead_letter: the copy of a letter can't be written: {error}; the letter itself is saved")
            good = [index for index in range(len(batch)) if index not in errors.errors]
            if good and len(good) < len(batch):
                await self._put(batch.pick(good))
        except (PipelineError, Unavailable):
            raise
        except OSError as error:
            raise StorageError(f"dead_letter: the copies can't be written: {error}") from error
        except Exception as error:
            raise StageError(f"dead_letter: the copies can't be written: {type(error).__name__}: {error}") from error


async def open_copies(spec: Sink, context: SinkContext) -> Copies:
    """Open a sink for copies of letters; `copies_name` says how the context is to call it."""
    exact = spec.resumes() in (Resume.POSITION, Resume.TRANSACTION)
    context.delivery = "exactly_once" if exact else "at_least_once"
    return Copies(context.name, await spec.open(context), context.warn)


def copies_name(spec: Sink) -> str:
    """Return what the state file calls a sink for copies: another place is another sink, which begins anew."""
    identity = encode([type(spec).__qualname__, dict(spec.identity())])
    return f"copies of {LETTERS} {blake2b(identity.encode(), digest_size=4).hexdigest()}"


def _child(letter: Letter) -> str:
    """Return what tells a letter from others of its record: two branches may have one each, and replays more."""
    return ".".join(filter(None, (letter.child, letter.stage, str(letter.replays or ""))))
