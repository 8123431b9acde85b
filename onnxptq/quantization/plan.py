"""Which tensors a calibration pass has to look at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from onnxptq.calibrators.methods import Range
from onnxptq.quantization._template import build_template
from onnxptq.quantization.settings import QuantizerSettings


@dataclass(frozen=True)
class CalibrationPlan:
    """What the static quantizer reads of a model's ranges, under given settings.

    Attributes:
        observed: tensors whose range ends up in the quantized model, sorted. The stock calibrators observe about
            twice as many.
        cached: every name that must be in the calibration cache; see `complete`.
        shared: tensor -> tensor whose scale it is quantized with.
    """

    observed: tuple[str, ...]
    cached: tuple[str, ...]
    shared: Mapping[str, str] = field(default_factory=dict)

    def complete(self, ranges: Mapping[str, Range]) -> dict[str, Range]:
        """A range for each name of `cached`.

        A tensor that is quantized with another's scale has that one's range: the quantizer reads it to see whether the
        bias of the next layer fits int32, and clips the bias where it is told of a range of nothing. Where nothing is
        observed of the other either, it is a Softmax, which is [0, 1]. What no one reads gets (0, 0).

        Args:
            ranges: tensor -> (lower, upper), for every name of `observed` at least.
        """
        unread, unit = (np.float32(0), np.float32(0)), (np.float32(0), np.float32(1))
        given = {name: ranges.get(name, unread) for name in self.cached}
        for name in given.keys() & self.shared.keys() - ranges.keys():
            given[name] = ranges.get(self.shared[name], unit)
        return given


def plan_calibration(model_path: str | Path, settings: QuantizerSettings) -> CalibrationPlan:
    """Finds what has to be observed, by quantizing once with marked ranges: costs one `quantize_static`.

    A `FastWriter` of the same model and settings has done that work already: take its `plan`.

    Raises:
        ModelError: there is nothing to quantize.
    """
    template = build_template(model_path, settings)
    return CalibrationPlan(template.observed, template.cached, template.shared)


def observed_tensors(model_path: str | Path, settings: QuantizerSettings) -> tuple[str, ...]:
    """The tensors whose ranges the static quantizer really reads, sorted. See `plan_calibration`."""
    return plan_calibration(model_path, settings).observed
