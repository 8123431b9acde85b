"""`onnxptq tune`: a file that passes, and the proof that it does."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from onnxptq.commands._options import data_options, given_words, grouping_options, reading_options
from onnxptq.commands._output import check_different, check_json_target, json_option, note, progress_bar, write_json

if TYPE_CHECKING:
    from onnxptq.tuning.result import Tuned

_TUNING_ALONE = ("methods", "policy", "output", "force", "groups", "corruptions", "json_target")
"""Parameters that quantize does not share, or that the file made again has otherwise."""


@click.command()
@click.argument("model", required=False)
@click.option("--data", metavar="SOURCE", help="One source for calibration and judging. [default: the built-in data]")
@click.option("--calib-data", metavar="SOURCE", help="Data for calibration, with --eval-data.")
@click.option("--eval-data", metavar="SOURCE", help="Data to judge on, with --calib-data.")
@click.option("--calib", metavar="NAME", default="clean", show_default=True, help="Calibration set (onnxptq calibs).")
@click.option("--calib-size", type=int, metavar="N", help="Samples in it. [default: 128, or what the set says]")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which samples are drawn.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="A method to try (onnxptq methods). Repeatable. [default: minmax, percentile, mse, entropy, robust]",
)
@click.option("--target", default="cpu", show_default=True, help="What the graph is for (onnxptq targets).")
@click.option("--policy", metavar="NAME|FILE", help="What it must pass. [default: that of onnxptq check]")
@click.option("-o", "--output", metavar="OUT", help="The INT8 file. [default: named after model, set and method]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@grouping_options
@reading_options
@json_option
def tune(**values: Any) -> None:
    """Find an INT8 file that passes, and judge it on samples that no choice has seen.

    \b
    onnxptq tune model.onnx --data images/ --policy policy.toml -o model.int8.onnx

    Methods are tried on one half of the samples to judge on; where all fail, the fewest nodes are searched that must
    stay in float; the winner is judged on the other half. Exit code 0: it passes there; 1: it does not, and no file is
    written; 3: the samples are too few to tell.
    """
    from onnxptq.reports.tuning import print_tuning
    from onnxptq.runtimes import stdout_to_stderr
    from onnxptq.tuning import METHODS
    from onnxptq.tuning import tune as run

    json_target = values.pop("json_target")
    check_different(values["output"], json_target)
    check_json_target(json_target)
    options = data_options(values, calib_data=values.pop("calib_data"), eval_data=values.pop("eval_data"))
    values["methods"] = values["methods"] or METHODS
    values["corruptions"] = values["corruptions"] or None
    with progress_bar() as progress, stdout_to_stderr():
        result = run(**values, options=options, progress=progress)
    result = replace(result, command=_again(result))
    for warning in result.warnings:
        note(f"note: {warning}")
    if json_target != "-":
        print_tuning(result)
    write_json(json_target, result.to_dict())
    click.get_current_context().exit(result.verdict.exit_code)


def _again(result: Tuned) -> str | None:
    """What makes the file again: quantize, with whatever was said of model, data and how they are read."""
    if result.winner is None or result.output is None:
        return None
    words = ["onnxptq", "quantize", *given_words(_TUNING_ALONE), "--method", result.winner.method]
    for node in result.winner.float_nodes:
        words += ["--exclude", node]
    return shlex.join([*words, "-o", str(result.output), "--force"])
