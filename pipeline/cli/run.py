"""``pipeline run``."""

import click

from pipeline.cli.config import ConfigFile, config_options
from pipeline.cli.main import Session

__all__ = ("command",)


@click.command("run")
@click.argument("config")
@click.option("--dry-run", is_flag=True, help="Open every source and sink, read and write nothing.")
@click.option(
    "--limit", type=click.IntRange(min=1), metavar="N", help="Read at most N new records of each source in this run."
)
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Share the work between N processes.")
@config_options
@click.option("--fresh", is_flag=True, help="Begin anew: a new lineage. Dead letters and history are kept.")
@click.option("--repeat", is_flag=True, help="Accept that what is in a sink already is written again.")
@click.option("--accept-changes", is_flag=True, help="Go on although sources or sinks are not those of the last run.")
@click.option("--log", type=click.Choice(["json", "text"]), help="Log events, one a line, in place of the progress.")
@click.option(
    "--log-level",
    type=click.Choice(["trace", "debug", "info", "warning"]),
    help="Log events of this level and above; info if left out. At debug one for each batch and failure, at trace for "
    "each record.",
)
@click.option("--report", metavar="FILE.html", help="Write a page about the run: what it did, plots, what to change.")
@click.option("--fail-on-dlq", is_flag=True, help="Exit with 3 when this run had dead letters.")
@click.pass_obj
def command(
    session: Session,
    config: str,
    dry_run: bool,
    limit: int | None,
    workers: int | None,
    settings: tuple[str, ...],
    allow_code: tuple[str, ...],
    fresh: bool,
    repeat: bool,
    accept_changes: bool,
    log: str | None,
    log_level: str | None,
    report: str | None,
    fail_on_dlq: bool,
) -> int:
    """Run a pipeline to its end; again, to go on where it stopped.

    The first SIGINT (Ctrl-C) or SIGTERM lets it finish what is under way, the second stops it at once; either way
    nothing is lost, and the next run goes on from the last checkpoint. Everything is said on standard error.

    \b
    Exits with
      0    done, or an endless source was drained     6    storage fault: disk full, input/output error
      1    failed after retries                       7    the deadline of the drain passed
      2    wrong usage or config                      130  a finite run stopped early by SIGINT
      3    dead letters, under --fail-on-dlq          143  the same by SIGTERM
      4    the state is in use by another process     141  standard output was closed
      5    state missing, corrupt or incompatible
    """  # noqa: D301 - click's own mark for lines that stay as they are
    from pipeline.cli.running import Request, execute

    if report is not None and dry_run:
        raise click.UsageError("--report: there is nothing to report of a dry run; leave out one of them")
    if log_level is not None and log is None:
        raise click.UsageError("--log-level: the progress has no levels; add --log json or --log text")
    if workers is not None:
        settings = (*settings, f"workers={workers}")
    request = Request(
        ConfigFile(config, settings, allow_code),
        dry_run,
        limit,
        fresh,
        repeat,
        accept_changes,
        log,
        log_level or "info",
        fail_on_dlq,
        report,
    )
    return execute(request, session.signals)
