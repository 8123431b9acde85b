"""How to do a study again: its command, its plan as TOML, and what writes the INT8 model of a cell."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from onnxptq.calibrators import CalibrationSet
from onnxptq.errors import UsageError
from onnxptq.sweeps.plan import BUILTIN, compose
from onnxptq.sweeps.study import CellKey, Study

PLAN_FILE = "study.toml"
"""What the plan is called in `onnxptq sweep study.toml`."""

_WITH_VALUE = ("-o", "--output", "--json")
_ALONE = ("--resume", "--dry-run", "--force")
_FLAGS = ("--skip-bad", "--trust-data")
"""Options that stay and have no value: behind any other stands its value."""


def command_again(study: Study) -> str:
    """The command that made the study, without what it wrote besides; for a bare `--resume`, the plan's."""
    words = shlex.split(study.command)
    kept, skip = [], False
    for word in words:
        if skip or word in _ALONE:
            skip = False
        elif word in _WITH_VALUE:
            skip = True
        elif not word.startswith(("--output=", "--json=")) and not re.fullmatch(r"-o.+", word):
            kept.append(word)
    plain = "--resume" in words and not _names_a_study(kept[2:])
    # Without a plan, --resume takes the last one that did not finish: another day that is another one.
    return shlex.join([*kept[:2], PLAN_FILE, *kept[2:]] if plain else kept)


def plan_text(study: Study) -> str:
    """The plan as the TOML file that `onnxptq sweep` reads."""
    from onnxptq.sweeps.presets import values_toml

    return values_toml(study.plan)


def quantize_command(study: Study, key: CellKey) -> str | None:
    """The command that writes the INT8 model of a cell, and judges it under the corruptions of the study.

    It judges on all samples, and groups from 20 on, whatever the plan's `eval_size` and `minimum_samples` are:
    `quantize` has no such options. None for a study of a plug-in that is not installed here, or one without a complete
    plan.

    Args:
        study: whose cell it is.
        key: where the cell stands.
    """
    plan = study.plan
    if key.model not in plan.get("models", ()):
        return None
    try:
        calibration = compose(key.calibration, key.strategy)
    except UsageError:
        return None
    words = ["onnxptq", "quantize", *([] if key.model == BUILTIN else [key.model])]
    options: dict[str, Any] = {
        **{f"--{name.replace('_', '-')}": plan.get(name) for name in ("data", "calib_data", "eval_data")},
        "--calib": calibration,
        "--calib-size": plan.get("calib_size"),
        "--seed": key.seed,
        "--method": key.method,
        "--target": key.target,
        "--ep": key.runtime,
        "--group": plan.get("groups", ()),
        "--corruption": _corruptions(study, key.model),
        **_reading(plan.get("reading", {})),
        "-o": _file_name(key, calibration, plan["models"]),
    }
    defaults = {"--target": "cpu", "--ep": "cpu"}
    for name, value in options.items():
        if value is True:
            words.append(name)
        elif isinstance(value, list | tuple):
            words += [word for one in value for word in (name, str(one))]
        elif value is not None and value != defaults.get(name):
            words += [name, str(value)]
    return shlex.join(words)


def command_rows(study: Study) -> list[dict[str, Any]]:
    """One flat row a cell: where it stands, and the command that writes its INT8 model."""
    rows = []
    for cell in study.cells:
        if (command := quantize_command(study, cell.key)) is not None:
            rows.append({"run": study.run, **asdict(cell.key), "command": command})
    return rows


@dataclass(frozen=True)
class InputDigest:
    """A model or a side of the data, and the digest that tells it from any other."""

    what: str
    digest: str


def input_digests(study: Study) -> list[InputDigest]:
    """Of models and data, as the cells say what they were made of; nothing of cells that do not say.

    Data that only some sets draw from is named with them. Sets of noise have none.
    """
    found: dict[str, str] = {}
    foreign_of = cache(_foreign)
    for cell in study.cells:
        origin, model = cell.origin, cell.key.model
        foreign = foreign_of(cell.key.calibration, cell.key.strategy)
        data = f"data to calibrate {model} with" + (f" ({foreign})" if foreign else "")
        names = {"model": model, "data": data, "evaluation": f"data to judge {model} on"}
        for kind, name in names.items():
            # Cells without their corruptions are of before: they hold the digest of the plan's data for every set.
            of_before = kind == "data" and foreign and "corruptions" not in origin
            if (digest := origin.get(kind)) and not of_before:
                found.setdefault(name, digest)
    return [InputDigest(what, digest) for what, digest in found.items()]


def systems(study: Study) -> list[str]:
    """The operating systems that the cells were made on."""
    found = (cell.origin.get("system") for cell in study.cells)
    return list(dict.fromkeys(filter(None, found)))


def _names_a_study(words: Sequence[str]) -> bool:
    """Whether a plan or a model stands among the arguments of `onnxptq sweep`."""
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            return True
        if "=" not in word and word not in _FLAGS:
            next(rest, None)
    return False


def _corruptions(study: Study, model: str) -> Sequence[str]:
    """What a model was judged under; what the plan names where no cell says it.

    Where the plan names none, a study leaves out the families of all its sets, `quantize` those of its own set only.
    """
    origins = (cell.origin for cell in study.cells if cell.key.model == model)
    judged = (origin["corruptions"] for origin in origins if "corruptions" in origin)
    return next(judged, study.plan.get("corruptions", ()))


def _foreign(calibration: str, strategy: str) -> str:
    """The source of which a cell's set draws, where it is not the plan's data; "" where it is, or a name is unknown."""
    try:
        return CalibrationSet.parse(compose(calibration, strategy)).foreign
    except UsageError:
        return ""


def _reading(reading: Mapping[str, Any]) -> dict[str, Any]:
    """The options that say how data is read, from a plan's `[reading]`."""
    options: dict[str, Any] = {f"--{name.replace('_', '-')}": value for name, value in reading.items()}
    for name, between in (("--size", "x"), ("--mean", ","), ("--std", ",")):
        if name in options:
            options[name] = between.join(map(str, options[name]))
    return options


def _file_name(key: CellKey, calibration: str, models: Sequence[str]) -> str:
    """A name that no other INT8 model of the study has, of characters that every file system takes."""
    stems = [re.split(r"[/\\]", model)[-1].removesuffix(".onnx") for model in models]
    place = models.index(key.model)
    stem = stems[place] if stems.count(stems[place]) == 1 else f"{stems[place]}-{place + 1}"
    parts = [stem, calibration, key.method, *([] if key.target == "cpu" else [key.target]), f"seed{key.seed}"]
    return re.sub(r"[^\w.@=+,-]", "-", ".".join(parts)) + ".int8.onnx"
