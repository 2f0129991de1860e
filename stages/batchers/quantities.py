"""What a key with a unit holds once its declaration is made: a number."""

__all__ = ("bytes_of", "seconds_of")


def seconds_of(value: float | str) -> float:
    """Return a duration as seconds: texts have become numbers when the declaration was made."""
    return float(value)


def bytes_of(value: int | str) -> int:
    """Return a size as bytes: texts have become numbers when the declaration was made."""
    return int(value)
