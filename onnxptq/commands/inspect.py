"""`onnxptq inspect`: the first command for a model of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from onnxptq.commands._options import data_options, reading_options
from onnxptq.commands._output import check_json_target, json_option, write_json

if TYPE_CHECKING:
    from onnxptq.inspection import Inspection


@click.command()
@click.argument("model")
@click.option("--write", is_flag=True, help="Write the specification beside the model, as MODEL.json.")
@click.option("--data", metavar="SOURCE", help="Data to propose a specification from: a table, a folder of recordings.")
@reading_options
@json_option
def inspect(**values: Any) -> None:
    """Say in one screen what a model is taken for, what INT8 can do with it, and what is missing. Nothing is run."""
    from onnxptq.foreign_text import one_line
    from onnxptq.inspection import inspect as look
    from onnxptq.inspection import write_specification
    from onnxptq.runtimes import stdout_to_stderr

    json_target, write = values.pop("json_target"), values.pop("write")
    check_json_target(json_target)
    with stdout_to_stderr():
        found = look(values.pop("model"), data_options(values, data=values.pop("data")))
        written = write_specification(found) if write else None
    if json_target != "-":
        for line in _lines(found):
            click.echo(one_line(line))
        if written:
            click.echo(f"wrote {one_line(str(written))}")
    write_json(json_target, {**found.to_dict(), "written": str(written) if written else None})


def _lines(found: Inspection) -> list[str]:
    from onnxptq.inspection import described

    lines = [f"model    {found.model}"]
    lines += [f"input    {described(spec)}" for spec in found.inputs]
    lines += [f"output   {described(spec)}" for spec in found.outputs]
    if found.task is None:
        lines.append("task     not known")
    else:
        lines.append(f"task     {found.task}")
        lines.append(f"head     {found.head}: {found.why}")
        lines.append(f"judged   {', '.join(found.judged)}")
    if found.classes:
        more = f" and {len(found.classes) - 8} more" if len(found.classes) > 8 else ""
        lines.append(f"classes  {', '.join(found.classes[:8])}{more}")
    if not found.quantized_already:
        lines.append(f"INT8     {_counts(found.quantized) or 'nothing'}")
        lines.append(f"float    {_counts(found.stays_float) or 'nothing'}")
    lines += [f"note     {note}" for note in found.notes]
    lines += [f"missing  {line}" for line in found.missing]
    return lines


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {operator}" for operator, count in counts.items())
