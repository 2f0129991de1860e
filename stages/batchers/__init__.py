"""Batchers: when records travel on together."""

from stages.batchers.adaptive import Adaptive
from stages.batchers.fixed import Fixed

__all__ = ("Adaptive", "Fixed")
