"""The graph of a model file without its large weights: parsed once, for all that only look at nodes and names."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.files import FileState, state_of
from onnxptq.graphs.fills import weights_of

if TYPE_CHECKING:
    import onnx

KEPT_BYTES = 4096
"""Of a weight, up to which it stays. Other constants stay whatever their size: masks, tables, shapes."""

_MOST = 8
"""Models that are remembered: a source, its folded form and some INT8 models of it."""

_known: OrderedDict[str, tuple[FileState, onnx.ModelProto]] = OrderedDict()


def skeleton(path: Path) -> onnx.ModelProto:
    """The model at `path`; weights of more than `KEPT_BYTES` have a name, a type, dimensions and no data.

    It is shared: never change it. External data is not read.

    Raises:
        google.protobuf.message.DecodeError, OSError: it is no ONNX file, or cannot be read.
    """
    import onnx

    found = _known.get(str(path))
    state = state_of(path)
    if found is not None and found[0] == state:
        return found[1]
    proto = onnx.load(str(path), load_external_data=False)
    remember(path, proto, state)
    return proto


def remember(path: Path, proto: onnx.ModelProto, state: FileState) -> None:
    """Makes a model that was just parsed or written known to `skeleton`; it loses its large weights.

    Args:
        path: of the file.
        proto: what is in it.
        state: of the file, from before it was read.
    """
    weights = weights_of(proto.graph)
    for tensor in proto.graph.initializer:
        if tensor.name not in weights:
            continue
        if len(tensor.raw_data) > KEPT_BYTES:
            tensor.ClearField("raw_data")
        elif len(tensor.float_data) * 4 > KEPT_BYTES:
            tensor.ClearField("float_data")
    if state.settled():
        _known[str(path)] = state, proto
        _known.move_to_end(str(path))
        while len(_known) > _MOST:
            _known.popitem(last=False)
