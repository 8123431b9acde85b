"""Leaving the graph's outputs unquantized: logits keep their float values, the head's weights stay INT8."""

from __future__ import annotations

from pathlib import Path


def leave_outputs_in_float(path: Path) -> None:
    """Removes the Q and DQ that end in a graph output, in the file at `path`.

    The node before them keeps its INT8 inputs and weights; ONNX Runtime fuses such a Gemm into one with float output.
    Equal to `OpTypesToExcludeOutputQuantization` where an operator type occurs as a head only, and not limited to that.
    """
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    consumers: dict[str, int] = {}
    for node in graph.node:
        for name in node.input:
            consumers[name] = consumers.get(name, 0) + 1
    for output in graph.output:
        dequantize = producers.get(output.name)
        if dequantize is None or dequantize.op_type != "DequantizeLinear":
            continue
        quantize = producers.get(dequantize.input[0])
        if quantize is None or quantize.op_type != "QuantizeLinear" or consumers.get(output.name, 0):
            continue
        computed = producers.get(quantize.input[0])
        if computed is None or consumers[quantize.input[0]] > 1 or consumers[dequantize.input[0]] > 1:
            continue
        slot = list(computed.output).index(quantize.input[0])
        computed.output[slot] = output.name
        graph.node.remove(quantize)
        graph.node.remove(dequantize)
    _remove_unused_initializers(graph)
    onnx.save(model, str(path))


def _remove_unused_initializers(graph: object) -> None:
    used = {name for node in graph.node for name in node.input}  # type: ignore[attr-defined]
    for tensor in [t for t in graph.initializer if t.name not in used]:  # type: ignore[attr-defined]
        graph.initializer.remove(tensor)  # type: ignore[attr-defined]
