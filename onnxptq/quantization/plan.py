"""Which tensors a calibration pass has to look at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxptq.quantization._template import build_template
from onnxptq.quantization.settings import QuantizerSettings


@dataclass(frozen=True)
class CalibrationPlan:
    """What the static quantizer reads of a model's ranges, under given settings.

    Attributes:
        observed: tensors whose range ends up in the quantized model, sorted. The stock calibrators observe about
            twice as many.
        cached: every name that must be in the calibration cache; those not observed with any range at all.
    """

    observed: tuple[str, ...]
    cached: tuple[str, ...]


def plan_calibration(model_path: str | Path, settings: QuantizerSettings) -> CalibrationPlan:
    """Finds what has to be observed, by quantizing once with marked ranges: costs one `quantize_static`.

    A `FastWriter` of the same model and settings has done that work already: take its `plan`.

    Raises:
        ModelError: there is nothing to quantize.
    """
    template = build_template(model_path, settings)
    return CalibrationPlan(template.observed, template.cached)


def observed_tensors(model_path: str | Path, settings: QuantizerSettings) -> tuple[str, ...]:
    """The tensors whose ranges the static quantizer really reads, sorted. See `plan_calibration`."""
    return plan_calibration(model_path, settings).observed
