"""The source of kind `generate`: records made from a counter, the same each time."""

from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Annotated, Any

import anyio.lowlevel
import msgspec
from msgspec import Meta

from pipeline.batch import Failed
from pipeline.clock import Clock
from pipeline.errors import ConfigError
from pipeline.expression import EvaluationError, Expression, ExpressionError, compile_record
from pipeline.sizes import estimate
from pipeline.stage import Chunk, Progress, Rate, Reader, Source, SourceContext, key

__all__ = ("Generate", "GenerateReader")

_CHUNK = 500
_TICK = 0.01  # seconds; what is due within one travels together
_DEBT = 0.1  # seconds; whoever was held up longer doesn't make up for it in a burst
_PARAMETERS = ("n", "random()")
_MASK = 2**64 - 1


class Generate(Source, kw_only=True):
    """Makes records from expressions over ``n``, which counts from 0, and ``random()``, from 0 to below 1.

    The same seed gives the same record for an ``n``, in every run and wherever it resumes.
    """

    count: Annotated[int | None, Meta(ge=0), key("Records to make; without end when left out.")] = None
    rate: Annotated[Rate | None, key("Records a second at most; as fast as they are taken when left out.")] = None
    record: Annotated[
        dict[str, str],
        Meta(min_length=1),
        key("Fields, each an expression over n and random().", expression=True, parameters=_PARAMETERS),
    ] = msgspec.field(default_factory=lambda: {"n": "n"})
    seed: Annotated[int, key("What random() begins from.")] = 0

    def endless(self) -> bool:
        """Tell whether no count was given."""
        return self.count is None

    def identity(self) -> Mapping[str, Any]:
        """Return what decides the records."""
        return {"record": dict(self.record), "seed": self.seed}

    def problems(self) -> Iterable[tuple[str, str]]:
        """Return what is wrong with the rate."""
        if self.rate is not None and not float(self.rate) > 0:
            yield "rate", f"must be more than 0, it is {self.rate}"

    async def open(self, context: SourceContext) -> "GenerateReader":
        """Begin at the cursor, the next ``n``.

        :raises ConfigError: when a field is not an expression.
        """
        for name, text in self.problems():
            raise ConfigError(f"stage {context.name!r} (source generate): {name} {text}")
        try:
            made = compile_record(self.record, _PARAMETERS)
        except ExpressionError as error:
            where = f"record: field {error.field!r}" if error.field else "record"
            raise ConfigError(f"stage {context.name!r} (source generate): {where}: {error}") from None
        pace = _Pace(None if self.rate is None else float(self.rate), context.clock)
        return GenerateReader(made, self.seed, context.cursor or 0, self.count, pace)


class GenerateReader(Reader):
    """Yields chunks of records; the cursor is the next ``n``."""

    def __init__(self, made: Expression, seed: int, first: int, count: int | None, pace: "_Pace") -> None:
        self._make = made.function
        self._random = _Random(seed)
        self._next = first
        self._count = count
        self._pace = pace

    async def read(self) -> AsyncGenerator[Chunk]:
        """Yield the records, on time if there is a rate."""
        while self._count is None or self._next < self._count:
            size = min(self._pace.most, _CHUNK)
            if self._count is not None:
                size = min(size, self._count - self._next)
            await self._pace.wait(size)
            chunk = self._chunk(self._next, size)
            self._next += size
            yield chunk

    def progress(self) -> Progress:
        """Tell how many records were made."""
        return Progress(self._next, self._count)

    def _chunk(self, first: int, size: int) -> Chunk:
        records: list[Any] = []
        failed: list[int] = []
        for n in range(first, first + size):
            self._random.turn_to(n)
            try:
                records.append(self._make(n, self._random))
            except EvaluationError as error:
                failed.append(len(records))
                records.append(Failed({"n": n}, error))
        return Chunk(
            records,
            first + size,
            size=estimate(records),
            failed=failed,
            cursors=lambda index: first + index + 1,
            position=lambda index: f"n={first + index}",
        )


class _Pace:
    """Lets records pass at a rate: each chunk when it is due, and no burst after a long halt."""

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._due: float | None = None
        self.most = _CHUNK if rate is None else max(1, int(rate * _TICK))

    async def wait(self, count: int) -> None:
        """Return when so many records may pass."""
        if self._rate is None:
            await anyio.lowlevel.checkpoint()
            return
        now = self._clock.now()
        due = now if self._due is None else max(self._due, now - _DEBT)
        self._due = due + count / self._rate
        if due > now:
            await self._clock.sleep(due - now)
        else:
            await anyio.lowlevel.checkpoint()


class _Random:
    """Numbers from 0 to below 1 that depend on nothing but the seed, n, and how many were asked for before.

    SplitMix64 (Steele, Lea, Flood 2014): good enough for test data, and it can begin anywhere at once.
    """

    __slots__ = ("_seed", "_state")

    def __init__(self, seed: int) -> None:
        self._seed = _mixed(seed & _MASK)
        self._state = self._seed

    def turn_to(self, n: int) -> None:
        """Begin the numbers of another record."""
        self._state = _mixed(self._seed ^ (n & _MASK))

    def __call__(self) -> float:
        """Return the next number."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        return (_mixed(self._state) >> 11) / 2**53


def _mixed(value: int) -> int:
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
