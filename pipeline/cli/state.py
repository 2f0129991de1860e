"""``pipeline state``: what is saved of a pipeline, and going back to an older checkpoint."""

import click

from pipeline.cli.config import ConfigFile, config_options

__all__ = ("command",)


@click.group("state", short_help="Look at the saved state, go back in it, or clear it.")
def command() -> None:
    """Look at the saved state of a pipeline, go back in it, or clear it."""


@command.command("show")
@click.argument("config")
@config_options
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
def show(config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], as_json: bool) -> None:
    """Show where the next run would go on: sources, sinks, dead letters, the last checkpoint."""
    from pipeline.cli.saved import show_state

    show_state(ConfigFile(config, settings, allow_code), as_json)


@command.command("history")
@click.argument("config")
@config_options
@click.option("--limit", type=click.IntRange(min=1), default=20, metavar="N", help="Show the last N of each; 20.")
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON.")
def history(config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Show the runs, and the checkpoints that `rewind` can go back to."""
    from pipeline.cli.saved import show_history

    show_history(ConfigFile(config, settings, allow_code), limit, as_json)


@command.command("rewind")
@click.argument("config")
@config_options
@click.option("--to", type=int, required=True, metavar="ID", help="The checkpoint to go back to; see `history`.")
@click.option("--repeat", is_flag=True, help="Accept that what a database holds already is written again.")
def rewind(config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], to: int, repeat: bool) -> None:
    """Go back to an older checkpoint: the next run cuts files back to it and reads on from there."""
    from pipeline.cli.editing import rewind_state

    rewind_state(ConfigFile(config, settings, allow_code), to, repeat=repeat)


@command.command("clear")
@click.argument("config")
@config_options
@click.option("--yes", is_flag=True, help="Don't ask.")
def clear(config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], yes: bool) -> None:
    """Forget where the pipeline stands; the next run begins anew. Dead letters and history are kept."""
    from pipeline.cli.editing import clear_state

    clear_state(ConfigFile(config, settings, allow_code), yes=yes)
