"""How stages are called."""

import re
from collections import Counter
from collections.abc import Sequence

__all__ = ("ROLES", "check_name", "default_names", "repeated", "unnamed_twins")

ROLES = ("source", "batcher", "processor", "sink")

Called = tuple[str, str, str | None]
"""A stage's role, kind, and the name it was given."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")
_MAX_NAME = 64


def check_name(name: str) -> str | None:
    """Return what is wrong with a name: it goes into file names, labels of metrics and ``--set`` paths."""
    if len(name) > _MAX_NAME:
        return f"expected a name of at most {_MAX_NAME} characters"
    if not _NAME.fullmatch(name):
        return "expected a name of letters, digits, '_' and '-'"
    return None


def default_names(stages: Sequence[Called]) -> list[str]:
    """Return the name of each stage: the one given, else its kind.

    Where that is taken, a second processor is called ``filter-2``, a sink with the kind of a source ``jsonl-sink``.
    """
    taken = {name for _, _, name in stages if name is not None}
    names: list[str] = []
    for role, kind, given in stages:
        name = given if given is not None else _free(role, kind.rpartition(":")[2], taken)
        taken.add(name)
        names.append(name)
    return names


def unnamed_twins(stages: Sequence[Called], stateful: Sequence[bool]) -> dict[int, int]:
    """Return the stages that must be named and are not, each with another one of its role and kind.

    Positions in saved state belong to names: two sources, sinks, batchers or stateful processors of one kind must not
    change places when one is added above the other.
    """
    bound = [role != "processor" or state for (role, _, _), state in zip(stages, stateful, strict=True)]
    twins: dict[int, int] = {}
    for index, (role, kind, name) in enumerate(stages):
        if name is None and bound[index]:
            same = (i for i, other in enumerate(stages) if i != index and bound[i] and other[:2] == (role, kind))
            if (twin := next(same, None)) is not None:
                twins[index] = twin
    return twins


def repeated(names: Sequence[str]) -> set[str]:
    """Return the names that occur more than once."""
    return {name for name, count in Counter(names).items() if count > 1}


def _free(role: str, kind: str, taken: set[str]) -> str:
    if kind not in taken:
        return kind
    base = kind if role == "processor" else f"{kind}-{role}"
    if base not in taken:
        return base
    return next(name for count in range(2, len(taken) + 3) if (name := f"{base}-{count}") not in taken)
