"""Small float models, built in code, that between them use every operator that the quantizer treats in its own way."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Feeds = dict[str, np.ndarray]


class GraphBuilder:
    """Collects nodes and seeded weights; `save` writes the model."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float = 0.5, offset: float = 0.0) -> str:
        name = f"w{len(self.weights)}"
        array = (self.rng.standard_normal(shape) * scale + offset).astype(np.float32)
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def constant(self, array: np.ndarray) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(array, name))
        return name

    def add(self, op: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        names = [f"{op.lower()}{len(self.nodes)}" + ("" if i == 0 else f"_{i}") for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=f"node_{names[0]}", **attributes))
        return names[0]

    def save(
        self, path: Path, inputs: dict[str, list], outputs: dict[str, list], opset: int = 17, check: bool = True
    ) -> Path:
        def info(values: dict[str, list]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values.items()]

        graph = helper.make_graph(self.nodes, "test", info(inputs), info(outputs), self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
        if check:
            onnx.checker.check_model(model)
        onnx.save(model, path)
        return path


IMAGE = {"x": ["N", 3, 8, 8]}


def conv_relu(path: Path) -> Path:
    g = GraphBuilder(1)
    y = g.add("Relu", g.add("Conv", "x", g.weight(6, 3, 3, 3), g.weight(6), pads=[1] * 4))
    y = g.add("Conv", y, g.weight(4, 6, 1, 1))
    return g.save(path, IMAGE, {y: ["N", 4, 8, 8]})


def depthwise_clip(path: Path) -> Path:
    g = GraphBuilder(2)
    limits = [g.constant(np.array(v, np.float32)) for v in (0, 6)]
    y = g.add("Clip", g.add("Conv", "x", g.weight(6, 3, 1, 1, scale=2), g.weight(6)), *limits)
    y = g.add("Clip", g.add("Conv", y, g.weight(6, 1, 3, 3), g.weight(6), group=6, pads=[1] * 4), *limits)
    y = g.add("Flatten", g.add("GlobalAveragePool", y))
    y = g.add("Gemm", y, g.weight(5, 6), g.weight(5), transB=1)
    return g.save(path, IMAGE, {y: ["N", 5]})


def gemm_beta(path: Path) -> Path:
    g = GraphBuilder(3)
    y = g.add("Gemm", "x", g.weight(12, 7), g.weight(7), alpha=0.5, beta=0.25)
    y = g.add("Sigmoid", g.add("Gemm", y, g.weight(7, 4), g.weight(4)))
    return g.save(path, {"x": ["N", 12]}, {y: ["N", 4]})


def attention(path: Path) -> Path:
    g = GraphBuilder(4)
    q, k, v = (g.add("Add", g.add("MatMul", "x", g.weight(8, 8)), g.weight(8)) for _ in range(3))
    scores = g.add("Softmax", g.add("MatMul", q, g.add("Transpose", k, perm=[0, 2, 1])), axis=-1)
    y = g.add("Add", g.add("MatMul", scores, v), "x")
    y = g.add("LayerNormalization", y, g.weight(8, scale=0.1, offset=1), g.weight(8), axis=-1)
    y = g.add("Mul", y, g.add("Sigmoid", y))
    return g.save(path, {"x": ["N", "T", 8]}, {y: ["N", "T", 8]})


def residual(path: Path) -> Path:
    g = GraphBuilder(5)
    a = g.add("Relu", g.add("Conv", "x", g.weight(4, 3, 3, 3), g.weight(4), pads=[1] * 4))
    b = g.add("Conv", a, g.weight(4, 4, 3, 3), g.weight(4), pads=[1] * 4)
    c = g.add("Relu", g.add("Add", a, b))
    y = g.add("MaxPool", g.add("Concat", c, a, axis=1), kernel_shape=[2, 2], strides=[2, 2])
    y = g.add("AveragePool", y, kernel_shape=[2, 2])
    return g.save(path, IMAGE, {y: ["N", 8, 3, 3]})


def two_inputs(path: Path) -> Path:
    g = GraphBuilder(6)
    a = g.add("Conv", "x", g.weight(4, 3, 1, 1), g.weight(4))
    b = g.add("LeakyRelu", g.add("Conv", "y", g.weight(4, 2, 1, 1), g.weight(4)), alpha=0.1)
    c = g.add("Mul", a, b)
    d = g.add("Softmax", g.add("Flatten", g.add("Tanh", c)))
    return g.save(path, {"x": ["N", 3, 8, 8], "y": ["N", 2, 8, 8]}, {c: ["N", 4, 8, 8], d: ["N", 256]})


def batch_norm(path: Path) -> Path:
    g = GraphBuilder(7)
    stats = [g.weight(4, scale=0.1, offset=1), g.weight(4), g.weight(4), g.constant(np.full(4, 0.5, np.float32))]
    y = g.add("BatchNormalization", g.add("Conv", "x", g.weight(4, 3, 1, 1)), *stats)
    y = g.add("Relu", y)
    shape = g.constant(np.array([0, -1], np.int64))
    y = g.add("Gemm", g.add("Reshape", y, shape), g.weight(5, 256, scale=0.1), g.weight(5), transB=1)
    return g.save(path, IMAGE, {y: ["N", 5]})


def shared_bias(path: Path) -> Path:
    g = GraphBuilder(8)
    bias = g.weight(3)
    y = g.add("Relu", g.add("Conv", "x", g.weight(3, 3, 1, 1), bias))
    y = g.add("Conv", y, g.weight(3, 3, 1, 1), bias)
    return g.save(path, IMAGE, {y: ["N", 3, 8, 8]})


GRAPHS: dict[str, Callable[[Path], Path]] = {
    build.__name__: build
    for build in (
        conv_relu,
        depthwise_clip,
        gemm_beta,
        attention,
        residual,
        two_inputs,
        batch_norm,
        shared_bias,
    )
}


def draw_samples(path: Path, count: int = 6, seed: int = 0) -> list[tuple[str, Feeds]]:
    """Seeded samples that fit a model: heavy-tailed, so that methods differ."""
    rng = np.random.default_rng(seed)
    graph = onnx.load(path).graph
    samples = []
    for i in range(count):
        feeds = {}
        for value in graph.input:
            dims = [d.dim_value or (1 if d.dim_param == "N" else 5) for d in value.type.tensor_type.shape.dim]
            feeds[value.name] = (rng.standard_t(4, dims) * (1 + i % 3)).astype(np.float32)
        samples.append((f"sample-{i:03d}", feeds))
    return samples


class Reader:
    """The duck type of ONNX Runtime's calibrators."""

    def __init__(self, samples: list[tuple[str, Feeds]]) -> None:
        self._feeds: Iterator[Feeds] = iter([feeds for _, feeds in samples])

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)


@pytest.fixture(params=sorted(GRAPHS))
def model_path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Every test graph in turn, as a file."""
    return GRAPHS[request.param](tmp_path / f"{request.param}.onnx")


@pytest.fixture
def build_graph(tmp_path: Path) -> Callable[[str], Path]:
    """The test graph of a given name, as a file."""
    return lambda name: GRAPHS[name](tmp_path / f"{name}.onnx")


@pytest.fixture
def small_maps(tmp_path: Path) -> Callable[[int], Path]:
    """3 x 3 Convs of 16 to 128 channels on maps of a given size: their last bits depend on ONNX Runtime's threads."""

    def build(size: int) -> Path:
        g = GraphBuilder(9)
        y, channels = "x", 3
        for wider in (16, 32, 64, 128):
            scale = (2 / (9 * channels)) ** 0.5
            y = g.add("Relu", g.add("Conv", y, g.weight(wider, channels, 3, 3, scale=scale), pads=[1] * 4))
            channels = wider
        return g.save(tmp_path / f"maps{size}.onnx", {"x": ["N", 3, size, size]}, {y: ["N", 128, size, size]})

    return build


@pytest.fixture
def builder() -> type[GraphBuilder]:
    """To build a graph of a test's own."""
    return GraphBuilder


@pytest.fixture
def draw() -> Callable[..., list[tuple[str, Feeds]]]:
    return draw_samples


@pytest.fixture
def stock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., bytes]:
    """`quantize_static` with its own calibrator, on one thread: the bytes of the file that it writes."""
    from onnxruntime.quantization.calibrate import CalibraterBase

    from onnxptq.quantization.stock_calibrators import _on_one_thread

    monkeypatch.setattr(CalibraterBase, "create_inference_session", _on_one_thread)

    def quantize(path: Path, samples: list[tuple[str, Feeds]], **options: object) -> bytes:
        from onnxruntime.quantization import CalibrationMethod, quantize_static

        output = path.with_suffix(".stock.onnx")
        options.setdefault("calibrate_method", CalibrationMethod.MinMax)
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(str(path), str(output), Reader(samples), **options)
        return output.read_bytes()

    return quantize


@pytest.fixture
def calibration() -> Callable[..., object]:
    """Calibration samples of a classifier's file: `make(path, name="clean", count=6)`, of seeded feeds."""

    def make(path: Path, name: str = "clean", count: int = 6) -> object:
        from onnxptq.calibrators import CalibrationSet
        from onnxptq.calibrators.samples import draw as draw_set
        from onnxptq.data import Dataset, fingerprint
        from onnxptq.graphs import load_model
        from onnxptq.tasks import make_task

        rows = [{name: array[0] for name, array in feeds.items()} for _, feeds in draw_samples(path, count)]
        dataset = Dataset(
            source="samples",
            split=None,
            rows=lambda indices: [{**rows[i], "_name": f"row {i}"} for i in indices.tolist()],
            indices=np.arange(count),
            labels=None,
            label_names=(),
            attributes={},
            fingerprints=np.array([fingerprint(row) for row in rows]),
        )
        task = make_task("tensor-classification", {}, load_model(path).signature)
        return draw_set(CalibrationSet.parse(name), task, dataset)

    return make


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., bytes]:
    """Quantizes a file by a recipe's fields: `write(path, samples, ranges=..., ...)`; the bytes of the INT8 file."""

    def write(
        path: Path,
        samples: object,
        progress: Callable[[int], None] = lambda count: None,
        cache: object = None,
        **fields: object,
    ) -> bytes:
        from onnxptq.graphs import load_model
        from onnxptq.quantization.static import quantize_folded
        from onnxptq.recipe import Recipe

        output = tmp_path / "int8.onnx"
        quantize_folded(load_model(path), path, samples, Recipe(**fields), output, cache=cache, progress=progress)
        return output.read_bytes()

    return write
