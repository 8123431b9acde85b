"""`onnxptq policy`: what a policy asks for, in words."""

from __future__ import annotations

import click

from onnxptq.commands._output import json_option, write_json
from onnxptq.errors import UsageError


@click.group()
def policy() -> None:
    """List the policies by name, and say in words what one asks for."""


@policy.command("list")
def list_names() -> None:
    """List the policies that come with onnxptq."""
    from onnxptq.gates.named_policies import NAMED

    for one in NAMED.values():
        click.echo(f"{one.name:<12} {one.purpose}")


@policy.command()
@click.argument("policy", metavar="[NAME|FILE]", default="default")
@click.option("--labels/--no-labels", default=True, show_default=True, help="Whether the data has labels.")
@click.option("--toml", is_flag=True, help="Print it as a TOML file instead, for check --policy.")
@json_option
def explain(policy: str, labels: bool, toml: bool, json_target: str | None) -> None:
    """Say where each rule of a policy fails, passes and stays undecided.

    POLICY is a name (`onnxptq policy list`) or a TOML file, as `onnxptq check --policy` takes it.
    """
    from onnxptq.gates import policy_to_dict
    from onnxptq.gates.explain import explain_policy, policy_toml
    from onnxptq.gates.named_policies import NAMED, find_policy

    found = find_policy(policy) or NAMED["default"].make(labels)
    if toml:
        if json_target == "-":
            raise UsageError("--toml and --json - both want stdout. Write the JSON to a file.")
        click.echo(f"# {policy}: {NAMED[policy].purpose}\n" if policy in NAMED else "", nl=False)
        click.echo(policy_toml(found), nl=False)
    elif json_target != "-":
        if policy in NAMED:
            click.echo(f"{policy}: {NAMED[policy].purpose}")
        click.echo("\n".join(explain_policy(found)))
    write_json(json_target, policy_to_dict(found))
