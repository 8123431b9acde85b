"""What ONNX Runtime recommends before quantization (`quant_pre_process`), of which only what a graph needs is done.

1. ONNX infers types and shapes. Only where it leaves a tensor or a dimension open does ONNX Runtime's symbolic
   inference run, which knows fewer operators and imports SymPy; where it gives up, what ONNX found stands.
2. ONNX Runtime folds constants and BatchNormalization and removes what computes nothing, where there is anything of
   the kind: a chain of convolutions, activations and pooling comes out as it went in (`changes_nothing`).
3. Shapes are inferred once more where 2 ran.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.graphs.external import DATA_SUFFIX
from onnxptq.graphs.parts import subgraphs
from onnxptq.graphs.shapes import infer_shapes
from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

_UNTOUCHED = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm"),
        *("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Softmax"),
        *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"),
        *("Add", "Mul", "Concat", "Flatten"),
    }
)
"""Operators that ONNX Runtime's basic optimizations leave alone, except as `changes_nothing` says."""

_SYMBOLIC_DEPTH = 4
"""Subgraphs inside each other for which symbolic inference still takes part; ONNX's takes linear time."""

_IN_PAIRS = frozenset({("Relu", "Clip"), ("Clip", "Relu"), ("Clip", "Clip"), ("Relu", "Relu"), ("Flatten", "Flatten")})
"""Operators that may become one where the second alone reads the first."""


def prepare(source: Path, target: Path, *, large: bool) -> None:
    """Writes a model as the static quantizer wants it.

    Args:
        source: the model in today's form (`modernized`).
        target: the file to write; with `large` its weights lie in `<target>.data`.
        large: it does not fit one protobuf message. `quant_pre_process` does all of it then.

    Raises:
        Exception: ONNX or ONNX Runtime cannot infer or optimise; the exceptions are theirs and have no common base.
    """
    import onnx
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    with _quiet():
        if large:
            _pre_process_large(source, target)
            return
        proto = infer_shapes(onnx.load(str(source)))
        if not _all_known(proto.graph):
            proto = _symbolic(proto)
        if not changes_nothing(proto.graph):
            proto = infer_shapes(_optimized(proto))
        add_pre_process_metadata(proto)
        onnx.save(proto, str(target))


def changes_nothing(graph: onnx.GraphProto) -> bool:
    """Whether ONNX Runtime's basic optimizations surely leave a graph as it is.

    So it has named nodes of `_UNTOUCHED` operators only, in order, each once and each read by somebody; no node that
    computes with constants alone; no Add or Mul of a constant, which a Conv before it takes in; and no pair of
    operators that become one.
    """
    constants = {tensor.name for tensor in graph.initializer}
    made = {value.name: "" for value in graph.input if value.name not in constants}
    readers = Counter(name for node in graph.node for name in node.input)
    outputs = {value.name for value in graph.output}
    seen: set[tuple[str, ...]] = set()
    for node in graph.node:
        computed = [name for name in node.input if name in made]
        weights = [name for name in node.input if name in constants]
        same = (node.op_type, *node.input, *(attribute.SerializeToString().hex() for attribute in node.attribute))
        before = made.get(node.input[0], "") if node.input and readers[node.input[0]] == 1 else ""
        if (
            node.op_type not in _UNTOUCHED
            or node.domain not in ("", "ai.onnx")
            or not node.name
            or not computed
            or len(computed) + len(weights) != sum(map(bool, node.input))  # From an outer graph, or not yet computed.
            or (node.op_type in ("Add", "Mul") and weights)
            or (before, node.op_type) in _IN_PAIRS
            or same in seen
            or not all(name in outputs or readers[name] for name in node.output)
        ):
            return False
        seen.add(same)
        made.update(dict.fromkeys(node.output, node.op_type))
    return True


def _all_known(graph: onnx.GraphProto) -> bool:
    """Whether each tensor of the main graph has a type and each of its dimensions a number or a name."""
    values = {value.name: value.type for value in (*graph.value_info, *graph.output)}
    for name in (name for node in graph.node for name in node.output if name):
        kind = values[name].tensor_type if name in values else None
        if kind is None or not kind.elem_type or not kind.HasField("shape"):
            return False
        if any(_is_open(dim) for dim in kind.shape.dim):
            return False
    return True


def _is_open(dim: onnx.TensorShapeProto.Dimension) -> bool:
    # ONNX calls what it does not know unk__0, unk__1 ...
    return not dim.HasField("dim_value") and (not dim.dim_param or dim.dim_param.startswith("unk__"))


def _symbolic(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model as ONNX Runtime's symbolic inference knows it, with the defaults of `quant_pre_process`."""
    if _is_deep(proto.graph):
        return proto
    started = time.time()
    try:
        from onnxruntime.tools.symbolic_shape_infer import SymbolicShapeInference

        inferred: onnx.ModelProto = SymbolicShapeInference.infer_shapes(proto, 2**31 - 1, False, False, 0)
    except Exception:
        _clear_current_folder(started)
        return proto
    return inferred


def _is_deep(graph: onnx.GraphProto) -> bool:
    """Whether subgraphs lie so deep in each other that symbolic inference, which walks twice through each at every
    level, would not end in reasonable time."""
    level = [graph]
    for _ in range(_SYMBOLIC_DEPTH + 1):
        level = [inner for graph in level for node in graph.node for inner in subgraphs(node)]
    return bool(level)


def _clear_current_folder(started: float) -> None:
    """Removes what symbolic inference writes into the current folder, of all places, where it gives up."""
    for name in ("sym_shape_infer_temp.onnx", "sym_shape_infer_temp.onnx.data"):
        with contextlib.suppress(OSError):  # It is not there, or another process was first.
            if Path(name).stat().st_mtime >= started - 2:  # Some file systems count in steps of two seconds.
                Path(name).unlink()


def _optimized(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model after ONNX Runtime's basic optimizations."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        source, target = Path(folder) / "source.onnx", Path(folder) / "optimized.onnx"
        onnx.save(proto, str(source))
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(target)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 4  # What is an error arrives as an exception.
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        return onnx.load(str(target))


def _pre_process_large(source: Path, target: Path) -> None:
    from onnxruntime.quantization import quant_pre_process

    data = target.name + DATA_SUFFIX
    options = {"save_as_external_data": True, "all_tensors_to_one_file": True, "external_data_location": data}
    started = time.time()
    try:
        deep = _is_deep(skeleton(source).graph)
        quant_pre_process(str(source), str(target), skip_symbolic_shape=deep, **options)
    except Exception:
        _clear_current_folder(started)
        quant_pre_process(str(source), str(target), skip_symbolic_shape=True, **options)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the advice for programmers off the root logger."""
    level = logging.root.level
    logging.root.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logging.root.setLevel(level)
