"""`onnxptq runtimes`: ONNX Runtimes in other Python environments, for `--ep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxptq.commands._output import check_json_target, json_option, note, write_json


@click.group()
def runtimes() -> None:
    """ONNX Runtimes in other Python environments, which --ep then knows by name.

    Builds of ONNX Runtime exclude each other in one environment, and production often runs another version.
    """


@runtimes.command()
@click.argument("name")
@click.option("--package", "packages", multiple=True, metavar="SPEC", help="What pip installs. Repeatable.")
@click.option("--python", metavar="PATH", help="An existing interpreter with onnxruntime and numpy, instead.")
@click.option("--provider", metavar="NAME", help="What --ep NAME means. [default: what the name or the package says]")
@click.option("--force", is_flag=True, help="Replace a runtime of that name.")
@json_option
def add(
    name: str, packages: tuple[str, ...], python: str | None, provider: str | None, force: bool, json_target: str | None
) -> None:
    """Build a virtual environment, or register an interpreter.

    \b
    onnxptq runtimes add openvino
    onnxptq runtimes add cpu@1.20
    onnxptq runtimes add nightly --package onnxruntime==1.30.0
    onnxptq runtimes add production --python /opt/service/bin/python
    """
    from onnxptq.cache import user_cache
    from onnxptq.errors import UsageError
    from onnxptq.runtimes.environments import add_interpreter, add_packages, default_packages

    check_json_target(json_target)
    if packages and python:
        raise UsageError("give either --package or --python, not both.")
    cache, existed = user_cache(), False
    if python:
        environment = add_interpreter(cache, name, Path(python), provider=provider, force=force)
    else:
        chosen = packages or default_packages(name)
        environment, existed = add_packages(cache, name, chosen, provider=provider, force=force, say=note)
    if json_target != "-":
        click.echo(f"{'already there' if existed else 'added'}: {_line(environment)}")
    write_json(json_target, _as_json(environment))


@runtimes.command("list")
@json_option
def list_(json_target: str | None) -> None:
    """Show them."""
    from rich.table import Table

    from onnxptq.cache import user_cache
    from onnxptq.reports.tables import print_table
    from onnxptq.runtimes.environments import environments

    check_json_target(json_target)
    found = environments(user_cache())
    if json_target != "-":
        table = Table("runtime", "ONNX Runtime", "--ep means", "Python", "from", title="Runtimes in other environments")
        for one in found:
            origin = " ".join(one.packages) if one.managed else str(one.python)
            version = f"{one.description.distribution} {one.description.onnxruntime}"
            table.add_row(one.name, version, one.provider, one.description.python, origin)
        if found:
            print_table(table)
        else:
            click.echo("none yet; for example: onnxptq runtimes add openvino")
    write_json(json_target, [_as_json(one) for one in found])


@runtimes.command()
@click.argument("name")
def remove(name: str) -> None:
    """Forget one; a virtual environment of ours is deleted, a registered interpreter stays as it is."""
    from onnxptq.cache import user_cache
    from onnxptq.runtimes.environments import remove_environment

    found = remove_environment(user_cache(), name)
    click.echo(f"removed {found.name}" + ("" if found.managed else f"; {found.python} stays as it is"))


def _line(environment: Any) -> str:
    found = environment.description
    meaning = f"--ep {environment.name} means {environment.provider}"
    return f"{environment.name}: {found.distribution} {found.onnxruntime}, {meaning}"


def _as_json(environment: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(environment), "python": str(environment.python), "managed": environment.managed}
