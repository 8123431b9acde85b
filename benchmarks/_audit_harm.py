"""The harm that a calibration set does, measured: MinMax on it, judged per group against FP32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxptq import api
from onnxptq.cache import Cache
from onnxptq.evaluation import EvaluationSamples, ModelUnderTest, Report, compare, named_corruptions
from onnxptq.evaluation.run import predict
from onnxptq.graphs import load_model
from onnxptq.inputs import DataOptions, resolve_for_quantization
from onnxptq.runtimes.selection import CPU

CORRUPTIONS = ("fog@3", "impulse@3", "gamma@3", "motion_blur@3", "shot@3")
EXACT = replace(CPU, name="cpu:exact", optimization="exact")
"""Without VNNI, x86 kernels clip sums of uint8 x int8 products: a second harm, which no calibration set causes."""

_TOGETHER = 12
"""Models that run over one reading of the samples: corrupting them costs as much as a small model."""


def measured(model: str | None, options: DataOptions, sets: Sequence[str], cache: Cache) -> dict[str, Report]:
    """What MinMax on each set does to the groups label x corruption, by set."""
    inputs = resolve_for_quantization(model, options, cache, needs_data=True, evaluate=True)
    assert inputs.evaluation is not None
    names = named_corruptions(CORRUPTIONS, inputs.task)
    samples = EvaluationSamples(inputs.task, inputs.evaluation, names, 0)
    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory() as folder:
        for start in range(0, len(sets), _TOGETHER):
            chosen = [name for name in sets[start : start + _TOGETHER] if not _unfit(inputs.task, name)]
            made = [
                api.quantize(
                    model, calib=name, options=options, output=Path(folder) / f"{start + i}.onnx", evaluate=False
                )
                for i, name in enumerate(chosen)
            ]
            subjects = [ModelUnderTest(load_model(one.output), EXACT, threads=1) for one in made]
            subjects = [ModelUnderTest(inputs.model, threads=1), *subjects]
            runs = predict(subjects, samples, cache)
            for name, run in zip(chosen, runs[1:], strict=True):
                reports[name] = compare(runs[0], run, ())
    return reports


def _unfit(task: Any, name: str) -> bool:
    """Whether a shift of the set means nothing for the input, such as saturation for gray images."""
    from onnxptq.calibrators import CalibrationSet

    return any(task.fits(shift) is not None for shift, _ in CalibrationSet.parse(name).shifts)
