"""`onnxptq schema`: what `--json` of a command writes, as a JSON schema."""

from __future__ import annotations

import json

import click

from onnxptq.errors import UsageError, did_you_mean


@click.command()
@click.argument("command", nargs=-1, metavar="[COMMAND]")
def schema(command: tuple[str, ...]) -> None:
    """Print the JSON schema of what `onnxptq COMMAND --json` writes; without COMMAND, list the commands that have one.

    Its $id ends in a version, which changes where a key is renamed or removed. Example: onnxptq schema check
    """
    from onnxptq.commands._schemas import OUTPUTS, schema_for

    name = " ".join(command)
    if not name:
        for known, output in OUTPUTS.items():
            click.echo(f"{known:<16} version {output.version}, {output.page}")
        return
    if name not in OUTPUTS:
        raise UsageError(f"there is no schema of {name!r}. {did_you_mean(name, OUTPUTS)}")
    click.echo(json.dumps(schema_for(name), indent=2, ensure_ascii=False))
