"""``pipeline dlq``: the records that failed and were put aside."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.cli.config import ConfigFile, config_options
from pipeline.cli.main import Session

if TYPE_CHECKING:
    from pipeline.settle.letters import Wanted

__all__ = ("command",)

F = TypeVar("F", bound=Callable[..., Any])


@click.group("dlq", short_help="Dead letters: list, show, replay, export, purge.")
def command() -> None:
    """Dead letters: records that failed, as the failing stage received them."""


def _filters(function: F) -> F:
    """Add the options that say which letters are meant."""
    for option in (
        click.option("--id", "ids", type=int, multiple=True, metavar="N", help="Only this letter; can be repeated."),
        click.option("--until", metavar="WHEN", help="Only before then."),
        click.option("--since", metavar="WHEN", help="Only from then on: 2026-03-01, 2026-03-01T12:30, or 2h (ago)."),
        click.option("--error", metavar="TEXT", help="Only with this type of error, or with this in its text."),
        click.option("--stage", metavar="NAME", help="Only of this stage."),
    ):
        function = option(function)
    return function


@command.command("list")
@click.argument("config")
@config_options
@_filters
@click.option("--limit", type=click.IntRange(min=1), default=100, metavar="N", help="At most N, the oldest first; 100.")
@click.option("--json", "as_json", is_flag=True, help="Write each as a JSON object on a line.")
def list_letters(
    config: str,
    settings: tuple[str, ...],
    allow_code: tuple[str, ...],
    limit: int,
    as_json: bool,
    **filters: Any,
) -> None:
    """List dead letters, the oldest first."""
    from pipeline.cli.letters import list_them

    list_them(ConfigFile(config, settings, allow_code), _wanted(filters), limit, as_json)


@command.command("show")
@click.argument("config")
@click.argument("number", metavar="ID", type=int)
@config_options
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
def show(config: str, number: int, settings: tuple[str, ...], allow_code: tuple[str, ...], as_json: bool) -> None:
    """Show one dead letter with its record."""
    from pipeline.cli.letters import show_one

    show_one(ConfigFile(config, settings, allow_code), number, as_json)


@command.command("replay")
@click.argument("config")
@config_options
@_filters
@click.option("--from", "enter_at", metavar="STAGE", help="Let all of them in at this stage, not where they failed.")
@click.option("--file", "corrected", metavar="FILE", help="Replay these corrected records, as exported; - reads them.")
@click.option("--force", is_flag=True, help="Replay also what was replayed 10 times and failed each time.")
@click.option("--dry-run", is_flag=True, help="Say what would be replayed, and do nothing.")
@click.option("--log", type=click.Choice(["json", "text"]), help="Log events, one a line, in place of the progress.")
@click.option("--fail-on-dlq", is_flag=True, help="Exit with 3 when any failed again.")
@click.pass_obj
def replay(
    session: Session,
    /,
    config: str,
    settings: tuple[str, ...],
    allow_code: tuple[str, ...],
    enter_at: str | None,
    corrected: str | None,
    force: bool,
    dry_run: bool,
    log: str | None,
    fail_on_dlq: bool,
    **filters: Any,
) -> int:
    """Send dead letters through the stages again, once their cause is mended.

    Each goes in at the stage where it failed and is taken out of the dead letters when it is settled: exactly once,
    also when this is killed and started again, with the sinks for which `check` says so. One that fails again stays
    one letter. Needs the state file for itself: exit 4 while a run has it. Exits as `pipeline run` does.
    """
    from pipeline.cli.replay import Asked, replay_them

    asked = Asked(_wanted(filters), enter_at, corrected, force)
    return replay_them(
        ConfigFile(config, settings, allow_code),
        asked,
        session.signals,
        dry_run=dry_run,
        log=log,
        fail_on_dlq=fail_on_dlq,
    )


@command.command("export")
@click.argument("config")
@config_options
@_filters
@click.option("-o", "--output", default="-", metavar="FILE", help="Where to write to; - is standard output.")
def export(config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], output: str, **filters: Any) -> None:
    """Write dead letters as JSON, one on a line. Correct their records, and `dlq replay --file` takes them back."""
    from pipeline.cli.exported import export_them

    export_them(ConfigFile(config, settings, allow_code), _wanted(filters), output)


@command.command("purge")
@click.argument("config")
@config_options
@_filters
@click.option("--yes", is_flag=True, help="Don't ask.")
def purge(config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], yes: bool, **filters: Any) -> None:
    """Delete dead letters for good. Needs the state file for itself: exit 4 while a run has it."""
    from pipeline.cli.letters import purge_them

    purge_them(ConfigFile(config, settings, allow_code), _wanted(filters), yes=yes)


def _wanted(filters: dict[str, Any]) -> "Wanted":
    from pipeline.cli.letters import wanted_of

    return wanted_of(**filters)
