"""Do no harm: a step of `robust` that makes the calibration samples worse than MinMax is left out, and named."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.errors import ModelError, WrittenFileError
from onnxptq.graphs import load_model, read_provenance
from onnxptq.inputs import DataOptions

FORMS = ("none", "Sub and Div", "Mul and Add", "BatchNormalization")


@dataclass(frozen=True)
class Table:
    """A trained-like net of a table: columns of different units, a normalizer of some form, one hidden layer."""

    form: str
    units: tuple[float, ...]
    seed: int

    def save(self, folder: Path) -> tuple[Path, Path]:
        random = np.random.default_rng(self.seed)
        count = len(self.units)
        kinds = [random.standard_normal(800), random.gamma(1.0, 1.0, 800), random.integers(0, 2, 800)]
        x = np.stack([kinds[i % 3] * unit + unit for i, unit in enumerate(self.units)], 1).astype(np.float32)
        mean, deviation = x.mean(axis=0), x.std(axis=0)
        first = random.standard_normal((count, 8)).astype(np.float32)
        constants = {
            "mean": mean,
            "deviation": deviation,
            "gain": 1 / deviation,
            "shift": -mean / deviation,
            "one": np.ones(count, np.float32),
            "zero": np.zeros(count, np.float32),
            "variance": deviation**2,
            # Without a normalizer the first layer does its work, as after folding.
            "w": first / deviation[:, None] if self.form == "none" else first,
            "b": -(mean / deviation) @ first if self.form == "none" else np.zeros(8, np.float32),
            "v": random.standard_normal((8, 2)).astype(np.float32),
        }
        steps = {
            "none": [("Identity", ["x"], "z")],
            "Sub and Div": [("Sub", ["x", "mean"], "c"), ("Div", ["c", "deviation"], "z")],
            "Mul and Add": [("Mul", ["x", "gain"], "c"), ("Add", ["c", "shift"], "z")],
            "BatchNormalization": [("BatchNormalization", ["x", "one", "zero", "mean", "variance"], "z")],
        }[self.form]
        steps += [("Gemm", ["z", "w", "b"], "h"), ("Relu", ["h"], "r"), ("MatMul", ["r", "v"], "logits")]
        nodes = [helper.make_node(operator, inputs, [output]) for operator, inputs, output in steps]
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "table",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", count])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
            [numpy_helper.from_array(a.astype(np.float32), n) for n, a in constants.items() if n in used],
        )
        path = folder / "table.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        np.savez(folder / "table.npz", x=x, label=np.arange(800) % 2)
        return path, folder / "table.npz"


def flips(folder: Path, table: Table, method: str, calib: str = "clean") -> float:
    model, data = table.save(folder)
    result = onnxptq.quantize(
        model,
        data=str(data),
        method=method,
        calib=calib,
        calib_size=64,
        corruptions=["clean"],
        verify=False,
        output=folder / "int8.onnx",
        force=True,
        options=DataOptions(head="classification"),
    )
    assert result.report is not None
    return result.report.flip_rate


@pytest.fixture
def bounded(tmp_path):
    """A net of numbers within 3, and a quantization that is told that they lie within some bound."""
    table = Table("none", (1.0, 1.0, 1.0, 1.0), 0)
    model, data = table.save(tmp_path)

    def quantize(bound: float, method: str = "robust", kind: str = "tensor"):
        facts = {"input_range": {"x": [-bound, bound]}, "kind": {"x": kind}}
        options = DataOptions(head="classification", preprocessing=facts)
        return onnxptq.quantize(
            model, data=str(data), method=method, evaluate=False, output=tmp_path / "int8.onnx", options=options
        )

    return quantize


def dropped(path: Path) -> tuple[str, ...]:
    found = read_provenance(load_model(path).metadata)
    assert found is not None
    return found.dropped


@pytest.mark.parametrize(
    ("kind", "steps"),
    [
        ("table", ("input-range",)),
        ("tensor", ("augmentation", "bounds")),  # Copies are stretched to such bounds as well.
    ],
)
def test_bounds_declared_a_thousand_times_too_wide_are_left_out_and_named(kind, steps, bounded):
    result = bounded(3000.0, kind=kind)
    assert dropped(result.output) == steps
    (note,) = [warning for warning in result.warnings if "left out of the recipe" in warning]
    assert f"left out of the recipe: {' and '.join(steps)}. On the 128 calibration samples" in note
    assert "--robust-no-guard keeps" in note
    again = bounded(3000.0, kind=kind)  # The recipe that was asked for is the file's, so that it is found.
    assert again.reused


def test_bounds_that_hold_are_kept_and_wrong_ones_make_a_useless_file_without_the_guard(bounded):
    result = bounded(8.0)
    assert dropped(result.output) == ()
    assert not [warning for warning in result.warnings if "left out" in warning]
    result.output.unlink()
    with pytest.raises(WrittenFileError, match="the same output"):
        bounded(3000.0, "robust:guard=0")


def test_wide_ranges_that_a_dark_set_needs_are_kept(tmp_path):
    """They cost the dark samples resolution, and save what the set does not show."""
    result = onnxptq.quantize(calib="dark@3", method="robust", evaluate=False, output=tmp_path / "int8.onnx")
    assert dropped(result.output) == ()


@pytest.mark.parametrize("form", FORMS)
def test_robust_is_never_worse_than_minmax_on_a_table(form, tmp_path):
    table = Table(form, (40.0, 3.0, 1.0, 300.0), 1)
    assert flips(tmp_path, table, "robust") <= flips(tmp_path, table, "minmax") + 0.01


def test_one_scale_for_different_units_is_named_whatever_the_method(tmp_path):
    """The first layer, into which the normalizer was folded, is the one that robust leaves in float."""
    model, data = Table("none", (40.0, 3.0, 1.0, 3000.0), 1).save(tmp_path)
    said = {}
    for method in ("minmax", "robust"):
        result = onnxptq.quantize(
            model, data=str(data), method=method, evaluate=False, output=tmp_path / f"{method}.onnx"
        )
        (said[method],) = [warning for warning in result.warnings if "whose units differ" in warning]
    assert "one scale serves columns of the input 'x'" in said["minmax"]
    assert said["robust"].startswith("Gemm 'Gemm_h_1' stays in float")


def test_the_only_layer_of_such_a_model_is_not_quantized_without_being_asked(tmp_path):
    weights = np.array([[1.0, -1.0], [0.001, -0.001]], np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["logits"])],
        "line",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    random = np.random.default_rng(0)
    x = (random.standard_normal((64, 2)) * [1, 1000]).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    asked = {"data": str(tmp_path / "x.npz"), "evaluate": False, "verify": False, "output": tmp_path / "int8.onnx"}
    with pytest.raises(ModelError, match=r"columns of different units.*--robust-no-float-normalizer"):
        onnxptq.quantize(tmp_path / "m.onnx", method="robust", **asked)
    assert onnxptq.quantize(tmp_path / "m.onnx", method="robust:float_normalizer=0", **asked).output.is_file()


@pytest.mark.fuzz
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.builds(
        Table,
        form=st.sampled_from(FORMS),
        units=st.lists(st.floats(-3, 4).map(lambda power: 10.0**power), min_size=2, max_size=8).map(tuple),
        seed=st.integers(0, 1000),
    ),
    calib=st.sampled_from(["clean", "single-class", "tensor_noise@3", "missing_values@3"]),
)
def test_robust_is_never_worse_than_minmax_on_any_table(table, calib, tmp_path):
    robust, minmax = (flips(tmp_path, table, method, calib) for method in ("robust", "minmax"))
    # 400 answers: one point and twice what chance does to a difference of that size.
    assert robust <= minmax + 0.01 + 2 * np.sqrt((robust + minmax) / 400)
