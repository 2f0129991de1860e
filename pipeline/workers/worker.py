"""A worker: runs the partitions that it is given, one after the other, each as a run of its own."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from pipeline.collecting import collecting_less
from pipeline.errors import LockedError, PipelineError
from pipeline.flow.supervisor import Options, Share, Supervisor
from pipeline.plan.topology import Topology
from pipeline.stage import Sink
from pipeline.watch.events import Events
from pipeline.watch.report import Account, Report
from pipeline.workers.hearing import Voice
from pipeline.workers.plan import partition_topology
from pipeline.workers.remote import Link, through
from pipeline.workers.words import (
    Assign,
    Command,
    Drain,
    Ended,
    Leave,
    Progress,
    Rates,
    Ready,
    Said,
    Setup,
)

__all__ = ("Worker",)

_EVERY = 0.2
"""Seconds between two words about how far a partition has come."""
_PATIENCE = 10.0
"""Seconds for which the lock of a partition's state is waited for: its last holder may be about to die."""
_UNTOLD = {"started", "configured", "progress", "draining", "finished", "batch"}
"""Log events of a partition's run that say nothing of the whole run."""


class Worker:
    """Hears what to do, does it, and says how it went."""

    def __init__(self, topology: Topology, setup: Setup, descriptor: int) -> None:
        self._topology = topology
        self._setup = setup
        self._voice = Voice(descriptor, self._heard)
        self._assigned: list[Assign] = []
        self._news = asyncio.Event()
        self._leaving = False
        self._draining: float | None = None
        self._supervisor: Supervisor | None = None

    async def run(self) -> None:
        """Run what is assigned until told to leave."""
        with collecting_less():
            self._voice.say(Ready())
            while not self._leaving:
                self._news.clear()
                while self._assigned:
                    await self._work(self._assigned.pop(0))
                if not self._leaving:
                    await self._news.wait()

    def _heard(self, command: Command) -> None:
        if isinstance(command, Assign):
            self._assigned.append(command)
        elif isinstance(command, Drain):
            self._draining = command.deadline
            if self._supervisor is not None:
                self._supervisor.drain(command.deadline)
        elif isinstance(command, Rates):
            if self._supervisor is not None:
                self._supervisor.set_rates(command.rates)
        elif isinstance(command, Leave):
            self._leaving = True
        self._news.set()

    async def _work(self, assigned: Assign) -> None:
        link = Link(assigned.socket, assigned.number)
        try:
            report, total = await self._run(assigned, link)
        except PipelineError as error:
            said = Ended(number=assigned.number, total=Account(), code=int(error.exit_code), error=str(error))
        else:
            said = Ended(
                number=assigned.number, total=total, report=report, code=int(report.exit_code), error=report.error
            )
        said.lost = link.lost
        self._voice.say(said)

    async def _run(self, assigned: Assign, link: Link) -> tuple[Report, Account]:
        topology = self._plan(assigned, link)
        share = Share(assigned.what, assigned.rates)
        deadline = asyncio.get_running_loop().time() + _PATIENCE
        while True:
            supervisor = Supervisor(
                topology, Options(repeat=self._setup.repeat, share=share), events=Events((self._event,))
            )
            if self._setup.records:
                supervisor.tell_records()
            try:
                return await self._watched(supervisor, assigned.number), supervisor.total()
            except LockedError:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            await anyio.sleep(0.05)

    async def _watched(self, supervisor: Supervisor, number: int) -> Report:
        async def tell() -> None:
            while True:
                await anyio.sleep(_EVERY)
                self._voice.say(Progress(number=number, status=supervisor.status(), total=supervisor.total()))

        self._supervisor = supervisor
        if self._draining is not None:
            supervisor.drain(self._draining)
        error: PipelineError | None = None
        report: Report | None = None
        async with anyio.create_task_group() as around:
            around.start_soon(tell)
            try:
                report = await supervisor.run()
            except PipelineError as found:
                error = found
            around.cancel_scope.cancel()
        self._supervisor = None
        if report is None:
            raise error or PipelineError("the run was cancelled")
        return report

    def _plan(self, assigned: Assign, link: Link) -> Topology:
        lineage = self._setup.lineage

        def through_writer(planned: Any) -> Sink:
            return through(planned.spec.for_partition(assigned.number, lineage, False), link)

        state = str(Path(assigned.state))
        return partition_topology(
            self._topology, assigned.number, lineage, state, assigned.memory, assigned.letters, through_writer
        )

    def _event(self, name: str, fields: Mapping[str, Any]) -> None:
        if name not in _UNTOLD:
            self._voice.say(Said(name=name, fields=dict(fields)))
