"""Leaving the graph's outputs unquantized: logits keep their float values, the head's weights stay INT8."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any


def leave_outputs_in_float(path: Path) -> None:
    """Removes the Q and DQ that end in a graph output, in the file at `path`.

    The node before them keeps its INT8 inputs and weights; ONNX Runtime fuses such a Gemm into one with float output.
    Equal to `OpTypesToExcludeOutputQuantization` where an operator type occurs as a head only, and not limited to that.
    An output that other nodes read too is quantized for them alone.
    """
    import onnx

    # External data stay where they are: saved with them inside, a model above 2 GB would not be written.
    model = onnx.load(str(path), load_external_data=False)
    graph = model.graph
    producers = {name: node for node in graph.node for name in node.output}
    for output in graph.output:
        chain = [producers.get(output.name)]
        for operator in ("DequantizeLinear", "QuantizeLinear"):
            last = chain[-1]
            chain.append(producers.get(last.input[0]) if last is not None and last.op_type == operator else None)
        dequantize, quantize, computed = chain
        if computed is not None:
            _compute_directly(graph, output.name, computed, quantize, dequantize)
    onnx.save(model, str(path))


def _compute_directly(graph: Any, output: str, computed: Any, quantize: Any, dequantize: Any) -> None:
    """Lets `computed` write the output; `quantize` and `dequantize` stay for the nodes that read them, if any."""
    raw, dequantized = quantize.input[0], f"{output}_dequantized"
    dequantize.output[0] = dequantized
    for node in graph.node:
        _rename(node.input, {output: dequantized, raw: output})
    _rename(computed.output, {raw: output})
    for node in (dequantize, quantize):
        read = Counter(name for other in graph.node for name in other.input)
        if not read[node.output[0]]:
            graph.node.remove(node)
            for tensor in [t for t in graph.initializer if t.name in node.input and read[t.name] == 1]:
                graph.initializer.remove(tensor)


def _rename(names: Any, new: dict[str, str]) -> None:
    for position, name in enumerate(names):
        names[position] = new.get(name, name)
