"""Pipelines under the command behind HTTP: started, stopped by signals, and ended with an exit code."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.cli.config import ConfigFile
from pipeline.cli.forced import end_anyway, end_no_more
from pipeline.cli.signals import Signals
from pipeline.cli.views import Lines, Logged, View
from pipeline.collecting import collecting_less
from pipeline.errors import ConfigError, Exit, Problem
from pipeline.plan.load import Loaded
from pipeline.units import format_duration

if TYPE_CHECKING:
    from pipeline.service.http.access import Access
    from pipeline.service.http.host import Host

__all__ = ("Request", "execute")

_GRACE = 5.0
"""Seconds beyond the longest drain for which a function that blocks, or a client that reads nothing, is waited for."""
_FILES = 4096


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    configs: Sequence[ConfigFile]
    host: str
    port: int
    token_file: str | None = None
    names: Sequence[str] = ()
    log: str | None = None
    log_level: str = "info"
    reading_file: str | None = None


def execute(request: Request, signals: Signals) -> int:
    """Load the configs and serve them until a signal; return the exit code.

    :raises ConfigError: for whatever is wrong with the configs or the address, before anything is started.
    """
    try:
        from pipeline.service.http.access import TOKEN_VARIABLE, Access, is_loopback, read_token
        from pipeline.service.http.server import bind
    except ModuleNotFoundError as error:
        raise ConfigError(f"serve needs {error.name}: pip install 'pipeline[serve]'") from None
    token, warning = read_token(request.token_file)
    if not token and not is_loopback(request.host):
        raise ConfigError(
            f"--host {request.host} can be reached from elsewhere, and so needs a token: --token-file FILE or "
            f"{TOKEN_VARIABLE}"
        )
    reading, exposed = "", ""
    if request.reading_file is not None:
        if not token:
            raise ConfigError("--read-token-file: without --token-file nobody needs a token, to look or to change")
        reading, exposed = read_token(request.reading_file, {}, "--read-token-file")
        if reading == token:
            raise ConfigError("--read-token-file: this is the token of --token-file, with which all may be changed")
    loaded = _load_all(request.configs)
    listening = bind(request.host, request.port)
    access = Access.to(request.host, listening.getsockname()[1], token, request.names, reading)
    _allow_connections()
    with listening:
        serving = _Serving(request, loaded, access, signals)
        for text in filter(None, (warning, exposed)):
            serving.say(f"warning: {text}")
        with collecting_less():
            return asyncio.run(serving.run(listening))


class _Serving:
    """Ties the host of the pipelines to the terminal and to the signals."""

    def __init__(self, request: Request, loaded: Sequence[Loaded], access: "Access", signals: Signals) -> None:
        self._request = request
        self._loaded = loaded
        self._access = access
        self._signals = signals
        masks = [each.secrets.mask for each in loaded]
        self._view = _view(request, masks)

    def say(self, text: str) -> None:
        """Say a sentence."""
        self._view.say(text)

    async def run(self, listening: socket.socket) -> int:
        """Serve, and return the exit code."""
        from pipeline.service.http.host import Host
        from pipeline.service.http.hosted import Hosted
        from pipeline.service.http.server import serve

        host = Host()
        host.add([Hosted(*pair, self._teller(host)) for pair in self._pairs()])
        drain = max(float(each.config.drain) for each in self._loaded)
        self._listen(host, asyncio.get_running_loop(), drain)
        try:
            await serve(host, self._access, listening, lambda: self._say_where(listening))
        finally:
            end_no_more()
            self._view.close()
        code = host.exit_code(self._signals.exit_code or Exit.TERMINATED)
        self._signals.listen(lambda number, count: os._exit(code))
        return code

    def _pairs(self) -> list[tuple[Loaded, Any]]:
        return [(loaded, file.load) for loaded, file in zip(self._loaded, self._request.configs, strict=True)]

    def _teller(self, host: "Host") -> Any:
        def tell(pipeline: str, event: str, fields: Mapping[str, Any]) -> None:
            host.tell(pipeline, event, fields)
            if event == "state":
                self._tell_state(pipeline, fields)
            elif event == "finished":
                self._view.finish([], {"pipeline": pipeline, **fields})
            else:
                self._view.event(event, {"pipeline": pipeline, **fields})

        return tell

    def _tell_state(self, pipeline: str, fields: Mapping[str, Any]) -> None:
        if isinstance(self._view, Logged):
            self._view.event("state", {"pipeline": pipeline, **fields})
        elif fields["state"] in ("finished", "stopped", "failed"):
            error = f": {fields['error']}" if fields.get("error") else ""
            self.say(f"{pipeline}: {fields['state']}{error}")

    def _say_where(self, listening: socket.socket) -> None:
        host, port = listening.getsockname()[:2]
        names = ", ".join(each.config.name for each in self._loaded)
        where = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.say(f"serving {names} on {where}" + (" (with a token)" if self._access.token else ""))

    def _listen(self, host: "Host", loop: asyncio.AbstractEventLoop, drain: float) -> None:
        def received(number: int, count: int) -> None:
            # The loop may hang in a function of the user's, and then nobody else would end it.
            if count > 2:
                os._exit(self._signals.exit_code)
            end_anyway(_GRACE if count == 2 else drain + _GRACE, self._signals.exit_code if count == 2 else 7)
            loop.call_soon_threadsafe(stop, count)

        def stop(count: int) -> None:
            if count > 1:
                self.say("stopping at once")
                host.abort()
                return
            name = signal.Signals(self._signals.received[0]).name
            self.say(f"{name}: finishing what is under way, within {format_duration(drain)}; once more stops at once")
            host.drain()

        self._signals.listen(received)


def _load_all(configs: Sequence[ConfigFile]) -> list[Loaded]:
    """Load all configs and say all that is wrong with any of them.

    :raises ConfigError: when there is something.
    """
    found: list[Loaded] = []
    problems: list[Problem | str] = []
    for config in configs:
        try:
            found.append(config.load())
        except ConfigError as error:
            problems.extend(error.problems)
    names: dict[str, str] = {}
    for config, loaded in zip(configs, found, strict=False):
        other = names.setdefault(loaded.config.name, config.path)
        if other is not config.path and not problems:
            problems.append(f"{config.path}: its pipeline has the name '{loaded.config.name}' like that of {other}")
    if problems:
        raise ConfigError(*problems)
    return found


def _view(request: Request, masks: Sequence[Any]) -> View:
    def mask(text: str) -> str:
        for each in masks:
            text = each(text)
        return text

    return Lines(mask) if request.log is None else Logged(mask, request.log, request.log_level)


def _allow_connections() -> None:
    """Raise the number of open files as far as connections may need it and we may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
