"""Decisions without a clock, a task or a file: how large a batch may be, how long it may wait."""
