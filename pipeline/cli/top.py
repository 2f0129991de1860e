"""``pipeline top``."""

import click

from pipeline.cli.main import Session

__all__ = ("command",)


@click.command("top", short_help="Watch the pipelines of a server in the terminal.")
@click.argument("url", default="http://127.0.0.1:8038")
@click.option("--token-file", metavar="FILE", help="The token of the server; or set PIPELINE_TOKEN.")
@click.option(
    "--once", is_flag=True, help="Show it once, as plain text, and end; so it is where output is no terminal."
)
@click.option(
    "--every", type=click.FloatRange(0.2, 60), default=1.0, metavar="SECONDS", help="How often to look; each second."
)
@click.pass_obj
def command(session: Session, url: str, token_file: str | None, once: bool, every: float) -> int:
    """Watch the pipelines of a server in the terminal: the numbers of its dashboard.

    URL is where `pipeline serve` says that it listens; http://127.0.0.1:8038 if left out. Ctrl-C ends the view, not
    the server.
    """
    import sys

    from pipeline.cli.watching import show_once, watch

    return (
        show_once(url, token_file)
        if once or not sys.stdout.isatty()
        else watch(url, token_file, every, session.signals)
    )
