"""What a recipe can hold besides the range method: changes of the FP32 graph, and rules over the ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.methods import Range
from onnxptq.registry import Registry


@dataclass(frozen=True)
class WeightTransform:
    """A change of the FP32 graph before it is quantized (equalisation, rounding, bias correction).

    Attributes:
        name: as in a recipe.
        summary: one line.
        source: where it comes from.
        apply: `(model, samples, output, **parameters)`: reads the folded FP32 model at `model` (a Path), may run it over
            the calibration samples, and writes the changed FP32 model to `output` (a Path).
        parameters: names and defaults.
    """

    name: str
    summary: str
    source: str
    apply: Callable[..., None]
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Bound:
    """A rule that cuts or widens ranges after the range method chose them.

    Attributes:
        name: as in a recipe.
        summary: one line.
        source: where it comes from.
        apply: `(ranges, model, samples, **parameters) -> ranges` over all tensors of the folded model at `model` (a Path).
        parameters: names and defaults.
    """

    name: str
    summary: str
    source: str
    apply: Callable[..., Mapping[str, Range]]
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)


WEIGHT_TRANSFORMS: Registry[WeightTransform] = Registry("weight transform", "onnxptq.weight_transforms", ())
BOUNDS: Registry[Bound] = Registry("bound", "onnxptq.bounds", ())


def transformed(model: Path, samples: CalibrationSamples, steps: Any, folder: Path) -> Path:
    """The model after the weight transforms of a recipe; the model itself where there are none."""
    for number, step in enumerate(steps):
        output = folder / f"transformed-{number}.onnx"
        WEIGHT_TRANSFORMS.get(step.name).apply(model, samples, output, **step.keywords)
        model = output
    return model


def bounded(ranges: Mapping[str, Range], model: Path, samples: CalibrationSamples, steps: Any) -> Mapping[str, Range]:
    """The ranges after the bounds of a recipe."""
    for step in steps:
        ranges = BOUNDS.get(step.name).apply(ranges, model, samples, **step.keywords)
    return ranges
