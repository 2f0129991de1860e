"""``pipeline test``: the cases beside a config, run in memory and in virtual time."""

import time
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

from pipeline.cli.config import ConfigFile, config_options
from pipeline.cli.say import err, out, span
from pipeline.errors import ConfigError, Exit

if TYPE_CHECKING:
    from pipeline.cases.load import Ready

__all__ = ("command",)


@click.command("test", short_help="Run the cases beside a config: what goes in, what must come out.")
@click.argument("config")
@click.argument("names", metavar="[CASE]...", nargs=-1)
@click.option(
    "--cases", "file", metavar="FILE", help="The file of cases; NAME.tests.yaml beside NAME.yaml if left out."
)
@config_options
def command(
    config: str, names: tuple[str, ...], file: str | None, settings: tuple[str, ...], allow_code: tuple[str, ...]
) -> int:
    """Run the cases beside a config: what goes in, and what must come out.

    All of them, or those named. Sources and sinks are replaced by lists in memory and time is virtual, so nothing
    outside is touched but by functions of your own; a case can mock those. Exits with 1 when a case fails, with 2 when
    config or cases are wrong.

    \b
    cases:                                     # delays.tests.yaml, beside delays.yaml
      - name: only late flights are kept
        input:  [{dep_delay: 99}, {dep_delay: 3}]
        output: [{dep_delay: 99}]
      - name: a flight without weather is a dead letter
        mocks:  {weather: {error: no such airport}}     # or set: {…}, give: …, unavailable: …; when: EXPRESSION
        input:  [{dep_delay: 99}]
        failures: [{stage: weather, error: no such airport, outcome: dead_letter}]
    """  # noqa: D301 - click's own mark for lines that stay as they are
    import anyio

    if config == "-":
        ConfigFile(config).load()
    from pipeline.cases.load import case_file, load_cases

    cases = file or case_file(config)
    ready = _chosen(load_cases(config, cases, overrides=settings, allow_code=allow_code), names, cases)
    failed = sum(not anyio.run(_run, each, cases) for each in ready)
    count = f"{len(ready)} case{'s' * (len(ready) != 1)}"
    if failed:
        err(f"{count}: {len(ready) - failed} passed, {failed} failed")
        return Exit.FAILED
    err(f"{count}: all passed" if len(ready) > 1 else f"{count}: passed")
    return Exit.DONE


def _chosen(ready: "list[Ready]", names: Sequence[str], file: str) -> "list[Ready]":
    known = [each.case.name for each in ready]
    wrong = [name for name in names if name not in known]
    if wrong:
        raise ConfigError(*(f"{file}: no case '{name}'{_near(name, known)}" for name in wrong))
    return [each for each in ready if each.case.name in names] if names else ready


def _near(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, 1)
    return f"; did you mean '{near[0]}'?" if near else f"; there are {', '.join(map(repr, known))}"


async def _run(ready: "Ready", file: str) -> bool:
    """Run a case and say what came of it; return whether it passed."""
    from pipeline.cases.compare import differences
    from pipeline.cases.trial import run_case
    from pipeline.watch.log import escape

    began = time.monotonic()
    wrong = differences(ready, await run_case(ready))
    said = f"{escape(ready.case.name)} ({span(time.monotonic() - began)})"
    if not wrong:
        out(f"ok    {said}")
        return True
    out(f"FAIL  {said} {escape(file)}:{ready.mark.line}")
    for line in wrong:
        out(f"      {escape(ready.loaded.secrets.mask(line))}")
    return False
