"""`onnxptq evaluate`: judge models per group against their FP32 reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxptq.commands._options import data_options, judged_data_options, judging_options, reading_options
from onnxptq.commands._output import check_different, check_json_target, json_option, note, progress_bar, write_json


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@judged_data_options
@click.option("--reference", metavar="FP32.onnx", help="What to compare with. [default: the model it was made from]")
@click.option("--predictions", metavar="FILE", help="Write the predictions of all models to a Parquet file.")
@judging_options
@reading_options
@json_option
def evaluate(**values: Any) -> None:
    """Judge models per group against their FP32 reference.

    Preprocessing, labels and task come from the model where onnxptq wrote it.
    """
    from onnxptq import api
    from onnxptq.evaluation import save_predictions
    from onnxptq.reports.terminal import print_report, summary_line
    from onnxptq.runtimes import stdout_to_stderr

    json_target, predictions = values.pop("json_target"), values.pop("predictions")
    every = values.pop("all_groups")
    check_json_target(json_target)
    check_different(predictions, json_target)
    if predictions:
        check_json_target(predictions)
    options = data_options(values, split=values.pop("split"))
    corruptions = values.pop("corruptions") or None
    with progress_bar() as progress, stdout_to_stderr():
        result = api.evaluate(**values, corruptions=corruptions, options=options, progress=progress)
        if predictions:
            save_predictions(Path(predictions), result.predictions)
    for warning in result.warnings:
        note(f"note: {warning}")
    if json_target != "-":
        for report in result.reports:
            click.echo(summary_line(report))
            print_report(report, every=every)
    write_json(
        json_target,
        {"reports": [report.to_dict() for report in result.reports], "warnings": list(result.warnings)},
    )
