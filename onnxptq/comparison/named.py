"""From what a user named - files, runtimes, data - to the comparison of `compare_runtimes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxptq.cache import user_cache
from onnxptq.comparison.compare import CompareSettings, compare_runtimes
from onnxptq.comparison.result import Comparison
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.evaluation import Predictions
from onnxptq.inputs import DataOptions, open_model
from onnxptq.judging import JudgingOptions, check_same_outputs, find_reference, samples_to_judge_on
from onnxptq.progress import Progress, silent
from onnxptq.runtimes import installation_problems
from onnxptq.runtimes.provider_options import DeviceSettings
from onnxptq.runtimes.selection import Runtime, ready, resolve_runtime


def compare_models(
    models: Sequence[str | Path],
    runtimes: Sequence[str] = ("cpu",),
    *,
    reference: str | Path | None = None,
    corruptions: Sequence[str] | None = None,
    options: DataOptions | None = None,
    settings: CompareSettings | None = None,
    device: DeviceSettings | None = None,
    allow_fallback: bool = False,
    progress: Progress = silent,
) -> tuple[Comparison, list[Predictions]]:
    """Runs models and their FP32 reference on runtimes and compares what comes out.

    Args:
        models: the files.
        runtimes: as after `--ep` (`onnxptq.runtimes.selection`); the first is the reference runtime.
        reference: the FP32 model; None finds it as `onnxptq.evaluate` does.
        corruptions: to judge under, beside clean; None is the task's default list.
        options: the data and how to read it; None takes the built-in data for models that came from the built-in one.
        settings: what is to be found out.
        device: settings of GPUs.
        allow_fallback: use the CPU for a runtime that does not load, and say so.
        progress: called as work goes on.

    Returns:
        The comparison, and the predictions of every model on every runtime that finished.

    Raises:
        RuntimeUnavailableError: a runtime does not load.
        OnnxptqError: the input is wrong. What happens inside a provider is a row instead.
    """
    if not models:
        raise UsageError("give at least one model to compare.")
    cache, settings = user_cache(), settings or CompareSettings()
    judging = JudgingOptions.of(options=options, groups=settings.groups, corruptions=corruptions)
    loaded = [open_model(Path(path)) for path in models]
    base = find_reference(reference, loaded)
    if base.quantized:
        raise UsageError(f"the reference {base.path} is quantized. Give the FP32 model with --reference FP32.onnx.")
    check_same_outputs(base, loaded)
    resolved = [resolve_runtime(text, cache, device) for text in runtimes]
    _check_options(device or DeviceSettings(), resolved)
    chosen = [ready(runtime, allow_fallback=allow_fallback) for runtime in resolved]
    samples, notes = samples_to_judge_on([*loaded, base], judging, cache)
    fallbacks = [
        f"{runtime.name} runs on the CPU of this environment: {runtime.fallback_reason}"
        for runtime in chosen
        if runtime.fallback_reason
    ]
    notes = (*installation_problems(), *notes, *fallbacks, *_device_notes(chosen, device or DeviceSettings()))
    return compare_runtimes(base, loaded, chosen, samples, cache, settings, warnings=notes, progress=progress)


def _device_notes(runtimes: Sequence[Runtime], device: DeviceSettings) -> list[str]:
    """What a reader must know of GPUs to read the numbers."""
    notes = [
        f"{runtime.name} may compute float32 in TF32, with 10 bits of mantissa: its FP32 is no exact reference, and "
        "errors against it hold that of TF32."
        for runtime in runtimes
        if runtime.on_gpu and runtime.tf32
    ]
    if device.memory_bytes is not None and any(runtime.provider.companions for runtime in runtimes):
        notes.append(
            "--gpu-memory limits TensorRT's workspace and the CUDA provider beside it; ONNX Runtime has no limit for "
            "what TensorRT's engines and their tensors take."
        )
    return notes


def _check_options(device: DeviceSettings, runtimes: Sequence[Runtime]) -> None:
    """Raises UsageError for options that nobody would read: ONNX Runtime ignores those of the CPU without a word."""
    names = [runtime.provider.name for runtime in runtimes]
    for name in device.options:
        if name == "cpu":
            raise UsageError("the provider 'cpu' takes no options. Leave --ep-option cpu:... out.")
        if name not in names:
            raise UsageError(f"--ep-option is for {name!r}, which is not compared. {did_you_mean(name, names)}")
