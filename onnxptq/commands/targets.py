"""`onnxptq targets`: what a graph can be made for, with the reason beside each choice."""

from __future__ import annotations

from dataclasses import asdict

import click

from onnxptq.commands._output import check_json_target, json_option, write_json
from onnxptq.reports.tables import print_table


@click.command()
@json_option
def targets(json_target: str | None) -> None:
    """List the targets, with the reason beside each choice.

    A target shapes the file (--target of quantize) and never needs the hardware; `onnxptq lint` checks the result.
    """
    check_json_target(json_target)
    from onnxptq.quantization.targets import TARGETS

    rows = [
        {
            "name": target.name,
            "summary": target.summary,
            "activation_type": target.settings.activation_type,
            "weight_type": target.settings.weight_type,
            "per_channel": target.settings.per_channel,
            "reduce_range": target.settings.reduce_range,
            "extra_options": dict(target.settings.extra_options),
            "choices": [asdict(choice) for choice in target.reasons],
        }
        for target in TARGETS
    ]
    write_json(json_target, rows)
    if json_target == "-":
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("target", "choice", "why", "from", title="Targets")
    for target in TARGETS:
        for number, choice in enumerate(target.reasons):
            cells = ("" if number else target.name, choice.setting, choice.reason, choice.source)
            table.add_row(*(Text(cell) for cell in cells), end_section=choice is target.reasons[-1])
    print_table(table, prose=True)
