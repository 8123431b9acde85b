"""Old ways of writing a model, brought up to what quantization needs before anything else looks at the graph.

1. Opset 13: the first whose DequantizeLinear knows an axis, which weights of one scale a channel need. ONNX Runtime's
   quantizer converts to 11 and then writes nodes that 11 does not have.
2. Initializers that are listed as inputs (every model of IR version 3, and some exporters' options) become constants:
   as long as a caller could override them, nothing may be folded into them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.errors import ModelError
from onnxptq.graphs.parts import opset_of
from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

OPSET = 13
_IR_OF_OPSET = 7
_IR_WITH_FREE_INITIALIZERS = 4
"""The first IR version whose initializers need not be listed as inputs."""


def modernized(source: Path, folder: Path, *, named: Path | None = None) -> Path:
    """The model in today's form, written to `folder`; `source` itself where there is nothing to do.

    Messages call it `named`, which is `source` where that is None.

    Raises:
        ModelError: an operator cannot be converted.
    """
    import onnx

    old = opset_of(skeleton(source)) < OPSET
    listed = _listed_initializers(skeleton(source))
    if not old and not listed:
        return source
    proto = onnx.load(str(source), load_external_data=False)
    onnx.load_external_data_for_model(proto, str(source.parent))
    kept = [value for value in proto.graph.input if value.name not in listed]
    del proto.graph.input[:]
    proto.graph.input.extend(kept)
    proto.ir_version = max(proto.ir_version, _IR_OF_OPSET)
    if old:
        proto = in_opset(proto, OPSET, named or source, check=True)
    target = folder / "modern.onnx"
    onnx.save(proto, str(target))
    return target


def modernization_notes(path: Path) -> tuple[str, ...]:
    """What `modernized` changes in a model, one line each, for the user."""
    proto = skeleton(path)
    notes = []
    if opset_of(proto) < OPSET:
        notes.append(
            f"{path.name} is of opset {opset_of(proto)}; it was converted to opset {OPSET}, which INT8 weights of one "
            "scale a channel need."
        )
    # An older model lists them because it must, so nobody means anything by it.
    listed = _listed_initializers(proto) if proto.ir_version >= _IR_WITH_FREE_INITIALIZERS else frozenset()
    if listed:
        notes.append(
            f"{path.name} lists {len(listed)} of its weights as inputs; they are constants of the INT8 model, which "
            "nobody can override any more."
        )
    return tuple(notes)


def _listed_initializers(proto: onnx.ModelProto) -> frozenset[str]:
    return frozenset(tensor.name for tensor in proto.graph.initializer) & {value.name for value in proto.graph.input}


def in_opset(
    proto: onnx.ModelProto, opset: int, source: Path, remedy: str = "", *, check: bool = False
) -> onnx.ModelProto:
    """A model in another opset, metadata kept; itself where it is of that opset.

    Args:
        proto: the model.
        opset: of the default operator domain.
        source: what messages call the model.
        remedy: what to do where it fails; "" tells to export again.
        check: let the checker look at the result, which refuses some models that ONNX Runtime runs (unsorted ones).

    Raises:
        ModelError: an operator cannot be converted, or the result does not pass the check.
    """
    import onnx

    if opset_of(proto) == opset:
        return proto
    try:
        converted = onnx.version_converter.convert_version(proto, opset)
        if check:
            onnx.checker.check_model(converted)
    except Exception as error:  # RuntimeError, ValueError and the checker's own
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ModelError(
            f"{source} is of opset {opset_of(proto)} and cannot be converted to opset {opset}: {reason}. "
            + (remedy or f"Export it again with opset {opset} or newer.")
        ) from error
    # The converter drops them.
    onnx.helper.set_model_props(converted, {entry.key: entry.value for entry in proto.metadata_props})
    return converted
