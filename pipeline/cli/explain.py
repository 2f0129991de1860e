"""``pipeline explain``: a run of the past in words."""

import click

from pipeline.cli.config import ConfigFile, config_options

__all__ = ("command",)


@click.command("explain", short_help="Explain the last run: batch sizes, what held it up, what to change.")
@click.argument("config")
@config_options
@click.option("--run", type=click.IntRange(min=1), metavar="N", help="The run to explain, by number; the last one.")
@click.option("--json", "as_json", is_flag=True, help="Write it as JSON, with the numbers that it follows from.")
def command(
    config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], run: int | None, as_json: bool
) -> None:
    """Explain the last run: what the batchers did and why, what held it up, what to change.

    Reads the state file, also while a run holds it. `state history` lists the runs. A run that was killed has left
    only its checkpoints: of it, and of one that is under way, is told what these hold, and the run before is explained.
    """
    from pipeline.cli.explained import explain_run

    explain_run(ConfigFile(config, settings, allow_code), run, as_json=as_json)
