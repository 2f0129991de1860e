"""Where callers come in: their records get in line, and out of it when they leave or their time is over."""

from collections.abc import Callable, Iterable, Sequence

import anyio

from pipeline.clock import Clock
from pipeline.errors import Closed, DeadlinePassed, Overloaded, Refused
from pipeline.service.answers import Answers, Caller, Turn
from pipeline.stage import Feed

__all__ = ("Entrance",)


class Entrance:
    """The entrance to one inlet. ``closed`` returns why nobody may come in, which is empty while they may."""

    def __init__(self, service: str, feed: Feed, answers: Answers, clock: Clock, closed: Callable[[], str]) -> None:
        self._service = service
        self._feed = feed
        self._answers = answers
        self._clock = clock
        self._closed = closed

    async def pass_through(self, callers: Sequence[Caller], turn: Turn, seconds: float | None) -> None:
        """Put callers in line and wait until all are answered, each within so many seconds, if any.

        :raises Overloaded: when there is no room for the first of them.
        :raises Closed: when nobody may come in.
        """
        self._answers.enter(callers)
        call_off = self._limit(callers, seconds)
        try:
            await self._put(callers, turn)
            await turn.wait()
        except BaseException:
            for caller in callers:
                self._feed.withdraw(caller)
                self._answers.leave(caller)
            raise
        finally:
            call_off()

    def refusal(self) -> Closed:
        """Return what callers are told who may not come in."""
        return Closed(f"service '{self._service}' {self._closed() or 'takes no more records'}")

    def _limit(self, callers: Sequence[Caller], seconds: float | None) -> Callable[[], object]:
        """Give callers so many seconds; returns what calls that off."""
        if seconds is None:
            return _nothing
        text = f"the caller's deadline of {seconds:g} s has passed"

        def expire() -> None:
            for caller in callers:
                self._feed.withdraw(caller)
                self._answers.expire(caller, DeadlinePassed(text, caller.number >= 0))

        if seconds <= 0:
            expire()
            return _nothing
        return self._clock.call_at(self._clock.now() + seconds, expire)

    async def _put(self, callers: Sequence[Caller], turn: Turn) -> None:
        """Put callers in line, no more at a time than leaves others room; done when the last is in."""
        most = max(1, self._feed.capacity // 2)
        for index, caller in enumerate(callers):
            rest = len(callers) - index
            await turn.wait(rest + most - 1, low=rest + most // 2)
            if caller.done:
                continue
            try:
                self._feed.put_nowait(caller)
            except anyio.WouldBlock:
                if index == 0:
                    raise self._refused(callers, self._overloaded()) from None
                await self._put_patiently(caller, turn)
            except anyio.ClosedResourceError:
                error = self._refused(callers[index:], self.refusal())
                if index == 0:
                    raise error from None
                return

    async def _put_patiently(self, caller: Caller, turn: Turn) -> None:
        """Wait for room, as long as the caller would."""
        with anyio.CancelScope() as scope:
            turn.on_late = scope.cancel
            try:
                await self._feed.put(caller)
            except anyio.ClosedResourceError:
                self._answers.refuse(caller, self.refusal())
            finally:
                turn.on_late = _nothing
        if caller.done:
            self._feed.withdraw(caller)

    def _refused(self, callers: Iterable[Caller], error: Refused) -> Refused:
        for caller in callers:
            self._answers.refuse(caller, error)
        return error

    def _overloaded(self) -> Overloaded:
        many = f"{self._feed.waiting:,} records wait, as many as the inlet's capacity allows"
        return Overloaded(f"service '{self._service}' is overloaded: {many}")


def _nothing() -> None:
    """Do nothing."""
