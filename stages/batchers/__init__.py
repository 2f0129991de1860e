"""Batchers: when records travel on together."""

from typing import TYPE_CHECKING

from stages.lazily import lazily

if TYPE_CHECKING:
    from stages.batchers.adaptive import Adaptive
    from stages.batchers.fixed import Fixed

__all__ = ("Adaptive", "Fixed")

__getattr__ = lazily(__name__, __all__)
