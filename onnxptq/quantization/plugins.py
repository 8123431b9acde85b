"""What a recipe can hold besides the range method: changes of the FP32 graph, and rules over the ranges."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.methods import Range
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.recipe import Step
from onnxptq.registry import Registry


@dataclass(frozen=True)
class WeightTransform:
    """A change of the FP32 graph before it is quantized (equalisation, rounding, bias correction).

    Attributes:
        name: as in a recipe.
        summary: one line.
        source: where it comes from.
        apply: `(model, samples, output, **parameters)`: reads the folded FP32 model at `model` (a Path), may run it
            over the calibration samples, and writes the changed FP32 model to `output` (a Path).
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
        apply: `(ranges, model, samples, **parameters) -> ranges` over the observed tensors of the folded model (a
            Path).
        parameters: names and defaults.
    """

    name: str
    summary: str
    source: str
    apply: Callable[..., Mapping[str, Range]]
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)


WEIGHT_TRANSFORMS: Registry[WeightTransform] = Registry("weight transform", "onnxptq.weight_transforms", ())
BOUNDS: Registry[Bound] = Registry("bound", "onnxptq.bounds", ())


def transformed(model: Path, samples: CalibrationSamples | None, steps: Sequence[Step], folder: Path) -> Path:
    """The model after the weight transforms of a recipe; the model itself where there are none.

    Raises:
        UsageError: there is no such transform, or it does not have a parameter that the step gives.
    """
    for number, step in enumerate(steps):
        transform = WEIGHT_TRANSFORMS.get(step.name)
        output = folder / f"transformed-{number}.onnx"
        transform.apply(model, samples, output, **_keywords("weight transform", transform.parameters, step))
        model = output
    return model


def bounded(
    ranges: Mapping[str, Range], model: Path, samples: CalibrationSamples | None, steps: Sequence[Step]
) -> Mapping[str, Range]:
    """The ranges after the bounds of a recipe.

    Raises:
        UsageError: there is no such bound, or it does not have a parameter that the step gives.
    """
    for step in steps:
        bound = BOUNDS.get(step.name)
        ranges = bound.apply(ranges, model, samples, **_keywords("bound", bound.parameters, step))
    return ranges


def _keywords(kind: str, defaults: Mapping[str, Any], step: Step) -> dict[str, Any]:
    for name in step.keywords:
        if name not in defaults:
            raise UsageError(f"the {kind} {step.name!r} has no parameter {name!r}. {did_you_mean(name, defaults)}")
    return {**defaults, **step.keywords}
