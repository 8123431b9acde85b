"""Folding: what ONNX Runtime recommends before quantization, done once per model and kept in the cache."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnxptq.cache import Cache, content_key, is_whole, seal
from onnxptq.errors import ModelError
from onnxptq.graphs.batch_norms import remember_batch_norms
from onnxptq.graphs.external import DATA_SUFFIX, install, is_large
from onnxptq.graphs.load import Model, first_line
from onnxptq.graphs.modernize import OPSET, modernized
from onnxptq.graphs.prepare import prepare
from onnxptq.graphs.repair import repair_folded, repaired_source

_FORMAT = 6
"""Of what folding leaves behind; a new one makes folded models of older versions unknown."""


def fold(model: Model, cache: Cache) -> Path:
    """The model in opset 13 or newer, with BatchNormalization and constants folded, shapes inferred, and repaired.

    What ONNX Runtime recommends is done as far as the graph needs it (`graphs.prepare`). A model too large for one file
    keeps its weights in `<folded>.data`. Of a model in two halves it is the body that is folded. What the cache has is
    taken if it is as it was left, and folded again if not: ONNX Runtime runs a model with damaged weights without a
    word.

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
    folded = cache.place("folded-model", key, ".onnx")
    large = is_large(model)
    files = [folded, *([folded.with_name(folded.name + DATA_SUFFIX)] if large else [])]
    if is_whole(*files):
        return folded
    # In the cache and not in the temporary folder, which may be too small for such a model.
    with tempfile.TemporaryDirectory(dir=folded.parent, prefix=".fold.") as folder:
        source = modernized(repaired_source(model.path, Path(folder)), Path(folder), named=model.path)
        written = Path(folder) / "folded.onnx"
        try:
            prepare(source, written, large=large)
        except Exception as error:
            raise ModelError(
                f"ONNX Runtime cannot prepare {model.path} for quantization: {first_line(error)}"
            ) from error
        remember_batch_norms(source, written)
        repair_folded(written, model.path)
        install(written, folded)
    seal(*files)
    return folded
