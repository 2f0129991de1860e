from pipeline.cli.progress import Meter, progress_line
from pipeline.watch.report import Account, ChannelStatus, SourceStatus, Status


def status(
    seconds: float, account: Account, *sources: SourceStatus, fill: float = 0.0, dead_letters: int = 0
) -> Status:
    return Status(
        pipeline="p",
        state="running",
        seconds=seconds,
        account=account,
        stages=[],
        channels=[ChannelStatus("out", 1, 10, 100, fill, 10, 0.0)],
        sources=list(sources),
        dead_letters=dead_letters,
        bytes_held=0,
        checkpoints=0,
        checkpoint_age=None,
        loop_lag=0.0,
        bottleneck="",
    )


def of_bytes(done: int, total: int | None = 1000) -> SourceStatus:
    return SourceStatus("file", 0, 0, done, total, "bytes")


def of_records(done: int, total: int | None = 1000) -> SourceStatus:
    return SourceStatus("table", done, 0, done, total, "records")


def test_records_that_are_counted_make_a_total_that_adds_up() -> None:
    account = Account(read=500, written=380, dead_lettered=10, skipped=5, collected=5)
    fields = Meter().look(status(1.0, account, of_records(500))).fields()
    assert (fields["total"], fields["processed"], fields["failed"], fields["remaining"]) == (1000, 380, 20, 600)
    assert fields["progress_pct"] == 40.0


def test_a_resumed_run_counts_only_what_was_left_for_it() -> None:
    fields = Meter().look(status(1.0, Account(read=100, written=100), of_records(900))).fields()
    assert (fields["total"], fields["remaining"], fields["progress_pct"]) == (200, 100, 50.0)


def test_bytes_give_a_share_but_no_total() -> None:
    fields = Meter().look(status(1.0, Account(read=7, written=7), of_bytes(250))).fields()
    assert (fields["total"], fields["remaining"], fields["progress_pct"]) == (None, None, 25.0)


def test_nothing_is_claimed_where_nobody_knows_the_end() -> None:
    meter = Meter()
    meter.look(status(0.0, Account(), of_bytes(0, None), of_bytes(0)))
    progress = meter.look(status(2.0, Account(read=10, written=10), of_bytes(5, None), of_bytes(5)))
    assert (progress.total, progress.share, progress.eta) == (None, None, None)
    assert progress.rate == 5.0


def test_a_limit_is_an_end_too() -> None:
    progress = Meter(limit=100).look(status(1.0, Account(read=50, written=50), of_bytes(10)))
    assert progress.share == 0.5


def test_rate_and_end_are_those_of_the_last_ten_seconds() -> None:
    meter = Meter()
    settled = [10 * second if second <= 20 else 200 + 40 * (second - 20) for second in range(31)]
    seen = [
        status(float(at), Account(read=count, written=count), of_records(count)) for at, count in enumerate(settled)
    ]
    last = [meter.look(each) for each in seen][-1]
    assert last.rate == 40.0
    assert last.eta is not None
    assert round(last.eta, 6) == 10.0


def test_the_line_names_a_channel_that_is_full_and_what_failed() -> None:
    seen = status(1.0, Account(read=1234, written=1200, dead_lettered=4), of_bytes(500), fill=0.9, dead_letters=6)
    line = progress_line(seen, Meter().look(seen))
    assert line == "read 1,234 · 50% · 1,204/s · channel into out 90% full · failed 4 · dead letters 6"


def test_the_first_look_has_a_rate_already_and_an_end_where_records_are_counted() -> None:
    account = Account(read=100, written=100)
    assert Meter().look(status(2.0, account, of_bytes(500))).rate == 50.0
    assert Meter().look(status(2.0, account, of_bytes(500))).eta is None
    assert Meter().look(status(2.0, account, of_records(100))).eta == 18.0
