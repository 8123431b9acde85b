"""The recipe: everything that makes an INT8 model from an FP32 one, composable, serialisable, comparable by digest."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from onnxptq.cache import content_key
from onnxptq.errors import UsageError, did_you_mean

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
        target: what the deployment needs of the graph.
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
    target: str = "cpu"
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
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Recipe:
        """The recipe that `to_dict` wrote. Raises UsageError on an unknown key, format or type."""
        values = dict(values)
        written = values.pop("format", FORMAT)
        if written != FORMAT:
            raise UsageError(f"the recipe has format {written}, this version reads format {FORMAT}. Update onnxptq.")
        known = {f.name for f in fields(Recipe)}
        for key in values:
            if key not in known:
                raise UsageError(f"unknown key {key!r} in the recipe. {did_you_mean(key, known)}")
        convert: dict[str, Any] = {
            "environments": lambda v: tuple(_environment(e) for e in v),
            "weight_transforms": lambda v: tuple(_step(s) for s in v),
            "ranges": _step,
            "bounds": lambda v: tuple(_step(s) for s in v),
            "float_nodes": tuple,
        }
        for key in convert:
            if key in values:
                values[key] = convert[key](values[key])
        recipe = Recipe(**values)
        _check_types(recipe)
        return recipe

    @staticmethod
    def read(path: Path) -> Recipe:
        """A recipe from a `.toml` or `.json` file. Raises UsageError when it cannot be read as one."""
        try:
            text = path.read_text(encoding="utf-8")
            values = json.loads(text) if path.suffix.lower() == ".json" else tomllib.loads(text)
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, tomllib.TOMLDecodeError) as error:
            raise UsageError(f"the recipe {path} cannot be read: {error}") from error
        return Recipe.from_dict(values)

    def to_toml(self) -> str:
        """The recipe as TOML, for `onnxptq quantize --recipe FILE`."""
        lines = []
        for key, value in self.to_dict().items():
            if value is not None:
                lines.append(f"{key} = {_toml(value)}")
        return "\n".join(lines) + "\n"

    def changed(self, **changes: Any) -> Recipe:
        """A copy with some fields changed."""
        return replace(self, **changes)


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
    return Step.of(value["name"], **parameters)


def _environment(value: Any) -> Environment:
    if isinstance(value, str):
        return Environment(value)
    if not isinstance(value, Mapping) or not set(value) <= {"shifts", "size"}:
        raise UsageError(f"an environment of a recipe has the keys 'shifts' and 'size', got {value!r}.")
    return Environment(value.get("shifts", ""), value.get("size"))


def _check_types(recipe: Recipe) -> None:
    for key, kind in (("calibration", str), ("seed", int), ("target", str), ("engine", str), ("float_outputs", bool)):
        if not isinstance(getattr(recipe, key), kind):
            raise UsageError(f"{key!r} in the recipe must be {kind.__name__}, got {getattr(recipe, key)!r}.")
    if recipe.size is not None and (not isinstance(recipe.size, int) or recipe.size < 1):
        raise UsageError(f"'size' in the recipe must be a positive number of samples, got {recipe.size!r}.")
    if not recipe.environments:
        raise UsageError("'environments' in the recipe is empty; leave it out, or name at least one.")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items() if v is not None) + " }"
    return "[" + ", ".join(_toml(item) for item in value) + "]"
