"""A server's pipelines in the terminal: asked for now and then, and drawn."""

import http.client
import json
import os
import select
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pipeline.cli.say import number, out, span
from pipeline.cli.signals import Signals
from pipeline.errors import ConfigError, PipelineError
from pipeline.watch.log import escape

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ("show_once", "watch")

_PATIENCE = 5.0
_LONGEST = 64 << 20
_MARKS = {"running": "●", "finished": "■", "stopped": "■", "failed": "▲"}
_STYLES = {"running": "green", "failed": "bold red", "finished": "dim", "stopped": "dim"}
_BLOCKS = " ▁▂▃▄▅▆▇█"

View = dict[str, Any]


class _UnreachableError(PipelineError):
    """Nobody answers at the URL, or not what a server of ours would."""


def show_once(url: str, token_file: str | None) -> int:
    """Write how the pipelines are to standard output.

    :raises PipelineError: when nobody answers.
    """
    from rich.console import Console

    console = Console(width=110, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(_picture(_ask(url, _token(token_file))))
    out(captured.get().rstrip("\n"))
    return 0


def watch(url: str, token_file: str | None, every: float, signals: Signals) -> int:
    """Draw how the pipelines are until a signal comes; a server that is gone for a while is waited for.

    :raises PipelineError: when nobody answers at the beginning.
    """
    from rich.console import Console
    from rich.live import Live

    token = _token(token_file)
    overview = _ask(url, token)
    waker, wake = os.pipe()
    signals.listen(lambda received, count: wake_up(wake))
    try:
        with Live(_picture(overview), console=Console(), auto_refresh=False, screen=True) as live:
            while not select.select([waker], [], [], every)[0]:
                live.update(_look(url, token), refresh=True)
    finally:
        signals.listen(None)
        os.close(waker)
        os.close(wake)
    return 0


def wake_up(descriptor: int) -> None:
    """Let whoever waits at the other end of a pipe go on."""
    os.write(descriptor, b".")


def _look(url: str, token: str) -> "RenderableType":
    try:
        return _picture(_ask(url, token))
    except PipelineError as error:
        from rich.text import Text

        return Text(f"{error}; trying again, Ctrl-C ends", style="red")


def _token(token_file: str | None) -> str:
    try:
        from pipeline.service.http.access import read_token
    except ModuleNotFoundError as error:
        raise ConfigError(f"top needs {error.name}: pip install 'pipeline[serve]'") from None
    return read_token(token_file)[0]


def _ask(url: str, token: str) -> View:
    place = urlsplit(url if "//" in url else f"http://{url}")
    if place.scheme not in ("http", "https") or not place.hostname:
        raise ConfigError(f"'{url}' is no URL of a server; expected something like http://127.0.0.1:8038")
    kind = http.client.HTTPSConnection if place.scheme == "https" else http.client.HTTPConnection
    try:
        connection = kind(place.hostname, place.port, timeout=_PATIENCE)
        try:
            headers = {"authorization": f"Bearer {token}"} if token else {}
            connection.request("GET", f"{place.path.rstrip('/')}/api/pipelines", headers=headers)
            answer = connection.getresponse()
            body = answer.read(_LONGEST)
        finally:
            connection.close()
        found = json.loads(body)
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise _UnreachableError(f"{place.scheme}://{place.netloc}: no server of ours answers: {error}") from None
    if answer.status != 200 or "pipelines" not in found:
        raise _UnreachableError(f"{place.scheme}://{place.netloc}: {found.get('reason', answer.status)}")
    return dict(found)


# --- the picture ---


def _picture(overview: View) -> "RenderableType":
    from rich.console import Group
    from rich.text import Text

    found: list[RenderableType] = []
    for pipeline in overview["pipelines"]:
        found += [*_pipeline(pipeline), Text()]
    return Group(*found)


def _pipeline(pipeline: View) -> Iterator["RenderableType"]:
    from rich.text import Text

    state = pipeline["state"]
    style = _STYLES.get(state, "yellow")
    title = Text.assemble((f"{_MARKS.get(state, '◐')} {escape(pipeline['name'])}", "bold"), "  ", (state, style))
    yield title.append("  " + "  ".join(_facts(pipeline)))
    for alert in pipeline["alerts"]:
        yield Text(f"  ! {escape(alert['text'])}", style="red" if alert["level"] == "error" else "yellow")
    yield _stages(pipeline["stages"])
    yield Text("  " + _account(pipeline["account"]), style="dim")
    if pipeline["bottleneck"]:
        yield Text(f"  {escape(pipeline['bottleneck'])}", style="dim")


def _facts(pipeline: View) -> Iterator[str]:
    rates = pipeline["rates"]
    yield f"run {pipeline['run']}"
    yield span(pipeline["uptime"])
    yield f"{number(round(rates['settled'], 1))}/s"
    if pipeline["dead_letters"]:
        yield f"dead letters {number(pipeline['dead_letters'])}"
    if rates["error_rate"]:
        yield f"failing {rates['error_rate']:.1%}"
    if pipeline["checkpoint_age"] is not None:
        yield f"checkpoint {span(pipeline['checkpoint_age'])} ago"


def _stages(stages: list[View]) -> "RenderableType":
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    table.add_column("stage", no_wrap=True, overflow="ellipsis", max_width=28)
    for name in ("in/s", "out/s", "in", "out", "failed", "busy", "inbox", "p95"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("batch", no_wrap=True)
    for stage in stages:
        table.add_row(*_stage(stage))
    return table


def _stage(stage: View) -> Iterator[str]:
    from rich.markup import escape as plain

    yield plain(escape(f"{stage['name']} ({stage['role']})"))
    for rate in ("rate_in", "rate_out"):
        yield number(round(stage[rate], 1))
    for count in ("records_in", "records_out"):
        yield number(stage[count])
    yield number(sum(stage["failed"].values()))
    yield f"{stage['busy']:.0%}"
    channel = stage["channel"]
    yield f"{_BLOCKS[min(8, round(channel['fill'] * 8))]} {channel['fill']:.0%}" if channel else ""
    batcher = stage["batcher"]
    late = batcher["p95_latency"] if batcher else stage["p95_seconds"]
    yield span(late) if late else ""
    yield _batch(batcher) if batcher else ""


def _batch(batcher: View) -> str:
    text = number(batcher["last"]) + (f" of {number(batcher['limit'])}" if batcher["limit"] else "")
    return text + (f", target {span(batcher['target'])}" if batcher["target"] else "")


def _account(account: View) -> str:
    ends = ("written", "filtered", "skipped", "collected", "dead_lettered", "unsettled")
    said = " + ".join(f"{name.replace('_', '-')} {number(account[name])}" for name in ends)
    return f"read {number(account['read'])} = {said}"
