"""`onnxptq calibrate`: observe a calibration set in one pass and keep the statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxptq.commands._options import choose_engine, data_options, reading_options
from onnxptq.commands._output import json_option, note, progress_bar, write_json
from onnxptq.commands._statistics import as_json, describe


@click.command()
@click.argument("model", required=False)
@click.option("--data", metavar="SOURCE", help="Data; its calibration side is used, as quantize uses it.")
@click.option(
    "--calib-data", metavar="SOURCE", help="Data for calibration, all of it (or with --eval-data, minus that)."
)
@click.option("--eval-data", metavar="SOURCE", help="Data whose samples must not be calibrated with.")
@click.option("--calib", metavar="NAME", default="clean", show_default=True, help="Calibration set (onnxptq calibs).")
@click.option("--calib-size", type=int, metavar="N", help="Samples in it. [default: 128, or what the set says]")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which samples are drawn.")
@click.option("--method", default="minmax", show_default=True, help="Whose environments are observed.")
@click.option("--target", default="cpu", show_default=True, help="What the graph is for (onnxptq targets).")
@click.option(
    "--fast-calibration", is_flag=True, help="Run the optimised graph: faster, last bits may differ from stock."
)
@click.option("--engine", default="one-pass", show_default=True, help="one-pass, or one-pass-cuda (on an NVIDIA GPU).")
@click.option("--shard", default="1/1", metavar="I/N", help="Only the I-th of N parts of the samples.")
@click.option("-o", "--output", required=True, metavar="OUT", help="The statistics file.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@reading_options
@json_option
def calibrate(**values: Any) -> None:
    """Observe a calibration set in one pass of inference and keep the statistics.

    Every range method works from them: onnxptq quantize MODEL --stats OUT --method percentile
    """
    from onnxptq import api
    from onnxptq.files import check_free
    from onnxptq.quantization.static import engine_notes
    from onnxptq.runtimes import stdout_to_stderr

    json_target, output, force = values.pop("json_target"), Path(values.pop("output")), values.pop("force")
    check_free(output, force)
    options = data_options(values, calib_data=values.pop("calib_data"), eval_data=values.pop("eval_data"))
    choose_engine(values)
    with progress_bar() as progress, stdout_to_stderr():
        statistics = api.calibrate(**values, options=options, progress=progress)
        statistics.save(output)
    for said in engine_notes(values["engine"]):
        note(f"note: {said}")
    if json_target != "-":
        click.echo(describe(output, statistics))
    write_json(json_target, as_json(output, statistics))
