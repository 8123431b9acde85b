"""Plans to start from: what a study of some size crosses, as far as it fits the model and its data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSet
from onnxptq.data import Dataset
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.gates.policy import Samples
from onnxptq.inputs import resolve_for_quantization
from onnxptq.methods import all_methods
from onnxptq.sweeps.plan import BUILTIN, FORMAT, Plan, checked, compose
from onnxptq.tasks import Task
from onnxptq.toml_tables import toml_value


@dataclass(frozen=True)
class Preset:
    """What a study of one size crosses.

    Attributes:
        name: as after `--preset`.
        summary: one line.
        calibrations, strategies, methods, seeds, corruptions, eval_size: as in a plan; what does not fit the model or
            the data is left out.
    """

    name: str
    summary: str
    calibrations: tuple[str, ...]
    strategies: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    corruptions: tuple[str, ...] = ()
    eval_size: int | None = None


_TENSOR_SETS = ("scale@3", "tensor_noise@3")
"""Kept where the input is a plain tensor, to which no image shift applies."""

PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="quick",
            summary="minutes: the sets that hurt most, the usual methods, one remedy",
            calibrations=("clean", "dark@3", "contrast@3", "noisy", "imbalanced", *_TENSOR_SETS),
            strategies=("", "autocontrast"),
            methods=("minmax", "percentile", "entropy:bins=2048", "robust"),
            seeds=(0,),
            corruptions=("fog@3", "motion_blur@3"),
        ),
        Preset(
            name="paper",
            summary="the paper's three questions: calibration set, paradigm, augmentation and sampling; three seeds",
            calibrations=("clean", "dark@3", "contrast@3", "blur@5", "noisy", "imbalanced", "random", *_TENSOR_SETS),
            strategies=("", "autocontrast", "diverse"),
            methods=("minmax", "entropy:bins=2048", "percentile", "mse", "robust"),
            seeds=(0, 1, 2),
            corruptions=("fog@3", "motion_blur@3", "impulse@3"),
            eval_size=2000,
        ),
        Preset(
            name="full",
            summary="hours: every kind of set, every method, five seeds, all samples",
            calibrations=(
                *("clean", "dark@1", "dark@3", "bright@3", "contrast@3", "invert@5", "blur@3", "blur@5", "noisy"),
                *("impulse@3", "imbalanced", "hard", "easy", "random", *_TENSOR_SETS),
            ),
            strategies=("", "autocontrast", "mixup", "diverse"),
            methods=(
                *("minmax", "entropy:bins=2048", "percentile", "percentile:percentile=99.9", "mse", "lp"),
                *("bias-correction", "minmax-renormalized", "robust"),
            ),
            seeds=(0, 1, 2, 3, 4),
        ),
    )
}


def preset_plan(name: str, plan: Plan, cache: Cache) -> Plan:
    """The plan of a preset for models and data at hand.

    Args:
        name: of the preset.
        plan: models, data and how to read it; the rest of it is replaced.
        cache: where tables of data are kept.

    Raises:
        UsageError: there is no such preset.
        OnnxptqError: a model or the data cannot be used.
    """
    if name not in PRESETS:
        raise UsageError(f"unknown preset {name!r}. {did_you_mean(name, PRESETS)}")
    preset = PRESETS[name]
    tasks, labelled, fewest = [], True, None
    for model in plan.models:
        path = None if model == BUILTIN else model
        inputs = resolve_for_quantization(path, plan.options, cache, needs_data=True, evaluate=True)
        tasks.append(inputs.task)
        labelled = labelled and inputs.calibration is not None and inputs.calibration.labels is not None
        fewest = fewest or _fewest_of_a_class(inputs.evaluation)

    def fits(text: str) -> bool:
        return _fits(text, tasks, labelled)

    known = {method.name for method in all_methods()}
    return checked(
        replace(
            plan,
            title=f"{', '.join(_stem(model) for model in plan.models)}: {preset.name}",
            calibrations=_only(fits, preset.calibrations),
            strategies=_only(lambda text: not text or fits(text), preset.strategies),
            methods=_only(lambda text: text.partition(":")[0] in known, preset.methods),
            seeds=preset.seeds,
            corruptions=_only(fits, preset.corruptions),
            eval_size=preset.eval_size,
            **_judged_groups(fewest, preset.eval_size),
        ),
        f"preset {name}",
    )


def plan_toml(plan: Plan) -> str:
    """A plan as a commented TOML file."""
    return values_toml(plan.to_dict())


def values_toml(values: Mapping[str, Any]) -> str:
    """What `Plan.to_dict` gave, as a commented TOML file."""
    lines = [
        "# A study: every combination of the lists below is one cell.  onnxptq sweep THIS_FILE",
        "# docs/sweep.md explains the keys; onnxptq calibs, methods, targets and shifts list what can stand in them.",
        f"format = {FORMAT}",
    ]
    for key, comment in _COMMENTS.items():
        lines += ["", *(f"# {line}" for line in comment.split("\n"))] if comment else []
        if key in values:
            lines.append(f"{key} = {toml_value(values[key])}")
        elif key in _EXAMPLES:
            lines.append(f"# {key} = {_EXAMPLES[key]}")
    if values.get("reading"):
        lines += ["", "# How the data is read, where the model does not say.", "[reading]"]
        lines += [f"{key} = {toml_value(value)}" for key, value in values["reading"].items()]
    return "\n".join(lines) + "\n"


_COMMENTS = {
    "title": "",
    "models": 'FP32 models: paths, or "builtin". Paths are relative to the folder in which the command runs.',
    "data": "One source that is split in two, or one for each side.",
    "calib_data": "",
    "eval_data": "",
    "calibrations": "Calibration sets.",
    "strategies": 'On top of each set: shifts are appended, a sampler takes the place of its own; "" is nothing.',
    "methods": "How ranges are chosen.",
    "targets": "What the graph is made for, and what it is judged on.",
    "runtimes": "",
    "seeds": "Of the draw of the calibration samples. Three and more tell chance from effect.",
    "calib_size": "Samples in a calibration set, and samples to judge on at most.",
    "eval_size": "",
    "corruptions": "Groups are label x corruption. Judge by corruptions that no calibration set uses.",
    "groups": "",
    "minimum_samples": "Groups of fewer samples are shown, and never judged: `onnxptq check` asks for 50.",
}

_EXAMPLES = {
    "data": '"images/"',
    "calib_size": "128",
    "eval_size": "2000",
    "groups": '["label*corruption"]',
    "minimum_samples": "20",
    "corruptions": '["fog@3"]',
}


def _fits(text: str, tasks: Iterable[Task], labelled: bool) -> bool:
    calibration_set = CalibrationSet.parse(compose(text, ""))
    if not labelled and calibration_set.sampler == "imbalanced":
        return False
    return all(task.fits(name) is None for task in tasks for name, _ in calibration_set.shifts)


def _fewest_of_a_class(evaluation: Dataset | None) -> tuple[int, int] | None:
    """Samples of the rarest class, and of all; None without labels."""
    if evaluation is None or evaluation.labels is None:
        return None
    counts = np.bincount(evaluation.labels)
    return int(counts[counts > 0].min()), len(evaluation)


def _judged_groups(fewest: tuple[int, int] | None, eval_size: int | None) -> dict[str, Any]:
    """Coarser groups beside label x corruption, where classes are too rare for `onnxptq check` to judge them.

    The classes are shown then, and the corruptions are judged.
    """
    needed = Samples().minimum
    if fewest is None or fewest[0] * min(1.0, (eval_size or fewest[1]) / fewest[1]) >= needed:
        return {}
    return {"groups": ("label*corruption", "corruption"), "minimum_samples": needed}


def _only(fits: Callable[[str], bool], texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if fits(text))


def _stem(model: str) -> str:
    return model.rpartition("/")[2].removesuffix(".onnx")
