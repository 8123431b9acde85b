"""Folding: what ONNX Runtime recommends before quantization, done once per model and kept in the cache room."""

from __future__ import annotations

import logging
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from onnxptq.cache import Room, content_key, is_whole, seal
from onnxptq.errors import ModelError
from onnxptq.graphs.batch_norms import remember_batch_norms
from onnxptq.graphs.external import DATA_SUFFIX, install, is_large
from onnxptq.graphs.load import Model, first_line
from onnxptq.graphs.modernize import OPSET, modernized
from onnxptq.graphs.parts import subgraphs
from onnxptq.graphs.repair import repair_folded, repaired_source

_SYMBOLIC_DEPTH = 4
"""Subgraphs inside each other for which symbolic shape inference still takes part; the plain one takes linear time."""

_FORMAT = 3
"""Of what folding leaves behind; a new one makes folded models of older versions unknown."""


def fold(model: Model, room: Room) -> Path:
    """The model in opset 13 or newer, with BatchNormalization and constants folded, shapes inferred, and repaired.

    The work is `quant_pre_process`'s. Symbolic shape inference knows fewer operators than ONNX Runtime runs; where it
    gives up, the plain one serves. A model too large for one file keeps its weights in `<folded>.data`. Of a model in
    two halves it is the body that is folded. What the room has is taken if it is as it was left, and folded again if
    not: ONNX Runtime runs a model with damaged weights without a word.

    Raises:
        ModelError: ONNX Runtime cannot optimise the model, it is too old to be converted, or a weight is not finite.
    """
    import onnx
    import onnxruntime

    model = model.core
    key = content_key(
        "folded-model",
        model=model.digest,
        format=_FORMAT,
        opset=OPSET,
        onnx=onnx.__version__,
        onnxruntime=onnxruntime.__version__,
    )
    folded = room.place("folded-model", key, ".onnx")
    large = is_large(model)
    files = [folded, *([folded.with_name(folded.name + DATA_SUFFIX)] if large else [])]
    if is_whole(*files):
        return folded
    # In the room and not in the temporary folder, which may be too small for such a model.
    with tempfile.TemporaryDirectory(dir=folded.parent, prefix=".fold.") as folder:
        source = modernized(repaired_source(model.path, Path(folder)), Path(folder), named=model.path)
        written = Path(folder) / "folded.onnx"
        _pre_process(source, written, model.path, large=large)
        remember_batch_norms(source, written)
        repair_folded(written, model.path)
        install(written, folded)
    seal(*files)
    return folded


def _pre_process(source: Path, target: Path, named: Path, *, large: bool) -> None:
    from onnxruntime.quantization import quant_pre_process

    options = {}
    if large:
        data = target.name + DATA_SUFFIX
        options = {"save_as_external_data": True, "all_tensors_to_one_file": True, "external_data_location": data}
    # The root logger, onto which quant_pre_process writes advice for programmers.
    level = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    started = time.time()
    try:
        try:
            quant_pre_process(str(source), str(target), skip_symbolic_shape=_is_deep(source), **options)
        except Exception:
            _clear_current_folder(started)
            quant_pre_process(str(source), str(target), skip_symbolic_shape=True, **options)
    except Exception as error:
        reason = first_line(error)
        raise ModelError(f"ONNX Runtime cannot prepare {named} for quantization: {reason}") from error
    finally:
        logging.root.setLevel(level)


def _clear_current_folder(started: float) -> None:
    """Removes what symbolic shape inference writes into the current folder, of all places, where it gives up."""
    for name in ("sym_shape_infer_temp.onnx", "sym_shape_infer_temp.onnx.data"):
        with suppress(OSError):  # It is not there, or another process was first.
            if Path(name).stat().st_mtime >= started - 2:  # Some file systems count in steps of two seconds.
                Path(name).unlink()


def _is_deep(source: Path) -> bool:
    """Whether subgraphs lie so deep in each other that symbolic shape inference, which walks twice through each at
    every level, would not end in reasonable time."""
    import onnx

    level = [onnx.load(str(source), load_external_data=False).graph]
    for _ in range(_SYMBOLIC_DEPTH + 1):
        level = [inner for graph in level for node in graph.node for inner in subgraphs(node)]
    return bool(level)
