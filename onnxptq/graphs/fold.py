"""Folding: what ONNX Runtime recommends before quantization, done once per model and kept in the cache room."""

from __future__ import annotations

import logging
from pathlib import Path

from onnxptq.cache import Room, content_key
from onnxptq.errors import ModelError
from onnxptq.files import replacing
from onnxptq.graphs.load import Model


def fold(model: Model, room: Room) -> Path:
    """The model with BatchNormalization folded, constants folded and shapes inferred (`quant_pre_process`).

    Symbolic shape inference knows fewer operators than ONNX Runtime runs; where it gives up, the plain one serves.

    Raises:
        ModelError: ONNX Runtime cannot optimise the model.
    """
    import onnx
    import onnxruntime

    key = content_key("folded-model", model=model.digest, onnx=onnx.__version__, onnxruntime=onnxruntime.__version__)
    folded = room.place("folded-model", key, ".onnx")
    if not folded.is_file():
        with replacing(folded) as temporary:
            _pre_process(model.path, temporary)
    return folded


def _pre_process(source: Path, target: Path) -> None:
    from onnxruntime.quantization import quant_pre_process

    # The root logger, onto which quant_pre_process writes advice for programmers.
    level = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    try:
        try:
            quant_pre_process(str(source), str(target))
        except Exception:
            quant_pre_process(str(source), str(target), skip_symbolic_shape=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"ONNX Runtime cannot prepare {source} for quantization: {reason}") from error
    finally:
        logging.root.setLevel(level)
