"""`onnxptq providers`: which execution providers really load here, and if not, why and what helps."""

from __future__ import annotations

from typing import Any

import click

from onnxptq.commands._output import check_json_target, json_option, write_json
from onnxptq.reports.tables import print_table


@click.command()
@json_option
def providers(json_target: str | None) -> None:
    """Which execution providers really load here.

    Tries each one with a tiny model, in a process of its own. Also shows what decides INT8 on the CPU.
    """
    check_json_target(json_target)
    report = _report()
    write_json(json_target, report)
    if json_target != "-":
        _print(report)


def _report() -> dict[str, Any]:
    """What `--json` writes; docs/providers.md describes the keys."""
    from dataclasses import asdict

    from onnxptq.runtimes import (
        cpu_features,
        installation_problems,
        probe_all,
        runtime_identity,
        u8s8_can_saturate,
        u8s8_saturates,
    )

    identity = runtime_identity("cpu")
    features = cpu_features()
    return {
        "schema": 1,
        "onnxruntime": {"version": identity["onnxruntime"], "distribution": identity["distribution"]},
        "installation_problems": installation_problems(),
        "cpu": {
            "machine": identity["machine"],
            "features": list(features),
            "u8s8_can_saturate": u8s8_can_saturate(features),
            "u8s8_saturates": u8s8_saturates(),
        },
        "providers": [asdict(status) for status in probe_all()],
    }


def _print(report: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    cpu = report["cpu"]
    saturation = "saturates: 7-bit weights (reduce_range) avoid it" if cpu["u8s8_saturates"] else "does not saturate"
    click.echo(f"ONNX Runtime {report['onnxruntime']['version']} ({report['onnxruntime']['distribution']})")
    click.echo(f"CPU {cpu['machine']}: {', '.join(cpu['features']) or 'features not known'}")
    click.echo(f"U8S8 (uint8 activations, int8 weights), measured here: {saturation}")
    for problem in report["installation_problems"]:
        click.echo(f"Installation: {problem}")
    table = Table("provider", "compiled", "loads", "why not", "remedy")
    for status in report["providers"]:
        # Text, because rich would read the brackets of onnxptq[cuda] as markup.
        loads = f"yes ({status['gpu']}, driver {status['driver']})" if status["gpu"] else _yes(status["loads"])
        why = status["reason"] or (status["limit"] and f"runs no convolutions: {status['limit']}")
        cells = (status["name"], _yes(status["compiled"]), loads, why, status["remedy"])
        table.add_row(*(Text(cell) for cell in cells))
    print_table(table, prose=True)


def _yes(answer: bool) -> str:
    return "yes" if answer else "no"
