"""Leaving the graph's outputs unquantized: logits keep their float values, the head's weights stay INT8.

The rule, for each output:

1. Q and DQ that end in it are removed, so that the node before them writes float.
2. From there back over operators that only read results out (`READ_OUT`: Softmax, Reshape, the addition of a constant),
   Q and DQ in front of each are removed too: the logits are what stands in front of a Softmax.
3. The first other node is the head. It keeps its INT8 inputs and weights; ONNX Runtime fuses a Gemm or a Conv so left
   into one with float output.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from onnxptq.graphs.parts import reads

READ_OUT = frozenset(
    {
        *("Softmax", "LogSoftmax", "Sigmoid", "Identity", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose"),
        *("Cast", "ArgMax", "TopK", "Add", "Sub", "Mul", "Div"),
    }
)
"""Operators behind a head, where all their inputs but one are constants."""


def leave_outputs_in_float(path: Path) -> tuple[str, ...]:
    """Removes the Q and DQ between each head and its output, in the file at `path`.

    Equal to `OpTypesToExcludeOutputQuantization` where an operator type occurs as a head only, and not limited to that.
    An output that other nodes read too is quantized for them alone.

    Returns:
        One line for each output: which node's result stays in float.
    """
    import onnx

    # External data stay where they are: saved with them inside, a model above 2 GB would not be written.
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    heads: dict[str, list[str]] = {}
    for output in graph.output:
        _free_output(graph, output.name)
        head = _free_read_out(graph, output.name)
        if head is not None:
            heads.setdefault(_described(head), []).append(output.name)
    onnx.save(model, str(path))
    return tuple(f"{head} leaves its result in float, for {_quoted(names)}." for head, names in heads.items())


def _free_output(graph: Any, output: str) -> None:
    chain = [_producer(graph, output)]
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        last = chain[-1]
        chain.append(_producer(graph, last.input[0]) if last is not None and last.op_type == operator else None)
    dequantize, quantize, computed = chain
    if computed is not None:
        _compute_directly(graph, output, computed, quantize, dequantize)


def _free_read_out(graph: Any, output: str) -> Any:
    """Removes Q and DQ in front of the operators that read an output out; returns the node before the first of them."""
    node = _producer(graph, output)
    while node is not None and node.op_type in READ_OUT:
        computed = [position for position, name in enumerate(node.input) if _is_computed(graph, name)]
        if len(computed) != 1:
            break
        (position,) = computed
        dequantize = _producer(graph, node.input[position])
        quantize: Any = _producer(graph, dequantize.input[0]) if _is(dequantize, "DequantizeLinear") else None
        if _is(quantize, "QuantizeLinear"):
            node.input[position] = quantize.input[0]
            _remove_unread(graph, dequantize, quantize)
        node = _producer(graph, node.input[position])
    return node


def _compute_directly(graph: Any, output: str, computed: Any, quantize: Any, dequantize: Any) -> None:
    """Lets `computed` write the output; `quantize` and `dequantize` stay for the nodes that read them, if any."""
    raw, dequantized = quantize.input[0], f"{output}_dequantized"
    dequantize.output[0] = dequantized
    for node in graph.node:
        _rename(node.input, {output: dequantized, raw: output})
    _rename(computed.output, {raw: output})
    _remove_unread(graph, dequantize, quantize)


def _remove_unread(graph: Any, dequantize: Any, quantize: Any) -> None:
    results = {value.name for value in graph.output}
    for node in (dequantize, quantize):
        read = Counter(name for other in graph.node for name in reads(other))
        if not read[node.output[0]] and node.output[0] not in results:
            graph.node.remove(node)
            for tensor in [t for t in graph.initializer if t.name in node.input and read[t.name] == 1]:
                graph.initializer.remove(tensor)


def _producer(graph: Any, tensor: str) -> Any:
    return next((node for node in graph.node if tensor in node.output), None)


def _is_computed(graph: Any, tensor: str) -> bool:
    """Whether a tensor depends on the model's inputs: neither a constant nor a dequantized one."""
    node = _producer(graph, tensor)
    if _is(node, "DequantizeLinear"):
        node, tensor = _producer(graph, node.input[0]), node.input[0]
    if node is not None:
        return bool(node.op_type != "Constant")
    return any(value.name == tensor for value in graph.input) and not any(t.name == tensor for t in graph.initializer)


def _is(node: Any, operator: str) -> bool:
    return node is not None and node.op_type == operator


def _described(node: Any) -> str:
    return f"{node.op_type} {node.name!r}" if node.name else f"the {node.op_type} that computes {node.output[0]!r}"


def _quoted(names: list[str]) -> str:
    return f"the output{'s' if len(names) > 1 else ''} {', '.join(map(repr, names))}"


def _rename(names: Any, new: dict[str, str]) -> None:
    for position, name in enumerate(names):
        names[position] = new.get(name, name)
