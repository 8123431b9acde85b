"""`onnxptq compare`: the same models on several execution providers and versions, on the same samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxptq.commands._options import data_options, grouping_options, judged_data_options, reading_options
from onnxptq.commands._output import check_different, check_json_target, json_option, note, progress_bar, write_json
from onnxptq.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNDECIDED


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="MODEL...")
@click.option(
    "--ep",
    "runtimes",
    multiple=True,
    default=("cpu",),
    show_default=True,
    metavar="RUNTIME",
    help="A provider, one of `onnxptq runtimes`, or either with :none, :basic, :extended, :exact. Repeatable; the "
    "first one is the reference runtime.",
)
@click.option("--reference", metavar="FP32.onnx", help="The FP32 model. [default: the model it was made from]")
@judged_data_options
@grouping_options
@click.option("--layers", is_flag=True, help="Also the error of each layer, on a copy of the graph (breaks fusion).")
@click.option("--speed/--no-speed", default=True, show_default=True, help="Measure latency.")
@click.option("--batch-size", "batch_sizes", type=int, multiple=True, default=(1,), show_default=True, metavar="N")
@click.option("--threads", type=int, multiple=True, metavar="N", help="Threads in an operator. [default: ORT's choice]")
@click.option("--runs", type=int, default=100, show_default=True, metavar="N", help="Timed calls a configuration.")
@click.option("--require-placement", "limits", multiple=True, metavar="RUNTIME=PERCENT", help="Else exit code 1.")
@click.option("--timeout", type=float, default=600, show_default=True, metavar="S", help="Seconds for one request.")
@click.option("--allow-fallback", is_flag=True, help="Use the CPU for a provider that does not load, and say so.")
@click.option("--device", type=int, default=0, show_default=True, metavar="N", help="Which GPU.")
@click.option("--gpu-memory", metavar="SIZE", help="Limit of CUDA's arena and TensorRT's workspace, for example 2GB.")
@click.option("--workspace", metavar="SIZE", help="Limit of TensorRT's workspace, for example 1GB.")
@click.option("--fp16", is_flag=True, help="TensorRT may run in FP16 what is not quantized.")
@click.option("--tf32", is_flag=True, help="NVIDIA GPUs may compute float32 in TF32 (10 bits of mantissa).")
@click.option("--ep-option", "ep_options", multiple=True, metavar="PROVIDER:KEY=VALUE", help="Any other option.")
@click.option("--wide", is_flag=True, help="All tables: causes of errors, every latency, placement, memory.")
@click.option("--predictions", metavar="FILE", help="Write the predictions of all rows to a Parquet file.")
@reading_options
@json_option
def compare(**values: Any) -> None:
    """Run models on several execution providers and versions, and show what differs.

    \b
    onnxptq compare model.int8.onnx --data images/ --ep cpu --ep cpu:none --ep openvino --ep cpu@1.20

    Every model and the FP32 reference run on every runtime, each in a process of its own: one that crashes or hangs is
    a row that says so. Exit code 1 where a row failed or --require-placement is not met; 3 where it cannot be known.
    """
    from onnxptq.comparison.named import compare_models
    from onnxptq.comparison.placement_limits import check_limits, parse_limits
    from onnxptq.evaluation import save_predictions
    from onnxptq.files import check_writable
    from onnxptq.reports.comparison import print_comparison
    from onnxptq.runtimes import stdout_to_stderr

    json_target, predictions = values.pop("json_target"), values.pop("predictions")
    wide = values.pop("wide")
    check_json_target(json_target)
    check_different(predictions, json_target)
    if predictions:
        check_writable(Path(predictions))
    limits = parse_limits(values.pop("limits"), values["runtimes"])
    settings, device = _settings(values), _device(values)
    options = data_options(values, data=values.pop("data"), split=values.pop("split"))
    corruptions = values.pop("corruptions") or None
    with progress_bar() as progress, stdout_to_stderr():
        comparison, runs = compare_models(
            **values, corruptions=corruptions, options=options, settings=settings, device=device, progress=progress
        )
        if predictions:
            save_predictions(Path(predictions), runs)
    verdicts = check_limits(comparison, limits)
    for warning in comparison.warnings:
        note(f"note: {warning}")
    if json_target != "-":
        print_comparison(comparison, verdicts, wide=wide)
    required = [{**vars(verdict), "passed": verdict.passed} for verdict in verdicts]
    write_json(json_target, {**comparison.to_dict(), "required_placement": required})
    click.get_current_context().exit(_exit_code(bool(comparison.failed), [verdict.passed for verdict in verdicts]))


def _settings(values: dict[str, Any]) -> Any:
    from onnxptq.comparison import CompareSettings

    names = ("groups", "speed", "batch_sizes", "runs", "layers")
    threads = values.pop("threads") or (None,)
    return CompareSettings(**{n: values.pop(n) for n in names}, threads=threads, timeout_s=values.pop("timeout"))


def _device(values: dict[str, Any]) -> Any:
    from onnxptq.runtimes.provider_options import DeviceSettings, parse_bytes, parse_options

    memory, workspace = values.pop("gpu_memory"), values.pop("workspace")
    return DeviceSettings(
        device=values.pop("device"),
        memory_bytes=parse_bytes("--gpu-memory", memory) if memory else None,
        workspace_bytes=parse_bytes("--workspace", workspace) if workspace else None,
        fp16=values.pop("fp16"),
        tf32=values.pop("tf32"),
        options=parse_options(values.pop("ep_options")),
    )


def _exit_code(failed: bool, passed: list[bool | None]) -> int:
    if failed or False in passed:
        return EXIT_FAILED
    return EXIT_UNDECIDED if None in passed else EXIT_DONE
