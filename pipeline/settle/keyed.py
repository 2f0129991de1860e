"""State of stages in memory: a value a key, as of any record that may come again."""

from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec

from pipeline.settle.cut import Change
from pipeline.settle.ledger import Ledger

__all__ = ("KeyedChanges",)


class KeyedChanges:
    """The keyed state of one stage (see `pipeline.stage.KeyedState`).

    A key keeps its earlier values until the frontier has passed the later ones, so that a record that comes again
    after a restart is judged just as the first time: by changes of smaller numbers only.
    """

    def __init__(self, stage: str, ledger: Ledger, pending: list[Change] | None, saved: Iterable[Change] = ()) -> None:
        self._stage = stage
        self._ledger = ledger
        self._pending = pending
        self._values: dict[Any, list[Change]] = {}
        # Keys taken out, until the frontier has passed that and nobody can ask for them any more.
        self._removed: deque[tuple[Any, Change]] = deque()
        for change in saved:
            self._values.setdefault(_token(change.key), []).append(change)

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Any, source: str, number: int) -> Any:
        """Return the value that records of smaller numbers of the source left for the key; None if they left none."""
        for change in reversed(self._values.get(_token(key), ())):
            if change.source != source or change.number < number:
                return change.value
        return None

    def put(self, key: Any, source: str, number: int, value: Any) -> None:
        """Let the record of this number leave a value for the key; None takes the key out."""
        token = _token(key)
        change = Change(stage=self._stage, key=key, source=source, number=number, value=value)
        values = self._values.setdefault(token, [])
        if values and not (values[-1].source == source and values[-1].number < number):
            values[:] = [old for old in values if old.source != source or old.number != number]
        values.append(change)
        if len(values) > 1:
            values.sort(key=_number)
            self._prune(values)
        if self._pending is not None:
            self._pending.append(change)
        if value is None:
            self._removed.append((token, change))
        self._forget_removed()

    def _forget_removed(self) -> None:
        while self._removed and self._passed(self._removed[0][1]):
            token, change = self._removed.popleft()
            values = self._values.get(token, [])
            self._prune(values)
            if values == [change]:
                del self._values[token]

    def _prune(self, values: list[Change]) -> None:
        while len(values) > 1 and self._passed(values[1]):
            del values[0]

    def _passed(self, change: Change) -> bool:
        frontier = self._ledger.frontiers.get(change.source)
        return frontier is None or change.number < frontier.number


def _number(change: Change) -> int:
    return change.number


def _token(key: Any) -> Any:
    # 1, 1.0 and true are one key to a dict and three to JSON, in which the key comes back; texts and ints are safe.
    return key if type(key) in (str, int) else msgspec.json.encode(key)
