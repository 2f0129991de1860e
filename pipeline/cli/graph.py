"""``pipeline graph``."""

import os

import click

from pipeline.cli.config import ConfigFile, config_options, refuse_config
from pipeline.cli.say import out
from pipeline.errors import ConfigError

__all__ = ("command",)


@click.command("graph")
@click.argument("config")
@config_options
@click.option("--format", "form", type=click.Choice(["text", "mermaid", "svg"]), help="What to draw; text if left out.")
@click.option(
    "-o", "--output", metavar="FILE", help="Write to a file; its ending .svg, .mmd or .txt says what to draw."
)
def command(
    config: str, settings: tuple[str, ...], allow_code: tuple[str, ...], form: str | None, output: str | None
) -> None:
    """Draw the plan of a config: stages and who reads from whom."""
    from pipeline.plan.graph import to_mermaid, to_svg, to_text

    form = form or _form_of(output)
    loaded = ConfigFile(config, settings, allow_code).load()
    if output is not None:
        refuse_config(config, output, "-o")
    draw = {"text": to_text, "mermaid": to_mermaid, "svg": to_svg}[form]
    drawn = loaded.secrets.mask(draw(loaded.topology))
    if output is None or output == "-":
        out(drawn)
        return
    try:
        with open(output, "w", encoding="utf-8") as file:
            file.write(drawn + "\n")
    except OSError as error:
        raise ConfigError(f"{output}: can't be written: {os.strerror(error.errno or 0)}") from None


def _form_of(output: str | None) -> str:
    endings = {"": "text", ".txt": "text", ".svg": "svg", ".mmd": "mermaid"}
    ending = os.path.splitext(output or "")[1]
    if ending not in endings:
        raise ConfigError(f"-o {output}: nothing is drawn as '{ending}'; expected .svg, .mmd or .txt, or add --format")
    return endings[ending]
