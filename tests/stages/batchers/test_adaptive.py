from typing import Any

import pytest

from pipeline.control.law import Observation
from stages.batchers import Adaptive


def test_its_law_holds_to_the_target() -> None:
    law = Adaptive(target_latency="100ms", max_size=1000).law()

    assert law.limit == 1
    for _ in range(60):
        law.observe(Observation(law.limit, 0.010 + 0.0001 * law.limit))

    assert 800 <= law.limit <= 900


def test_all_keys_reach_the_law() -> None:
    law = Adaptive(
        target_latency=1.0,
        latency_of="batch",
        percentile="mean",
        margin=0.5,
        min_size=5,
        max_size=50,
        max_bytes="2KiB",
        linger="10ms",
        max_in_flight=3,
    ).law()

    assert (law.limit, law.max_bytes, law.permits) == (5, 2048, 3)
    law.observe(Observation(5, 0.01))
    assert law.linger(5) == 0.01
    assert law.learned()["setting"] == [1.0, "batch", "mean", 0.5]


@pytest.mark.parametrize(
    ("keys", "at_fault"),
    [
        ({"target_latency": 0.0}, ["target_latency"]),
        ({"target_latency": float("inf")}, ["target_latency"]),
        ({"target_latency": 1.0, "min_size": 9, "max_size": 8}, ["min_size"]),
        ({"target_latency": 1.0, "linger": -1.0, "max_bytes": 0}, ["linger", "max_bytes"]),
        ({"target_latency": 1.0}, []),
    ],
)
def test_keys_that_no_law_can_keep_are_problems(keys: dict[str, Any], at_fault: list[str]) -> None:
    batcher = Adaptive(**keys)

    assert [name for name, _ in batcher.problems()] == at_fault
    if at_fault:
        with pytest.raises(ValueError, match="must"):
            batcher.law()


@pytest.mark.parametrize("percentile", [95, 50, 99, 99.0, "mean"])
def test_a_percentile_is_a_number_or_the_mean(percentile: Any) -> None:
    assert Adaptive(target_latency=1.0, percentile=percentile).law().limit == 1
