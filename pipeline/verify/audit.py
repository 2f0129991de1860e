"""The auditor: knows every record that must be in an output and compares with what is there."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

__all__ = ("Audit", "audit")


@dataclass(slots=True)
class Audit:
    """What is wrong with an output, in records; ``differs`` names outputs that must be identical and are not.

    ``allowed`` is how many may be repeated: none, but for a sink that promises no more than at least once.
    """

    lost: int = 0
    repeated: int = 0
    reordered: int = 0
    foreign: int = 0
    allowed: int = 0
    differs: tuple[str, ...] = ()
    first: str = ""
    """The first record that is wrong, for the log."""

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong."""
        too_often = self.repeated > self.allowed
        return not (self.lost or too_often or self.reordered or self.foreign or self.differs)

    def add(self, other: "Audit") -> None:
        """Count another output's faults to this one's."""
        self.lost += other.lost
        self.repeated += other.repeated
        self.reordered += other.reordered
        self.foreign += other.foreign
        self.allowed += other.allowed
        self.differs += other.differs
        self.first = self.first or other.first

    def __str__(self) -> str:
        repeated = f"{self.repeated} of {self.allowed} allowed" if self.allowed else f"{self.repeated}"
        numbers = f"lost {self.lost}, repeated {repeated}, reordered {self.reordered}, foreign {self.foreign}"
        return "; ".join(
            filter(None, (numbers, f"differs: {', '.join(self.differs)}" * bool(self.differs), self.first))
        )


def audit(
    expected: Sequence[Hashable],
    found: Iterable[Hashable],
    lane: Callable[[Hashable], Hashable] | None = lambda ident: None,
) -> Audit:
    """Compare what must be there, each once, with what is; None is a record that is damaged or was never sent.

    Records of one ``lane`` must be in the order of ``expected``; without lanes no order is asked for.
    """
    places = {ident: place for place, ident in enumerate(expected)}
    result = Audit()
    seen: Counter[Hashable] = Counter()
    highest: dict[Hashable, int] = {}
    for ident in found:
        place = places.get(ident)
        if place is None:
            result.foreign += 1
            result.first = result.first or f"foreign {ident!r}"
            continue
        seen[ident] += 1
        if seen[ident] > 1:
            result.first = result.first or f"repeated {ident!r}"
        elif lane is not None:
            key = lane(ident)
            if place < highest.get(key, -1):
                result.reordered += 1
                result.first = result.first or f"reordered {ident!r}"
            highest[key] = max(place, highest.get(key, -1))
    result.repeated = sum(count - 1 for count in seen.values())
    missing = [ident for ident in places if ident not in seen]
    result.lost = len(missing)
    if missing:
        result.first = result.first or f"lost {missing[0]!r}"
    return result
