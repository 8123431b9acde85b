"""Graphs in a word each, and one quantization of a graph as `onnxptq quantize` does it, without data sets and tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.graphs import fold, load_model
from onnxptq.quantization.collect import collect
from onnxptq.quantization.targets import target_settings
from onnxptq.quantization.writer import FastWriter

FLOAT = TensorProto.FLOAT


def rng():
    return np.random.default_rng(0)


def node(operator, inputs, outputs, **attributes):
    name = attributes.pop("name", f"{operator}_{outputs[0]}")
    return helper.make_node(operator, inputs, outputs, name=name, **attributes)


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def weights(**shapes):
    """Constants of normal numbers with a standard deviation of 0.5, one for each name."""
    draw = rng()
    return {name: (draw.standard_normal(shape) * 0.5).astype(np.float32) for name, shape in shapes.items()}


def model(nodes, inputs, outputs, constants, *, opset=17, domains=(), functions=(), ir=9, values=()):
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, tensors, value_info=list(values))
    imports = [helper.make_opsetid(*entry) for entry in (("", opset), *domains)]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=ir)


def run(path, feeds, *, optimized=True):
    options = onnxruntime.SessionOptions()
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimized else level.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.asarray(v) for v in session.run(None, feeds)]


def sqnr(wanted, got):
    """Signal to quantization noise in dB."""
    wanted = np.asarray(wanted, np.float64)
    noise = ((wanted - got) ** 2).sum()
    return float(10 * np.log10((wanted**2).sum() / max(noise, 1e-30)))


def quantized(proto, feeds, folder: Path, *, target="cpu"):
    """The INT8 file of a graph, calibrated with MinMax on each row of `feeds`, and the file of the graph itself."""
    source, output = folder / "m.onnx", folder / "i.onnx"
    onnx.save(proto, source)
    folded = fold(load_model(source), Cache(folder / "room"))
    settings = target_settings(target, folded)
    writer = FastWriter(folded, settings)
    count = len(next(iter(feeds.values())))
    samples = [(str(i), {name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count)]
    statistics = collect(folded, samples, writer.plan.observed)
    minmax = RANGE_METHODS.get("minmax")
    ranges = {
        name: minmax.range(statistics.per_environment(name), settings.quantization) for name in writer.plan.observed
    }
    writer.write(ranges, output)
    return source, output


def noise(proto, feeds, folder: Path, *, target="cpu"):
    """SQNR of the first output, in dB: of the INT8 file as ONNX Runtime optimizes it, and as it is written."""
    source, output = quantized(proto, feeds, folder, target=target)
    wanted = run(source, feeds)[0]
    return tuple(sqnr(wanted, run(output, feeds, optimized=optimized)[0]) for optimized in (True, False))
