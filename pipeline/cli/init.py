"""``pipeline init``: something small that runs, to begin with."""

import os
import shlex
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import click

from pipeline.cli.say import out, table
from pipeline.errors import ConfigError

__all__ = ("TEMPLATES", "Template", "command")


@dataclass(frozen=True, slots=True)
class Template:
    """What is written: names in the new directory, and the files of the package they come from."""

    sentence: str
    files: dict[str, str]
    run: tuple[str, ...] = ("pipeline", "run", "pipeline.yaml")


TEMPLATES = {
    "quickstart": Template(
        "CSV to SQLite, exactly once",
        {
            "pipeline.yaml": "quickstart.yaml",
            "pipeline.tests.yaml": "quickstart.tests.yaml",
            "flights.csv": "flights.csv",
        },
    ),
    "dead-letters": Template(
        "a function of your own, and what becomes of records that make it fail",
        {
            "pipeline.yaml": "dead_letters.yaml",
            "pipeline.tests.yaml": "dead_letters.tests.yaml",
            "delays.py": "delays.py.txt",
            "flights.csv": "flights.csv",
        },
    ),
    "python": Template(
        "a pipeline composed in Python",
        {"delays.py": "python.py.txt", "flights.csv": "flights.csv"},
        ("python", "delays.py"),
    ),
}


@click.command("init", short_help="Write a small pipeline with its data, ready to run.")
@click.argument("template", default="quickstart", type=click.Choice(list(TEMPLATES)))
@click.argument("directory", required=False, metavar="[DIR]")
@click.option("--list", "listed", is_flag=True, help="List the templates.")
def command(template: str, directory: str | None, listed: bool) -> None:
    """Write a small pipeline with its data, ready to run, into a new directory DIR; by default the template's name.

    Nothing that exists is overwritten.
    """
    if listed:
        out(table(("template", ""), [(name, each.sentence) for name, each in TEMPLATES.items()]))
        return
    chosen, place = TEMPLATES[template], Path(directory or template)
    _refuse_existing(chosen, place)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, source in chosen.files.items():
            content = files("pipeline.cli").joinpath("templates", source).read_bytes()
            with open(place / name, "xb") as file:
                file.write(content)
    except OSError as error:
        raise ConfigError(f"{error.filename or place}: can't be written: {os.strerror(error.errno or 0)}") from None
    out(f"{place}: {', '.join(chosen.files)}")
    out(f"next: cd {shlex.quote(str(place))} && {shlex.join(chosen.run)}")


def _refuse_existing(template: Template, place: Path) -> None:
    existing = [str(place / name) for name in template.files if os.path.lexists(place / name)]
    if existing:
        raise ConfigError(f"{', '.join(existing)}: exists already; name another directory: pipeline init TEMPLATE DIR")
