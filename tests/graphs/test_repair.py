"""Graphs that ONNX Runtime's quantizer takes wrongly or not at all become INT8 files that compute the same."""

from __future__ import annotations

import itertools

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.graphs import fold, load_model
from onnxptq.graphs.prepare import prepare
from onnxptq.graphs.repair import AFTER_FOLDING, BEFORE_FOLDING
from onnxptq.quantization.targets import target_settings

from .small_graphs import model, node, noise, quantized, rng, run, sqnr, value, weights

X8 = {"x": rng().standard_normal((40, 8)).astype(np.float32)}
X4 = {"x": rng().standard_normal((16, 4, 8, 8)).astype(np.float32)}
ROWS, IMAGES = [value("x", ["N", 8])], [value("x", ["N", 4, 8, 8])]


def images(nodes, constants, channels, **more):
    """Nodes from x to a tensor `c` of some channels, and a head."""
    head = [
        node("GlobalAveragePool", ["c"], ["gp"]),
        node("Flatten", ["gp"], ["fl"]),
        node("Gemm", ["fl", "hw", "hb"], ["y"], transB=1),
    ]
    head_weights = {"hw": weights(hw=(3, channels))["hw"], "hb": np.array([0.5, -1, 2], np.float32)}
    return model([*nodes, *head], IMAGES, [value("y", ["N", 3])], {**constants, **head_weights}, **more)


def check(proto, feeds, tmp_path, *, least=22.0, target="cpu"):
    optimized, as_written = noise(proto, feeds, tmp_path, target=target)
    assert min(optimized, as_written) > least, (optimized, as_written)


GEMMS = {
    "a scalar": {"bias": ()},
    "one number": {"bias": (1,)},
    "one number of two axes": {"bias": (1, 1)},
    "a row": {"bias": (1, 3)},
    "a row, transposed weight": {"bias": (1, 3), "transB": 1},
    "a column": {"bias": (40, 1), "rows": 40},
    "all rows": {"bias": (40, 3), "rows": 40},
    "all rows, transposed input": {"bias": (8, 3), "rows": 8, "transA": 1, "inputs": 40},
    "beta": {"bias": (3,), "beta": 3.0},
    "negative beta and a row": {"bias": (1, 3), "beta": -2.0},
    "beta of nothing": {"bias": (3,), "beta": 0.0},
    "alpha": {"bias": (3,), "alpha": 3.0},
    "alpha and beta, transposed weight": {"bias": (3,), "alpha": 0.25, "beta": 4.0, "transB": 1},
    "alpha without a bias": {"bias": None, "alpha": -3.0},
}


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
@pytest.mark.parametrize("kind", GEMMS)
def test_gemm_counts_its_bias_once_whatever_its_shape_and_factors(kind, target, tmp_path):
    attributes = dict(GEMMS[kind])
    bias, rows, inputs = attributes.pop("bias"), attributes.pop("rows", "N"), attributes.pop("inputs", 8)
    constants = weights(w=(3, inputs) if attributes.get("transB") else (inputs, 3))
    if bias is not None:
        constants |= {"b": (rng().standard_normal(bias) * 2).astype(np.float32)}
    names = ["x", "w", *(["b"] if bias is not None else [])]
    shape = [inputs, rows] if attributes.get("transA") else [rows, inputs]
    proto = model([node("Gemm", names, ["y"], **attributes)], [value("x", shape)], [value("y", [rows, 3])], constants)
    if rows == "N":
        check(proto, X8, tmp_path, target=target)
        return
    batch = rng().standard_normal((1, *shape)).astype(np.float32)[0]
    source, output = quantized(proto, {"x": _Whole(batch)}, tmp_path, target=target)
    for optimized in (True, False):
        got = run(output, {"x": batch}, optimized=optimized)[0]
        assert sqnr(run(source, {"x": batch})[0], got) > 22


class _Whole(np.ndarray):
    """An array that is one sample as it is: a graph of a fixed number of rows."""

    def __new__(cls, array):
        return np.asarray(array).view(cls)

    def __len__(self):
        return 1

    def __getitem__(self, key):
        return np.asarray(self)


def test_a_bias_of_a_constant_node_and_a_matmul_and_add_are_repaired_too(tmp_path):
    bias = numpy_helper.from_array(np.array([[1, -2, 3]], np.float32))
    nodes = [
        helper.make_node("Constant", [], ["b"], value=bias),
        node("MatMul", ["x", "w"], ["a"]),
        node("Add", ["a", "b"], ["y"]),
    ]
    check(model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 3))), X8, tmp_path)


@pytest.mark.parametrize("attribute", ["value_float", "value_floats", "sparse_value", "value"])
def test_constant_nodes_of_every_kind_are_taken(attribute, tmp_path):
    sparse = helper.make_sparse_tensor(
        numpy_helper.from_array(np.array([2, 3], np.float32), "v"), numpy_helper.from_array(np.array([0, 2]), "i"), [3]
    )
    held = {
        "value_float": 2.0,
        "value_floats": [1.0, 2.0, 3.0],
        "sparse_value": sparse,
        "value": numpy_helper.from_array(np.array([1, 2, 3], np.float32)),
    }
    nodes = [
        helper.make_node("Constant", [], ["b"], **{attribute: held[attribute]}),
        node("Gemm", ["x", "w", "b"], ["y"], transB=1, beta=2.0),
    ]
    check(model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(3, 8))), X8, tmp_path)


@pytest.mark.parametrize("target", ["cpu", "openvino"])
@pytest.mark.parametrize(("group", "bias"), [(2, 6), (4, 12), (1, 3)])
def test_a_transposed_convolution_with_groups_keeps_its_bias(group, bias, target, tmp_path):
    constants = weights(w=(4, 3, 3, 3), b=(bias,))
    proto = images([node("ConvTranspose", ["x", "w", "b"], ["c"], group=group)], constants, bias)
    check(proto, X4, tmp_path, target=target, least=18)


def table(rows=20, width=8):
    return weights(emb=(rows, width))


READERS = {
    "MatMul and transposed Gemm": (
        [node("MatMul", ["x", "w"], ["a"]), node("Gemm", ["a", "w"], ["b"], transB=1)],
        weights(w=(8, 8)),
    ),
    "Gemm and Add": ([node("Gemm", ["x", "w"], ["a"]), node("Add", ["a", "w2"], ["b"])], weights(w=(8, 8), w2=(8,))),
    "a weight that is added too": (
        [node("MatMul", ["x", "w"], ["a"]), node("Add", ["w", "x1"], ["c"]), node("MatMul", ["a", "c"], ["b"])],
        weights(w=(8, 8), x1=(8,)),
    ),
    "a bias that is added too": (
        [node("Gemm", ["x", "w", "v"], ["a"]), node("Add", ["a", "v"], ["b"])],
        weights(w=(8, 8), v=(8,)),
    ),
    "a bias of two Gemms": (
        [node("Gemm", ["x", "w", "v"], ["v0"]), node("Gemm", ["v0", "w", "v"], ["b"], transB=1)],
        weights(w=(8, 8), v=(8,)),
    ),
    "a bias of two nameless Gemms": (
        [
            node("Gemm", ["x", "w", "v"], ["v0"], name=""),
            node("Gemm", ["v0", "w", "v"], ["b"], name="", transB=1),
        ],
        weights(w=(8, 8), v=(8,)),
    ),
}


@pytest.mark.parametrize("target", ["cpu", "openvino", "tensorrt"])
@pytest.mark.parametrize("kind", READERS)
def test_a_constant_of_several_readers_is_right_for_each(kind, target, tmp_path):
    nodes, constants = READERS[kind]
    scaled = {
        name: array * np.logspace(-1.5, 0.5, array.shape[-1], dtype=np.float32) for name, array in constants.items()
    }
    proto = model([*nodes, node("Relu", ["b"], ["y"])], ROWS, [value("y", ["N", 8])], scaled)
    check(proto, X8, tmp_path, target=target, least=18)


@pytest.mark.parametrize("target", ["cpu", "tensorrt"])
def test_a_tied_embedding_is_quantized_once_for_each_reader(target, tmp_path):
    nodes = [
        node("Gather", ["emb", "ids"], ["e"], axis=0),
        node("ReduceMean", ["e"], ["a"], axes=[1], keepdims=0),
        node("Gemm", ["a", "emb"], ["y"], transB=1),
    ]
    ids = {"ids": rng().integers(0, 20, (30, 6))}
    proto = model(nodes, [value("ids", ["N", 6], TensorProto.INT64)], [value("y", ["N", 20])], weights(emb=(20, 8)))
    check(proto, ids, tmp_path, target=target)


def sparse_weight(proto):
    dense = numpy_helper.to_array(next(t for t in proto.graph.initializer if t.name == "w"))
    kept = np.flatnonzero(np.abs(dense) > 0.3)
    values = numpy_helper.from_array(dense.ravel()[kept], "w")
    proto.graph.initializer.remove(next(t for t in proto.graph.initializer if t.name == "w"))
    return values, kept, dense.shape


@pytest.mark.parametrize("axes", [1, 2])
def test_sparse_weights_are_taken(axes, tmp_path):
    proto = model([node("Gemm", ["x", "w", "b"], ["y"])], ROWS, [value("y", ["N", 3])], weights(w=(8, 3), b=(3,)))
    values, kept, shape = sparse_weight(proto)
    indices = kept if axes == 1 else np.stack(np.unravel_index(kept, shape), axis=1)
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(indices, "wi"), shape)
    proto.graph.sparse_initializer.append(sparse)
    check(proto, X8, tmp_path)


def test_a_sparse_constant_of_a_size_that_nobody_has_is_refused(tmp_path):
    proto = model([node("Gemm", ["x", "w"], ["y"])], [value("x", ["N", 1 << 20])], [value("y", ["N", 1 << 20])], {})
    values = numpy_helper.from_array(np.ones(1, np.float32), "w")
    indices = numpy_helper.from_array(np.array([3]), "wi")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 20, 1 << 20]))
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"sparse constant 'w'.*more than 8 GiB"):
        fold(load_model(tmp_path / "m.onnx"), Cache(tmp_path / "room"))


NAMES = {
    "an activation like a scale": ("a", "a_scale"),
    "an activation like a quantized weight": ("a", "w_quantized"),
    "an activation like a Q node's output": ("a", "a_QuantizeLinear_Output"),
    "an activation like a DQ node's output": ("a_DequantizeLinear_Output", "a"),
    "an output like an input's scale": ("a", "x_zero_point"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_names_that_the_quantizer_makes_up_are_free(kind, tmp_path):
    first, last = NAMES[kind]
    nodes = [node("Gemm", ["x", "w", "b"], [first]), node("Sigmoid", [first], [last])]
    nodes.append(node("Gemm", [last, "v"], ["y"]))
    proto = model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 6), b=(6,), v=(6, 3)))
    check(proto, X8, tmp_path)


@pytest.mark.parametrize(("entry", "result"), [("x", "x_scale"), ("y_scale", "y")])
def test_names_of_inputs_and_outputs_stay_where_both_collide(entry, result, tmp_path):
    nodes = [node("Gemm", [entry, "w"], ["h"]), node("Relu", ["h"], [result])]
    proto = model(nodes, [value(entry, ["N", 8])], [value(result, ["N", 6])], weights(w=(8, 6)))
    feeds = {entry: X8["x"]}
    check(proto, feeds, tmp_path)
    written = onnx.load(tmp_path / "i.onnx").graph
    assert ([v.name for v in written.input], [v.name for v in written.output]) == ([entry], [result])


def test_a_constant_named_twice_is_the_last_one_as_in_onnx_runtime(tmp_path):
    proto = model([node("Gemm", ["x", "w"], ["y"])], ROWS, [value("y", ["N", 3])], weights(w=(8, 3)))
    other = proto.graph.initializer.add()
    other.CopyFrom(numpy_helper.from_array(np.full((8, 3), 0.25, np.float32), "w"))
    check(proto, X8, tmp_path)


@pytest.mark.parametrize("shared", ["conv", "c", "pool_1"])
def test_nodes_of_one_name_become_the_file_of_nodes_with_names_of_their_own(shared, tmp_path):
    def net(*names):
        proto = images([node("Conv", ["x", "w"], ["c"])], weights(w=(5, 4, 3, 3)), 5)
        for one, name in zip(proto.graph.node, names, strict=True):
            one.name = name
        return proto

    (tmp_path / "alike").mkdir()
    (tmp_path / "own").mkdir()
    _, alike = quantized(net(shared, "pool", shared, shared), X4, tmp_path / "alike")
    own, int8 = quantized(net("a", "b", "c", "d"), X4, tmp_path / "own")
    assert len({one.name for one in onnx.load(alike).graph.node}) == len(onnx.load(alike).graph.node)
    np.testing.assert_array_equal(run(alike, X4)[0], run(int8, X4)[0])
    assert sqnr(run(own, X4)[0], run(alike, X4)[0]) > 22


def test_nodes_in_any_order_are_taken_and_subgraphs_of_them(tmp_path):
    nodes = [node("Gemm", ["h", "v"], ["y"]), node("Relu", ["a"], ["h"]), node("Gemm", ["x", "w", "b"], ["a"])]
    proto = model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 6), b=(6,), v=(6, 3)))
    check(proto, X8, tmp_path)


def test_a_circle_is_no_order(tmp_path):
    nodes = [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Relu", ["b"], ["y"])]
    onnx.save(model(nodes, ROWS, [value("y", ["N", 8])], {}), tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="not a valid ONNX model"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize("operator", ["Softmax", "Conv", "Gemm", "Clip"])
def test_a_local_function_of_a_known_name_is_what_it_computes(operator, tmp_path):
    body = [helper.make_node("Mul", ["a", "a"], ["s"]), helper.make_node("Sub", ["s", "a"], ["r"])]
    function = helper.make_function("mine", operator, ["a"], ["r"], body, [helper.make_opsetid("", 17)])
    nodes = [
        node("Gemm", ["x", "w"], ["h"]),
        node(operator, ["h"], ["f"], domain="mine"),
        node("Gemm", ["f", "v"], ["y"]),
    ]
    proto = model(
        nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 6), v=(6, 3)), domains=[("mine", 1)], functions=[function]
    )
    check(proto, X8, tmp_path)


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT])
@pytest.mark.parametrize("operator", ["Softmax", "LogSoftmax"])
def test_a_softmax_of_doubles_stays_as_it_is(kind, operator, tmp_path):
    nodes = [
        node("Gemm", ["x", "w"], ["h"]),
        node("Cast", ["h"], ["d"], to=kind),
        node(operator, ["d"], ["s"]),
        node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        node("Gemm", ["f", "v"], ["y"]),
    ]
    check(model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 6), v=(6, 3))), X8, tmp_path)


@pytest.mark.parametrize("outputs", [2, 4])
def test_a_tensor_of_unknown_type_before_a_split_ends(outputs, tmp_path):
    parts = [f"p{i}" for i in range(outputs)]
    nodes = [
        node("FusedConv", ["x", "w"], ["a"], pads=[1] * 4, activation="Relu", domain="com.microsoft"),
        node("Split", ["a"], parts, axis=1),
        node("Concat", parts[::-1], ["c"], axis=1),
    ]
    shapes = [value(part, ["N", 4 // outputs, 8, 8]) for part in parts]
    proto = images(nodes, weights(w=(4, 4, 3, 3)), 4, opset=13, domains=[("com.microsoft", 1)], values=shapes)
    check(proto, X4, tmp_path)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("constant", ["w", "b"])
def test_weights_that_are_no_numbers_are_the_models_fault_by_name(number, constant, tmp_path):
    constants = weights(w=(3, 8), b=(3,))
    constants[constant].flat[0] = number
    proto = model([node("Gemm", ["x", "w", "b"], ["y"], name="fc", transB=1)], ROWS, [value("y", ["N", 3])], constants)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=rf"m\.onnx: the constant '{constant}', read by the Gemm 'fc', holds"):
        fold(load_model(tmp_path / "m.onnx"), Cache(tmp_path / "room"))


LOWEST = [-np.inf, -3.4028235e38, -1e9]


@pytest.mark.parametrize("lowest", LOWEST)
@pytest.mark.parametrize("how", ["Where", "Add", "Mul and Add", "Concat"])
def test_a_mask_is_not_in_the_range_of_the_scores_it_hides(how, lowest, tmp_path):
    hidden = np.triu(np.ones((6, 6), bool), 1)
    least = np.float32(lowest)
    constants = weights(qw=(8, 8), hw=(3, 8), hb=(3,)) | {"zero": np.float32(0)}
    masking = {
        "Where": ([node("Where", ["mask", "least", "s"], ["m"])], {"mask": hidden, "least": least}),
        "Add": ([node("Add", ["s", "mask"], ["m"])], {"mask": np.where(hidden, least, 0).astype(np.float32)}),
        "Mul and Add": (
            [
                node("Less", ["pos", "row"], ["cond"]),
                node("Where", ["cond", "least", "zero"], ["bias"]),
                node("Add", ["s", "bias"], ["m"]),
            ],
            {"pos": np.arange(6)[:, None], "row": np.arange(6)[None], "least": least},
        ),
        "Concat": (
            [
                node("Expand", ["least", "to"], ["more"]),
                node("Concat", ["s", "more"], ["m0"], axis=-1),
                node("Slice", ["m0", "from", "end", "axis"], ["m"]),
            ],
            {
                "least": least.reshape(1, 1, 1),
                "to": np.array([1, 6, 2]),
                "from": np.array([2]),
                "end": np.array([8]),
                "axis": np.array([2]),
            },
        ),
    }
    nodes, more = masking[how]
    proto = model(
        [
            node("MatMul", ["x", "qw"], ["q"]),
            node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
            node("MatMul", ["q", "k"], ["s"]),
            *nodes,
            node("Softmax", ["m"], ["p"], axis=-1),
            node("MatMul", ["p", "x"], ["o"]),
            node("ReduceMean", ["o"], ["r"], axes=[1], keepdims=0),
            node("Gemm", ["r", "hw", "hb"], ["y"], transB=1),
        ],
        [value("x", ["N", 6, 8])],
        [value("y", ["N", 3])],
        constants | more,
    )
    if how == "Concat":
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    feeds = {"x": rng().standard_normal((30, 6, 8)).astype(np.float32)}
    if how == "Concat":
        source, output = quantized(proto, feeds, tmp_path)
        rows = [{"x": feeds["x"][i : i + 1]} for i in range(30)]
        for optimized in (True, False):
            wanted, got = (np.concatenate([run(p, r, optimized=optimized)[0] for r in rows]) for p in (source, output))
            assert sqnr(wanted, got) > 18
    else:
        check(proto, feeds, tmp_path, least=18)


@pytest.mark.parametrize("lowest", LOWEST)
@pytest.mark.parametrize("padding", [1, 2])
def test_a_pad_of_the_lowest_float_before_a_max_pool_costs_no_resolution(lowest, padding, tmp_path):
    nodes = [
        node("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4),
        node("Pad", ["a", "pads", "lowest"], ["p"]),
        node("MaxPool", ["p"], ["k"], kernel_shape=[3, 3], strides=[2, 2]),
        node("Conv", ["k", "w2"], ["c"]),
    ]
    pads = np.array([0, 0, 0, 0, 0, 0, padding, padding])
    constants = weights(w=(4, 4, 3, 3), b=(4,), w2=(4, 4, 2, 2)) | {"pads": pads, "lowest": np.float32(lowest)}
    check(images(nodes, constants, 4), X4, tmp_path)
    assert not any(n.op_type == "Pad" for n in onnx.load(tmp_path / "i.onnx").graph.node)


@pytest.mark.parametrize("lowest", LOWEST)
def test_a_pad_that_a_max_pool_cannot_take_stays_and_is_not_in_the_range(lowest, tmp_path):
    nodes = [
        node("Conv", ["x", "w"], ["a"], pads=[1] * 4),
        node("Pad", ["a", "pads", "lowest"], ["p"]),
        node("MaxPool", ["p"], ["k"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1),
        node("ReduceMax", ["p"], ["most"], axes=[2, 3]),
        node("Add", ["k", "most"], ["c"]),
    ]
    constants = weights(w=(4, 4, 3, 3)) | {"pads": np.array([0, 0, 1, 1, 0, 0, 1, 1]), "lowest": np.float32(lowest)}
    check(images(nodes, constants, 4), X4, tmp_path)


@pytest.mark.parametrize("bounds", [(0.5, 2.0), (-3.0, -0.5), (0.0, 6.0), (-1.0, None), (None, None)])
def test_a_clip_cuts_where_its_bounds_are_and_not_at_zero(bounds, tmp_path):
    names = ["" if bound is None else f"bound{i}" for i, bound in enumerate(bounds)]
    constants = {f"bound{i}": np.float32(bound) for i, bound in enumerate(bounds) if bound is not None}
    nodes = [node("Gemm", ["x", "w"], ["h"]), node("Clip", ["h", *names], ["f"]), node("Gemm", ["f", "v"], ["y"])]
    check(model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 6), v=(6, 3)) | constants), X8, tmp_path)


@pytest.mark.parametrize("operator", ["Relu", "Clip"])
def test_an_activation_whose_input_a_branch_reads_too_stays(operator, tmp_path):
    def branch(name):
        return helper.make_graph([node(name, ["h"], ["r"])], name, [], [value("r", ["N", 6])])

    choose = node("If", ["yes"], ["i"], then_branch=branch("Abs"), else_branch=branch("Neg"))
    nodes = [node("Gemm", ["x", "w"], ["h"]), node(operator, ["h"], ["f"]), choose, node("Add", ["f", "i"], ["s"])]
    nodes.append(node("Gemm", ["s", "v"], ["y"]))
    constants = weights(w=(8, 6), v=(6, 3))
    inputs = [*ROWS, value("yes", [], TensorProto.BOOL)]
    proto = model(nodes, inputs, [value("y", ["N", 3])], constants)
    feeds = {"x": X8["x"], "yes": _Whole(np.array(True))}
    source, output = quantized(proto, feeds, tmp_path)
    given = {"x": X8["x"], "yes": np.array(True)}
    assert sqnr(run(source, given)[0], run(output, given)[0]) > 20


@pytest.mark.parametrize("target", ["cpu", "openvino"])
@pytest.mark.parametrize("shape", [(4, 8, 6), (4, 8, 8), (1, 4, 8, 4)])
def test_weights_of_three_axes_have_one_scale(shape, target, tmp_path):
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    proto = model(nodes, IMAGES, [value("y", ["N", 4, 8, shape[-1]])], weights(w=shape))
    check(proto, X4, tmp_path, target=target)


@pytest.mark.parametrize("operator", ["Split", "Reshape", "Transpose", "Gather"])
def test_what_hands_on_a_weight_that_is_stored_as_integers_does_not_wait_for_ever(operator, tmp_path):
    held = {"Split": ([], 2), "Reshape": (["shape"], 1), "Transpose": ([], 1), "Gather": (["rows"], 1)}
    more, outputs = held[operator]
    names = [f"p{i}" for i in range(outputs)]
    nodes = [
        node("DequantizeLinear", ["wq", "s", "z"], ["w"]),
        node("Mul", ["x", "w"], ["m"]),
        node(operator, ["w", *more], names),
        node("MatMul", ["m", names[-1]], ["y"]),
    ]
    constants = {
        "wq": rng().integers(-127, 127, (8, 8)).astype(np.int8),
        "s": np.float32(0.005),
        "z": np.int8(0),
        "shape": np.array([8, 8]),
        "rows": np.arange(8)[::-1],
    }
    constants = {name: array for name, array in constants.items() if name in ("wq", "s", "z", *more)}
    proto = model(nodes, [value("x", ["N", 8])], [value("y", ["N", 8])], constants)
    if operator == "Split":
        proto.graph.node[2].attribute.append(helper.make_attribute("axis", 0))
        proto.graph.node[1].input[1] = "p1"
        nodes = [proto.graph.node[i] for i in (0, 2, 1, 3)]
        del proto.graph.node[1:]
        proto.graph.node.extend(nodes[1:])
        constants["wq"] = np.tile(constants["wq"], (2, 1))
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(constants["wq"], "wq"))
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 8
    batch = rng().standard_normal((8, 8)).astype(np.float32)
    source, output = quantized(proto, {"x": _Whole(batch)}, tmp_path)
    for optimized in (True, False):
        got = run(output, {"x": batch}, optimized=optimized)[0]
        assert sqnr(run(source, {"x": batch})[0], got) > 20


def test_a_custom_operator_of_a_known_name_is_left_alone(tmp_path):
    nodes = [node("Conv", ["x", "w"], ["a"], domain="com.acme"), node("Gemm", ["a", "w"], ["y"])]
    proto = model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 3)), domains=[("com.acme", 1)])
    onnx.save(proto, tmp_path / "m.onnx")
    assert target_settings("cpu", tmp_path / "m.onnx").nodes_to_exclude == ("Conv_a",)


def test_a_model_that_needs_no_repair_is_folded_as_before(tmp_path):
    nodes = [node("Conv", ["x", "w", "b"], ["a"], pads=[1] * 4), node("Relu", ["a"], ["c"])]
    onnx.save(images(nodes, weights(w=(4, 4, 3, 3), b=(4,)), 4), tmp_path / "m.onnx")
    prepare(tmp_path / "m.onnx", tmp_path / "prepared.onnx", large=False)
    folded = fold(load_model(tmp_path / "m.onnx"), Cache(tmp_path / "room"))
    assert folded.read_bytes() == (tmp_path / "prepared.onnx").read_bytes()


def test_each_repair_is_in_the_documentation():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "repairs.md").read_text(encoding="utf-8")
    for repair in itertools.chain(BEFORE_FOLDING, AFTER_FOLDING):
        assert f"| {repair.what} | {repair.source} |" in page
