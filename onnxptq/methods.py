"""Methods: presets of a recipe by name. Every range method is one; presets that set more than the range are others."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from onnxptq.calibrators import CalibrationSet, meant_for
from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.recipe import AUGMENTATIONS, CLEANED, Environment, Recipe, Step, Value
from onnxptq.registry import Registry
from onnxptq.tasks import Task


@dataclass(frozen=True)
class Method:
    """A preset of a recipe.

    Attributes:
        name: as in `--method`.
        summary: what it does, one line.
        source: where it comes from.
        when: which case it is good for, one line.
        apply: `(recipe, **parameters) -> recipe`.
        parameters: names and defaults.
    """

    name: str
    summary: str
    source: str
    when: str
    apply: Callable[..., Recipe]
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)


METHODS: Registry[Method] = Registry(
    "method",
    "onnxptq.methods",
    (
        "onnxptq.quantization.adaround",
        "onnxptq.quantization.bias_correction",
        "onnxptq.quantization.equalization",
        "onnxptq.quantization.renormalized",
        "onnxptq.quantization.robust",
        "onnxptq.quantization.smoothing",
    ),
)


def all_methods() -> list[Method]:
    """Range methods and presets, range methods first."""
    ranges = [Method(m.name, m.summary, m.source, m.when, _ranges_only(m.name), m.parameters) for m in RANGE_METHODS]
    return [*ranges, *METHODS]


def apply_method(text: str, recipe: Recipe, given: Mapping[str, Value | None] | None = None) -> Recipe:
    """The recipe with a method applied to it.

    Args:
        text: a method by name, with parameters where they are not the defaults: "percentile:percentile=99.9".
        recipe: everything that the method leaves alone.
        given: further parameters, None where the user gave none.

    Raises:
        UsageError: an unknown method, or a parameter that it does not have.
    """
    method, parameters = _read(text, given)
    return method.apply(recipe, **parameters)


def method_label(text: str, given: Mapping[str, Value | None] | None = None) -> str:
    """A method and those of its parameters that are not the default, as `apply_method` reads it: for file names.

    Raises:
        UsageError: as `apply_method`.
    """
    method, parameters = _read(text, given)
    changed = [f"{key}={value}" for key, value in sorted(parameters.items()) if method.parameters[key] != value]
    return f"{method.name}:{','.join(changed)}" if changed else method.name


def _read(text: str, given: Mapping[str, Value | None] | None) -> tuple[Method, dict[str, Value]]:
    name, _, rest = text.partition(":")
    known = {method.name: method for method in all_methods()}
    if name not in known:
        raise UsageError(f"unknown method {name!r}. {did_you_mean(name, known)}")
    method = known[name]
    parameters = {**_parse(method, rest), **{k: v for k, v in (given or {}).items() if v is not None}}
    for key in parameters:
        _check_known(method, key)
    return method, parameters


def fitted(recipe: Recipe, task: Task, calibration: str = "") -> Recipe:
    """The recipe for models of one task: the environments "augmentations" and "cleaned" become what fits the task.

    A recipe is made before the task is known, and says in the file which augmentations they were.

    Args:
        recipe: for any task.
        task: the model's.
        calibration: the calibration set as it was asked for, "shifted" say; "" is the recipe's own.
    """
    if calibration:
        recipe = recipe.changed(calibration=str(CalibrationSet.parse(meant_for(calibration, task))))
    environments: list[Environment] = []
    for environment in recipe.environments:
        chains = _chains(environment.shifts, task)
        environments.extend(replace(environment, shifts=chain) for chain in chains)
    return recipe.changed(environments=tuple(dict.fromkeys(environments)))


def _chains(shifts: str, task: Task) -> tuple[str, ...]:
    if shifts == AUGMENTATIONS:
        return task.augmentations()
    return (task.cleaned(),) if shifts == CLEANED else (shifts,)


def _check_known(method: Method, key: str) -> None:
    if key not in method.parameters:
        hint = did_you_mean(key, method.parameters)
        raise UsageError(f"the method {method.name!r} has no parameter {key!r}. {hint}")


def _ranges_only(name: str) -> Callable[..., Recipe]:
    def apply(recipe: Recipe, **parameters: Value) -> Recipe:
        return recipe.changed(ranges=Step.of(name, **parameters))

    return apply


def _parse(method: Method, text: str) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"parameters of a method are written key=value, got {pair!r}.")
        _check_known(method, key)
        values[key] = _typed(method, key, value)
    return values


def _typed(method: Method, key: str, text: str) -> Value:
    default = method.parameters[key]
    if isinstance(default, str):
        return text
    kind = int if isinstance(default, int) else float
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        expected = "a whole number" if kind is int else "a number"
        raise UsageError(f"{method.name}:{key} must be {expected}, got {text!r}.")
    return value


def unused_calibration(given: Recipe, made: Recipe, label: str) -> tuple[str, ...]:
    """One line where a method calibrates on a set of its own and another one was asked for."""
    if given.calibration in (made.calibration, Recipe().calibration):
        return ()
    return (f"{label} calibrates on the set {made.calibration}; {given.calibration} was not used.",)


def method_warnings(recipe: Recipe) -> tuple[str, ...]:
    """What a user should know about the method that she asked for."""
    ranges = recipe.ranges
    if ranges.name == "entropy" and int(ranges.keywords.get("bins", 128)) <= 128:
        return (
            "entropy with 128 bins has a single candidate and gives the same ranges as minmax (ONNX Runtime's default "
            "too). For a real search use --entropy-bins 2048.",
        )
    return ()
