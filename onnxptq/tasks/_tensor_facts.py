"""What is known of the numbers of tensor inputs: declared in the specification, or told by the graph and the types.

    {"input_range": {"x": [-0.8, 4]}, "kind": {"x": "log-mel"}, "normalizer": {"x": {"mean": [...], "std": [...]}}}

Each may be given without the input's name where the model has one float input. What is declared wins over what the
graph says. The robust methods choose their copies by it, and `audit` its yardsticks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from onnxptq.data.shifts import KINDS, Facts, InputFacts
from onnxptq.data.shifts.tensor import kind_of
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.signature import TensorSpec

FLOATS = ("float32", "float64", "float16")

KEYS = ("input_range", "kind", "normalizer")

BOUNDED = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}
"""Bounds that a type gives; wider integers seldom use all of theirs."""

FULL_SCALE = (-1.0, 1.0)
"""Of waveforms in float, where nobody declares other bounds."""


def facts_of(specification: Mapping[str, Any], inputs: Sequence[TensorSpec]) -> dict[str, InputFacts]:
    """The facts of every input, from the specification first and else from the input itself.

    Raises:
        UsageError: a key names an input that does not exist, or has a wrong value.
    """
    given = {key: _by_input(key, specification.get(key), inputs) for key in KEYS}
    return {
        spec.name: _facts(spec, *(given[key].get(spec.name) for key in KEYS))
        for spec in inputs
        if spec.dtype in FLOATS or spec.dtype in BOUNDED or any(spec.name in values for values in given.values())
    }


def facts_to_json(facts: Facts, inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """The keys that `facts_of` reads, as far as the types do not tell them already."""
    floats = {spec.name: facts[spec.name] for spec in inputs if spec.name in facts and spec.dtype not in BOUNDED}
    found = {
        "input_range": {name: list(one.bounds) for name, one in floats.items() if one.bounds is not None},
        "kind": {name: one.kind for name, one in floats.items()},
        "normalizer": {
            name: {"mean": list(one.means), "std": list(one.deviations), "axis": one.axis}
            for name, one in floats.items()
            if one.standard
        },
    }
    return {key: value for key, value in found.items() if value}


def cleaned(facts: Facts) -> str:
    """What the robust methods do to the drawn set: cut off what lies far outside of the training data's columns."""
    return "cut_outliers@3" if any(one.kind == "table" and one.standard for one in facts.values()) else ""


def copies(facts: Facts) -> tuple[str, ...]:
    """The chains of shifts under which the robust methods copy a set, by what is known of its float inputs.

    Bounds are filled by stretching and mirroring. Where only the training data's distribution is known, samples get it,
    and rows of tables are drawn by it. Where nothing is known there is nothing to fill: samples are widened by half,
    and tables get noise and columns of other rows.
    """
    chains: dict[str, None] = {}
    for one in facts.values():
        chains.update(dict.fromkeys(_copies(one)))
    return tuple(chains)


GUESSED_COPIES = ("widen@2", "tensor_noise@3", "impute@3")
"""First shifts of copies that no fact about the input stands behind: a model may never see the like."""


def _copies(one: InputFacts) -> tuple[str, ...]:
    if one.kind == "table":
        return ("normal@3",) if one.standard else ("tensor_noise@3", "impute@3")
    fill = "stretch@3" if one.bounds is not None else "restandardize@3" if one.standard else "widen@2"
    return (fill, f"{fill}+negate@3", f"{fill}+time_flip@3", f"{fill}+tensor_noise@3")


_OF_TABLES = ("impute", "missing_values", "wrong_unit", "column_shift")


def why_not(shift: str, facts: Facts) -> str | None:
    """Why a shift of tensors changes nothing in these inputs, or None where it does."""
    kinds = {one.kind for one in facts.values()}
    if shift == "stretch" and all(one.bounds is None for one in facts.values()):
        return "stretch fills the bounds of an input, and nobody knows them: declare them (--input-range NAME=LOW:HIGH)"
    if shift in ("normal", "cut_outliers", "restandardize") and not any(one.standard for one in facts.values()):
        return (
            f"{shift} needs the training data's mean and deviation, and neither the graph nor the specification has "
            "them (normalizer, docs/data.md)"
        )
    if shift == "widen" and kinds <= {"table"}:
        return "widen stretches a sample as a whole, and the columns of a table are of different units"
    if shift in _OF_TABLES and kinds.isdisjoint({"table"}):
        return f"{shift} changes columns of tables, and the model takes none"
    if shift in ("time_flip", "restandardize") and kinds <= {"table"}:
        return f"{shift} is for samples with a time or an extent, and a row of a table has none"
    return None


def _facts(spec: TensorSpec, bounds: Any, kind: Any, normalizer: Any) -> InputFacts:
    kind = kind or kind_of(spec.shape[1:])
    if kind not in KINDS:
        raise UsageError(f"kind of the input {spec.name!r} must be one of {', '.join(KINDS)}, got {kind!r}.")
    limits = BOUNDED.get(spec.dtype) if bounds is None else _bounds(spec.name, bounds)
    if limits is None and kind == "audio":
        limits = FULL_SCALE
    if normalizer is not None:
        return InputFacts(kind, limits, *_normalizer(spec, normalizer))
    known = spec.normalizer
    if known is None or not _fits(len(known.mean), known.axis, spec):
        return InputFacts(kind, limits)
    return InputFacts(kind, limits, known.mean, known.deviation, known.axis)


def _by_input(key: str, value: Any, inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    if value is None:
        return {}
    names = [spec.name for spec in inputs]
    floats = [spec.name for spec in inputs if spec.dtype in FLOATS]
    of_inputs = isinstance(value, Mapping) and not (key == "normalizer" and {"mean", "std"} & value.keys())
    if of_inputs:
        for name in value:
            if name not in names:
                raise UsageError(f"{key} names the input {name!r}, which the model lacks. {did_you_mean(name, names)}")
        return dict(value)
    if len(floats) != 1:
        raise UsageError(f'{key} must name its input, such as {{"{key}": {{"{names[0]}": ...}}}}; got {value!r}.')
    return {floats[0]: value}


def _bounds(name: str, value: Any) -> tuple[float, float]:
    if (
        not isinstance(value, Sequence)
        or len(value) != 2
        or not all(isinstance(end, int | float) and math.isfinite(end) for end in value)
        or not value[0] < value[1]
    ):
        raise UsageError(
            f"input_range of the input {name!r} must be its least and its greatest number, such as [0, 1]; got "
            f"{value!r}."
        )
    return float(value[0]), float(value[1])


def _normalizer(spec: TensorSpec, value: Any) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    expected = '{"mean": [...], "std": [...]}, one number or one a column, std above 0'
    try:
        means, deviations = (
            tuple(map(float, one if isinstance(one, Sequence) else (one,))) for one in (value["mean"], value["std"])
        )
        axis = int(value.get("axis", -1 if len(spec.shape) <= 2 else 1 - len(spec.shape)))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise UsageError(f"normalizer of the input {spec.name!r} must be {expected}; got {value!r}.") from None
    finite = all(map(math.isfinite, (*means, *deviations))) and all(one > 0 for one in deviations)
    if not means or len(means) != len(deviations) or not finite or not _fits(len(means), axis, spec):
        raise UsageError(
            f"normalizer of the input {spec.name!r} must be {expected}; got {len(means)} means and {len(deviations)} "
            f"deviations along axis {axis}, for samples of shape {spec.shape[1:]}."
        )
    return means, deviations, axis


def _fits(count: int, axis: int, spec: TensorSpec) -> bool:
    sample = spec.shape[1:]
    return count == 1 or (-len(sample) <= axis < 0 and sample[axis] in (None, count))
