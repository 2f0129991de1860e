"""``pipeline verify``: the user's own pipeline, broken on a sample of its input in every way there is."""

import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.config import ConfigFile, config_options
from pipeline.cli.main import Session
from pipeline.cli.say import err, number, out, span, table
from pipeline.cli.signals import Stopped
from pipeline.errors import ConfigError, Exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pipeline.verify.runs import Verification

__all__ = ("command",)

_FAILURES = 5


@click.command("verify", short_help="Kill a pipeline again and again; count what is lost or repeated.")
@click.argument("config")
@click.option("--runs", metavar="N", type=click.IntRange(min=1), default=18, show_default=True, help="Broken runs.")
@click.option(
    "--records",
    metavar="N",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Of each source at most.",
)
@click.option(
    "--seed", metavar="N", type=int, help="Decides what goes wrong and when; a new one each time if left out."
)
@config_options
@click.pass_obj
def command(
    session: Session,
    config: str,
    runs: int,
    records: int,
    seed: int | None,
    settings: tuple[str, ...],
    allow_code: tuple[str, ...],
) -> int:
    """Kill a pipeline again and again on a sample of its input; count what is lost or repeated.

    Runs it in child processes that are killed at random moments and at steps (around a write, a sync, a checkpoint),
    stopped by SIGTERM, and whose stages fail and are slow; each goes on until it is done. Compares what the sinks hold
    then with an unbroken run, and that with what `check` says of each sink. A file's lines and a table's rows are its
    records.

    Reads the head of the real input; state and outputs are in a folder of their own, which functions run in too. What
    functions do elsewhere, they do for real. Batches are smaller, and checkpoints and attempts closer, than configured.
    Exits with 1 when a promise is broken, with the seed to repeat it; the folder then stays.
    """
    from pipeline.verify.runs import Asked, Verification
    from pipeline.verify.sample import refusals

    loaded = ConfigFile(config, settings, allow_code).load()
    refused = list(refusals(loaded.topology))
    if refused:
        raise ConfigError(*(f"{config}: {text}" for text in refused))
    seed = random.SystemRandom().randrange(1_000_000) if seed is None else seed
    asked = Asked(config, settings, allow_code, records, runs, seed)
    folder = Path(tempfile.mkdtemp(prefix="pipeline-verify-"))
    verification = Verification(asked, loaded.topology, folder)

    def received(signal: int, count: int) -> None:
        raise Stopped(session.signals.exit_code)

    session.signals.listen(received)
    keep = True
    try:
        held = _verify(verification, runs, seed, loaded.secrets.mask)
        keep = not held
        if not held:
            again = ConfigFile(config, settings, allow_code).command("verify")
            err(f"repeat it: {again} --seed {seed} --runs {runs} --records {records}; its folders: {folder}")
        return Exit.DONE if held else Exit.FAILED
    except (Stopped, ConfigError):
        keep = False
        raise
    finally:
        verification.close()
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def _verify(verification: "Verification", runs: int, seed: int, mask: "Callable[[str], str]") -> bool:
    """Make all runs, say what was found, and return whether every promise held."""
    began = time.monotonic()
    _say_progress("an unbroken run, twice, to compare with")
    verification.prepare()
    for done in range(1, runs + 1):
        _say_progress(f"broken run {done} of {runs}, {span(time.monotonic() - began)}")
        verification.run(done)
    _say_progress("")
    out(table(("sink", "promise", "records", "lost", "repeated", "reordered", "verdict"), _rows(verification)))
    for output in verification.outputs:
        if output.unjudged:
            err(f"{output.name}: not judged: {output.unjudged}")
    err(f"{_counted(verification.counts, runs)} in {span(time.monotonic() - began)}, seed {seed}")
    for failure in verification.failures[:_FAILURES]:
        err(mask(failure))
    if len(verification.failures) > _FAILURES:
        err(f"… and {len(verification.failures) - _FAILURES} more")
    return not verification.failures


def _counted(counts: "Mapping[str, int]", runs: int) -> str:
    """Return what was done: ``18 broken runs: 9 kills, 5 kills at a step, 3 stops``."""
    said = [
        f"{count} {what.replace(' ', 's ', 1) if ' at ' in what and count > 1 else what + 's' * (count > 1)}"
        for what, count in counts.items()
    ]
    return f"{runs} broken run{'s' * (runs != 1)}: {', '.join(said) or 'nothing came in time'}"


def _rows(verification: "Verification") -> "Iterator[Sequence[str]]":
    for output in verification.outputs:
        found = output.found
        if output.unjudged:
            yield output.name, output.promise, number(len(output.expected)), "", "", "", "not judged"
            continue
        repeated = number(found.repeated) if output.exact else f"{number(found.repeated)} of {number(output.allowed)}"
        lost = number(found.lost) + (f" + {number(found.foreign)} damaged" if found.foreign else "")
        reordered = number(found.reordered) if output.ordered else "-"
        verdict = "BROKEN" if output.problems else "held"
        yield output.name, output.promise, number(len(output.expected)), lost, repeated, reordered, verdict


def _say_progress(text: str) -> None:
    """Say on a terminal what is being done, in place of what was said before."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()
