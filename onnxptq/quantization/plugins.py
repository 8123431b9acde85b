"""What a recipe can hold besides the range method: changes of the FP32 graph, and rules over the ranges."""

from __future__ import annotations

import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.methods import Range
from onnxptq.errors import UsageError
from onnxptq.progress import Progress, silent
from onnxptq.quantization._inference import load_graph
from onnxptq.quantization.grids import Grid, pinned
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.recipe import Step, check_parameters
from onnxptq.registry import Registry
from onnxptq.signature import Feeds
from onnxptq.tasks import Task


@dataclass(frozen=True)
class Changed:
    """What a weight transform has to say of the model that it wrote.

    Attributes:
        grids: of weights that lie on a grid already, by initializer: the quantizer will keep to it.
        notes: one line for each thing that a user should know, such as layers that were passed over.
    """

    grids: Mapping[str, Grid] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transformed:
    """The model that is quantized, and how.

    Attributes:
        model: the float model.
        settings: what the quantizer is told, grids of weights included.
        grids: those grids, by initializer.
        notes: of all transforms.
    """

    model: Path
    settings: QuantizerSettings
    grids: Mapping[str, Grid]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class WeightTransform:
    """A change of the FP32 graph before it is quantized (equalisation, rounding, bias correction).

    Attributes:
        name: as in a recipe.
        summary: one line.
        source: where it comes from.
        apply: `(model, samples, output, **parameters)`: reads the folded FP32 model at `model` (a Path), may run it
            over the calibration samples, and writes the changed FP32 model to `output` (a Path). Returns a `Changed`,
            or None where there is nothing to say.
        parameters: names and defaults.
        calibration_only: the calibration pass sees the changed model, and the quantizer the unchanged one. `samples`
            are then those of all environments together. The names of tensors must stay.
        takes_settings: `apply` also gets `settings`, what the quantizer will be told, the grids of earlier transforms
            included.
        takes_progress: `apply` also gets `progress`, to be called as work goes on; for what takes long.
        libraries: distributions whose versions decide the result too. They are written into the file and into keys.
    """

    name: str
    summary: str
    source: str
    apply: Callable[..., Changed | None]
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    calibration_only: bool = False
    takes_settings: bool = False
    takes_progress: bool = False
    libraries: tuple[str, ...] = ()


@dataclass(frozen=True)
class Bound:
    """A rule that cuts or widens ranges after the range method chose them.

    Attributes:
        name: as in a recipe.
        summary: one line.
        source: where it comes from.
        apply: `(ranges, model, task, **parameters) -> ranges` over the observed tensors of the folded model (a
            Path); the task knows the bounds of the inputs.
        parameters: names and defaults.
    """

    name: str
    summary: str
    source: str
    apply: Callable[..., Mapping[str, Range]]
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)


WEIGHT_TRANSFORMS: Registry[WeightTransform] = Registry(
    "weight transform",
    "onnxptq.weight_transforms",
    (
        "onnxptq.quantization.adaround",
        "onnxptq.quantization.bias_correction",
        "onnxptq.quantization.equalization",
        "onnxptq.quantization.renormalized",
        "onnxptq.quantization.smoothing",
    ),
)
BOUNDS: Registry[Bound] = Registry(
    "bound", "onnxptq.bounds", ("onnxptq.quantization.range_bounds", "onnxptq.quantization.masked_scores")
)


def written_out(step: Step) -> Step:
    """A weight transform of a recipe with all its parameters, defaults included.

    Raises:
        UsageError: there is no such transform, or it does not have a parameter that the step gives.
    """
    return Step.of(step.name, **_keywords("weight transform", WEIGHT_TRANSFORMS.get(step.name).parameters, step))


def library_versions(steps: Sequence[Step]) -> dict[str, str]:
    """Versions of the libraries that decide what these weight transforms do, as far as they are installed."""
    names = {name for step in steps for name in WEIGHT_TRANSFORMS.get(step.name).libraries}
    return {name: version for name in sorted(names) if (version := _version(name))}


@functools.cache  # Metadata is read from files, and a sweep asks once a cell.
def _version(name: str) -> str:
    with suppress(importlib.metadata.PackageNotFoundError):  # The transform says so, if it cannot do without.
        return importlib.metadata.version(name)
    return ""


def transformed(
    model: Path,
    samples: CalibrationSamples | None,
    steps: Sequence[Step],
    folder: Path,
    settings: QuantizerSettings,
    progress: Progress = silent,
) -> Transformed:
    """The model that is quantized: after the weight transforms of a recipe; the model itself where there are none.

    Args:
        model: the folded FP32 model.
        samples: the drawn calibration set.
        steps: the recipe's weight transforms; those of the calibration pass alone are passed over.
        folder: where changed models go.
        settings: what the quantizer will be told.
        progress: called as work goes on, by transforms that take long.

    Raises:
        UsageError: there is no such transform, it does not have a parameter that the step gives, or it changes weights
            that an earlier one put on a grid.
    """
    chosen = [step for step in steps if not WEIGHT_TRANSFORMS.get(step.name).calibration_only]
    return _applied(model, samples, chosen, folder, "transformed", settings, progress)


def calibrated(
    model: Path,
    environments: Mapping[str, CalibrationSamples],
    steps: Sequence[Step],
    folder: Path,
    settings: QuantizerSettings,
) -> Path:
    """The model that the calibration pass runs: `model`, after the recipe's transforms for calibration alone.

    Args:
        model: the model that is quantized, from `transformed`.
        environments: name -> samples.
        steps, folder, settings: as in `transformed`.

    Raises:
        UsageError: as `transformed`.
    """
    chosen = [step for step in steps if WEIGHT_TRANSFORMS.get(step.name).calibration_only]
    together = _Together(tuple(environments.values()))
    return _applied(model, together, chosen, folder, "calibrated", settings, silent).model


@dataclass(frozen=True)
class _Together:
    """The samples of all environments, one after another, the same at each iteration."""

    environments: tuple[CalibrationSamples, ...]

    def __iter__(self) -> Iterator[tuple[str, Feeds]]:
        return chain.from_iterable(self.environments)

    def __len__(self) -> int:
        return sum(map(len, self.environments))


def _applied(
    model: Path,
    samples: Any,
    steps: Sequence[Step],
    folder: Path,
    name: str,
    settings: QuantizerSettings,
    progress: Progress,
) -> Transformed:
    grids: dict[str, Grid] = {}
    notes: tuple[str, ...] = ()
    for number, step in enumerate(steps):
        transform = WEIGHT_TRANSFORMS.get(step.name)
        output = folder / f"{name}-{number}.onnx"
        keywords = _keywords("weight transform", transform.parameters, step)
        if transform.takes_settings:
            keywords["settings"] = pinned(settings, grids)
        if transform.takes_progress:
            keywords["progress"] = progress
        changed = transform.apply(model, samples, output, **keywords) or Changed()
        _check_still_on_grids(step.name, model, output, grids)
        grids.update(changed.grids)
        notes += changed.notes
        model = output
    return Transformed(model, pinned(settings, grids), grids, notes)


def _check_still_on_grids(name: str, before: Path, after: Path, grids: Mapping[str, Grid]) -> None:
    """Refuses a transform that moves weights which an earlier one put on a grid."""
    if not grids:
        return
    old, new = (
        {tensor.name: tensor for tensor in load_graph(path).graph.initializer if tensor.name in grids}
        for path in (before, after)
    )
    moved = [weight for weight in grids if old.get(weight) != new.get(weight)]
    if moved:
        raise UsageError(
            f"the weight transform {name!r} changes {moved[0]!r}, which an earlier one rounded. Put {name!r} in front "
            "of it in the recipe."
        )


def bounded(ranges: Mapping[str, Range], model: Path, task: Task | None, steps: Sequence[Step]) -> Mapping[str, Range]:
    """The ranges after the bounds of a recipe.

    Args:
        ranges: what the range method chose.
        model: the folded FP32 model.
        task: of the model; None only where there are no bounds.
        steps: the recipe's bounds.

    Raises:
        UsageError: there is no such bound, or it does not have a parameter that the step gives.
    """
    for step in steps:
        bound = BOUNDS.get(step.name)
        ranges = bound.apply(ranges, model, task, **_keywords("bound", bound.parameters, step))
    return ranges


def _keywords(kind: str, defaults: Mapping[str, Any], step: Step) -> dict[str, Any]:
    check_parameters(f"the {kind} {step.name!r}", step.keywords, defaults)
    return {**defaults, **step.keywords}
