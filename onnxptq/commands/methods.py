"""`onnxptq methods`: the calibration methods that there are."""

from __future__ import annotations

import click

from onnxptq.commands._output import json_option, write_json
from onnxptq.reports.tables import print_table


@click.command()
@json_option
def methods(json_target: str | None) -> None:
    """List the calibration methods.

    Parameters follow a colon: --method percentile:percentile=99.9
    """
    from onnxptq.methods import all_methods

    rows = [
        {
            "name": method.name,
            "parameters": dict(method.parameters),
            "summary": method.summary,
            "when": method.when,
            "source": method.source,
        }
        for method in all_methods()
    ]
    if json_target != "-":
        from rich.table import Table

        table = Table("method", "parameters", "what it does", "when to use it", "from", title="Methods")
        for method in all_methods():
            shown = ", ".join(f"{key}={value}" for key, value in method.parameters.items())
            table.add_row(method.name, shown, method.summary, method.when, method.source)
        print_table(table, prose=True)
    write_json(json_target, rows)
