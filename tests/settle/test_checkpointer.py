"""The checkpointer: the order of a cut is the guarantee."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from pipeline.errors import StorageError, Unavailable
from pipeline.settle.checkpointer import Checkpointer
from pipeline.settle.cut import Change, Cut, Letter, SinkPoint, SourcePoint
from pipeline.testing import ManualClock, settle
from pipeline.testing.cancelling import cancel_points, interrupted

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Said:
    """Everything that is called, in order; what a test puts under a name happens there."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.then: dict[str, Callable[[], Awaitable[None]]] = {}

    def note(self, call: str) -> None:
        self.calls.append(call)

    async def wait(self, call: str) -> None:
        self.calls.append(call)
        await anyio.lowlevel.checkpoint()
        if call in self.then:
            await self.then[call]()


class Source:
    def __init__(self, name: str, said: Said) -> None:
        self.name = name
        self.said = said

    def point(self) -> SourcePoint:
        self.said.note(f"{self.name}.point")
        return SourcePoint(cursor=7, number=70)

    async def forget(self, point: SourcePoint) -> None:
        assert point.number == 70
        await self.said.wait(f"{self.name}.forget")


class Sink:
    def __init__(self, name: str, said: Said) -> None:
        self.name = name
        self.said = said

    async def hold_still(self, final: bool) -> None:
        await self.said.wait(f"{self.name}.hold_still" + (" finally" if final else ""))

    def go_on(self) -> None:
        self.said.note(f"{self.name}.go_on")

    def point(self) -> SinkPoint | None:
        self.said.note(f"{self.name}.point")
        return SinkPoint(position=self.name) if self.name != "plain" else None

    async def sync(self) -> None:
        await self.said.wait(f"{self.name}.sync")

    async def committed(self, frontiers: dict[str, int]) -> None:
        assert frontiers == {"source": 70}
        await self.said.wait(f"{self.name}.committed")


class Store:
    def __init__(self, said: Said) -> None:
        self.said = said
        self.cuts: list[Cut] = []

    async def save(self, cut: Cut) -> None:
        await self.said.wait("save")
        self.cuts.append(cut)


class World:
    def __init__(self, *sinks: str) -> None:
        self.said = Said()
        self.clock = ManualClock()
        self.store = Store(self.said)
        self.checkpointer = Checkpointer(
            self.store,
            self.clock,
            [Source("source", self.said)],
            [Sink(name, self.said) for name in sinks or ("sink",)],
            self.pending,
            lambda cut: self.said.note("noted"),
            lambda: {"account": 1},
            lambda: {"batcher": 2},
            interval=1.0,
        )

    def pending(self) -> tuple[list[Letter], list[Change]]:
        self.said.note("pending")
        return [], [CHANGE]

    def places(self, *calls: str) -> list[int]:
        return [self.said.calls.index(call) for call in calls]


CHANGE = Change(stage="stage", key="k", source="source", number=3, value=1)
ONE = [
    "sink.hold_still",
    "source.point",
    "pending",
    "sink.point",
    "sink.go_on",
    "sink.sync",
    "save",
    "noted",
    "sink.committed",
    "source.forget",
]


async def test_writes_end_then_the_moment_is_frozen_synced_saved_and_only_then_forgotten() -> None:
    world = World()
    cut = await world.checkpointer.cut()

    assert world.said.calls == ONE
    assert world.store.cuts == [cut]
    assert cut.sources["source"].number == 70
    assert cut.sinks == {"sink": SinkPoint(position="sink")}
    assert (cut.changes, cut.counters, cut.learned) == ([CHANGE], {"account": 1}, {"batcher": 2})
    assert cut.taken_at == world.clock.wall()


async def test_several_sinks_all_stand_still_before_any_is_frozen_and_are_all_synced_before_the_save() -> None:
    world = World("one", "two", "plain")
    cut = await world.checkpointer.cut()

    still = world.places("one.hold_still", "two.hold_still", "plain.hold_still")
    frozen = world.places("source.point", "one.point", "two.point", "plain.point")
    freed = world.places("one.go_on", "two.go_on", "plain.go_on")
    synced = world.places("one.sync", "two.sync", "plain.sync")
    saved = world.places("save")
    committed = world.places("one.committed", "two.committed", "plain.committed")
    assert max(still) < min(frozen) <= max(frozen) < min(freed) <= max(freed) < min(synced)
    assert max(synced) < saved[0] < min(committed) <= max(committed) < world.places("source.forget")[0]
    assert set(cut.sinks) == {"one", "two"}


async def test_a_cut_once_begun_is_finished_wherever_it_is_cancelled() -> None:
    for at in cancel_points():
        world = World()
        outcome = await interrupted(world.checkpointer.cut(), at)
        assert world.said.calls in ([], ONE)
        if outcome.completed:
            return


async def test_there_is_one_cut_at_a_time() -> None:
    world = World()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(world.checkpointer.cut)
    assert world.said.calls == ONE * 3
    assert world.checkpointer.saved == 3


async def test_the_last_cut_tells_sinks_that_no_write_follows() -> None:
    world = World()
    await world.checkpointer.cut(final=True)
    assert world.said.calls[0] == "sink.hold_still finally"


@pytest.mark.parametrize(
    ("where", "done"),
    [
        ("two.hold_still", ["one.hold_still", "two.hold_still", "one.go_on"]),
        ("save", None),
    ],
)
async def test_what_fails_saves_nothing_and_lets_writes_go_on(where: str, done: list[str] | None) -> None:
    world = World("one", "two")

    async def fail() -> None:
        raise StorageError("no space")

    world.said.then[where] = fail
    with pytest.raises(StorageError, match="no space"):
        await world.checkpointer.cut()
    if done is not None:
        assert world.said.calls == done
    assert not world.store.cuts and world.checkpointer.saved == 0
    assert not any(call.endswith(("committed", "forget")) for call in world.said.calls)
    stood = [call for call in world.said.calls if call.endswith("hold_still")]
    assert len([call for call in world.said.calls if call.endswith("go_on")]) >= len(stood) - 1

    world.said.then.clear()
    await world.checkpointer.cut()
    assert world.checkpointer.saved == 1


async def test_a_sync_that_fails_keeps_the_cut_from_being_saved() -> None:
    for sinks in (("one",), ("one", "two")):
        world = World(*sinks)

        async def fail() -> None:
            raise StorageError("input/output error")

        world.said.then["one.sync"] = fail
        with pytest.raises(StorageError, match="input/output error"):
            await world.checkpointer.cut()
        assert "save" not in world.said.calls and "noted" not in world.said.calls


async def test_of_several_syncs_that_fail_storage_is_what_is_told() -> None:
    world = World("one", "two")

    async def held() -> None:
        raise Unavailable("locked")

    async def fail() -> None:
        raise StorageError("no space")

    world.said.then |= {"one.sync": held, "two.sync": fail}
    with pytest.raises(StorageError, match="no space"):
        await world.checkpointer.cut()


async def test_a_database_that_somebody_holds_postpones_a_cut_and_the_next_one_has_all() -> None:
    world = World()

    async def held() -> None:
        raise Unavailable("locked")

    world.said.then["sink.sync"] = held
    async with anyio.create_task_group() as group:
        group.start_soon(world.checkpointer.run)
        await world.clock.advance(1)
        assert (world.checkpointer.saved, world.checkpointer.postponed) == (0, "locked")
        world.said.then.clear()
        await world.clock.advance(1)
        assert (world.checkpointer.saved, world.checkpointer.postponed) == (1, "")
        assert world.store.cuts[0].changes == [CHANGE]
        group.cancel_scope.cancel()


async def test_the_last_cut_waits_a_while_for_a_database_that_somebody_holds() -> None:
    world = World()
    tries: list[float] = []

    async def held() -> None:
        tries.append(world.clock.now())
        if len(tries) < 4:
            raise Unavailable("locked")

    world.said.then["sink.sync"] = held
    await world.clock.finish(world.checkpointer.last_cut(True))
    assert world.checkpointer.saved == 1 and len(tries) == 4
    assert world.said.calls[0] == "sink.hold_still finally"

    stuck = World()

    async def always() -> None:
        raise Unavailable("locked")

    stuck.said.then["sink.sync"] = always
    with pytest.raises(Unavailable):
        await stuck.clock.finish(stuck.checkpointer.last_cut(True))
    assert 5 <= stuck.clock.now() <= 60


async def test_cuts_come_each_interval_and_sooner_on_request() -> None:
    world = World()
    async with anyio.create_task_group() as group:
        group.start_soon(world.checkpointer.run)
        await world.clock.advance(0.9)
        assert world.checkpointer.saved == 0 and world.checkpointer.last_saved is None
        await world.clock.advance(0.1)
        assert world.checkpointer.saved == 1
        await world.clock.advance(0.5)
        world.checkpointer.request()
        await settle()
        assert world.checkpointer.saved == 2
        assert world.checkpointer.last_saved == 1.5
        # The interval counts from the last cut.
        await world.clock.advance(0.9)
        assert world.checkpointer.saved == 2
        await world.clock.advance(0.1)
        assert world.checkpointer.saved == 3
        group.cancel_scope.cancel()


async def test_a_request_during_a_cut_is_followed_by_another() -> None:
    world = World()
    gate = anyio.Event()
    world.said.then["save"] = gate.wait
    async with anyio.create_task_group() as group:
        group.start_soon(world.checkpointer.run)
        world.checkpointer.request()
        await settle()
        world.checkpointer.request()
        gate.set()
        await settle()
        assert world.checkpointer.saved == 2
        group.cancel_scope.cancel()


async def test_the_time_that_a_cut_took_is_known() -> None:
    world = World()

    async def slow() -> None:
        await world.clock.sleep(3)

    world.said.then["sink.sync"] = slow
    await world.clock.finish(world.checkpointer.cut())
    assert world.checkpointer.last_seconds == 3
