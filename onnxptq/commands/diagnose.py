"""`onnxptq diagnose`: which tensors and nodes of an INT8 file harm the worst group, and which to keep in float."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxptq.commands._options import data_options, grouping_options, judged_data_options, reading_options
from onnxptq.commands._output import check_different, check_json_target, json_option, note, progress_bar, write_json
from onnxptq.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNDECIDED
from onnxptq.foreign_text import csv_row

if TYPE_CHECKING:
    from onnxptq.diagnosis import Diagnosis


@click.command()
@click.argument("reference", metavar="FP32")
@click.argument("model", metavar="INT8")
@judged_data_options
@grouping_options
@click.option(
    "--screen", "screened", type=int, default=12, show_default=True, metavar="N", help="Samples a group for everything."
)
@click.option(
    "--per-group", type=int, default=40, show_default=True, metavar="N", help="Samples a group for the finalists."
)
@click.option("--finalists", type=int, default=10, show_default=True, metavar="N", help="Tensors and nodes ranked.")
@click.option("--cumulative/--no-cumulative", default=True, show_default=True, help="Also quantize up to each tensor.")
@click.option(
    "--budget",
    type=float,
    metavar="POINTS",
    help="Find the fewest nodes in float that bring the worst group's drop to it.",
)
@click.option("-o", "--output", metavar="OUT", help="Write the INT8 file with those nodes in float (with --budget).")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--speed/--no-speed", default=True, show_default=True, help="Measure the latency of that file.")
@click.option("--csv", metavar="FILE", help="Write one row a tensor and a node as CSV.")
@reading_options
@json_option
def diagnose(**values: Any) -> None:
    """Rank the tensors and nodes of an INT8 file by what they do to the worst group.

    \b
    onnxptq diagnose model.onnx model.int8.onnx --data images/ --budget 2 -o model.mixed.int8.onnx

    INT8 is any QDQ file. With --budget: exit code 1 where the limit cannot be reached or does not hold on samples that
    the search has not seen; 3 where these are too few to tell.
    """
    from onnxptq.diagnosis import DiagnoseSettings
    from onnxptq.diagnosis import diagnose as run
    from onnxptq.files import check_writable
    from onnxptq.reports.diagnosis import print_diagnosis
    from onnxptq.runtimes import stdout_to_stderr

    json_target, csv_target = values.pop("json_target"), values.pop("csv")
    check_different(values["output"], json_target, csv_target)
    check_json_target(json_target)
    if csv_target:
        check_writable(Path(csv_target))
    budget, output = values.pop("budget"), values.pop("output")
    names = ("groups", "screened", "per_group", "finalists", "cumulative", "force", "speed")
    settings = DiagnoseSettings(
        **{name: values.pop(name) for name in names},
        budget=None if budget is None else budget / 100,
        output=Path(output) if output else None,
    )
    options = data_options(values, split=values.pop("split"))
    corruptions = values.pop("corruptions") or None
    with progress_bar() as progress, stdout_to_stderr():
        result = run(**values, corruptions=corruptions, options=options, settings=settings, progress=progress)
    for warning in result.warnings:
        note(f"note: {warning}")
    if csv_target:
        _write_csv(Path(csv_target), result)
    if json_target != "-":
        print_diagnosis(result)
    write_json(json_target, result.to_dict())
    reached = True if result.budget is None else result.budget.reached
    click.get_current_context().exit({True: EXIT_DONE, False: EXIT_FAILED, None: EXIT_UNDECIDED}[reached])


def _write_csv(path: Path, result: Diagnosis) -> None:
    import csv

    from onnxptq.files import replacing

    rows = result.rows()
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(map(csv_row, rows))
