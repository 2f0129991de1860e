"""How a spawned process begins: with the config of the coordinator, as long as it is still the same."""

import msgspec

from pipeline.errors import ConfigError
from pipeline.plan.load import load
from pipeline.workers.words import Setup

__all__ = ("serve",)


async def serve(setup: Setup, descriptor: int) -> None:
    """Load the config and be a worker or the writer, until told to leave.

    :raises PipelineError: when the config is wrong or another one by now, or a sink of the writer refuses.
    """
    loaded = load(setup.config, overrides=setup.settings, allow_code=setup.allow_code)
    here = msgspec.json.decode(msgspec.json.encode(loaded.topology.fingerprint(), enc_hook=str))
    if here != setup.fingerprint:
        raise ConfigError(f"{setup.config}: was edited while it ran; run it again")
    if setup.socket:
        from pipeline.workers.writer import serve_writers

        await serve_writers(loaded.topology, setup, descriptor)
    else:
        from pipeline.workers.worker import Worker

        await Worker(loaded.topology, setup, descriptor).run()
