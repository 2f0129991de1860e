"""Declarations: what a stage says of its keys, and how they are given in Python."""

from collections.abc import Mapping
from typing import Annotated, Any

import pytest

from pipeline.chain import Chain
from pipeline.errors import ConfigError
from pipeline.stage import (
    Backoff,
    ChannelBounds,
    Chunk,
    Declared,
    Duration,
    Processor,
    Rate,
    Reader,
    Restart,
    Resume,
    Retry,
    Sink,
    Size,
    Source,
    SourceContext,
    Work,
    Writer,
    key,
    unit_keys,
)
from pipeline.testing import ManualClock, batch_of

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Roll(Declared, kw_only=True):
    size: Annotated[Size | None, key("How large.")] = None


class Fetch(Source, kw_only=True):
    every: Annotated[Duration | None, key("How often.")] = None
    rate: Annotated[Rate, key("How fast.")] = 1.0
    most: Annotated[Size, key("How much.")] = 0
    wait: Annotated[Backoff, key("How patient.")] = 0.0
    roll: Annotated[Roll | None, key("When to roll.")] = None
    text: Annotated[str, key("Anything.")] = ""


def test_texts_with_units_become_numbers() -> None:
    stage = Fetch(every="250ms", rate="60/m", most="64KiB", wait="100ms..10s", text="5s")
    assert (stage.every, stage.rate, stage.most, stage.wait, stage.text) == (0.25, 1.0, 65536, (0.1, 10.0), "5s")
    assert Fetch(every=3).every == 3
    assert dict(unit_keys(Fetch)) == {"every": "duration", "rate": "rate", "most": "size", "wait": "backoff"}


def test_a_text_whose_unit_cannot_be_read_is_refused_at_once() -> None:
    with pytest.raises(ConfigError, match=r"Fetch\(every='5'\): expected a duration with a unit"):
        Fetch(every="5")


def test_mappings_become_what_they_declare() -> None:
    stage = Fetch(roll={"size": "1KiB"}, restart={"attempts": 2, "within": "5s"})  # type: ignore[arg-type]  # pyright: ignore
    assert stage.roll is not None and stage.roll.size == 1024
    assert isinstance(stage.restart, Restart) and (stage.restart.attempts, stage.restart.within) == (2, 5.0)
    work = Processor(retry={"attempts": 3, "backoff": "1s"}, channel={"records": 5})  # type: ignore[arg-type]  # pyright: ignore
    assert isinstance(work.retry, Retry) and work.retry.backoff == (1.0, 1.0)
    assert isinstance(work.channel, ChannelBounds) and work.channel.bytes == 16 * 2**20


@pytest.mark.parametrize("given", [{"atempts": 2}, {}])
def test_a_mapping_with_a_wrong_key_or_without_a_needed_one_is_refused(given: Mapping[str, Any]) -> None:
    wrong: Any = given
    with pytest.raises(ConfigError, match=r"Fetch\(restart="):
        Fetch(restart=wrong)


def test_stages_compose_to_a_chain_that_never_changes() -> None:
    one, other, last = Fetch(), Processor(), Sink()
    chain = one | other
    assert isinstance(chain, Chain) and chain.links == (one, other)
    assert (chain | last).links == (one, other, last)
    assert (one | (other | last)).links == (one, other, last)
    assert chain.links == (one, other)
    assert repr(chain) == "Fetch | Processor"


def test_what_a_stage_promises_unless_it_says_otherwise() -> None:
    assert Source().replays() and not Source().endless()
    assert not Processor().stateful() and Processor().resumable()
    assert Sink().resumes() is Resume.NONE and Sink().durable()
    assert dict(Source().identity()) == {} and list(Source().problems()) == []
    assert (Source.role, Processor.role, Sink.role) == ("source", "processor", "sink")


async def test_what_a_stage_does_not_define_is_missing_and_not_empty() -> None:
    context = SourceContext("in", "test", ManualClock())
    with pytest.raises(NotImplementedError):
        await Source().open(context)
    with pytest.raises(NotImplementedError):
        await Processor().open(context)
    with pytest.raises(NotImplementedError):
        await Writer().write(batch_of(1))
    with pytest.raises(NotImplementedError):
        Reader().read()
    await Reader().forget(None)
    await Reader().close()
    assert Reader().progress() is None
    assert Work().close is None


def test_a_chunk_is_records_and_the_cursor_behind_them() -> None:
    chunk = Chunk([1, 2], {"at": 2})
    assert (chunk.records, chunk.cursor, chunk.size, list(chunk.failed)) == ([1, 2], {"at": 2}, 0, [])
    assert chunk.cursors is None and chunk.position is None


def test_keys_that_nobody_knows_are_told_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError) as refused:
        Fetch(evry=1, mosst=2, rate=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    assert [problem.text for problem in refused.value.problems] == [
        "Fetch: unknown key 'evry'; did you mean 'every'?",
        "Fetch: unknown key 'mosst'; did you mean 'most'?",
    ]


def test_keys_without_a_name_or_a_value_are_told() -> None:
    with pytest.raises(ConfigError, match=r"^Fetch: '5s' is given without a name; write key=value, like name='5s'$"):
        Fetch("5s")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(ConfigError, match=r"^Restart: key 'attempts' is missing$"):
        Restart()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    with pytest.raises(
        ConfigError, match=r"^Fetch\(roll=\{'sze': 1\}\): Roll: unknown key 'sze'; did you mean 'size'\?$"
    ):
        Fetch(roll={"sze": 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
