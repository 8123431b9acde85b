"""What a model is taken for, and why; what INT8 can do with it; what is missing. Nothing is run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onnxptq.cache import Cache, user_cache
from onnxptq.data.preview import preview
from onnxptq.errors import OnnxptqError, OutputError
from onnxptq.files import replacing
from onnxptq.graphs import Model, fold
from onnxptq.graphs.float_parts import check_quantizable_operators, float_parts
from onnxptq.graphs.skeleton import skeleton
from onnxptq.heads import HEADS
from onnxptq.inputs import DataOptions, build_task, head_notes, is_described, open_model
from onnxptq.quantization.static import post_processing_notes, quantizer_settings
from onnxptq.recipe import Recipe
from onnxptq.signature import TensorSpec, shown
from onnxptq.suggestion import Suggestion, hints, suggested
from onnxptq.tasks import TENSOR, Task


@dataclass(frozen=True)
class Inspection:
    """What is known of a model without running it.

    Attributes:
        model: the file.
        inputs, outputs: of the model: name, type and shape.
        task: its name, or None where the model's inputs do not fit any.
        head: name of the head, or None.
        why: why it is this head.
        judged: names of the outputs that are judged.
        classes: class names, or ().
        quantized_already: the file is an INT8 file.
        quantized: how many nodes of each operator the static quantizer has INT8 for.
        stays_float: how many nodes of each operator it has none for, or that are left out by name.
        notes: what stays in float though it holds weights, and why.
        missing: what should be said before the model is judged, a line each.
        specification: of the task; what `--write` writes.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    task: str | None
    head: str | None
    why: str
    judged: tuple[str, ...]
    classes: tuple[str, ...]
    quantized_already: bool
    quantized: dict[str, int]
    stays_float: dict[str, int]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    specification: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        specs = {
            side: [{"name": spec.name, "type": spec.dtype, "shape": list(spec.shape)} for spec in getattr(self, side)]
            for side in ("inputs", "outputs")
        }
        tuples = {name: list(getattr(self, name)) for name in ("judged", "classes", "notes", "missing")}
        return {**vars(self), **specs, **tuples}


def inspect(path: str | Path, options: DataOptions | None = None) -> Inspection:
    """Looks at a model.

    Args:
        path: an ONNX file.
        options: what the user said of its task and preprocessing.

    Raises:
        OnnxptqError: the file is no model, or what was said contradicts it.
    """
    model = open_model(Path(path))
    task, missing = _task(model, options or DataOptions(), user_cache())
    quantized, stays, notes = ({}, {}, ()) if model.quantized else _operators(model)
    if model.quantized:
        notes = ("the file is quantized already; to judge it: onnxptq evaluate MODEL --reference FP32.onnx",)
    return Inspection(
        model=str(path),
        inputs=model.signature.inputs,
        outputs=model.signature.outputs,
        task=task.name if task else None,
        head=task.head.name if task else None,
        why=task.why if task else "",
        judged=task.head.judged if task else (),
        classes=task.classes if task else (),
        quantized_already=model.quantized,
        quantized=quantized,
        stays_float=stays,
        notes=notes,
        missing=missing,
        specification={"task": task.name, **task.specification} if task else {},
    )


def write_specification(found: Inspection) -> Path:
    """Writes the specification beside the model, as `MODEL.json`, with a comment for each thing that may be said.

    JSON has no comments: they are the texts under the key "//", which nobody reads.

    Raises:
        OutputError: there is such a file already, or the task is not known.
    """
    path = Path(found.model).with_suffix(".json")
    if path.exists():
        raise OutputError(f"{path} exists already; it is never replaced. Move it away first.")
    if not found.specification:
        raise OutputError(f"there is nothing to write for {found.model}: {' '.join(found.missing)}")
    heads = "; ".join(f"{kind.name}: {kind.summary}" for kind in HEADS)
    comments = [
        f"How onnxptq reads {Path(found.model).name} and judges it (docs/tasks.md, docs/data.md). Lines under // are "
        "comments.",
        'task: an input and a head, as in "image-classification"; the input alone leaves the head open.',
        f"heads: {heads}.",
        *(f"missing: {line}" for line in found.missing),
    ]
    with replacing(path) as temporary:
        text = json.dumps({"//": comments, **found.specification}, indent=2, ensure_ascii=False)
        temporary.write_text(text + "\n", encoding="utf-8")
    return path


def described(spec: TensorSpec) -> str:
    """An input or output in a few words: "x float32 (N, 3, 224, 224)"."""
    sizes = [name or size for name, size in zip(spec.symbols, spec.shape, strict=False)]
    named = ", ".join("?" if size is None else str(size) for size in sizes)
    shape = f"({named})" if any(spec.symbols) else shown(spec.shape)
    return f"{spec.name} {spec.dtype}" + (f" {shape}" if spec.shape else "")


def _task(model: Model, options: DataOptions, cache: Cache) -> tuple[Task | None, tuple[str, ...]]:
    """The task, and what is missing. Raises what is wrong with a specification that somebody gave."""
    described = is_described(model, options)
    try:
        task, warnings = build_task(model, options)
    except OnnxptqError as error:
        if described:
            raise
        return None, (str(error),)
    if not described and task.input.name == TENSOR:
        found, doubts = _proposed(model, options, cache)
        warnings += doubts
        if found:
            task, more = build_task(model, replace(options, task=found.pop("task"), preprocessing=found))
            warnings += more
    missing = warnings + head_notes(task)
    if task.settled and HEADS.get(task.head.name).measures and task.head.name == "classification" and not task.classes:
        missing += ("the names of the classes (classes in the specification): labels are then matched by number.",)
    return task, missing


def _proposed(model: Model, options: DataOptions, cache: Cache) -> Suggestion:
    """What the data proposes of a model that nobody described, or what would help."""
    if options.data is None:
        return {}, hints(model.core.signature)
    looked = preview(options.data, cache.folder("datasets"), options.columns.label)
    return suggested(model.core.signature, looked)


def _operators(model: Model) -> tuple[dict[str, int], dict[str, int], tuple[str, ...]]:
    """Nodes that the quantizer has INT8 for, the others, and notes."""
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    folded = fold(model, user_cache())
    nodes = skeleton(folded).graph.node
    try:
        check_quantizable_operators(folded)
        excluded = set(quantizer_settings(Recipe(), folded).nodes_to_exclude)
    except OnnxptqError as error:
        return {}, dict(Counter(node.op_type for node in nodes)), (str(error),)
    known = {*QDQRegistry, *QLinearOpsRegistry}
    quantized = [node for node in nodes if node.op_type in known and node.name not in excluded]
    names = {id(node) for node in quantized}
    others = [node for node in nodes if id(node) not in names and node.op_type not in ("Constant", "Identity")]
    return _counted(quantized), _counted(others), float_parts(folded) + post_processing_notes(Recipe(), folded)


def _counted(nodes: Any) -> dict[str, int]:
    return dict(Counter(node.op_type for node in nodes).most_common())
