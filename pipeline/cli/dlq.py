"""``pipeline dlq``: the records that failed and were put aside."""

import click

from pipeline.cli.config import ConfigFile, config_options

__all__ = ("command",)


@click.group("dlq")
def command() -> None:
    """Look at dead letters: records that failed, as the failing stage received them."""


@command.command("list")
@click.argument("config")
@config_options
@click.option("--stage", metavar="NAME", help="Only of this stage.")
@click.option("--error", metavar="TEXT", help="Only with this type of error, or with this in its text.")
@click.option("--since", metavar="WHEN", help="Only from then on: 2026-03-01, 2026-03-01T12:30, or 2h (ago).")
@click.option("--until", metavar="WHEN", help="Only before then.")
@click.option("--limit", type=click.IntRange(min=1), default=100, metavar="N", help="At most N, the oldest first; 100.")
@click.option("--json", "as_json", is_flag=True, help="Write each as a JSON object on a line.")
def list_letters(
    config: str,
    settings: tuple[str, ...],
    allow_code: tuple[str, ...],
    stage: str | None,
    error: str | None,
    since: str | None,
    until: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List dead letters, the oldest first."""
    from pipeline.cli.letters import Wanted, list_them

    wanted = Wanted(stage, error, since, until)
    list_them(ConfigFile(config, settings, allow_code), wanted, limit, as_json)


@command.command("show")
@click.argument("config")
@click.argument("number", metavar="ID", type=int)
@config_options
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
def show(config: str, number: int, settings: tuple[str, ...], allow_code: tuple[str, ...], as_json: bool) -> None:
    """Show one dead letter with its record."""
    from pipeline.cli.letters import show_one

    show_one(ConfigFile(config, settings, allow_code), number, as_json)
