"""The group of all commands: each is in a module of its own that is imported when it is called."""

import errno
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import click

from pipeline import __version__
from pipeline.cli.say import err
from pipeline.cli.signals import Signals, Stopped
from pipeline.errors import ConfigError, Exit, PipelineError

__all__ = ("Session", "cli", "invoke")

_COMMANDS = (
    "run",
    "check",
    "test",
    "verify",
    "explain",
    "init",
    "stages",
    "schema",
    "graph",
    "state",
    "dlq",
    "serve",
    "top",
)

_STORAGE_ERRNO = {errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass
class Session:
    """What all commands share."""

    signals: Signals = field(default_factory=Signals)
    debug: bool = False


class _Commands(click.Group):
    """Imports the module of a command when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = import_module(f"pipeline.cli.{cmd_name}").command
        return command

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _pipe_closed():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _pipe_closed():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in _COMMANDS:
            from difflib import get_close_matches  # only a mistake needs it

            if near := get_close_matches(args[0], _COMMANDS, 1):
                ctx.fail(f"No such command '{args[0]}'. Did you mean '{near[0]}'?")
        return super().resolve_command(ctx, args)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="pipeline", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show the traceback of an error of the program itself.")
@click.pass_obj
def cli(session: Session, debug: bool) -> None:
    """Stream records through stages: bounded, in batches, and back after a crash.

    \b
    pipeline init                       a small pipeline with its data, ready to run
    pipeline check CONFIG               all that is wrong with a config, then its plan
    pipeline run CONFIG                 run it; again, to go on where it stopped
    """  # noqa: D301 - click's own mark for lines that stay as they are
    session.debug = debug


def invoke(arguments: Sequence[str], signals: Signals | None = None) -> int:
    """Run the command with these arguments and return its exit code.

    :raises Stopped: where it is to end at once with another code, and nothing more is to be said.
    """
    session = Session(signals or Signals())
    try:
        result = cli.main(list(arguments), prog_name="pipeline", standalone_mode=False, obj=session)
        return result if isinstance(result, int) else 0
    except click.ClickException as error:
        return _show(error)
    except click.Abort:
        return 130
    except PipelineError as error:
        return complain(error)
    except Exception as error:
        # Whatever is no PipelineError is ours to mend: said in one line, shown on request.
        if session.debug:
            raise
        if isinstance(error, OSError) and error.errno in _STORAGE_ERRNO:
            err(f"error: {error}")
            return Exit.STORAGE
        text = " ".join(str(error).split())
        err(f"error: {type(error).__name__}: {text}; this is a bug (pipeline --debug … shows where)")
        return 1


@contextmanager
def _pipe_closed() -> Generator[None, None, None]:
    """End with 141 where nobody reads the help; click would make it 1."""
    try:
        yield
    except BrokenPipeError:
        raise Stopped(Exit.CLOSED_OUTPUT) from None


def _show(error: click.ClickException) -> int:
    with suppress(OSError):  # standard error is full or gone; the code says it all the same
        error.show()
    return error.exit_code


def complain(error: PipelineError) -> int:
    """Say what went wrong and return the exit code for it."""
    from pipeline.cli.problems import problem_lines
    from pipeline.watch.log import escape

    if isinstance(error, ConfigError):
        lines = problem_lines(error)
    else:
        lines = (f"error: {escape(line)}" for line in str(error).split("\n"))
    for line in lines:
        err(line)
    return int(error.exit_code)
