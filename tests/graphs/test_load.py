"""Every way in which a file can be unusable is said in the user's words; the digest covers all that the model is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.errors import ModelError
from onnxptq.graphs import load_model
from onnxptq.graphs.load import check_quantizable

FLOAT = TensorProto.FLOAT


def proto(nodes=None, *, dtype=FLOAT, shape=("N", 2), weights=None, inputs=(), functions=(), domains=()):
    """y = x @ w, or other nodes from x to y."""
    weights = [numpy_helper.from_array(np.ones((2, 3), np.float32), "w")] if weights is None else weights
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", dtype, list(shape)), *inputs],
        [helper.make_tensor_value_info("y", dtype, ["N", 3])],
        weights,
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9, functions=functions)


@pytest.fixture
def save(tmp_path):
    def save(model, name="m.onnx", **options):
        onnx.save(model, tmp_path / name, **options)
        return tmp_path / name

    return save


def external_tensor(location, name="w"):
    tensor = TensorProto(name=name, data_type=FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", "0"), ("length", "24")):
        tensor.external_data.add(key=key, value=value)
    return tensor


def test_a_model_is_described_by_its_signature_metadata_size_and_opset(save):
    model = proto(shape=("N", 2))
    helper.set_model_props(model, {"author": "me"})
    path = save(model)
    loaded = load_model(path)
    assert [(s.name, s.dtype, s.shape) for s in loaded.signature.inputs] == [("x", "float32", (None, 2))]
    assert [s.name for s in loaded.signature.outputs] == ["y"]
    assert loaded.metadata == {"author": "me"}
    assert (loaded.path, loaded.size, loaded.opset, loaded.quantized) == (path, path.stat().st_size, 17, False)
    assert len(loaded.digest) == 64


def test_initializers_that_are_listed_as_inputs_are_no_inputs(save):
    extra = helper.make_tensor_value_info("w", FLOAT, [2, 3])
    assert [s.name for s in load_model(save(proto(inputs=[extra]))).signature.inputs] == ["x"]


@pytest.mark.parametrize(("size", "expected"), [(4, 4), ("N", None), (-1, None), (0, None), (None, None)])
def test_a_dimension_is_fixed_only_where_it_is_a_positive_number(save, size, expected):
    assert load_model(save(proto(shape=(size, 2)))).signature.inputs[0].shape == (expected, 2)


def test_the_same_bytes_elsewhere_have_the_same_digest_and_one_changed_weight_another(save):
    one, copy = load_model(save(proto())), load_model(save(proto(), "copy.onnx"))
    weights = [numpy_helper.from_array(np.full((2, 3), 2, np.float32), "w")]
    assert one.digest == copy.digest
    assert load_model(save(proto(weights=weights))).digest != one.digest


def test_digest_and_size_cover_external_data(save, tmp_path):
    path = save(proto(), save_as_external_data=True, location="w.data", size_threshold=0)
    before = load_model(path)
    data = (tmp_path / "w.data").read_bytes()
    assert before.size == path.stat().st_size + len(data)
    (tmp_path / "w.data").write_bytes(data[:-1] + b"\x01")
    assert load_model(path).digest != before.digest


def test_a_missing_file_is_said_with_its_neighbours(save, tmp_path):
    save(proto(), "other.onnx")
    with pytest.raises(ModelError, match=r"there is no model .*gone\.onnx\. In its folder: other\.onnx"):
        load_model(tmp_path / "gone.onnx")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match=r"There is no \.onnx file in its folder"):
        load_model(tmp_path / "empty" / "gone.onnx")
    with pytest.raises(ModelError, match=r"There is no folder .*nowhere either"):
        load_model(tmp_path / "nowhere" / "gone.onnx")


def test_a_folder_an_empty_file_and_an_impossible_name_are_said(tmp_path):
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(ModelError, match=r"is a folder; give the \.onnx file in it"):
        load_model(tmp_path)
    with pytest.raises(ModelError, match=r"empty\.onnx is empty \(0 bytes\)"):
        load_model(tmp_path / "empty.onnx")
    with pytest.raises(ModelError, match=r"cannot be read: .*too long"):
        load_model(tmp_path / ("x" * 300))


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n" * 9, b"not a model at all", b"\x00" * 64, b"{}"])
def test_what_is_not_onnx_is_said(tmp_path, content):
    (tmp_path / "x.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.onnx is not an ONNX"):
        load_model(tmp_path / "x.onnx")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_model_is_said(save, tmp_path, part):
    data = save(proto()).read_bytes()
    (tmp_path / "cut.onnx").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelError, match=r"cut\.onnx is not (an ONNX|a valid ONNX)"):
        load_model(tmp_path / "cut.onnx")


def test_an_invalid_graph_is_said_and_a_custom_operator_is_left_to_the_runtime(save):
    node = helper.make_node("NoSuchOperator", ["x"], ["y"])
    with pytest.raises(ModelError, match=r"is not a valid ONNX model: .*NoSuchOperator"):
        load_model(save(proto([node])))
    with pytest.raises(ModelError, match="is not a valid ONNX model"):
        load_model(save(proto([helper.make_node("Relu", ["nowhere"], ["y"])])))
    node = helper.make_node("Mine", ["x"], ["y"], domain="my.domain")
    assert load_model(save(proto([node], domains=["my.domain"]))).signature.inputs[0].name == "x"


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "sub/../../secret"])
def test_external_data_outside_the_folder_is_refused_though_it_exists(save, tmp_path, location):
    (tmp_path.parent / "secret").write_bytes(bytes(24))
    (tmp_path / "sub").mkdir()
    with pytest.raises(ModelError, match="outside its own folder"):
        load_model(save(proto(weights=[external_tensor(location)])))


def test_a_link_out_of_the_folder_is_refused(save, tmp_path):
    (tmp_path.parent / "secret").write_bytes(bytes(24))
    (tmp_path / "w.data").symlink_to(tmp_path.parent / "secret")
    with pytest.raises(ModelError, match="outside its own folder"):
        load_model(save(proto(weights=[external_tensor("w.data")])))


def test_external_data_is_looked_for_everywhere_in_a_model(save):
    hidden = helper.make_node("Constant", [], ["w"], value=external_tensor("../secret"))
    inner = helper.make_graph([hidden], "inner", [], [helper.make_tensor_value_info("w", FLOAT, [2, 3])])
    branch = helper.make_node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)
    condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
    function = helper.make_function("my", "F", ["x"], ["w"], [hidden], [helper.make_opsetid("", 17)])
    call = helper.make_node("F", ["x"], ["y"], domain="my")
    values = external_tensor("../secret")
    indices = numpy_helper.from_array(np.arange(6), "i")
    sparse = proto()
    sparse.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2, 3]))
    for model in (proto([hidden]), proto([condition, branch]), proto([call], functions=[function]), sparse):
        with pytest.raises(ModelError, match="outside its own folder"):
            load_model(save(model))


def test_missing_external_data_is_named_with_its_tensor(save, tmp_path):
    path = save(proto(), save_as_external_data=True, location="w.data", size_threshold=0)
    (tmp_path / "w.data").unlink()
    with pytest.raises(ModelError, match=r"external data 'w\.data' .*\(tensor 'w'\) is missing"):
        load_model(path)


@pytest.mark.parametrize(
    "operator",
    ["QuantizeLinear", "QLinearConv", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeLSTM", "QGemm"],
)
def test_a_quantized_model_is_refused(save, operator):
    node = helper.make_node(operator, ["x"], ["y"], domain="com.microsoft")
    model = load_model(save(proto([node], domains=["com.microsoft"])))
    assert model.quantized
    with pytest.raises(ModelError, match=r"is quantized already. Give the FP32 model"):
        check_quantizable(model)


@pytest.mark.parametrize(("dtype", "name"), [(TensorProto.DOUBLE, "float64"), (16, "bfloat16")])
def test_a_model_of_another_float_is_refused(save, dtype, name):
    model = load_model(save(proto([helper.make_node("Identity", ["x"], ["y"])], dtype=dtype)))
    with pytest.raises(ModelError, match=f"input 'x' of .* is {name}"):
        check_quantizable(model)


def test_a_float_model_with_integer_inputs_is_accepted(save):
    node = helper.make_node("Gather", ["w", "x"], ["y"])
    model = proto([node], dtype=TensorProto.INT64)
    model.graph.output[0].type.tensor_type.elem_type = FLOAT
    check_quantizable(load_model(save(model)))
