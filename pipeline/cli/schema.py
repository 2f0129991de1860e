"""``pipeline schema``."""

import click

from pipeline.cli.say import out

__all__ = ("command",)


@click.command("schema")
def command() -> None:
    """Write the JSON schema of configs to standard output, for editors.

    With it an editor completes and checks configs as you type: `pipeline schema > pipeline.schema.json`, and as the
    first line of a config `# yaml-language-server: $schema=pipeline.schema.json`.
    """
    import json

    from pipeline.plan.json_schema import json_schema
    from pipeline.plan.registry import Registry

    out(json.dumps(json_schema(Registry()), indent=2))
