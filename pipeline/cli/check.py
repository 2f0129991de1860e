"""``pipeline check``: everything that is wrong with a config, then what it would do."""

from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.config import ConfigFile, config_options
from pipeline.cli.say import err, out
from pipeline.errors import ConfigError, Exit

if TYPE_CHECKING:
    from pipeline.plan.load import Loaded

__all__ = ("command",)


@click.command("check")
@click.argument("configs", metavar="CONFIG...", nargs=-1, required=True)
@config_options
@click.option("--json", "as_json", is_flag=True, help="Write problems and plans as one JSON object.")
def command(configs: tuple[str, ...], settings: tuple[str, ...], allow_code: tuple[str, ...], as_json: bool) -> int:
    """Check configs without running them, and show what each would do.

    Shows every problem of each file with its line and column; of a file that is right the stages, the channels between
    them, the memory held at worst, and what each sink promises and why. Opens no source and no sink. Exits with 2 when
    a file has problems.
    """
    files = [ConfigFile(path, settings, allow_code) for path in configs]
    checked = [_checked(file) for file in files]
    if as_json:
        _write_json(files, checked)
    else:
        _write_text(files, checked)
    return Exit.CONFIG if any(isinstance(found, ConfigError) for found in checked) else Exit.DONE


def _checked(file: ConfigFile) -> "Loaded | ConfigError":
    try:
        return file.load()
    except ConfigError as error:
        return error


def _write_text(files: list[ConfigFile], checked: "list[Loaded | ConfigError]") -> None:
    from pipeline.cli.problems import problem_lines
    from pipeline.watch.log import escape

    for file, found in zip(files, checked, strict=True):
        if isinstance(found, ConfigError):
            for line in problem_lines(found):
                err(line)
            continue
        from pipeline.cli.plan_text import plan_lines

        if file is not files[0]:
            out("")
        out(f"{escape(file.path)}: ok")
        for line in plan_lines(found.topology):
            out(escape(found.secrets.mask(line)))
    wrong = [found for found in checked if isinstance(found, ConfigError)]
    if wrong:
        count = sum(len(found.problems) for found in wrong)
        err(f"{count} problem{'s' if count != 1 else ''} in {len(wrong)} of {len(files)} file{'s'[: len(files) != 1]}")


def _write_json(files: list[ConfigFile], checked: "list[Loaded | ConfigError]") -> None:
    import json

    out(json.dumps({"files": [_as_data(*pair) for pair in zip(files, checked, strict=True)]}, indent=2, default=str))


def _as_data(file: ConfigFile, found: "Loaded | ConfigError") -> dict[str, Any]:
    if isinstance(found, ConfigError):
        problems = [
            {"file": each.file, "line": each.line, "column": each.column, "text": each.text} for each in found.problems
        ]
        return {"file": file.path, "ok": False, "problems": problems}
    from pipeline.cli.plan_text import plan_data
    from pipeline.watch.log import masked

    plan = masked(plan_data(found.topology), found.secrets.mask)
    return {"file": file.path, "ok": True, "problems": [], "plan": plan}
