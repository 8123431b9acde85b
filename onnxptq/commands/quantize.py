"""`onnxptq quantize`: make an INT8 model from a chosen calibration set and show what it does to every group."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxptq.commands._options import (
    check_not_given,
    choose_engine,
    data_options,
    judging_options,
    reading_options,
)
from onnxptq.commands._output import (
    check_different,
    check_json_target,
    json_option,
    note,
    progress_bar,
    write_json,
)
from onnxptq.errors import UsageError

ROBUST_SWITCHES = (
    "robust_no_input_range",
    "robust_no_operator_bounds",
    "robust_no_masked_scores",
    "robust_no_augmentation",
    "robust_no_float_normalizer",
    "robust_no_float_outputs",
    "robust_no_guard",
)

_IN_STATISTICS = ("calib", "calib_size", "seed", "engine", "fast_calibration")
_IN_A_RECIPE = (
    *_IN_STATISTICS,
    "method",
    "percentile",
    "entropy_bins",
    "target",
    "exclude",
    "remainder",
    "statistics",
    *ROBUST_SWITCHES,
)


@click.command()
@click.argument("model", required=False)
@click.option("--data", metavar="SOURCE", help="Data for calibration and evaluation; the samples are split.")
@click.option("--calib-data", metavar="SOURCE", help="Data for calibration, with --eval-data.")
@click.option("--eval-data", metavar="SOURCE", help="Data for evaluation, with --calib-data.")
@click.option("--calib", metavar="NAME", default="clean", show_default=True, help="Calibration set (onnxptq calibs).")
@click.option("--calib-size", type=int, metavar="N", help="Samples in it. [default: 128, or what the set says]")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which samples are drawn.")
@click.option("--method", default="minmax", show_default=True, help="How ranges are chosen (onnxptq methods).")
@click.option("--percentile", type=float, metavar="P", help="For --method percentile. [default: 99.999]")
@click.option("--entropy-bins", type=int, metavar="N", help="For --method entropy. [default: 128, which is minmax]")
@click.option("--robust-no-input-range", is_flag=True, help="Robust methods: keep the observed range of the input.")
@click.option("--robust-no-operator-bounds", is_flag=True, help="Robust methods: do not cut ranges to operator bounds.")
@click.option("--robust-no-masked-scores", is_flag=True, help="Robust methods: keep attention's mask in its ranges.")
@click.option("--robust-no-augmentation", is_flag=True, help="Robust methods: calibrate on the set as drawn alone.")
@click.option("--robust-no-float-normalizer", is_flag=True, help="Robust methods: quantize a normalizer in the graph.")
@click.option("--robust-no-float-outputs", is_flag=True, help="Robust methods: quantize the outputs too.")
@click.option("--robust-no-guard", is_flag=True, help="Robust methods: keep steps that make the samples worse.")
@click.option(
    "--stats", "statistics", metavar="FILE", help="Start from statistics (onnxptq calibrate), without a pass."
)
@click.option(
    "--fast-calibration", is_flag=True, help="Calibrate on the optimised graph: faster, last bits may differ."
)
@click.option(
    "--engine",
    default="one-pass",
    show_default=True,
    help="one-pass, one-pass-cuda (on an NVIDIA GPU), or stock (ONNX Runtime's calibrators).",
)
@click.option("--target", default="cpu", show_default=True, help="What the graph is for (onnxptq targets).")
@click.option("--exclude", multiple=True, metavar="NODE", help="A node that stays in float, or a pattern. Repeatable.")
@click.option(
    "--quantize-post-processing",
    is_flag=True,
    help="Quantize what a detector does behind its last weights too; by default it stays in float where it joins boxes "
    "and scores.",
)
@click.option(
    "--remainder",
    default="fp32",
    show_default=True,
    metavar="fp32|fp16",
    help="What is not quantized computes in this type; fp16 is for the target tensorrt11.",
)
@click.option(
    "--recipe", "recipe_file", metavar="FILE", help="A recipe (TOML or JSON) instead of the options that make one."
)
@click.option("-o", "--output", metavar="OUT", help="INT8 file. [default: MODEL.CALIB.METHOD.int8.onnx here]")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--evaluate/--no-evaluate", default=True, show_default=True, help="Judge FP32 and INT8 per group.")
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Look at the INT8 file before it is handed over: lint it, load it, run a few calibration samples.",
)
@click.option("--predictions", metavar="FILE", help="Write the predictions of FP32 and INT8 to a Parquet file.")
@judging_options
@reading_options
@json_option
def quantize(**values: Any) -> None:
    """Make an INT8 model from a chosen calibration set and show what it does to every group.

    Without MODEL the built-in one is quantized, with its own data: onnxptq quantize --calib shifted
    """
    from onnxptq import api
    from onnxptq.evaluation import save_predictions
    from onnxptq.recipe import Recipe
    from onnxptq.reports.terminal import print_report, summary_line
    from onnxptq.runtimes import stdout_to_stderr

    json_target, predictions = values.pop("json_target"), values.pop("predictions")
    every = values.pop("all_groups")
    check_json_target(json_target)
    check_different(values["output"], predictions, json_target)
    if predictions and not values["evaluate"]:
        raise UsageError("--predictions needs the evaluation: leave out --no-evaluate.")
    if predictions:
        check_json_target(predictions)
    recipe_file = values.pop("recipe_file")
    if recipe_file:
        check_not_given("--recipe", _IN_A_RECIPE)
    if values["statistics"]:
        check_not_given("--stats", _IN_STATISTICS)
    choose_engine(values)
    switched_off = [name for name in ROBUST_SWITCHES if values.pop(name)]
    _check_switches(values["method"], switched_off)
    parameters = {"percentile": values.pop("percentile"), "bins": values.pop("entropy_bins")}
    parameters |= {name.removeprefix("robust_no_"): 0 for name in switched_off}
    options = data_options(values, calib_data=values.pop("calib_data"), eval_data=values.pop("eval_data"))
    corruptions = values.pop("corruptions") or None
    with progress_bar() as progress, stdout_to_stderr():
        result = api.quantize(
            **values,
            corruptions=corruptions,
            parameters=parameters,
            recipe=Recipe.read(Path(recipe_file)) if recipe_file else None,
            options=options,
            progress=progress,
        )
        if predictions:
            save_predictions(Path(predictions), result.predictions)
    for warning in result.warnings:
        note(f"note: {warning}")
    if json_target != "-":
        verb = "already there, made by the same recipe:" if result.reused else "wrote"
        click.echo(f"{verb} {result.output}")
        if result.report is not None:
            click.echo(summary_line(result.report, result.fp32_bytes, result.int8_bytes))
            print_report(result.report, every=every)
    write_json(json_target, _as_json(result))


def _check_switches(method: str, switched_off: list[str]) -> None:
    """Raises UsageError when a step was switched off that the method does not have."""
    from onnxptq.methods import all_methods

    known = {known.name: known for known in all_methods()}
    chosen = known.get(method.partition(":")[0])
    for name in switched_off:
        step = name.removeprefix("robust_no_")
        if chosen is not None and step not in chosen.parameters:
            having = ", ".join(one for one in known if step in known[one].parameters)
            raise UsageError(
                f"--{name.replace('_', '-')} switches off a step of {having}, and --method is {chosen.name}. "
                "Leave it out, or use one of these methods."
            )


def _as_json(result: Any) -> dict[str, Any]:
    return {
        "output": str(result.output),
        "reused": result.reused,
        "recipe": result.recipe.to_dict(),
        "recipe_digest": result.recipe.digest,
        "fp32_bytes": result.fp32_bytes,
        "int8_bytes": result.int8_bytes,
        "warnings": list(result.warnings),
        **({} if result.report is None else result.report.to_dict()),
    }
