"""Whatever stock `quantize_static` can quantize is quantized, calibrated, evaluated and checked, whatever it gives."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

import onnxptq
from onnxptq.errors import ModelError
from onnxptq.gates import check
from onnxptq.inputs import DataOptions

R = np.random.default_rng(0)
W = R.standard_normal((8, 3)).astype(np.float32)
X = R.standard_normal((120, 8)).astype(np.float32)
GEMM = ("MatMul", ["x", "w"], ["y"], {})
X_IN, Y_OUT = ("x", ["N", 8]), ("y", ["N", 3])

MODELS = {
    "a constant output": (
        [GEMM], [X_IN], [Y_OUT, ("anchors", [5, 2])], {"w": W, "anchors": np.ones((5, 2), np.float32)}
    ),
    "a mean over the batch": (
        [GEMM, ("ReduceMean", ["y"], ["mean"], {"keepdims": 0})], [X_IN], [Y_OUT, ("mean", [])], {"w": W}
    ),
    "the input itself": ([GEMM], [X_IN], [Y_OUT, X_IN], {"w": W}),
    "classes as integers": (
        [GEMM, ("ArgMax", ["y"], ["class"], {"axis": 1, "keepdims": 0})],
        [X_IN], [("class", ["N"], TensorProto.INT64)], {"w": W},
    ),
    "as many rows as are found": (
        [GEMM, ("Greater", ["y", "zero"], ["big"], {}), ("NonZero", ["big"], ["where"], {})],
        [X_IN], [Y_OUT, ("where", [2, "M"], TensorProto.INT64)], {"w": W, "zero": np.float32(0)},
    ),
    "a sequence": (
        [GEMM, ("Relu", ["y"], ["r"], {}), ("SequenceConstruct", ["y", "r"], ["s"], {})],
        [X_IN], [helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)], {"w": W},
    ),
    "text": (
        [
            GEMM, ("ArgMax", ["y"], ["class"], {"axis": 1, "keepdims": 0}),
            ("LabelEncoder", ["class"], ["name"], {
                "domain": "ai.onnx.ml", "keys_int64s": [0, 1, 2], "values_strings": ["cat", "dog", "fox"],
            }),
        ],
        [X_IN], [Y_OUT, ("name", ["N"], TensorProto.STRING)], {"w": W},
    ),
    "probabilities as maps": (
        [
            GEMM, ("Softmax", ["y"], ["p"], {"axis": 1}),
            ("ZipMap", ["p"], ["maps"], {"domain": "ai.onnx.ml", "classlabels_int64s": [0, 1, 2]}),
        ],
        [X_IN],
        [helper.make_value_info("maps", helper.make_sequence_type_proto(
            helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
        ))],
        {"w": W},
    ),
    "a fixed batch": ([GEMM], [("x", [4, 8])], [("y", [4, 3])], {"w": W}),
}  # fmt: skip


@pytest.mark.parametrize("kind", MODELS)
def test_any_outputs_are_quantized_evaluated_and_checked(kind, save, tmp_path):
    model = save(*MODELS[kind])
    np.savez(tmp_path / "d.npz", x=X)
    made = onnxptq.quantize(model, data=str(tmp_path / "d.npz"), corruptions=["clean"], output=tmp_path / "q.onnx")
    names = [said[0] if isinstance(said, tuple) else said.name for said in MODELS[kind][2]]
    assert list(made.report.judged) == names
    assert 0.5 < made.report.int8_average <= 1
    run = made.predictions[1]
    if run.identity["head"] == "raw":
        assert run.fidelity.min() < 1 or kind == "classes as integers"
    else:
        assert kind == "probabilities as maps"
    verdict = check(tmp_path / "q.onnx", reference=model, data=str(tmp_path / "d.npz"), corruptions=["clean"])
    assert verdict.subject["judged"] == names


def test_samples_in_another_dimension_are_told_apart(save, tmp_path):
    nodes = [("MatMul", ["x", "w"], ["t"], {}), ("Relu", ["t"], ["y"], {})]
    model = save(nodes, [("x", ["T", "N", 8])], [("y", ["T", "N", 3])], {"w": W})
    x = R.standard_normal((60, 5, 8)).astype(np.float32)  # 60 samples of 5 steps
    np.savez(tmp_path / "d.npz", x=x)
    made = onnxptq.quantize(model, data=str(tmp_path / "d.npz"), corruptions=["clean"], output=tmp_path / "q.onnx")
    fp32 = made.predictions[0]
    assert [shape.shape for shape in fp32.shapes] == [(5, 3)]
    order = [int(name.split(":")[0]) for name in fp32.sample_id]
    expected = np.maximum(x[order] @ W, 0)
    np.testing.assert_allclose(fp32.unflattened()[0], expected, rtol=1e-4, atol=1e-5)


def test_a_state_and_a_rate_are_inputs_like_others(save, tmp_path):
    nodes = [
        ("MatMul", ["x", "w"], ["t"], {}), ("ReduceSum", ["state", "axes"], ["s"], {"keepdims": 0}),
        ("Cast", ["rate"], ["r"], {"to": TensorProto.FLOAT}), ("Add", ["t", "s"], ["u"], {}),
        ("Mul", ["u", "r"], ["y"], {}), ("Identity", ["state"], ["next"], {}),
    ]  # fmt: skip
    inputs = [X_IN, ("state", [2, "N", 3]), ("rate", [], TensorProto.INT64)]
    weights = {"w": W, "axes": np.array([0])}
    model = save(nodes, inputs, [Y_OUT, ("next", [2, "N", 3])], weights)
    state = R.standard_normal((40, 2, 3)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=X[:40], state=state, rate=np.full((40, 1), 2))
    columns = onnxptq.data.Columns(inputs=("x", "state", "rate"))
    made = onnxptq.quantize(
        model, corruptions=["clean"], output=tmp_path / "q.onnx",
        options=DataOptions(data=str(tmp_path / "d.npz"), columns=columns),
    )  # fmt: skip
    fp32 = made.predictions[0]
    y, following = fp32.unflattened()
    order = [int(name.split(":")[0]) for name in fp32.sample_id]
    np.testing.assert_allclose(y, 2 * (X[order] @ W + state[order].sum(1)), rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(following, state[order])


def test_noise_calibrates_where_sizes_are_open(save, tmp_path):
    nodes = [("GlobalAveragePool", ["x"], ["p"], {}), ("Flatten", ["p"], ["f"], {}), ("MatMul", ["f", "w"], ["y"], {})]
    model = save(nodes, [("x", ["N", 8, "H", "W"])], [Y_OUT], {"w": W})
    made = onnxptq.quantize(model, calib="random", calib_size=2, evaluate=False, output=tmp_path / "q.onnx")
    assert made.output.is_file()
    options = DataOptions(preprocessing={"shape": {"x": [1, 8, 6, 5]}})
    made = onnxptq.quantize(
        model, calib="random", calib_size=2, evaluate=False, output=tmp_path / "s.onnx", options=options
    )
    assert made.output.is_file()


def test_a_model_of_which_nothing_can_be_quantized_is_an_error_that_says_why(save, tmp_path):
    model = save([("Sin", ["x"], ["y"], {})], [X_IN], [("y", ["N", 8])])
    with pytest.raises(ModelError, match=r"nothing of the model was quantized.*has no INT8 for .*\(1 Sin\)"):
        onnxptq.quantize(model, calib="random", evaluate=False, output=tmp_path / "q.onnx")
    assert not (tmp_path / "q.onnx").exists()
    model = save([GEMM], [X_IN], [Y_OUT], {"w": W}, "excluded.onnx")
    with pytest.raises(ModelError, match=r"nothing of the model was quantized.*left out by name"):
        onnxptq.quantize(model, calib="random", evaluate=False, exclude=["*"], output=tmp_path / "q.onnx")


def test_a_file_of_floats_fails_the_check_unless_the_policy_allows_it(save, tmp_path):
    model = save([GEMM], [X_IN], [Y_OUT], {"w": W})
    np.savez(tmp_path / "d.npz", x=X)
    found = check(model, reference=model, data=str(tmp_path / "d.npz"), corruptions=["clean"])
    assert found.exit_code == 1
    assert [rule.rule for rule in found.rules if rule.verdict.value == "FAILED"] == ["quantization"]
    policy = tmp_path / "p.toml"
    policy.write_text("format = 1\n[quantization]\nrequired = false\n[fidelity]\nlimit = 0.9\n")
    allowed = check(model, reference=model, data=str(tmp_path / "d.npz"), corruptions=["clean"], policy=policy)
    assert allowed.exit_code == 0


def test_a_ruined_output_behind_a_perfect_one_fails(save, tmp_path):
    embedding = R.standard_normal((100, 16)).astype(np.float32)
    embedding[0] *= 3000  # One rare token is huge, and its range ruins the others.
    nodes = [
        ("Identity", ["ids"], ["ids_out"], {}), ("Gather", ["e", "ids"], ["t"], {}),
        ("ReduceMean", ["t"], ["p"], {"axes": [1], "keepdims": 0}), ("MatMul", ["p", "v"], ["embedding"], {}),
    ]  # fmt: skip
    weights = {"e": embedding, "v": R.standard_normal((16, 16)).astype(np.float32)}
    outputs = [("ids_out", ["N", 8], TensorProto.INT64), ("embedding", ["N", 16])]
    model = save(nodes, [("ids", ["N", 8], TensorProto.INT64)], outputs, weights)
    ids = R.integers(1, 100, (200, 8))
    rare = ids[:64].copy()
    rare[0] = 0
    np.savez(tmp_path / "c.npz", ids=rare)
    np.savez(tmp_path / "e.npz", ids=ids)
    options = DataOptions(calib_data=str(tmp_path / "c.npz"), eval_data=str(tmp_path / "e.npz"))
    onnxptq.quantize(model, output=tmp_path / "q.onnx", options=options)
    found = check(tmp_path / "q.onnx", reference=model, data=str(tmp_path / "e.npz"))
    assert found.exit_code == 1
    assert found.subject["judged"] == ["ids_out", "embedding"]


def test_a_reference_that_knows_nothing_is_said_before_int8_is_judged(save, tmp_path):
    model = save([GEMM], [X_IN], [Y_OUT], {"w": W})
    label = (X @ W).argmax(axis=1)
    for name, labels, said in (("right", label, False), ("shuffled", R.permutation(label), True)):
        np.savez(tmp_path / f"{name}.npz", x=X, label=labels)
        made = onnxptq.quantize(
            model, data=str(tmp_path / f"{name}.npz"), corruptions=["clean"], output=tmp_path / f"{name}.onnx"
        )
        assert made.report.measure == "accuracy"
        assert any("before INT8 is judged" in one and "order of the labels" in one for one in made.warnings) == said
