"""How many dead letters each partition may hold, so that all of them together stay within one bound."""

__all__ = ("Room",)


class Room:
    """The bound of a pipeline's dead letters, of which ``held`` are there already.

    A partition's part is set aside when it begins, so nothing has to be asked while records fail. The price is that a
    partition with many letters is stopped by its own part while others may have some of theirs left.
    """

    def __init__(self, bound: int, held: int) -> None:
        self._left = max(bound - held, 0)
        self._parts: dict[int, int] = {}

    def part(self, number: int, workers: int) -> int:
        """Set aside and return how many letters a partition may hold: an equal part for each worker without one.

        A partition that is begun again has the part that it had.
        """
        if number not in self._parts:
            without = max(workers - len(self._parts), 1)
            self._parts[number] = -(-self._left // without)
            self._left -= self._parts[number]
        return self._parts[number]

    def end(self, number: int, letters: int) -> None:
        """Take back what is left of a partition's part; it has so many letters."""
        self._left += max(self._parts.pop(number, 0) - letters, 0)
