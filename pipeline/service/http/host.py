"""All pipelines of the server, and whoever listens to them."""

import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import anyio
import msgspec

from pipeline import __version__
from pipeline.errors import Exit
from pipeline.service.http.hosted import Hosted
from pipeline.service.http.limits import Limits
from pipeline.service.http.refused import RequestRefused
from pipeline.service.http.shapes import Overview, Readiness, ReadyPart
from pipeline.service.http.stream import Stream
from pipeline.watch.exposition import Metric, add_up, counter, expose, gauge

__all__ = ("Host",)

_EVERY = 1.0
_TOLD = 100
"""Log events that a new stream begins with."""
_WORST = (Exit.STORAGE, Exit.DEADLINE, Exit.STATE, Exit.LOCKED, Exit.FAILED, Exit.CONFIG, Exit.TERMINATED)


class Host:
    """Runs pipelines side by side. For one event loop."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.pipelines: dict[str, Hosted] = {}
        self.leaving = False
        self._streams: set[Stream] = set()
        self._told: deque[bytes] = deque(maxlen=_TOLD)

    def add(self, hosted: Sequence[Hosted]) -> None:
        """Take in pipelines, before `run`."""
        self.pipelines |= {each.name: each for each in hosted}

    def __getitem__(self, name: str) -> Hosted:
        if name not in self.pipelines:
            known = ", ".join(self.pipelines)
            raise RequestRefused("not_found", f"there is no pipeline of this name; there are: {known}", 404)
        return self.pipelines[name]

    async def run(self) -> None:
        """Start all pipelines and run until `drain` or `abort` has ended them all."""
        async with anyio.create_task_group() as around:
            around.start_soon(self._tick)
            async with anyio.create_task_group() as group:
                for hosted in self.pipelines.values():
                    group.start_soon(hosted.run)
                    hosted.start()
            around.cancel_scope.cancel()
        self._send_overview()

    def drain(self) -> None:
        """Let all finish what is under way, side by side, each within its own deadline."""
        self.leaving = True
        for hosted in self.pipelines.values():
            hosted.leave()

    def abort(self) -> None:
        """Stop all at once."""
        self.leaving = True
        for hosted in self.pipelines.values():
            hosted.abort()

    def exit_code(self, of_signal: int) -> int:
        """Return what the command ends with: the worst of the pipelines' endings."""
        codes = {hosted.exit_code for hosted in self.pipelines.values()}
        worst = next((code for code in _WORST if code in codes), Exit.DONE)
        return of_signal if worst == Exit.TERMINATED else int(worst)

    def overview(self) -> Overview:
        """Return all pipelines as they are."""
        return Overview(__version__, time.time(), [hosted.view() for hosted in self.pipelines.values()])

    def metrics(self) -> str:
        """Return the metrics of all pipelines in Prometheus's text format."""
        return expose([*add_up(hosted.measures() for hosted in self.pipelines.values()), *self._own_metrics()])

    def readiness(self) -> Readiness:
        """Return which pipelines are ready: reading, or done with all there was."""
        parts = dict(self._parts())
        return Readiness(all(part.ready for part in parts.values()) and not self.leaving, parts)

    # --- streams ---

    def listen(self) -> Stream:
        """Return a new stream of events; closed with `unlisten`.

        :raises RequestRefused: when there are too many, or the server is about to end.
        """
        if self.leaving:
            raise RequestRefused("ending", "the server is about to end", 503)
        if len(self._streams) >= self.limits.streams:
            raise RequestRefused("streams", f"{len(self._streams)} event streams are open; close one", 503)
        stream = Stream(self.limits.backlog)
        self._streams.add(stream)
        for encoded in self._told:
            stream.log(encoded)
        stream.status(msgspec.json.encode(self.overview()))
        return stream

    def unlisten(self, stream: Stream) -> None:
        """Forget a stream."""
        self._streams.discard(stream)

    def end_streams(self, reason: str) -> None:
        """End all streams, each with the reason as its last event."""
        for stream in self._streams:
            stream.end(reason)

    def tell(self, pipeline: str, event: str, fields: Mapping[str, Any]) -> None:
        """Hand a log event to all streams."""
        told = {"pipeline": pipeline, "event": event, "at": time.time(), "fields": fields}
        encoded = msgspec.json.encode(told, enc_hook=str)
        self._told.append(encoded)
        for stream in self._streams:
            stream.log(encoded)

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(_EVERY)
            for hosted in self.pipelines.values():
                hosted.tick()
                await hosted.keep()
            self._send_overview()

    def _send_overview(self) -> None:
        if self._streams:
            encoded = msgspec.json.encode(self.overview())
            for stream in self._streams:
                stream.status(encoded)

    def _own_metrics(self) -> Iterator[Metric]:
        text = "1 for the state that the pipeline is in."
        states = [({"pipeline": name, "state": each.state}, 1.0) for name, each in self.pipelines.items()]
        yield gauge("pipeline_state", text, states)
        text = "Records submitted, by what became of them."
        counts = [(name, each.view().submitted) for name, each in self.pipelines.items()]
        yield counter(
            "pipeline_submitted_total",
            text,
            [
                ({"pipeline": name, "outcome": outcome}, getattr(found, outcome))
                for name, found in counts
                if found is not None
                for outcome in ("answered", "failed", "late", "refused")
            ],
        )
        yield gauge("pipeline_streams", "Open streams of events.", [({}, len(self._streams))])

    def _parts(self) -> Iterator[tuple[str, ReadyPart]]:
        for name, hosted in self.pipelines.items():
            ready = hosted.state in ("running", "finished") and not self.leaving
            reason = hosted.error or ("" if ready else f"it is {hosted.state}")
            yield name, ReadyPart(ready, hosted.state, reason)
            for stage in hosted.view().stages if hosted.supervisor is not None else ():
                well = stage.state in ("running", "starting", "stopped") and ready
                yield f"{name}/{stage.name}", ReadyPart(well, stage.state, "" if well else f"it is {stage.state}")
