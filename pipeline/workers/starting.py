"""How a process of a coordinator begins: with its plan, or with its config, as long as that is still the same."""

import asyncio
import os
from contextlib import suppress

from pipeline.errors import ConfigError, PipelineError
from pipeline.plan.load import load
from pipeline.plan.topology import Topology
from pipeline.standard import printing_aside
from pipeline.workers.hearing import hear_setup
from pipeline.workers.plan import fingerprint_of
from pipeline.workers.words import Refused, Setup, line_of
from pipeline.workers.worker import Worker
from pipeline.workers.writer import serve_writers

__all__ = ("attend",)


def attend(descriptor: int, topology: Topology | None = None) -> int:
    """Do what the first line of standard input says, until told to leave; return the exit code.

    What there is to say goes to the descriptor. The plan is that of the config, unless one is given.
    """
    setup = hear_setup()
    if setup is None:
        return 1
    _be_called("pipeline-writer" if setup.socket else "pipeline-worker")
    try:
        with printing_aside():
            asyncio.run(_serve(setup, descriptor, topology or _planned(setup)))
    except PipelineError as error:
        os.write(descriptor, line_of(Refused(code=int(error.exit_code), error=str(error))))
        return int(error.exit_code)
    return 0


def _planned(setup: Setup) -> Topology:
    """Return the plan of the config.

    :raises ConfigError: when the config is wrong, or another one by now.
    """
    topology = load(setup.config, overrides=setup.settings, allow_code=setup.allow_code).topology
    if fingerprint_of(topology) != setup.fingerprint:
        raise ConfigError(f"{setup.config}: was edited while it ran; run it again")
    return topology


async def _serve(setup: Setup, descriptor: int, topology: Topology) -> None:
    """Be a worker or the writer.

    :raises PipelineError: when a sink of the writer refuses.
    """
    if setup.socket:
        await serve_writers(topology, setup, descriptor)
    else:
        await Worker(topology, setup, descriptor).run()


def _be_called(name: str) -> None:
    """Tell whoever lists processes what this one is: a fork has the command line of its coordinator."""
    with suppress(OSError), open("/proc/self/comm", "w") as file:
        file.write(name)
