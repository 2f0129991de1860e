"""Stages written one behind the other with ``|``."""

from typing import Any

__all__ = ("Chain",)


class Chain:
    """Stages in the order of the data; a list in it is a fan-out to several branches. Never changes."""

    __slots__ = ("links",)

    def __init__(self, links: tuple[Any, ...]) -> None:
        self.links = links

    def __or__(self, other: Any) -> "Chain":
        return self.then(other)

    def then(self, other: Any) -> "Chain":
        """Return a chain with one more link, or the links of another chain, behind."""
        return Chain(self.links + (other.links if isinstance(other, Chain) else (other,)))

    def __repr__(self) -> str:
        return " | ".join(type(link).__name__ for link in self.links)
