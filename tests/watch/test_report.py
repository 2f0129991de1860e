"""What a run amounts to."""

import pytest

from pipeline.watch.metrics import StageMetrics
from pipeline.watch.report import Account, Report, StageStatus, find_bottleneck, stage_status


def stage(name: str, busy: float, waiting_out: float = 0.0) -> StageStatus:
    metrics = StageMetrics(name, "processor", "x", busy_seconds=busy * 10, waiting_out_seconds=waiting_out * 10)
    return stage_status(metrics, 10)


def test_an_account_adds_up_by_definition_and_can_be_read_aloud() -> None:
    account = Account(read=1010, written=1000, filtered=2, skipped=1, collected=1, dead_lettered=3)
    assert (account.settled, account.unsettled) == (1007, 3)
    assert str(account) == (
        "read 1,010 = written 1,000 + filtered 2 + skipped 1 + collected 1 + dead-lettered 3 + unsettled 3"
    )
    numbers = account.as_dict()
    assert numbers.pop("read") == sum(numbers.values())


def test_a_copy_of_an_account_stands_still() -> None:
    account = Account(read=1, written=2, filtered=3, skipped=4, collected=5, dead_lettered=6)
    copy = account.copy()
    account.written += 1
    assert copy == Account(read=1, written=2, filtered=3, skipped=4, collected=5, dead_lettered=6)


def test_shares_of_time_are_of_all_workers_of_a_stage_and_never_above_one() -> None:
    metrics = StageMetrics("s", "processor", "x", concurrency=4, busy_seconds=20, waiting_in_seconds=99)
    status = stage_status(metrics, 10)
    assert (status.busy, status.waiting_in, status.waiting_out) == (0.5, 1.0, 0.0)
    assert stage_status(metrics, 0).busy == 1.0


def test_the_bottleneck_is_the_stage_that_works_while_those_before_it_wait_to_send() -> None:
    found = find_bottleneck([stage("read", 0.2, 0.8), stage("slow", 0.97), stage("write", 0.1)], 10)
    assert found == "processor 'slow' worked 97% of the time; read waited to send"


def test_there_is_none_where_all_wait_for_records_and_none_to_be_told_at_first() -> None:
    assert find_bottleneck([stage("read", 0.1)], 10) == "nothing: the stages mostly wait for records"
    assert find_bottleneck([stage("read", 0.9)], 0.01) == find_bottleneck([], 10) == ""


@pytest.mark.parametrize(("seconds", "throughput"), [(2.0, 5.0), (0.0, 0.0)])
def test_throughput_counts_what_is_settled(seconds: float, throughput: float) -> None:
    account = Account(read=12, written=10)
    report = Report(pipeline="p", outcome="done", exit_code=0, account=account, total=account, seconds=seconds)
    assert report.throughput == throughput
