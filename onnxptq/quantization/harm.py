"""Do no harm: a recipe that is `guarded` loses the steps that make its own calibration samples worse than MinMax would.

FP32 is the judge: how far the INT8 model's answers agree with its own (`Head.fidelity`), on the samples as they were
drawn, where a loss above `RUIN` decides. Wider ranges cost a shifted set some resolution and save what it does not
show, so below that the copies count as well, in equal shares, if they are made by what is known of the inputs (bounds,
the training data's moments). Copies that are guesses do not count: a model that was never trained on such samples
says nothing there. Measured in docs/robustness.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.statistics import CalibrationStatistics
from onnxptq.evaluation.sample_runner import SampleRunner, join
from onnxptq.graphs import Model
from onnxptq.progress import Advance, Progress, silent, uncounted
from onnxptq.quantization.static import Quantized, quantize_folded
from onnxptq.recipe import Environment, Recipe, Step
from onnxptq.runtimes import open_session
from onnxptq.runtimes.cpu import u8s8_saturates
from onnxptq.tasks import GUESSED_COPIES, Task

TOLERANCE = 0.01
"""Agreement with FP32, as a share, that a step may cost."""

DEVIATIONS = 2.0
"""Standard errors of the mean difference from which a loss is more than chance: of 128 samples, four more that flip."""

RUIN = 0.1
"""Loss on the drawn samples that no gain on copies makes good: bounds that were declared wrongly give such copies. Dark
and pale sets, which wide ranges are right for, lost up to 0.055."""

COPIES = 16
"""Samples of each kind of copy that are looked at."""

Agreement = npt.NDArray[np.float64]

Make = Callable[[Recipe, Path], Quantized]
"""Writes the INT8 model of a recipe to a path."""


@dataclass
class _Judge:
    """FP32's answers on the calibration samples, made when they are asked for."""

    fp32: Model
    samples: CalibrationSamples
    _wanted: dict[str, Any] = field(default_factory=dict)

    def chains(self, recipe: Recipe) -> Iterator[str]:
        """The copies of a recipe that are made by what is known."""
        for environment in recipe.environments:
            if environment.shifts and environment.shifts.partition("+")[0] not in GUESSED_COPIES:
                yield environment.shifts

    def agreement(self, int8: Path, chain: str = "") -> Agreement:
        """By sample, in [0, 1], how far an INT8 file agrees with FP32."""
        samples = self.samples.environment(Environment(chain, COPIES)) if chain else self.samples
        if chain not in self._wanted:
            self._wanted[chain] = self._answers(self.fp32.core.path, samples, exact=False)
        answers = self._answers(int8, samples, exact=u8s8_saturates())
        return np.asarray(self.samples.task.head.fidelity(answers, self._wanted[chain]), np.float64)

    def _answers(self, model: Path, samples: CalibrationSamples, *, exact: bool) -> Any:
        runner = SampleRunner(open_session(model, optimization="exact" if exact else "all"))
        runs = [runner.run(feeds) for _, feeds in samples.in_front()]
        return self.samples.task.head.answers([join(output) for output in zip(*runs, strict=True)])


def quantize_without_harm(
    model: Model,
    folded: Path,
    samples: CalibrationSamples | None,
    recipe: Recipe,
    output: Path,
    *,
    statistics: CalibrationStatistics | None = None,
    task: Task | None = None,
    cache: Cache | None = None,
    progress: Advance = uncounted,
    transforming: Progress = silent,
) -> Quantized:
    """`quantize_folded`, and for a guarded recipe without the steps that do harm; arguments and errors as there.

    Where the file agrees with FP32, one pass of both over the drawn samples is all that is run. Every step is kept
    where there are only statistics, and where a post-processing behind the model makes its answers.

    Returns:
        What was made, with `dropped` and a note that says what was left out and why.
    """
    quantized = quantize_folded(
        model,
        folded,
        samples,
        recipe,
        output,
        statistics=statistics,
        task=task,
        cache=cache,
        progress=progress,
        transforming=transforming,
    )
    if not recipe.guarded or samples is None or not len(samples):
        return quantized
    if model.parts is not None and model.parts.tail is not None:
        return quantized

    def make(other: Recipe, path: Path) -> Quantized:
        return quantize_folded(model, folded, samples, other, path, task=task, cache=cache, transforming=transforming)

    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        return _without_harm(quantized, make, _Judge(model, samples), recipe, output, Path(folder))


def _without_harm(
    quantized: Quantized, make: Make, judge: _Judge, recipe: Recipe, output: Path, folder: Path
) -> Quantized:
    """As `quantize_without_harm`; MinMax files to compare with go to `folder`."""
    whole = judge.agreement(output)
    if 1 - whole.mean() <= TOLERANCE:
        return quantized
    plain, ends_only = _plain(recipe), _without_ranges(recipe)
    bases = []
    for number, tried in enumerate((plain, ends_only)):
        make(tried, path := folder / f"{number}.onnx")
        bases.append((path, judge.agreement(path)))
    base = max(bases, key=lambda one: float(one[1].mean()))
    if not _worse(judge, recipe, (output, whole), base):
        return quantized
    candidates = iter((*_each_left_out(recipe), (("augmentation", "bounds"), ends_only), (("every step",), plain)))
    while True:
        names, less = next(candidates)
        made = make(less, output)
        kept = judge.agreement(output)
        if less == plain or not _worse(judge, recipe, (output, kept), base):
            break
    note = (
        f"left out of the recipe: {' and '.join(names)}. On the {len(whole)} calibration samples "
        f"{1 - whole.mean():.1%} of the answers differ from FP32's with, {1 - kept.mean():.1%} without. "
        "--robust-no-guard keeps all."
    )
    return replace(made, notes=(*made.notes, note), dropped=names)


def _worse(judge: _Judge, recipe: Recipe, one: tuple[Path, Agreement], base: tuple[Path, Agreement]) -> bool:
    """Whether a file agrees less with FP32 than the reference does, by more than `TOLERANCE` and than chance."""
    lost = base[1] - one[1]
    error = lost.std() / np.sqrt(len(lost))
    if lost.mean() <= max(TOLERANCE, DEVIATIONS * error):
        return False
    if lost.mean() > RUIN:
        return True
    copies = [judge.agreement(base[0], chain) - judge.agreement(one[0], chain) for chain in judge.chains(recipe)]
    return float(np.mean([lost.mean(), *(copy.mean() for copy in copies)])) > TOLERANCE


def _plain(recipe: Recipe) -> Recipe:
    """MinMax of the drawn set, everything quantized."""
    return _without_ranges(recipe).changed(float_outputs=False, float_normalizers=False)


def _without_ranges(recipe: Recipe) -> Recipe:
    """MinMax of the drawn set, both ends as the recipe has them."""
    return recipe.changed(environments=(Environment(),), bounds=(), ranges=Step("minmax"), weight_transforms=())


def _each_left_out(recipe: Recipe) -> Sequence[tuple[tuple[str, ...], Recipe]]:
    """The recipe without one of its steps, that which did most harm where it was measured first."""
    found: list[tuple[tuple[str, ...], Recipe]] = []
    if recipe.environments != (Environment(),):
        found.append((("augmentation",), recipe.changed(environments=(Environment(),))))
    for step in recipe.weight_transforms:
        rest = tuple(other for other in recipe.weight_transforms if other != step)
        found.append(((step.name,), recipe.changed(weight_transforms=rest)))
    for step in recipe.bounds:
        rest = tuple(other for other in recipe.bounds if other != step)
        found.append(((step.name,), recipe.changed(bounds=rest)))
    return found
