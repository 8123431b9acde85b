"""Models as commands that take several of them are given them: files, and patterns that name many."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from pathlib import Path

import click

from onnxptq.commands._output import note
from onnxptq.errors import OnnxptqError, UsageError


def is_pattern(name: str) -> bool:
    """Whether a name is a pattern and not a file: the file "model[1].onnx" is a file where it exists."""
    return glob.has_magic(name) and not Path(name).exists()


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """The files that are meant, in the order given, those of a pattern by name; each once.

    `**` stands for folders of any depth. A pattern that no file fits stays, for `check_found` to refuse.
    The command's parameter `models` becomes these: no output may replace what a pattern finds.
    """
    found: dict[Path, str] = {}
    for name in names:
        # Path.glob takes no absolute pattern before Python 3.13.
        files = sorted(glob.glob(name, recursive=True)) if is_pattern(name) else ()  # noqa: PTH207
        for file in files or [name]:
            found.setdefault(Path(file).absolute(), file)
    models = tuple(found.values())
    click.get_current_context().params["models"] = models
    return models


def check_found(models: Sequence[str]) -> None:
    """Raises UsageError for a pattern that no file fits."""
    for name in filter(is_pattern, models):
        raise UsageError(
            f"no file fits {name!r}. Quote a pattern, so that ** works in any shell, and try it with `ls`."
        )


def without_float(models: Sequence[str]) -> tuple[str, ...]:
    """The models that are quantized, with a note for each that is not; what cannot be read stays, to be refused."""
    from onnxptq.graphs import load_model

    kept = []
    for model in models:
        try:
            quantized = load_model(Path(model)).quantized
        except OnnxptqError:
            quantized = True
        if quantized:
            kept.append(model)
        else:
            note(f"note: skipped {model}: nothing in it is quantized")
    return tuple(kept)


SKIP_FLOAT_HELP = "Leave out models that compute in float, and say so: what a pattern finds beside the INT8 models."
