"""The split rule: which samples calibrate and which ones evaluate, so that no sample is ever on both sides.

1. Two sources: the first calibrates, the second evaluates.
2. One source with named splits: train (else validation) calibrates; test evaluates (else validation, if it does not
   calibrate). A split without labels evaluates only where no labelled one can.
3. One source with a single split: by content. A sample calibrates when the hash of the seed and its fingerprint lies
   below the fraction, so the order of the rows does not matter, a sample stays on its side when others come or go,
   and duplicates lie together.
4. Always: a calibration sample whose fingerprint occurs on the evaluation side is dropped.
5. A model carries the marks of the samples that calibrated it. They are never judged again, also where the source was
   changed since.

The rule that was used is JSON and replays on the same source.
"""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data._raw import SPLIT_NAMES
from onnxptq.data.dataset import Dataset
from onnxptq.data.sources import Source
from onnxptq.errors import DataError, UsageError

CALIBRATION_ORDER = ("train", "validation")
EVALUATION_ORDER = ("test", "validation")

_NAME_BOTH = "Name the two sides yourself with --calib-data and --eval-data."
_NOTHING_LEFT = (
    "nothing of {} is left to evaluate on: the model was calibrated on all of it. Give other data, or quantize again "
    "without --no-evaluate."
)


@dataclass(frozen=True)
class CalibrationAndEvaluation:
    """Two datasets without a common fingerprint.

    Attributes:
        calibration: samples to draw calibration sets from.
        evaluation: samples to judge models on.
        rule: how they were told apart, as JSON: "kind" ("named", "hash" or "sources") and its parameters, and
            "dropped", the number of calibration samples that evaluation has too.
    """

    calibration: Dataset
    evaluation: Dataset
    rule: Mapping[str, Any]


def split_source(source: Source, *, seed: int, fraction: float = 0.5) -> CalibrationAndEvaluation:
    """Splits one source by rule 2 or 3.

    Args:
        source: with named splits or without.
        seed: decides the sides where the source has a single split.
        fraction: the expected share of calibration there, between 0 and 1.

    Raises:
        DataError: the splits are not known, or one side would be empty.
        UsageError: `fraction` is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the calibration fraction must be between 0 and 1, got {fraction}.")
    if len(source.splits) == 1:
        return replay({"kind": "hash", "seed": seed, "fraction": fraction}, source)
    calibration = _first(source, CALIBRATION_ORDER)
    evaluation = _evaluation_split(source, without=calibration)
    if calibration is None or evaluation is None:
        raise DataError(
            f"{source.name} has the splits {', '.join(source.splits)}; expected train or validation to calibrate on "
            f"and test or validation to evaluate on. {_NAME_BOTH}"
        )
    return replay({"kind": "named", "calibration": calibration, "evaluation": evaluation}, source)


def split_sources(calibration: Source, evaluation: Source) -> CalibrationAndEvaluation:
    """Takes the two sides from two sources; of named splits, the one that fits the side best (rule 1).

    Raises:
        DataError: nothing is left to calibrate on.
    """
    first = _first(calibration, CALIBRATION_ORDER) or next(iter(calibration.splits))
    second = _evaluation_split(evaluation, without=None) or next(iter(evaluation.splits))
    rule = {"kind": "sources", "calibration": first, "evaluation": second}
    return _sides(calibration.splits[first], evaluation.splits[second], rule)


def calibration_only(source: Source) -> tuple[Dataset, Mapping[str, Any]]:
    """All of the source for calibration (of named splits: train, else validation, else the first), and that rule."""
    name = _first(source, CALIBRATION_ORDER) or next(iter(source.splits))
    return source.splits[name], {"kind": "all", "calibration": name}


def replay(rule: Mapping[str, Any], source: Source) -> CalibrationAndEvaluation:
    """The two sides that `rule` made of this source.

    Raises:
        DataError: the rule needs splits that the source does not have, or one side is empty.
    """
    if rule["kind"] == "hash":
        if len(source.splits) != 1:
            raise DataError(
                f"{source.name} has the splits {', '.join(source.splits)}, but the rule is for a single one."
            )
        (dataset,) = source.splits.values()
        side = _calibrates(dataset.fingerprints, int(rule["seed"]), float(rule["fraction"]))
        return _sides(dataset.select(np.flatnonzero(side)), dataset.select(np.flatnonzero(~side)), rule)
    if rule["kind"] != "named":
        raise DataError(f"the split of kind {rule['kind']!r} cannot be replayed on one source. {_NAME_BOTH}")
    for name in (rule["calibration"], rule["evaluation"]):
        if name not in source.splits:
            raise DataError(f"{source.name} has no split {name!r}, but {', '.join(map(repr, source.splits))}.")
    return _sides(source.splits[rule["calibration"]], source.splits[rule["evaluation"]], rule)


@dataclass(frozen=True)
class CalibratedOn:
    """What a model says of the data that calibrated it.

    Attributes:
        digest: `Source.digest` of the source, or None.
        rule: how the source was split, or None.
        used: `marks` of the samples that were drawn; "" in files that do not say it.
    """

    digest: str | None
    rule: Mapping[str, Any] | None
    used: str = ""

    def holds(self, dataset: Dataset) -> npt.NDArray[np.bool_]:
        """bool, (N,): which samples were drawn to calibrate the model."""
        return np.isin(_marks(dataset.fingerprints), [self.used[i : i + 8] for i in range(0, len(self.used), 8)])

    def changed(self, source: Source) -> bool:
        """Whether a source has samples that calibrated the model, and is not what it was then.

        Samples came or went, or labels and groups were named that were not named before.
        """
        return self.digest != source.digest and any(self.holds(split).any() for split in source.splits.values())


def marks(fingerprints: npt.NDArray[np.str_]) -> str:
    """Eight characters (48 bits in base64) a distinct fingerprint, sorted: what a model says of its own samples.

    Of a million other samples, one is taken for one of a thousand with a probability below 1e-5.
    """
    return "".join(np.unique(_marks(fingerprints)).tolist())


def _marks(fingerprints: npt.NDArray[np.str_]) -> npt.NDArray[np.str_]:
    return np.array(
        [b64encode(hashlib.blake2b(one.encode(), digest_size=6).digest()).decode() for one in fingerprints.tolist()],
        dtype="U8",
    )


def without_calibration(source: Source, model: CalibratedOn | None) -> Dataset:
    """The samples of a source to evaluate a model on: all of them, minus those that calibrated the model.

    Of named splits it is the one for evaluation (test, else validation, else train), or the first of others. A source
    that was changed since is split by the same rule where that can be, and loses what calibrated the model in any case;
    another source, which has none of those samples, is used whole.

    Args:
        source: what to evaluate on.
        model: what the model says of its calibration; None where it says nothing.

    Raises:
        DataError: the model was calibrated on all of it.
    """
    name = _evaluation_split(source, without=None) or next(iter(source.splits))
    if model is None:
        return source.splits[name]
    try:
        if model.rule is not None and model.digest == source.digest:
            dataset = _not_used(source, model.rule)
            if dataset is not None:
                return dataset  # By the rule no sample of it calibrated: there is nothing to look up.
            if not model.used:
                raise DataError(_NOTHING_LEFT.format(source.name))
        else:
            dataset = _by_the_same_rule(source, model.rule) if model.changed(source) else None
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"the model says in a way that cannot be read how {source.name} was split ({type(error).__name__}: "
            f"{error}). Quantize it again, or give other data."
        ) from error
    dataset = dataset or source.splits[name]
    rest = dataset.select(np.flatnonzero(~model.holds(dataset)))
    if not len(rest):
        raise DataError(_NOTHING_LEFT.format(source.name))
    return rest


def _by_the_same_rule(source: Source, rule: Mapping[str, Any] | None) -> Dataset | None:
    """The evaluation side of a source that was changed since, or None where the rule does not fit it any more."""
    if rule is None or (rule["kind"] == "hash") != (len(source.splits) == 1):
        return None
    try:
        return _not_used(source, rule)
    except DataError:
        return None  # Splits were renamed, or one side is empty: what calibrated is taken out one by one.


def _not_used(source: Source, rule: Mapping[str, Any]) -> Dataset | None:
    """The evaluation side by the rule, or None where the split that calibrated is the only one."""
    if rule["kind"] in ("hash", "named"):
        return replay(rule, source).evaluation
    # All of the calibration split was used, and the evaluation samples came from elsewhere or from nowhere.
    used = rule["calibration"]
    rest = _evaluation_split(source, without=used) or next((n for n in source.splits if n != used), None)
    if rest is None:
        return None
    return _sides(source.splits[used], source.splits[rest], rule).evaluation


def _sides(calibration: Dataset, evaluation: Dataset, rule: Mapping[str, Any]) -> CalibrationAndEvaluation:
    shared = np.isin(calibration.fingerprints, evaluation.fingerprints)
    if len(evaluation) == 0:
        raise DataError(
            f"no sample of {evaluation.source} is left to evaluate on ({len(calibration)} in all). "
            f"Give more data. {_NAME_BOTH}"
        )
    kept = calibration.select(np.flatnonzero(~shared))
    if len(kept) == 0:
        reason = f"all {len(shared)} samples are on the evaluation side too" if len(shared) else "too few samples"
        raise DataError(
            f"no sample of {calibration.source} is left to calibrate on: {reason}. Give more data. {_NAME_BOTH}"
        )
    return CalibrationAndEvaluation(kept, evaluation, {**rule, "dropped": int(shared.sum())})


def _calibrates(fingerprints: npt.NDArray[np.str_], seed: int, fraction: float) -> npt.NDArray[np.bool_]:
    hashes = [
        int.from_bytes(hashlib.blake2b(f"{seed}|{fingerprint}".encode(), digest_size=8).digest(), "big")
        for fingerprint in fingerprints.tolist()
    ]
    return np.array([value < fraction * 2**64 for value in hashes], np.bool_)


def _first(source: Source, order: Sequence[str]) -> str | None:
    """The source's own name of the first split in `order` that it has."""
    known = {SPLIT_NAMES.get(name.lower(), ""): name for name in reversed(list(source.splits))}
    return next((known[name] for name in order if name in known), None)


def _evaluation_split(source: Source, without: str | None) -> str | None:
    splits = {name: dataset for name, dataset in source.splits.items() if name != without}
    labelled = {name: dataset for name, dataset in splits.items() if dataset.labels is not None}
    order = EVALUATION_ORDER if without is not None else (*EVALUATION_ORDER, "train")
    return _first(Source(source.name, labelled), order) or _first(Source(source.name, splits), order)
