"""`onnxptq audit`: is a calibration set dangerous, whatever the method?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from onnxptq.commands._options import Repeatable, check_not_given, data_options, reading_options
from onnxptq.commands._output import check_different, check_json_target, json_option, note, progress_bar, write_json
from onnxptq.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNDECIDED, UsageError


@click.command(cls=Repeatable)
@click.argument("model", required=False)
@click.option("--data", metavar="SOURCE", help="Data; its calibration side is used, as quantize uses it.")
@click.option("--calib-data", metavar="SOURCE", help="Data for calibration, all of it.")
@click.option("--eval-data", metavar="SOURCE", help="Data whose samples must not be calibrated with.")
@click.option("--calib", metavar="NAME", default="clean", show_default=True, help="Calibration set (onnxptq calibs).")
@click.option("--calib-size", type=int, metavar="N", help="Samples in it. [default: 128, or what the set says]")
@click.option("--seed", type=int, default=0, show_default=True, help="Decides which samples are drawn.")
@click.option("--target", default="cpu", show_default=True, help="What the graph is for (onnxptq targets).")
@click.option(
    "--probe",
    default="all",
    show_default=True,
    help="Hold the set against samples that were not drawn (undrawn), copies of it (augmented), or both (all).",
)
@click.option("--sarif", "sarif_target", metavar="FILE|-", help="Write what was found as SARIF 2.1.0.")
@reading_options
@json_option
def audit(**values: Any) -> None:
    """Say whether a calibration set makes ranges too narrow: PASSED (exit 0), FAILED (1) or UNDECIDED (3).

    Needs no labels and makes no INT8 model. Example: onnxptq audit model.onnx --data images/ --calib dark@3
    """
    from onnxptq.audit import FAILED, UNDECIDED, audit_calibration
    from onnxptq.audit.served import audit_served
    from onnxptq.graphs import load_model
    from onnxptq.reports.audit import audit_sarif, print_audit
    from onnxptq.reports.served import print_served
    from onnxptq.runtimes import stdout_to_stderr

    context = click.get_current_context()
    served = values["model"] and load_model(Path(values["model"]))
    json_target, sarif_target = values.pop("json_target"), values.pop("sarif_target")
    for target in (json_target, sarif_target):
        check_json_target(target)
    check_different(json_target, sarif_target)
    if json_target == sarif_target == "-":
        raise UsageError("--json - and --sarif - both want stdout. Write one of them to a file.")
    options = data_options(values, **{name: values.pop(name) for name in ("data", "calib_data", "eval_data")})
    if served and served.quantized:
        check_not_given("an INT8 MODEL", ("calib", "calib_size", "seed", "target", "probe", "sarif_target"))
        with stdout_to_stderr():
            found = audit_served(served, options)
        for warning in found.warnings:
            note(f"note: {warning}")
        if json_target != "-":
            print_served(found)
        write_json(json_target, found.to_dict())
        context.exit({FAILED: EXIT_FAILED, UNDECIDED: EXIT_UNDECIDED}.get(found.verdict, EXIT_DONE))
    with progress_bar() as progress, stdout_to_stderr():
        result = audit_calibration(**values, options=options, progress=progress)
    for warning in result.warnings:
        note(f"note: {warning}")
    if "-" not in (json_target, sarif_target):
        print_audit(result, shlex.join(["onnxptq", "audit", *context.meta["onnxptq.arguments"]]))
    write_json(json_target, result.to_dict())
    write_json(sarif_target, audit_sarif(result, values["model"] or result.model))
    context.exit({FAILED: EXIT_FAILED, UNDECIDED: EXIT_UNDECIDED}.get(result.verdict, EXIT_DONE))
