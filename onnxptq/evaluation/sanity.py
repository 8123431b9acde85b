"""Is a reference worth judging on? That is asked before anything else: a model that answers alike whatever it is given,
or no better than chance, loses nothing by quantization, and on such data every INT8 model would look safe.

The causes are with the data, not with INT8: empty or damaged samples, another preprocessing than in training, labels in
another order than the model's outputs.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from onnxptq.evaluation._intervals import one_sided_quantile
from onnxptq.evaluation.label_order import other_order
from onnxptq.evaluation.measures import ACCURACY, measure_of
from onnxptq.evaluation.paired import scores_of
from onnxptq.evaluation.predictions import Predictions

_FEWEST = 10
"""Original samples below which nothing is said: few samples can be alike by chance."""

_ALIKE = 0.1
"""Share of samples with identical outputs, of which the reference gets most wrong, that speaks of empty samples."""

_FAR_BELOW = 0.1
"""By how much an average must lie below the one that the model's specification promises."""

_NOTHING = 0.05
"""An average score, of graded answers, at which nothing is left to lose."""

_COLUMNS = 8
"""Outputs that are compared one by one; beside them their sum of squares is, where it is known."""

_MOSTLY = 0.5
"""The same share where there are no labels to tell whether the reference is wrong on them."""


def why_not_worth_judging(reference: Predictions, confidence: float = 0.95) -> str | None:
    """Why nothing can be learned from what a reference says of its samples, or None where it is worth judging on.

    Args:
        reference: predictions of the model that others are compared with; rows are counted by original sample.
        confidence: with which accuracy must be better than chance.

    Returns:
        A sentence without its full stop that names what was seen, what was expected and what to look at; None where
        nothing is wrong, or where fewer than 10 original samples leave it open.
    """
    if repeated := _repeated(reference):
        return repeated
    sources = len(np.unique(reference.source_id))
    if sources < _FEWEST:
        return None
    if alike := _alike(reference, sources):
        return alike
    at_chance = _at_chance if measure_of(reference) == ACCURACY else _worth_nothing
    said = at_chance(reference, sources, confidence) or _below_what_is_promised(reference, confidence)
    return None if said is None else f"{said}. {_causes(reference)}"


def reference_notes(reference: Predictions) -> tuple[str, ...]:
    """Lines that come first: FP32 itself knows nothing of the samples, so INT8 is not to blame; truths are missing."""
    why = why_not_worth_judging(reference)
    return ((f"before INT8 is judged: {why}.",) if why else ()) + truth_notes(reference)


def truth_notes(reference: Predictions) -> tuple[str, ...]:
    """One line where some samples have a truth and others have none: then none is judged by it."""
    scores = next(iter(reference.scores.values()), None)
    if scores is None or not np.isnan(scores).any() or np.isnan(scores).all():
        return ()
    rows = np.unique([int(name.partition(":")[0]) for name in reference.sample_id[np.isnan(scores)].tolist()])
    return (
        f"{len(rows)} of the samples have no truth (the first is row {rows[0]}, counted from 0), so all are judged by "
        "what the reference says. Fill in what is missing or remove those rows.",
    )


def _repeated(reference: Predictions) -> str | None:
    """One and the same sample, many times: what a file of zeroed images or rows comes to."""
    variants = len(np.unique(reference.groups["corruption"])) if "corruption" in reference.groups else 1
    samples = len(reference) / variants
    sources, counts = np.unique(reference.source_id, return_counts=True)
    same = reference.source_id == sources[counts.argmax()]
    alike = counts.max() / variants
    # Equal rows are common in tables; equal rows of several labels in this number are not.
    suspicious = _ALIKE if len(np.unique(reference.label[same])) > 1 else _MOSTLY
    if alike < _FEWEST or alike <= suspicious * samples:
        return None
    return (
        f"{alike:.0f} of {samples:.0f} samples are one and the same; expected samples that differ. Look at the data "
        "(are the samples empty or damaged?)"
    )


def _alike(reference: Predictions, sources: int) -> str | None:
    """Identical outputs for different samples."""
    same = _most_frequent_output(reference)
    if same is None:
        return None
    alike = len(np.unique(reference.source_id[same]))
    name = reference.identity["model"]["name"]
    if same.all():
        return (
            f"{name} gives identical outputs for all {sources} original samples; expected outputs that depend on the "
            "input. Look at the samples (are they empty?) and at the preprocessing"
        )
    suspicious, wrong = _MOSTLY, ""
    if reference.labelled and measure_of(reference).binary:
        wrong = ", and is wrong on most of them"
        # What a saturated classifier gives alike it also gets right; what an empty sample gets is right by chance.
        suspicious = _ALIKE if scores_of(reference, reference)[same].mean() < 0.5 else 1.0
    if alike >= _FEWEST and alike > suspicious * sources:
        return (
            f"{name} gives identical outputs for {alike} of {sources} original samples{wrong}; expected outputs that "
            "depend on the input. Look at the samples (are they empty or damaged?)"
        )
    return None


def _most_frequent_output(reference: Predictions) -> npt.NDArray[np.bool_] | None:
    """bool, (N,): the rows that have the output that most rows have; None where what was kept cannot tell them apart.

    A class alone cannot: many samples of one class have other outputs each.
    """
    kept = [values for values in (reference.certainty, reference.signal_energy) if values is not None]
    numbers = [np.asarray(values, dtype=np.float64) for values in kept if not np.isnan(values).any()]
    if reference.outputs is not None:
        numbers += [np.asarray(values, dtype=np.float64) for values in reference.outputs.T[:_COLUMNS]]
    if not numbers:
        return None
    if reference.code is not None:
        numbers.append(reference.code.astype(np.float64))
    _, codes = np.unique(np.stack(numbers, axis=1), axis=0, return_inverse=True)
    codes = codes.reshape(-1)
    found: npt.NDArray[np.bool_] = codes == np.bincount(codes).argmax()
    return found


def _at_chance(reference: Predictions, sources: int, confidence: float) -> str | None:
    """Predictions that have nothing to do with the labels: no agreement beyond chance (Cohen 1960, kappa)."""
    code = reference.code
    if code is None:
        return None
    right = float((code == reference.label).mean())
    classes = np.union1d(reference.label, code)
    labels = np.array([(reference.label == one).mean() for one in classes])
    if (labels == 1.0).any():
        return None  # One class: whatever is right is right on all of it, and chance cannot be told.
    predicted = np.array([(code == one).mean() for one in classes])
    chance = float(labels @ predicted)
    error = math.sqrt(chance * (1.0 - chance) / sources)
    if right - chance > one_sided_quantile(confidence) * error:
        return None
    name = reference.identity["model"]["name"]
    said = f"{name} is right on {100 * right:.1f} % of the samples, by chance it would be on {100 * chance:.1f} %"
    if (predicted == 1.0).any():
        said = f"{name} predicts the same class for all {sources} original samples, which have several labels"
    return f"{said}; expected a model that is better than chance"


def _worth_nothing(reference: Predictions, sources: int, confidence: float) -> str | None:
    """Graded answers that are as good as none."""
    measure = measure_of(reference)
    if not reference.labelled or measure.binary:
        return None
    average = float(scores_of(reference, reference).mean())
    if average > _NOTHING:
        return None
    name = reference.identity["model"]["name"]
    return f"{name} has a mean {measure.name} of {100 * average:.1f} %; expected answers that can get worse"


def _below_what_is_promised(reference: Predictions, confidence: float) -> str | None:
    """An average on clean samples far below "expected_score" of the specification."""
    promised = (reference.identity.get("preprocessing") or {}).get("expected_score")
    if promised is None or not reference.labelled:
        return None
    corruption = reference.groups.get("corruption")
    clean = np.ones(len(reference), np.bool_) if corruption is None else corruption == "clean"
    if not clean.any():
        return None
    scores = scores_of(reference, reference)[clean]
    error = float(scores.std()) / math.sqrt(len(np.unique(reference.source_id[clean])))
    average = float(scores.mean())
    if average + one_sided_quantile(confidence) * error >= promised - _FAR_BELOW:
        return None
    return (
        f"{reference.identity['model']['name']} has {100 * average:.1f} % {measure_of(reference).name} on clean "
        f'samples, and its specification promises {100 * promised:g} % ("expected_score")'
    )


def _causes(reference: Predictions) -> str:
    """What to look at, the cause that was found out first."""
    identity = reference.identity
    code = reference.code if measure_of(reference) == ACCURACY else None
    if code is not None and (found := other_order(code, reference.label, reference.source_id)):
        return found[0].upper() + found[1:]
    where = "the preprocessing"
    if str(identity.get("task", "")).startswith("image"):
        where += " (scale, mean and std, the order of the channels: RGB or BGR, the size)"
    head = identity.get("head")
    if head == "detection":
        return f"Look at the decoder, at the order of the classes, at box_format and box_units, and at {where}"
    return f"Look at the order of the labels, at {where} and at the samples"
