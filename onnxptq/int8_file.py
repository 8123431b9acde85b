"""The INT8 file: its name, its provenance, when it may be replaced, and how it is made in a temporary folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSamples, CalibrationSet
from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.calibrators.statistics import CalibrationStatistics
from onnxptq.errors import ModelError, OnnxptqError, OutputError
from onnxptq.files import check_no_input
from onnxptq.foreign_text import one_line
from onnxptq.graphs import Model, Provenance, load_model, read_provenance, write_with_provenance
from onnxptq.graphs.preprocessing_cut import rejoin
from onnxptq.inputs import Inputs, open_model
from onnxptq.progress import Progress, counted
from onnxptq.quantization.harm import quantize_without_harm
from onnxptq.quantization.plugins import library_versions
from onnxptq.quantization.static import environments_of
from onnxptq.quantization.verify import reason_of, useless
from onnxptq.recipe import Recipe

_TEMPORARY_COPIES = 4
"""How many times its own size a model needs in the temporary folder while it is quantized."""


def default_name(inputs: Inputs, recipe: Recipe, method: str | None = None) -> str:
    """Model, calibration set and method (what is not the default of it), of characters that every file system takes.

    Args:
        inputs: whose model it is.
        recipe: what is made.
        method: `methods.method_label`; None names the recipe's steps.
    """
    defaults = RANGE_METHODS.get(recipe.ranges.name).parameters
    changed = ",".join(f"{key}={value}" for key, value in recipe.ranges.parameters if defaults.get(key) != value)
    ranges = f"{recipe.ranges.name}:{changed}" if changed else recipe.ranges.name
    method = method or "+".join([*(step.name for step in (*recipe.weight_transforms, *recipe.bounds)), ranges])
    parts = [inputs.builtin or inputs.model.path.stem, CalibrationSet.parse(recipe.calibration).short, method]
    text = ".".join(parts if recipe.target == "cpu" else [*parts, recipe.target])
    safe = "".join(c if c.isalnum() or c in "._-@=+," else "-" for c in text)
    return f"{safe[:200]}.int8.onnx"


def provenance_of(
    inputs: Inputs,
    recipe: Recipe,
    calibration: CalibrationSamples | Mapping[str, Any] | None,
    *,
    verified: bool = True,
) -> Provenance:
    """Where the INT8 model comes from.

    Args:
        inputs: the model and the data.
        recipe: how it is made.
        calibration: the drawn set, or number and digest of one drawn before.
        verified: it is looked at before it is handed over.
    """
    import onnx
    import onnxruntime

    from onnxptq.runtimes import cpu_features
    from onnxptq.version import __version__

    versions = {"onnxptq": __version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__}
    return Provenance(
        task=inputs.task.name,
        preprocessing=inputs.task.specification,
        source={"name": one_line(inputs.model.path.name), "digest": inputs.model.digest, "bytes": inputs.model.size},
        data=inputs.data,
        recipe=recipe,
        calibration=_described(calibration),
        versions={**versions, **library_versions(recipe.weight_transforms)},
        cpu=" ".join(cpu_features()),
        verified=verified,
    )


def _described(calibration: CalibrationSamples | Mapping[str, Any] | None) -> Mapping[str, Any]:
    if isinstance(calibration, CalibrationSamples):
        return calibration.described
    return calibration or {}


def same_or_refuse(path: Path, provenance: Provenance, force: bool, model: Model) -> bool:
    """Whether the file is there already, made of the same. Raises OutputError when another file is in the way.

    With `force` it is made again whatever it is: who asks for that may know of a change that no version tells.
    """
    if not path.exists():
        return False
    check_no_input(path, [model.path])
    if force:
        return False
    try:
        existing = read_provenance(load_model(path).metadata)
    except Exception:
        existing = None  # Whatever it is, it is not the file that we would write.
    if existing is not None and _same(existing, provenance):
        # One that nobody looked at is made again where it is to be looked at now.
        return existing.verified or not provenance.verified
    what = "made by another recipe, of another model, of other data or versions" if existing else "not made by onnxptq"
    raise OutputError(f"{path} exists already, {what}. Replace it with --force, or write elsewhere with -o.")


def _same(existing: Provenance, provenance: Provenance) -> bool:
    """Whether the same model was made; what the source is called, and how the rest of it was split, makes no other."""
    made, wanted = (
        replace(p, data={"digest": p.data.get("digest")}, verified=True, dropped=()) for p in (existing, provenance)
    )
    return made == wanted


def make_int8(
    inputs: Inputs,
    folded: Path,
    samples: CalibrationSamples | None,
    provenance: Provenance,
    path: Path,
    statistics: CalibrationStatistics | None,
    cache: Cache,
    progress: Progress,
) -> tuple[str, ...]:
    """Makes the INT8 model of a provenance's recipe at `path`, in a folder of ours; returns notes for the user.

    Raises:
        OutputError: the temporary folder is full.
    """
    model, recipe = inputs.model, provenance.recipe
    environments = {} if samples is None else environments_of(recipe, samples)
    count = counted(progress, "calibrating", sum(map(len, environments.values())))
    written = path.with_name("without-provenance.onnx")
    with space_for(model, path.parent):
        quantized = quantize_without_harm(
            model,
            folded,
            samples,
            recipe,
            written,
            statistics=statistics,
            task=inputs.task,
            cache=cache,
            progress=count,
            transforming=progress,
        )
        if model.parts is not None:
            whole = path.with_name("with-preprocessing.onnx")
            rejoin(model.parts.head, written, whole, model.parts.tail, [spec.name for spec in model.signature.outputs])
            written.unlink()
            written = whole
        write_with_provenance(written, replace(provenance, dropped=quantized.dropped), path)
    written.unlink()
    return quantized.notes


def open_written(path: Path) -> Model:
    """The INT8 model at `path`, which was just made. Raises WrittenFileError where it is no valid model."""
    try:
        return open_model(path)
    except ModelError as error:
        raise useless(path, reason_of(error)) from error


@contextmanager
def space_for(model: Model, folder: Path) -> Iterator[None]:
    """Says that there is no space in the temporary folder where that is why the model could not be quantized in it.

    Raises:
        OutputError: so it was.
    """
    try:
        yield
    except OnnxptqError:
        raise
    except Exception as error:
        # onnx writes a cut file and says nothing when there is no space, and then cannot read it.
        if shutil.disk_usage(folder).free > _TEMPORARY_COPIES * model.size:
            raise
        raise OutputError(
            f"no space left in the temporary folder {tempfile.gettempdir()}, where {model.path.name} is quantized. "
            "Free some, or set TMPDIR to another folder."
        ) from error
