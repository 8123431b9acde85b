"""How many float biases ONNX Runtime quantizes as it loads a file: `python benchmarks/int32_biases.py INT8.onnx ...`.

At level basic its pass WeightBiasQuantization turns a float bias into int32, for which CUDA has no kernel.
Counted on the graph that the CPU provider gets, which is the same for every provider, with the pass and without it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import onnx
import onnxruntime as ort

WEIGHTED = ("Conv", "ConvTranspose", "Gemm")


def int32_biases(model: Path, loaded: Path, *, without_the_pass: bool = False) -> int:
    """DequantizeLinear nodes of int32 constants in the graph as it is loaded."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(loaded)
    if without_the_pass:
        options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")
    ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    graph = onnx.load(str(loaded)).graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    dequantized = [node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"]
    return sum(kinds.get(name) == onnx.TensorProto.INT32 for name in dequantized)


def main() -> None:
    """Prints a line for each file."""
    for name in sys.argv[1:]:
        weighted = sum(node.op_type in WEIGHTED for node in onnx.load(name).graph.node)
        with tempfile.TemporaryDirectory() as folder:
            loaded = Path(folder) / "loaded.onnx"
            with_it = int32_biases(Path(name), loaded)
            without = int32_biases(Path(name), loaded, without_the_pass=True)
        print(f"{name}: {with_it} of {weighted} biases are int32 once loaded, {without} without the pass")


if __name__ == "__main__":
    main()
