"""An INT8 file is looked at before it is handed over: what is wrong with it is said of it, and never of the model."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.errors import WrittenFileError
from onnxptq.graphs import fold, load_model
from onnxptq.quantization import verify
from onnxptq.quantization.collect import collect
from onnxptq.quantization.targets import target_settings
from onnxptq.quantization.verify import verify_int8
from onnxptq.quantization.writer import FastWriter
from onnxptq.runtimes.session import open_session

WIDE = 150.0
"""Times as large as what the net computes."""


class Made:
    """A net of three Gemms with its INT8 file, and what the file is verified with."""

    def __init__(self, folder: Path, *, batch="N", outputs=3) -> None:
        rng = np.random.default_rng(0)
        shapes = {"w1": (8, 6), "b1": (6,), "w2": (6, 6), "w3": (6, outputs)}
        constants = [
            numpy_helper.from_array((rng.standard_normal(s) * 0.5).astype(np.float32), n) for n, s in shapes.items()
        ]
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["a"], name="first"),
            helper.make_node("Sigmoid", ["a"], ["s"], name="middle"),
            helper.make_node("Gemm", ["s", "w2"], ["h"], name="second"),
            helper.make_node("Gemm", ["h", "w3"], ["y"], name="last"),
        ]
        values = [("x", [batch, 8]), ("y", [batch, outputs])]
        infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in values]
        graph = helper.make_graph(nodes, "g", infos[:1], infos[1:], constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, folder / "m.onnx")
        self.folder = folder
        self.model = load_model(folder / "m.onnx")
        self.folded = fold(self.model, Cache(folder / "room"))
        self.samples = [(f"sample {i}", {"x": rng.standard_normal((1, 8)).astype(np.float32)}) for i in range(20)]
        self.writer = FastWriter(self.folded, target_settings("cpu", self.folded))
        statistics = collect(self.folded, self.samples, self.writer.plan.observed)
        minmax, kind = RANGE_METHODS.get("minmax"), target_settings("cpu", self.folded).quantization
        self.ranges = {n: minmax.range(statistics.per_environment(n), kind) for n in self.writer.plan.observed}

    def write(self, change=None, **ranges):
        """The INT8 file, with other ranges and changed by a function of its `ModelProto`."""
        self.writer.write({**self.ranges, **ranges}, self.folder / "i.onnx")
        if change is not None:
            proto = onnx.load(self.folder / "i.onnx")
            change(proto)
            onnx.save(proto, self.folder / "i.onnx")
        return load_model(self.folder / "i.onnx")

    def verified(self, int8, **more):
        return verify_int8(self.model, int8, self.folded, self.samples, "cpu", **more)


@pytest.fixture
def made(tmp_path):
    return Made(tmp_path)


def test_a_sound_file_passes_without_a_word(made):
    assert made.verified(made.write()) == ()


def test_a_fixed_batch_is_filled(tmp_path):
    made = Made(tmp_path, batch=3)
    assert made.verified(made.write()) == ()


def initializer(proto, name):
    return next(tensor for tensor in proto.graph.initializer if tensor.name == name)


def number(proto, name, value):
    tensor = initializer(proto, name)
    dtype = numpy_helper.to_array(tensor).dtype
    tensor.CopyFrom(numpy_helper.from_array(np.array(value, dtype), name))


def nonsense(proto):
    """Makes an operator of a node that no one knows."""
    proto.graph.node[0].op_type = "Nonsense"
    proto.graph.node[0].domain = "com.acme"


BROKEN = {
    "does not load": (nonsense, "cannot load it"),
    "does not run": (
        lambda proto: initializer(proto, "w3_quantized").CopyFrom(
            numpy_helper.from_array(np.zeros((7, 3), np.int8), "w3_quantized")
        ),
        "cannot load it|fails on the sample 'sample 0'",
    ),
    "NaN": (lambda proto: number(proto, "y_scale", np.nan), "output 'y' is NaN or infinite for the sample 'sample 0'"),
    "one answer": (
        lambda proto: number(proto, "h_scale", 1e30),
        "gives the same output 'y' for all 4 samples, and the FP32 model does not",
    ),
}


@pytest.mark.parametrize("how", BROKEN)
def test_a_file_of_no_use_is_an_error_of_its_own_that_does_not_blame_the_model(made, how):
    change, said = BROKEN[how]
    int8 = made.write()
    proto = onnx.load(int8.path)
    change(proto)
    onnx.save(proto, int8.path)
    with pytest.raises(WrittenFileError, match=said) as caught:
        made.verified(int8)
    text = str(caught.value)
    assert "i.onnx was made and is of no use" in text
    assert "The FP32 model is not at fault" in text
    assert "--exclude" in text
    assert "export" not in text


def test_a_range_without_room_for_the_data_is_named_with_its_tensor_cause_and_remedy(made):
    (note,) = made.verified(made.write(h=(np.float32(-WIDE), np.float32(WIDE))))
    assert "the tensor 'h' (Gemm 'second') keeps" in note
    assert "leaves" in note
    assert "steps to 98 % of its values" in note
    assert "--exclude 'second'" in note


def test_a_range_that_cuts_is_named(made):
    (note,) = made.verified(made.write(h=(np.float32(-0.02), np.float32(0.02))))
    assert "the tensor 'h' (Gemm 'second')" in note
    assert "of its values lie outside of its range" in note


def test_an_error_that_no_range_explains_is_put_to_its_node(made):
    def ruin(proto):
        tensor = initializer(proto, "w2_quantized")
        tensor.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(tensor), tensor.name))

    (note,) = made.verified(made.write(ruin))
    assert "the tensor 'h' (Gemm 'second')" in note
    assert "its own scale" in note
    assert "does not explain it" in note


def test_a_bias_that_lost_its_value_is_found_at_its_node(made):
    def clip(proto):
        tensor = initializer(proto, "b1_quantized")
        values = -4 * numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    (note,) = made.verified(made.write(clip))
    assert "(Gemm 'first')" in note


def test_a_kernel_that_computes_something_else_is_named(made, monkeypatch):
    # The kind of tied weights whose scales lie along the axis of another reader: right as written, wrong when fused.
    real = verify._answers
    traced = []

    def wrong(session, feeds):
        answers = real(session, feeds)
        optimized = session.native.get_session_options().graph_optimization_level
        if session.model.name == "i.onnx" and optimized == onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL:
            answers = {name: -value for name, value in answers.items()}
        return answers

    monkeypatch.setattr(verify, "_answers", wrong)
    monkeypatch.setattr(verify, "explain", lambda *given, **how: traced.append(how) or "the tensor 'h' ...")
    assert made.verified(made.write()) == ("the tensor 'h' ...",)
    assert traced == [{"optimization_differs": True}]


def test_many_small_errors_are_said_to_add_up(made, monkeypatch):
    monkeypatch.setattr(verify, "explain", lambda *given, **how: "")
    (note,) = made.verified(made.write(h=(np.float32(-WIDE), np.float32(WIDE))))
    assert "No single tensor explains it" in note


def test_without_samples_it_is_loaded_all_the_same(made):
    int8 = made.write(h=(np.float32(-WIDE), np.float32(WIDE)))
    assert verify_int8(made.model, int8, made.folded, (), "cpu") == ()
    proto = onnx.load(int8.path)
    nonsense(proto)
    onnx.save(proto, int8.path)
    with pytest.raises(WrittenFileError):
        verify_int8(made.model, int8, made.folded, (), "cpu")


def test_lints_errors_are_told(made):
    int8 = made.write()
    notes = verify_int8(made.model, int8, made.folded, made.samples, "tensorrt")
    assert len(notes) == 1
    assert "lint finds an error in the file for tensorrt: QDQ" in notes[0]


def test_the_sessions_are_left_for_the_evaluation_and_taken_once(made):
    int8 = made.write()
    with ExitStack() as stack:
        made.verified(int8, stack=stack)
        first, second = (open_session(int8.path) for _ in range(2))
        assert first is not second
        assert open_session(made.model.path).model == made.model.path
        with_threads = open_session(int8.path, threads=1)
        assert with_threads is not first
    assert open_session(int8.path) is not first
