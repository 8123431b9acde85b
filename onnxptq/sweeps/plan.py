"""The plan of a sweep: what is crossed with what, on which model and data. A TOML file, checked when it is read."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

from onnxptq.calibrators import CalibrationSet
from onnxptq.errors import UsageError
from onnxptq.flags import read_preprocessing
from onnxptq.inputs import DataOptions
from onnxptq.methods import apply_method
from onnxptq.quantization.canonical import canonical
from onnxptq.quantization.targets import TARGETS
from onnxptq.recipe import Recipe
from onnxptq.sweeps.study import CellKey
from onnxptq.text_files import read_text
from onnxptq.toml_tables import About, parse_tables, read_tables, tables_schema

FORMAT = 1

BUILTIN = "builtin"
"""What a plan calls the built-in model, which brings its own data."""

_REMEDY = "`onnxptq sweep --init` shows one."

Size = Annotated[int, About(minimum=1)]


@dataclass(frozen=True)
class Reading:
    """How the data is read, as the options of `onnxptq quantize` say it. Left out: what the model carries."""

    image_column: Annotated[str | None, About("Column of the images (or of the input).")] = None
    label_column: Annotated[str | None, About("Column of the labels.")] = None
    skip_bad: Annotated[bool, About("Leave out corrupt samples and count them, instead of stopping.")] = False
    trust_data: Annotated[bool, About("The data may name files anywhere, and unpack to any size.")] = False
    task: Annotated[str | None, About("The task, where the model does not say.")] = None
    preprocessing: Annotated[str | None, About("JSON file with the preprocessing (docs/data.md).")] = None
    size: Annotated[tuple[int, ...], About("Height and width of the input, in pixels.", minimum=1)] = ()
    mean: Annotated[tuple[float, ...], About("Mean for each channel, of values from 0 to 1.")] = ()
    std: Annotated[tuple[float, ...], About("Standard deviation for each channel.")] = ()


@dataclass(frozen=True)
class Plan:
    """A grid: every combination of the lists is one cell.

    Paths are relative to the folder in which the command runs, as on the command line.
    """

    title: Annotated[str, About("What the study is called.")] = "Study"
    models: Annotated[tuple[str, ...], About('FP32 models: paths, or "builtin".')] = (BUILTIN,)
    data: Annotated[str | None, About("Data for calibration and evaluation; the samples are split.")] = None
    calib_data: Annotated[str | None, About("Data for calibration, with eval_data.")] = None
    eval_data: Annotated[str | None, About("Data for evaluation, with calib_data.")] = None
    calibrations: Annotated[tuple[str, ...], About("Calibration sets (onnxptq calibs).")] = ("clean",)
    strategies: Annotated[
        tuple[str, ...],
        About('What is done to each set: shifts are appended, a sampler takes the place of its own; "" is nothing.'),
    ] = ("",)
    methods: Annotated[tuple[str, ...], About("How ranges are chosen (onnxptq methods).")] = ("minmax",)
    targets: Annotated[tuple[str, ...], About("What the graph is for (onnxptq targets).")] = ("cpu",)
    runtimes: Annotated[tuple[str, ...], About("What the models are judged on, as --ep takes it.")] = ("cpu",)
    seeds: Annotated[tuple[int, ...], About("Of the draw of the calibration samples.", minimum=0)] = (0,)
    calib_size: Annotated[int | None, About("Samples in a calibration set. Left out: its own default.", minimum=1)] = (
        None
    )
    eval_size: Annotated[int | None, About("Samples to judge on, at most. Left out: all there are.", minimum=1)] = None
    corruptions: Annotated[
        tuple[str, ...],
        About("Corruptions to judge under, beside clean. Left out: the task's, without families that a set uses."),
    ] = ()
    groups: Annotated[tuple[str, ...], About('Groupings, as in ["label*corruption"].')] = ()
    minimum_samples: Annotated[
        int | None, About("Samples from which a group is judged. Left out: 20. Smaller ones are shown.", minimum=1)
    ] = None
    reading: Reading = field(default_factory=Reading)

    @property
    def grid(self) -> tuple[CellKey, ...]:
        """Every cell, in the order of the lists."""
        axes = (self.models, self.calibrations, self.strategies, self.methods, self.targets, self.runtimes, self.seeds)
        return tuple(CellKey(*values) for values in itertools.product(*axes))

    @property
    def options(self) -> DataOptions:
        """The data and how to read it."""
        from onnxptq.data import Columns

        reading = self.reading
        numbers = {"size": list(reading.size), "mean": list(reading.mean), "std": list(reading.std)}
        given = {key: value for key, value in numbers.items() if value}
        return DataOptions(
            data=self.data,
            calib_data=self.calib_data,
            eval_data=self.eval_data,
            columns=Columns(inputs=(reading.image_column,) if reading.image_column else (), label=reading.label_column),
            skip_bad=reading.skip_bad,
            trust_data=reading.trust_data,
            preprocessing={**(read_preprocessing(reading.preprocessing) if reading.preprocessing else {}), **given},
            task=reading.task,
        )

    @property
    def families(self) -> frozenset[str]:
        """The families of the shifts of all sets and strategies; the default evaluation avoids them."""
        sets = (CalibrationSet.parse(text) for text in (*self.calibrations, *filter(None, self.strategies)))
        return frozenset().union(*(one.families for one in sets))

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON types, without what was left out. `plan_from_dict` is its inverse."""
        values: dict[str, Any] = json.loads(json.dumps({"format": FORMAT, **asdict(self)}))
        values["reading"] = {key: value for key, value in values["reading"].items() if value not in (None, [], False)}
        return {key: value for key, value in values.items() if value not in (None, [], {})}


def load_plan(path: Path) -> Plan:
    """The plan in a TOML file.

    Raises:
        UsageError: no such file, no TOML, no key, an unknown key or name, a value of the wrong type; with the line.
    """
    try:
        text = read_text(path, "plan", UsageError)
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UsageError(f"there is no plan {path}. `onnxptq sweep --init > {path.name}` writes one.") from error
        raise UsageError(f"{error} Expected a TOML file in UTF-8.") from error
    if all(not line.strip() or line.lstrip().startswith("#") for line in text.splitlines()):
        raise UsageError(
            f"the plan {path} is empty. `onnxptq sweep --init > {path.name}` writes one to change; `format = 1` alone "
            "stands for all defaults (docs/formats.md)."
        )
    return parse_plan(text, str(path))


def parse_plan(text: str, name: str = "plan") -> Plan:
    """The plan in TOML `text`; `name` is what messages call it. Raises UsageError as `load_plan` does."""
    return checked(parse_tables(Plan, text, name, what="plan", format_version=FORMAT, remedy=_REMEDY), name)


def plan_from_dict(values: Mapping[str, Any], name: str) -> Plan:
    """The plan that `Plan.to_dict` wrote. Raises UsageError as `load_plan` does."""
    return checked(read_tables(Plan, values, "", name, what="plan", format_version=FORMAT), name)


def checked(plan: Plan, name: str) -> Plan:
    """The plan. Raises UsageError for a name that there is not, an empty list, or an entry that stands there twice."""
    lists: dict[str, Sequence[Any]] = {
        key: getattr(plan, key)
        for key in ("models", "calibrations", "strategies", "methods", "targets", "runtimes", "seeds")
    }
    for key, values in lists.items():
        if not values:
            raise UsageError(
                f"{name}: {key!r} is empty, so there is nothing to do. Leave it out, or name at least one."
            )
        twice = next((value for value in values if list(values).count(value) > 1), None)
        if twice is not None:
            raise UsageError(f"{name}: {key!r} names {twice!r} twice. Keep one of them.")
    for text in (*plan.models, plan.data, plan.calib_data, plan.eval_data):
        if text is not None and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(f"{name}: the name {text!r} is no UTF-8, and a study keeps names. Rename the file.")
    try:
        for calibration, strategy in itertools.product(plan.calibrations, plan.strategies):
            compose(calibration, strategy)
        for method in plan.methods:
            canonical(apply_method(method, Recipe()))
        for target in plan.targets:
            TARGETS.get(target)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    return plan


def compose(calibration: str, strategy: str) -> str:
    """The calibration set under a strategy: shifts are appended, a sampler takes the place of the set's own.

    Raises:
        UsageError: an unknown name.
    """
    base = CalibrationSet.parse(calibration)
    if not strategy:
        return str(base)
    added = CalibrationSet.parse(strategy, "strategy")
    drawn = added if added.sampler != "clean" or added.foreign else base
    return str(CalibrationSet(drawn.sampler, drawn.parameters, drawn.foreign, base.shifts + added.shifts))


def recipe_of(plan: Plan, key: CellKey) -> Recipe:
    """What makes the INT8 model of a cell."""
    calibration = compose(key.calibration, key.strategy)
    base = Recipe(calibration=calibration, size=plan.calib_size, seed=key.seed, target=key.target)
    return canonical(apply_method(key.method, base))


def schema_text() -> str:
    """The text of `plan.schema.json`: JSON Schema (draft 2020-12) of a plan."""
    schema = tables_schema(
        Plan,
        title="Plan of onnxptq sweep",
        description="A grid: every combination of the lists is one cell.",
        format_version=FORMAT,
    )
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"
