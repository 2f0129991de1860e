"""The function of dead_letters.yaml."""

from typing import Any


def add_speed(record: dict[str, Any]) -> dict[str, Any]:
    """Add the flight's mean speed in miles an hour; a flight that never took off has none, and fails."""
    record["mph"] = round(record["distance"] / record["air_time"] * 60)
    return record
