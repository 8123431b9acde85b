"""A net of two branches, `narrow` and `wide`, and data in which only the group "rare" needs what `narrow` says.

Common samples have their class in features 0-3 (margin 0.15 and more); rare ones, a tenth of the data, have a wrong
class there and the right one, ten times as large, in features 4-7, which only `narrow` reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.inputs import DataOptions

CLASSES = 4


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("diagnosis")


@pytest.fixture(scope="module")
def fp32(folder: Path) -> Path:
    eye, none = np.eye(CLASSES, dtype=np.float32), np.zeros((CLASSES, CLASSES), np.float32)
    weights = {"w_narrow": np.concatenate([none, eye]), "w_wide": np.concatenate([eye, none])}
    nodes = [
        helper.make_node("MatMul", ["x", "w_narrow"], ["narrow_raw"], "narrow"),
        helper.make_node("Relu", ["narrow_raw"], ["narrow_out"], "narrow_relu"),
        helper.make_node("MatMul", ["x", "w_wide"], ["wide_out"], "wide"),
        helper.make_node("Add", ["narrow_out", "wide_out"], ["logits"], "sum"),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 8), ("logits", CLASSES))]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], constants)
    path = folder / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture(scope="module")
def samples(folder: Path) -> Mapping[str, np.ndarray]:
    rng = np.random.default_rng(0)
    n = 900
    site = np.where(np.arange(n) % 10 == 0, "rare", np.where(np.arange(n) % 2, "east", "west"))
    label = rng.integers(0, CLASSES, n)
    x = np.zeros((n, 8), np.float32)
    x[:, :CLASSES] = rng.uniform(0, 0.85, (n, CLASSES))
    x[np.arange(n), label] = 1.0
    rare = np.flatnonzero(site == "rare")
    x[rare, :CLASSES] *= 0.05
    x[rare, (label[rare] + 1) % CLASSES] = 3.0
    x[rare, CLASSES + label[rare]] = 10.0
    return {"x": x, "y": label, "site": site}


@pytest.fixture(scope="module")
def data(folder: Path, samples: Mapping[str, np.ndarray]) -> DataOptions:
    np.savez(folder / "data.npz", **samples)
    return DataOptions(data=str(folder / "data.npz"))


@pytest.fixture(scope="module")
def int8(folder: Path, fp32: Path, samples: Mapping[str, np.ndarray]) -> Path:
    """What ONNX Runtime's own `quantize_static` makes of the net, without folding and without our provenance."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.rows: Iterator[np.ndarray] = iter([samples["x"]])

        def get_next(self) -> dict[str, np.ndarray] | None:
            rows = next(self.rows, None)
            return None if rows is None else {"x": rows}

    quantize_static(fp32, folder / "int8.onnx", Reader(), activation_type=QuantType.QUInt8)
    return folder / "int8.onnx"


@pytest.fixture(scope="module")
def broken(folder: Path, int8: Path) -> Callable[..., Path]:
    """The INT8 file with other highest values for some tensors: 256 steps from 0 to `highest`."""

    def change(**highest: float) -> Path:
        model = onnx.load(int8)
        for tensor in model.graph.initializer:
            for name, value in highest.items():
                if tensor.name == f"{name}_scale":
                    tensor.CopyFrom(numpy_helper.from_array(np.float32(value / 255), tensor.name))
                if tensor.name == f"{name}_zero_point":
                    tensor.CopyFrom(numpy_helper.from_array(np.uint8(0), tensor.name))
        path = folder / f"int8.{'.'.join(f'{name}-{value:g}' for name, value in highest.items())}.onnx"
        onnx.save(model, path)
        return path

    return change
