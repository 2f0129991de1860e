"""The loads and disturbances that the laws are compared under; the target is 100 ms in all of them."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.control.law import Law
from tests.benchmarks.simulator import Arrival, Cost, Run, Station, Trace, poisson, saturated

__all__ = ("BATCH_SCENARIOS", "RECORD_SCENARIOS", "TARGET", "Scenario", "stepped")

TARGET = 0.1
_STEP = 50.0


@dataclass(frozen=True)
class Scenario:
    """A path of stations under a load: saturated, or `rate` records a second with `keys` keys.

    What is counted begins at `since`. `least` is the share of the best fixed size's throughput to be reached, None
    where that size is no measure.
    """

    name: str
    path: Sequence[Sequence[Station]]
    permits: int | None = None
    since: float = 0.0
    seconds: float = 100.0
    rate: Callable[[float], float] | None = None
    keys: int = 1
    least: float | None = 0.95

    def run(self, law: Law, seed: int) -> Trace:
        """Return what happens to a law here."""
        return Run(law, self.path, self._arrivals(seed), self.seconds, seed, self.permits).run()

    def _arrivals(self, seed: int) -> Iterator[Arrival]:
        if self.rate is None:
            return saturated()
        return poisson(self.rate, seed, self.seconds, self.keys)


def stepped(fixed: float = 1.0, per_record: float = 1.0, at: float = _STEP) -> Callable[[float], tuple[float, float]]:
    """Return the change of both costs by these factors at a moment."""
    return lambda now: (fixed, per_record) if now >= at else (1.0, 1.0)


def _steady(rate: float) -> Callable[[float], float]:
    return lambda now: rate


def _drifting(now: float) -> tuple[float, float]:
    return 1.0, 1.0 + 0.5 * math.sin(2.0 * math.pi * now / 60.0)


def _superlinear(size: int) -> float:
    return size * math.pow(size / 100.0, 0.3)


def _plateau(size: int) -> float:
    return math.ceil(size / 32) * 32.0


def _one(name: str, cost: Cost, concurrency: int = 1, since: float = 0.0, least: float | None = 0.95) -> Scenario:
    """Return a saturated station of its own, with as many permits as it serves at once."""
    return Scenario(name, ((Station(cost, concurrency),),), concurrency, since, least=least)


BATCH_SCENARIOS = (
    _one("affine, noise .1", Cost()),
    _one("affine, noise .3", Cost(deviation=0.3)),
    _one("fixed cost 60 ms of T", Cost(0.060, 0.00005), least=0.83),
    _one("1 ms + 5 ms a record", Cost(0.001, 0.005)),
    _one("after b x3", Cost(change=stepped(1, 3)), since=_STEP),
    _one("after a x3", Cost(change=stepped(3, 1)), since=_STEP),
    _one("after b /3", Cost(change=stepped(1, 1 / 3)), since=_STEP),
    _one("spikes 1 % x20", Cost(spikes=(0.01, 20.0))),
    _one("superlinear n^1.3", Cost(shape=_superlinear), least=None),
    _one("plateaus of 32", Cost(0.010, 0.0006, shape=_plateau), least=None),
    _one("pause 80 ms every 2 s", Cost(pause=(2.0, 0.080))),
    _one("first 3 batches x10", Cost(first=(3, 10.0))),
    _one("bimodal, 20 % x2", Cost(spikes=(0.2, 2.0))),
    _one("after noise .1 to .3", Cost(deviation_at=lambda now: 0.3 if now >= _STEP else 0.1), since=_STEP),
    _one("correlated noise, AR(.8) .2", Cost(deviation=0.2, correlation=0.8)),
    _one("b drifting 50 % a minute", Cost(change=_drifting), least=None),
    _one("held by max_size", Cost(0.001, 0.000001), least=None),
    _one("c = 4, affine", Cost(), 4),
    _one("c = 4, after b x3", Cost(change=stepped(1, 3)), 4, since=_STEP),
    _one("c = 4, pause 80 ms every 2 s", Cost(pause=(2.0, 0.080)), 4),
    Scenario("c = 4 permits, one server", ((Station(Cost()),),), 4),
)


def _loads(concurrency: int, capacity: float) -> Iterator[Scenario]:
    """Yield the loads and disturbances of one station; the capacity is that of a saturated run within the target."""
    name = f"c = {concurrency}, "
    plain = ((Station(Cost(), concurrency),),)

    def load(what: str, rate: Callable[[float], float]) -> Scenario:
        return Scenario(name + what, plain, concurrency, seconds=40.0, rate=rate, least=None)

    yield load("5 records/s", lambda now: 5.0)
    yield load("Poisson 10 %", lambda now: 0.1 * capacity)
    yield load("Poisson 30 %", lambda now: 0.3 * capacity)
    yield load("Poisson 90 %", lambda now: 0.9 * capacity)
    yield load("on/off, peak 200 %", lambda now: 2.0 * capacity if now % 5.0 < 1.0 else 0.0)
    yield load("ramp 0 to 120 % to 0", lambda now: 1.2 * capacity * (1.0 - abs(now - 20.0) / 20.0))
    disturbances = {
        "saturated": Cost(),
        "saturated, b x3": Cost(change=stepped(1, 3, 20.0)),
        "saturated, spikes": Cost(spikes=(0.01, 20.0)),
        "saturated, pauses": Cost(pause=(2.0, 0.080)),
        "saturated, noise .3": Cost(deviation=0.3),
        "saturated, fixed cost 25 ms": Cost(0.025, 0.0001),
    }
    for what, cost in disturbances.items():
        least = 0.97 if what == "saturated" else None
        yield Scenario(
            name + what,
            ((Station(cost, concurrency),),),
            concurrency,
            seconds=40.0 if least is None else 100.0,
            least=least,
        )


def _paths() -> Iterator[Scenario]:
    """Yield several stations, with the permits measured, and several keys."""
    light = Cost(0.004, 0.00004)
    paths = {
        "parse, then write": (((Station(light),), (Station(Cost()),)), 6500.0),
        "two equal stages": (((Station(Cost()),), (Station(Cost()),)), 6000.0),
        "parse x2, then write x4": (((Station(light, 2),), (Station(Cost(), 4),)), 30000.0),
        "fan-out, fast and slow": (((Station(Cost(0.002, 0.00002)), Station(Cost())),), 7600.0),
    }
    for name, (path, capacity) in paths.items():
        rate = 0.9 * capacity
        yield Scenario(f"{name}: saturated", path, seconds=40.0, least=None)
        yield Scenario(f"{name}: 90 %", path, seconds=20.0, rate=_steady(rate), least=None)
    slower = ((Station(light),), (Station(Cost(change=stepped(1, 3, 20.0))),))
    yield Scenario("parse, then write: b x3 in write", slower, seconds=40.0, least=None)
    cheap = ((Station(Cost(0.002, 0.0001)),),)
    for keys, rate in ((2, 7600.0), (4, 5100.0), (8, 2500.0), (8, 12000.0)):
        name = f"{keys} keys: {rate:.0f}/s"
        yield Scenario(name, cheap, 1, seconds=20.0, rate=_steady(rate), keys=keys, least=None)


RECORD_SCENARIOS = (*_loads(1, 7600.0), *_loads(4, 33000.0), *_paths())
