"""A run that is cancelled at any turn of its loop, and a channel whose users are: nothing is lost, nothing is left."""

import asyncio
import json
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from random import Random
from typing import Any

from pipeline import Pipeline
from pipeline.batch import Batch
from pipeline.flow.channel import Channel
from pipeline.testing import ManualClock
from stages import batchers, processors, sinks, sources

__all__ = ("cancelled", "traffic")

_COUNT = 120


def cancelled(folder: Path, chance: Random) -> str:
    """Cancel a run at some turn, perhaps the next one too, and let the last end: each record is there once."""
    (folder / "in.jsonl").write_text("".join(f'{{"n": {n}}}\n' for n in range(_COUNT)))
    to_file = chance.random() < 0.5
    recipe = _recipe(folder, to_file, chance.randint(1, 3), chance.choice([5, 17, 60]))
    turns = [int(2 ** chance.uniform(0, 11)) for _ in range(chance.randint(1, 2))]
    return asyncio.run(_cancelled(recipe, folder, to_file, turns))


def _recipe(folder: Path, to_file: bool, concurrency: int, size: int) -> Pipeline:
    sink = (
        sinks.Jsonl(path=str(folder / "out.jsonl")) if to_file else sinks.Sqlite(path=str(folder / "out.db"), table="t")
    )
    return (
        Pipeline("cancelled", checkpoint={"path": str(folder / "state.db"), "interval": 0.001})
        | sources.Jsonl(path=str(folder / "in.jsonl"))
        | batchers.Fixed(size=size)
        | processors.Call(_turns, batch=True, concurrency=concurrency)
        | sink
    )


async def _turns(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for _ in range(records[0]["n"] % 5):
        await asyncio.sleep(0)
    return records


async def _cancelled(recipe: Pipeline, folder: Path, to_file: bool, turns: list[int]) -> str:
    for count in turns:
        running = asyncio.ensure_future(recipe.run())
        for _ in range(count):
            await asyncio.sleep(0)
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        if left := [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]:
            return f"cancelled after {count} turns: {len(left)} tasks are left: {left[0]!r}"
    report = await recipe.run()
    found = _lines(folder) if to_file else _rows(folder)
    if report.outcome != "done" or found != list(range(_COUNT)):
        return f"cancelled after {turns} turns: ended {report.outcome} with {len(found)}, {len(set(found))} different"
    return ""


def _lines(folder: Path) -> list[int]:
    return [json.loads(line)["n"] for line in (folder / "out.jsonl").read_text().splitlines()]


def _rows(folder: Path) -> list[int]:
    with closing(sqlite3.connect(folder / "out.db", timeout=0)) as connection:
        connection.execute("BEGIN IMMEDIATE")  # nobody holds a transaction open
        return [row[0] for row in connection.execute("SELECT n FROM t ORDER BY rowid")]


def traffic(folder: Path, chance: Random) -> str:
    """Let tasks send and receive and be cancelled at random: what was sent to its end is received once, in order."""
    return asyncio.run(_traffic(chance))


async def _traffic(chance: Random) -> str:
    senders, count = chance.randint(1, 4), chance.randint(1, 12)
    channel = Channel(ManualClock(), batches=chance.randint(1, 3), senders=senders)
    sent: list[tuple[int, int]] = []
    received: list[tuple[int, int]] = []

    async def send(sender: int) -> None:
        for number in range(count):
            under_way = asyncio.ensure_future(channel.send(Batch([(sender, number)], size=1)))
            await _turn(chance)
            if chance.random() < 0.3:
                under_way.cancel()
            with suppress(asyncio.CancelledError):
                await under_way
                sent.append((sender, number))
        channel.close()

    async def receive() -> None:
        while True:
            under_way = asyncio.ensure_future(channel.receive())
            await _turn(chance)
            if chance.random() < 0.3:
                under_way.cancel()
            with suppress(asyncio.CancelledError):
                batch = await under_way
                if batch is None:
                    return
                received.extend(batch.records)

    async with asyncio.timeout(20):
        await asyncio.gather(receive(), *(send(sender) for sender in range(senders)))
    orderly = all(
        [each for each in received if each[0] == sender] == [each for each in sent if each[0] == sender]
        for sender in range(senders)
    )
    return "" if orderly and not len(channel) and not channel.bytes else f"sent {sent}, received {received}"


async def _turn(chance: Random) -> None:
    for _ in range(chance.randrange(4)):
        await asyncio.sleep(0)
