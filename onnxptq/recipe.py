"""The recipe: everything that makes an INT8 model from an FP32 one, composable, serialisable, comparable by digest."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from onnxptq.cache import content_key
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.text_files import read_json, read_text
from onnxptq.toml_tables import toml_value

FORMAT = 1

Value = str | int | float | bool


@dataclass(frozen=True)
class Step:
    """A plug-in by name, with its parameters as (name, value) pairs sorted by name."""

    name: str
    parameters: tuple[tuple[str, Value], ...] = ()

    @staticmethod
    def of(name: str, **parameters: Value) -> Step:
        """A step from keyword arguments."""
        return Step(name, tuple(sorted(parameters.items())))

    @property
    def keywords(self) -> dict[str, Value]:
        """The parameters as a dictionary."""
        return dict(self.parameters)


AUGMENTATIONS = "augmentations"
"""The shifts of an environment that stands for one each of the task's own augmentations (`methods.fitted`)."""

CLEANED = "cleaned"
"""The shifts of an environment that stands for the drawn set without what the task takes out of it (`Task.cleaned`)."""


@dataclass(frozen=True)
class Environment:
    """A copy of the calibration set under a chain of shifts ("" is the set as drawn), of its first `size` samples."""

    shifts: str = ""
    size: int | None = None


@dataclass(frozen=True)
class Recipe:
    """What makes an INT8 model. Two models of one source with equal recipe digests are the same model.

    Attributes:
        calibration: the calibration set by its canonical name, for example "dark@3" or "imbalanced:ratio=100+mixup".
        size: samples drawn, or None for the default of the set.
        seed: decides which samples are drawn and what random shifts do.
        environments: copies of the calibration set that the range method sees beside each other.
        weight_transforms: changes of the FP32 graph before it is quantized, in this order.
        ranges: the range method and its parameters.
        bounds: rules that cut or widen ranges after the method chose them, in this order.
        float_nodes: names of nodes that stay in float.
        float_outputs: the graph's outputs are left unquantized (a fused INT8 Gemm with float output).
        float_normalizers: nodes that only standardize an input stay in float (`graphs.normalizers`).
        guarded: steps that make the calibration samples worse than MinMax are left out (`quantization.harm`).
        quantize_post_processing: a detector's post-processing is quantized like anything else; by default it stays in
            float where it joins two quantities (`graphs.post_processing`).
        target: what the deployment needs of the graph.
        remainder: what is not quantized computes in "fp32", or in "fp16" (`quantization.remainder`).
        engine: what computes the ranges: "stock" is ONNX Runtime's calibrators, "one-pass" ours.
    """

    calibration: str = "clean"
    size: int | None = None
    seed: int = 0
    environments: tuple[Environment, ...] = (Environment(),)
    weight_transforms: tuple[Step, ...] = ()
    ranges: Step = field(default_factory=lambda: Step("minmax"))
    bounds: tuple[Step, ...] = ()
    float_nodes: tuple[str, ...] = ()
    float_outputs: bool = False
    float_normalizers: bool = False
    guarded: bool = False
    quantize_post_processing: bool = False
    target: str = "cpu"
    remainder: str = "fp32"
    engine: str = "one-pass"

    @property
    def digest(self) -> str:
        """SHA-256 of the recipe, 64 hexadecimal digits."""
        return content_key("recipe", **self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """The recipe as JSON types. `from_dict` is its inverse."""
        values: dict[str, Any] = {"format": FORMAT, **asdict(self)}
        values["environments"] = [asdict(environment) for environment in self.environments]
        values["weight_transforms"] = [_step_to_dict(step) for step in self.weight_transforms]
        values["ranges"] = _step_to_dict(self.ranges)
        values["bounds"] = [_step_to_dict(step) for step in self.bounds]
        values["float_nodes"] = list(self.float_nodes)
        for key in ("guarded", "quantize_post_processing"):
            if not values[key]:
                del values[key]  # Recipes of before keep their digest.
        if self.remainder == "fp32":
            del values["remainder"]
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote. Raises UsageError on an unknown key, format or type."""
        if not isinstance(values, Mapping):
            raise UsageError(f"a recipe must be a table of keys and values, got {type(values).__name__}.")
        values = dict(values)
        written = values.pop("format", FORMAT)
        if written != FORMAT:
            raise UsageError(f"the recipe has format {written}, this version reads format {FORMAT}. Update onnxptq.")
        known = {f.name for f in fields(Recipe)}
        for key in values:
            if key not in known:
                raise UsageError(f"unknown key {key!r} in the recipe. {did_you_mean(key, known)}")
        convert: dict[str, Any] = {
            "environments": _environment,
            "weight_transforms": _step,
            "bounds": _step,
            "float_nodes": _node,
        }
        for key in convert:
            if key in values:
                values[key] = tuple(convert[key](item) for item in _list(key, values[key]))
        if "ranges" in values:
            values["ranges"] = _step(values["ranges"])
        recipe = Recipe(**values)
        _check(recipe)
        return recipe

    @staticmethod
    def read(path: Path) -> Recipe:
        """A recipe from a `.toml` or `.json` file. Raises UsageError when it cannot be read as one."""
        if path.suffix.lower() == ".json":
            values = read_json(path, "recipe", UsageError)
        else:
            try:
                values = tomllib.loads(read_text(path, "recipe", UsageError))
            except (ValueError, RecursionError) as error:
                raise UsageError(f"the recipe {path} is not TOML: {error}.") from error
        try:
            return Recipe.from_dict(values)
        except UsageError as error:
            raise UsageError(f"the recipe {path}: {error}") from error

    def to_toml(self) -> str:
        """The recipe as TOML, for `onnxptq quantize --recipe FILE`."""
        lines = []
        for key, value in self.to_dict().items():
            if value is not None:
                lines.append(f"{key} = {toml_value(value)}")
        return "\n".join(lines) + "\n"

    def changed(self, **changes: Any) -> Recipe:
        """A copy with some fields changed."""
        return replace(self, **changes)


def check_parameters(what: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises UsageError for a parameter that a plug-in does not have, or that is of another type than its default.

    Args:
        what: the plug-in, for messages: "the range method 'percentile'".
        given: parameters by name.
        defaults: those that it has.
    """
    for name, value in given.items():
        if name not in defaults:
            raise UsageError(f"{what} has no parameter {name!r}. {did_you_mean(name, defaults)}")
        kind = type(defaults[name])
        accepted, expected = _PARAMETER_TYPES.get(kind, ((object,), ""))
        # A truth value is an int to Python; 0 and 1 may stand for one, but not the other way round.
        if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in accepted):
            raise UsageError(f"the parameter {name!r} of {what} must be {expected}, got {value!r}.")
        if isinstance(value, float) and not math.isfinite(value):
            raise UsageError(f"the parameter {name!r} of {what} must be a finite number, got {value}.")


_PARAMETER_TYPES: dict[type, tuple[tuple[type, ...], str]] = {
    bool: ((bool, int), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
}
"""Type of a default -> types that are accepted, and what they are called."""


def _step_to_dict(step: Step) -> dict[str, Any]:
    return {"name": step.name, **step.keywords}


def _step(value: Any) -> Step:
    if isinstance(value, str):
        return Step(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise UsageError(f"a step of a recipe must be a name or a table with a name, got {value!r}.")
    parameters = {key: parameter for key, parameter in value.items() if key != "name"}
    for key, parameter in parameters.items():
        if not isinstance(parameter, str | int | float | bool):
            raise UsageError(f"parameter {key!r} of {value['name']!r} must be a text or a number, got {parameter!r}.")
        if isinstance(parameter, float) and not math.isfinite(parameter):
            raise UsageError(f"parameter {key!r} of {value['name']!r} must be a finite number, got {parameter}.")
    return Step(value["name"], tuple(sorted(parameters.items())))


def _environment(value: Any) -> Environment:
    if isinstance(value, str):
        return Environment(value)
    if not isinstance(value, Mapping) or not set(value) <= {"shifts", "size"}:
        raise UsageError(f"an environment of a recipe has the keys 'shifts' and 'size', got {value!r}.")
    shifts, size = value.get("shifts", ""), value.get("size")
    if not isinstance(shifts, str):
        raise UsageError(f"'shifts' of an environment must be a text such as \"dark@3+blur@2\", got {shifts!r}.")
    _check_size(size, "'size' of an environment")
    return Environment(shifts, size)


def _node(value: Any) -> str:
    if not isinstance(value, str):
        raise UsageError(f"'float_nodes' in the recipe must be names of nodes, got {value!r}.")
    return value


def _list(key: str, value: Any) -> list[Any] | tuple[Any, ...]:
    # A text is iterable too, letter by letter.
    if not isinstance(value, list | tuple):
        raise UsageError(f"{key!r} in the recipe must be a list, got {value!r}.")
    return value


_FLAGS = tuple((flag, bool) for flag in ("float_outputs", "float_normalizers", "guarded", "quantize_post_processing"))


def _check(recipe: Recipe) -> None:
    for key, kind in (
        ("calibration", str),
        ("seed", int),
        ("target", str),
        ("remainder", str),
        ("engine", str),
        *_FLAGS,
    ):
        value = getattr(recipe, key)
        if type(value) is not kind:  # isinstance would take True for a seed.
            raise UsageError(f"{key!r} in the recipe must be {kind.__name__}, got {value!r}.")
    if recipe.seed < 0:
        raise UsageError(f"'seed' in the recipe must not be negative, got {recipe.seed}.")
    _check_size(recipe.size, "'size' in the recipe")
    if not recipe.environments:
        raise UsageError("'environments' in the recipe is empty; leave it out, or name at least one.")
    if len(set(recipe.environments)) < len(recipe.environments):
        raise UsageError("'environments' in the recipe names one of them twice; keep one.")


def _check_size(size: Any, what: str) -> None:
    if size is not None and (type(size) is not int or size < 1):
        raise UsageError(f"{what} must be a positive number of samples, got {size!r}.")
