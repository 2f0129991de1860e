"""How records become the bytes of a file, and how an error finds the records that are at fault."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pipeline.errors import RecordError, RecordErrors

__all__ = ("Format", "one_by_one")


class Format:
    """How records become the bytes of a file. One for all files of a sink; used by one task."""

    def encode(self, records: Sequence[Any]) -> bytes:
        """Return the bytes of records, each ended by a newline.

        :raises RecordErrors: names the records that can't be written, by their index.
        """
        raise NotImplementedError

    def preamble(self) -> bytes:
        """Return what a file begins with, before its first record."""
        return b""

    def whole(self, blocks: Iterable[bytes]) -> int:
        """Return how many bytes of these blocks are whole records; they begin with one, the last may be torn."""
        whole = read = 0
        for block in blocks:
            end = block.rfind(b"\n") + 1
            whole = read + end if end else whole
            read += len(block)
        return whole

    def memory(self) -> Any:
        """Return what must be known to go on behind what was written, JSON-able."""
        return None

    def recall(self, memory: Any) -> None:
        """Go on with what `memory` returned."""

    def learn(self, head: bytes, path: str) -> None:
        """Take note of how a file begins that records are appended to.

        :raises StateError: when the records would not fit behind it.
        """


def one_by_one(records: Sequence[Any], encode: Callable[[Any], bytes]) -> bytes:
    """Return the bytes of records encoded one at a time, after encoding all of them together has failed.

    :raises RecordErrors: when a record fails by itself.
    """
    parts: list[bytes] = []
    errors: dict[int, Exception] = {}
    for index, record in enumerate(records):
        try:
            parts.append(encode(record))
        except RecordError as error:
            errors[index] = error
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            errors[index] = RecordError(f"can't be written: {error}")
    if errors:
        raise RecordErrors(errors)
    return b"".join(parts)
