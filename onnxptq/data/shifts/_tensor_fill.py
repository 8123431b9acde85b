"""Copies of tensor samples that fill the range of an input, as stretched contrast does for images.

They serve calibration: a quiet recording, stretched to the bounds of its input, reaches what a loud one reaches. Where
neither bounds nor the distribution of the training data are known there is nothing to fill, and samples stay.
"""

from __future__ import annotations

import numpy as np

from onnxptq.data.shifts._apply import generators
from onnxptq.data.shifts._base import SHIFTS, Facts, InputFacts, Seeds, Shift
from onnxptq.data.shifts.tensor import Array, Tensors, channel_axis, each_float, each_sample, is_float

DEVIATIONS = (10.0, 8.0, 6.0, 4.0, 3.0)
"""How many deviations from the mean `cut_outliers` leaves. Six is far outside of any bell and inside most tails."""

WIDER = (1.25, 1.5, 2.0, 3.0, 4.0)

IMPUTED = (0.1, 0.2, 0.3, 0.5, 0.8)
"""Share of a sample's columns that `impute` takes from another sample."""


def stretch(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """Each sample stretched so that its ends are the bounds of the input; a waveform about 0, by its peak."""

    def filled(sample: Array, known: InputFacts) -> Array:
        low, high = float(sample.min()), float(sample.max())
        if known.bounds is None or low == high:
            return sample
        if known.kind == "audio":
            return sample * (min(abs(end) for end in known.bounds) / max(abs(low), abs(high)))
        least, most = known.bounds
        return (sample - low) / (high - low) * (most - least) + least

    return each_float(batch, facts, each_sample(filled))


def widen(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """Each sample times c about its smallest number, where nothing tells which range there is to fill."""
    factor = WIDER[severity - 1]

    def widened(sample: Array, known: InputFacts) -> Array:
        return np.asarray(sample.min() + (sample - sample.min()) * factor)

    return each_float(batch, facts, each_sample(widened))


def restandardize(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """Each sample moved and stretched so that its mean and deviation are those of the training data."""

    def moved(sample: Array, known: InputFacts) -> Array:
        if not known.standard or known.kind == "table":  # A row has no mean: its columns are of different units.
            return sample
        axes = tuple(a for a in range(sample.ndim) if len(known.means) == 1 or a != sample.ndim + known.axis)
        mean, deviation = sample.mean(axis=axes, keepdims=True), sample.std(axis=axes, keepdims=True)
        unit = np.divide(sample - mean, deviation, out=np.zeros_like(sample), where=deviation > 0)
        return np.asarray(unit * known.deviation + known.mean)

    return each_float(batch, facts, each_sample(moved))


def negate(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """Each sample mirrored: inside the bounds of the input, else at the training data's mean, else at its own."""

    def mirrored(sample: Array, known: InputFacts) -> Array:
        if known.bounds is not None:
            return sum(known.bounds) - sample
        return 2 * (known.mean if known.standard else sample.mean()) - sample

    return each_float(batch, facts, each_sample(mirrored))


def time_flip(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """Each sample backwards in time, the last axis or the longer one of two; tables stay."""

    def flipped(sample: Array, known: InputFacts) -> Array:
        if known.kind == "table":
            return sample
        return np.flip(sample, 1 - channel_axis(sample) if sample.ndim == 2 else -1)

    return each_float(batch, facts, each_sample(flipped))


def normal(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """Numbers drawn from N(mean, deviation) of the training data in place of the sample's own, where that is known."""
    drawn = {name: array.copy() for name, array in batch.items()}
    for index, generator in enumerate(generators("normal", seeds)):
        for name in sorted(drawn):
            known = facts.get(name, InputFacts())
            if is_float(drawn[name]) and known.standard:
                unit = generator.standard_normal(drawn[name].shape[1:])
                drawn[name][index] = unit * known.deviation + known.mean
    return drawn


def cut_outliers(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """Numbers further than c deviations from the training data's mean set to that distance, where it is known."""

    def cut(array: Array, known: InputFacts) -> Array:
        if not known.standard:
            return array
        reach = DEVIATIONS[severity - 1] * known.deviation
        return np.clip(array, known.mean - reach, known.mean + reach)

    return each_float(batch, facts, cut)


def impute(batch: Tensors, severity: int, seeds: Seeds, partners: Tensors) -> Tensors:
    """A share c of the columns of each row, drawn by chance, taken from its partner."""
    mixed = {name: array.copy() for name, array in batch.items()}
    for index, generator in enumerate(generators("impute", seeds)):
        for name in sorted(mixed):
            if is_float(mixed[name]):
                taken = generator.random(mixed[name].shape[1:]) < IMPUTED[severity - 1]
                mixed[name][index] = np.where(taken, partners[name][index], mixed[name][index])
    return mixed


_SUMMARIES = {
    stretch: "each sample stretched to the bounds of its input (the same at every severity)",
    widen: "each sample times 1.25, 1.5, 2, 3, 4, about its smallest number",
    restandardize: "each sample given the training data's mean and deviation (the same at every severity)",
    negate: "each sample mirrored inside the bounds of its input (the same at every severity)",
    time_flip: "each sample backwards in time (the same at every severity)",
    cut_outliers: "numbers at most 10, 8, 6, 4, 3 deviations from the training data's mean",
}
for _apply, _summary in _SUMMARIES.items():
    SHIFTS.register(
        Shift(
            name=_apply.__name__,
            family="augmentation",
            modality="tensor",
            apply=_apply,
            summary=_summary,
            source="ours",
            informed=True,
        )
    )
SHIFTS.register(
    Shift(
        name="normal",
        family="augmentation",
        modality="tensor",
        apply=normal,
        summary="numbers drawn by the training data's mean and deviation (the same at every severity)",
        source="ours",
        seeded=True,
        informed=True,
    )
)
SHIFTS.register(
    Shift(
        name="impute",
        family="augmentation",
        modality="tensor",
        apply=impute,
        summary="0.1 to 0.8 of the columns from another sample",
        source="ours",
        mixes=True,
        seeded=True,
    )
)
