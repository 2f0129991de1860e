"""The config that a command is about, and the options that belong to it."""

import os
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import click

from pipeline.errors import ConfigError
from pipeline.standard import printing_aside

if TYPE_CHECKING:
    from pipeline.plan.load import Loaded

__all__ = ("ConfigFile", "config_options", "refuse_config")

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """A config as it was named on the command line."""

    path: str
    settings: Sequence[str] = ()
    allow_code: Sequence[str] = ()

    def load(self) -> "Loaded":
        """Read and check it.

        :raises ConfigError: with everything that is wrong with it.
        """
        if self.path == "-":
            raise ConfigError(
                "-: a config is a file, because what is said of it, and its state, go by its place; name one"
            )
        from pipeline.plan.load import load

        # Modules with the user's functions are imported, and may print.
        with printing_aside():
            return load(self.path, overrides=self.settings, allow_code=self.allow_code)

    def command(self, *words: str) -> str:
        """Return what to type for another command about the same config."""
        given = [word for setting in self.settings for word in ("--set", setting)]
        given += [word for prefix in self.allow_code for word in ("--allow-code", prefix)]
        return shlex.join(["pipeline", *words, self.path, *given])


def refuse_config(config: str, output: str, option: str) -> None:
    """See to it that what is written is not written over the config itself.

    :raises ConfigError: when it would be.
    """
    if os.path.exists(output) and os.path.samefile(config, output):
        raise ConfigError(f"{option} {output}: this is the config itself; name another file")


def config_options(function: F) -> F:
    """Add the options that say how a config is read."""
    for option in (
        click.option(
            "--allow-code",
            "allow_code",
            multiple=True,
            metavar="PREFIX",
            help="Allow functions of modules with this prefix; those beside the config are allowed.",
        ),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="PATH=VALUE",
            help="Override a value, like stages.archive.with.table=late; can be repeated.",
        ),
    ):
        function = option(function)
    return function
