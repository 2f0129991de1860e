"""Alerts on a window: what is told, how often, and that what was raised is cleared."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pipeline.watch.alerts import Alarms, Rules, Seen
from pipeline.watch.window import Counted


def seen(seconds: float, ended: int = 0, failed: int = 0, **more: object) -> Seen:
    return Seen(Counted(seconds, ended, ended, failed), **more)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def states(alarms: Alarms, moments: list[Seen]) -> list[tuple[float, str]]:
    return [(moment.counted.seconds, alert.state) for moment in moments for alert in alarms.look(moment)]


def test_a_failure_rate_is_that_of_the_window_and_not_of_the_whole_run() -> None:
    alarms = Alarms(Rules(failure_rate=0.1, window=60, minimum=10, repeat=1))
    quiet = [seen(t, ended=1000 * t) for t in range(1, 1000)]
    assert states(alarms, quiet) == []
    # One record in two fails from now on: of all records of the run these are one in a thousand.
    told = alarms.look(seen(1060, ended=1_000_000, failed=0)) + alarms.look(seen(1121, ended=1_000_200, failed=100))
    (alert,) = told
    assert (alert.state, alert.rule) == ("raised", "failure_rate")
    assert "50.0% of 200 records failed in the last 61s" in alert.text
    assert alarms.up == [alert.text]


def test_a_rate_of_too_few_records_says_nothing() -> None:
    alarms = Alarms(Rules(failure_rate=0.1, minimum=20))
    assert states(alarms, [seen(1, 19, 19)]) == []
    assert states(alarms, [seen(2, 20, 20)]) == [(2, "raised")]


def test_what_is_over_is_told_and_what_goes_on_is_told_again_after_a_while() -> None:
    alarms = Alarms(Rules(failure_rate=0.1, window=10, minimum=1, repeat=30))
    bad = [seen(t, ended=10 * t, failed=10 * t) for t in range(1, 70)]
    good = [seen(69 + t, ended=690 + 10 * t, failed=690) for t in range(1, 20)]
    assert states(alarms, bad + good) == [(1, "raised"), (31, "repeated"), (61, "repeated"), (78, "cleared")]
    assert alarms.up == []


def test_a_stalled_frontier_is_told_with_where_it_stands_and_cleared_when_it_moves() -> None:
    alarms = Alarms(Rules(stalled=5))

    def where(source: str) -> dict[str, object]:
        return {"stage": "call", "batch": 7, "text": f"{source}.jsonl:8 is worked on by 'call'"}

    moments = [seen(t, frontiers={"in": (7, 3)}, where=where) for t in range(10)]
    (alert,) = [alert for moment in moments for alert in alarms.look(moment)]
    assert (alert.rule, alert.about, alert.fields["stage"], alert.fields["batch"]) == ("stalled", "in", "call", 7)
    assert alert.text == "source 'in': nothing settled for 5s, 3 records wait: in.jsonl:8 is worked on by 'call'"
    (over,) = alarms.look(seen(12, frontiers={"in": (8, 2)}))
    assert (over.state, over.seconds) == ("cleared", 12)


def test_a_source_that_has_nothing_unsettled_is_idle_and_not_stalled() -> None:
    alarms = Alarms(Rules(stalled=5))
    assert states(alarms, [seen(t, frontiers={"in": (7, 0)}) for t in range(100)]) == []
    assert states(alarms, [seen(100 + t, frontiers={"in": (7, 1)}) for t in range(4)]) == []


def test_a_backlog_is_one_that_lasts_for_the_window() -> None:
    alarms = Alarms(Rules(backlog=100, window=60))
    burst = [seen(t, frontiers={"a": (0, 70), "b": (0, 70 if t != 50 else 0)}) for t in range(0, 100)]
    assert states(alarms, burst) == []
    assert states(alarms, [seen(t, frontiers={"a": (0, 200)}) for t in range(100, 130)]) == [(111, "raised")]


def test_an_open_breaker_is_told_for_each_stage() -> None:
    alarms = Alarms(Rules(breaker=0))
    told = alarms.look(seen(1, open_since={"call": 1, "sink": 1}))
    assert [(alert.about, alert.state) for alert in told] == [("call", "raised"), ("sink", "raised")]
    (over,) = alarms.look(seen(2, open_since={"sink": 1}))
    assert (over.about, over.state) == ("call", "cleared")


def test_what_is_still_wrong_at_the_end_is_told_as_ended() -> None:
    alarms = Alarms(Rules(breaker=0))
    alarms.look(seen(1, open_since={"call": 0}))
    (alert,) = alarms.end(9)
    assert (alert.state, alert.seconds) == ("ended", 9)
    assert alarms.end(9) == []


@given(st.lists(st.tuples(st.floats(0.01, 20), st.booleans(), st.booleans()), max_size=200), st.floats(1, 60))
def test_however_conditions_come_and_go_tellings_are_bounded_and_pair_up(
    course: list[tuple[float, bool, bool]], repeat: float
) -> None:
    alarms = Alarms(Rules(breaker=0, repeat=repeat))
    now, up = 0.0, dict.fromkeys("ab", False)
    told: Counter[str] = Counter()
    raised_at = dict.fromkeys("ab", -float("inf"))
    for step, a, b in course:
        now += step
        is_open = {name: now for name, on in (("a", a), ("b", b)) if on}
        for alert in alarms.look(seen(now, open_since=is_open)):
            told[alert.about] += 1
            if alert.state == "cleared":
                assert up[alert.about], "cleared without being raised"
                up[alert.about] = False
                continue
            assert up[alert.about] == (alert.state == "repeated")
            assert now - raised_at[alert.about] >= repeat
            assert alert.about in is_open
            up[alert.about], raised_at[alert.about] = True, now
        assert all(on <= (name in is_open) for name, on in up.items()), "told as wrong, and it is not"
    assert all(count <= 2 * (now / repeat + 1) for count in told.values())
    alarms.look(seen(now + 1))
    assert alarms.up == []
