"""The harm that a calibration set does, measured: MinMax on it, judged per group against FP32."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnxruntime

from onnxptq import api
from onnxptq.cache import Room
from onnxptq.evaluation import EvaluationSamples, Report, Subject, compare, named_corruptions
from onnxptq.evaluation.run import predict
from onnxptq.graphs import Model, load_model
from onnxptq.inputs import DataOptions, resolve_for_quantization
from onnxptq.runtimes import open_session, runtime_identity
from onnxptq.tasks import Feeds, Signature

CORRUPTIONS = ("fog@3", "impulse@3", "gamma@3", "motion_blur@3", "shot@3")
_TOGETHER = 12
"""Models that run over one reading of the samples: corrupting them costs as much as a small model."""


@dataclass(frozen=True)
class Unsaturated:
    """An INT8 model on the CPU provider with 16-bit sums that cannot overflow.

    Without VNNI, x86 kernels clip sums of uint8 x int8 products: a second harm, which no calibration set causes.
    """

    model: Model

    def settled(self) -> tuple[Unsaturated, str | None]:
        return self, None

    def identity(self) -> dict[str, str]:
        return {**runtime_identity("cpu"), "session": "x64quantprecision"}

    def open(self) -> _Runner:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(str(self.model.path), options, providers=["CPUExecutionProvider"])
        return _Runner(open_session(self.model.path).signature, session)


@dataclass(frozen=True)
class _Runner:
    signature: Signature
    session: Any

    def run(self, feeds: Feeds) -> list[npt.NDArray[Any]]:
        outputs: list[npt.NDArray[Any]] = self.session.run(None, dict(feeds))
        return outputs


def measured(model: str | None, options: DataOptions, sets: Sequence[str], room: Room) -> dict[str, Report]:
    """What MinMax on each set does to the groups label x corruption, by set."""
    inputs = resolve_for_quantization(model, options, room, needs_data=True, evaluate=True)
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
            subjects = [Subject(inputs.model, threads=1), *(Unsaturated(load_model(one.output)) for one in made)]
            runs = predict(subjects, samples, room)
            for name, run in zip(chosen, runs[1:], strict=True):
                reports[name] = compare(runs[0], run, ())
    return reports


def _unfit(task: Any, name: str) -> bool:
    """Whether a shift of the set means nothing for the input, such as saturation for gray images."""
    from onnxptq.calibrators import CalibrationSet

    return any(task.fits(shift) is not None for shift, _ in CalibrationSet.parse(name).shifts)
