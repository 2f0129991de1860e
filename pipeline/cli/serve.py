"""``pipeline serve``."""

import click

from pipeline.cli.config import ConfigFile, config_options
from pipeline.cli.main import Session

__all__ = ("command",)


@click.command("serve", short_help="Run pipelines behind an HTTP API, with a dashboard.")
@click.argument("configs", metavar="CONFIG...", nargs=-1, required=True)
@click.option("--host", default="127.0.0.1", metavar="ADDRESS", help="Where to listen; elsewhere needs a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8038, metavar="N", help="8038; 0 takes any.")
@click.option("--token-file", metavar="FILE", help="The token that requests must bring; or set PIPELINE_TOKEN.")
@click.option("--read-token-file", metavar="FILE", help="A second token, with which one may look and change nothing.")
@click.option(
    "--allow-host",
    "names",
    multiple=True,
    metavar="NAME[:PORT]",
    help="Another name that the server goes by, as behind a proxy; can be repeated.",
)
@config_options
@click.option("--log", type=click.Choice(["json", "text"]), help="Log events, one a line, in place of sentences.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning"]), help="Log events of this level and above."
)
@click.pass_obj
def command(
    session: Session,
    configs: tuple[str, ...],
    host: str,
    port: int,
    token_file: str | None,
    read_token_file: str | None,
    names: tuple[str, ...],
    settings: tuple[str, ...],
    allow_code: tuple[str, ...],
    log: str | None,
    log_level: str | None,
) -> int:
    """Run pipelines behind an HTTP API, with a dashboard in the browser.

    Each config is a pipeline by itself: one that fails leaves the others alone, and can be started again. A source of
    kind `inlet` takes the records that are posted. The first SIGINT (Ctrl-C) or SIGTERM lets all of them finish what
    is under way, the second stops at once.

    \b
    curl --json '{"record": {"id": 1}}' http://127.0.0.1:8038/api/pipelines/NAME/records
    """  # noqa: D301 - click's own mark for lines that stay as they are
    from pipeline.cli.serving import Request, execute

    if log_level is not None and log is None:
        raise click.UsageError("--log-level: sentences have no levels; add --log json or --log text")
    files = [ConfigFile(config, settings, allow_code) for config in configs]
    request = Request(files, host, port, token_file, names, log, log_level or "info", read_token_file)
    return execute(request, session.signals)
