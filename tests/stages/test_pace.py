import math

from stages.pace import BRIEF, Pace


def test_nothing_is_known_to_be_brief_before_the_first_unit() -> None:
    assert Pace().seconds(1) == math.inf


def test_the_time_grows_with_the_size_but_a_small_unit_says_what_a_commit_costs() -> None:
    pace = Pace()
    pace.took(1, 0.0001)
    assert pace.seconds(1) == 0.0001
    # Were it all for that one, five hundred would be thought to take 50 ms, and would be kept off the loop.
    assert 0.0001 < pace.seconds(500) < 0.0015
    assert pace.seconds(50_000) > BRIEF


def test_a_unit_that_took_too_long_keeps_the_next_off_the_loop_and_each_further_one_twice_as_many() -> None:
    pace = Pace()
    kept_off = [units_off(pace) for _ in range(12)]
    assert kept_off[:5] == [1, 2, 4, 8, 16]
    assert kept_off[-3:] == [256, 256, 256]


def test_one_that_was_brief_again_shortens_that() -> None:
    pace = Pace()
    for _ in range(4):
        units_off(pace)
    for _ in range(20):
        pace.took(1, BRIEF / 2)
    assert units_off(pace) == 1


def units_off(pace: Pace) -> int:
    """Let a unit take too long in the loop, and count those that are kept off it before one may run there again."""
    pace.took(1, 2 * BRIEF)
    for count in range(1000):
        if pace.seconds(1) < math.inf:
            return count
        pace.took_elsewhere(1, BRIEF / 10)
    return 1000
