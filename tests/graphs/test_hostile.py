"""A hostile file is refused before anything is allocated for what it declares, or read elsewhere."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.errors import ModelError
from onnxptq.graphs import load_model
from onnxptq.graphs._wire import outline
from onnxptq.graphs.hostile import MAX_DEPTH, MAX_FILE_BYTES

FLOAT = TensorProto.FLOAT
HUGE = 2**40


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """1 GiB more address space than now: whoever allocates what a file declares fails the test."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    lines = Path("/proc/self/status").read_text().splitlines() if sys.platform == "linux" else []
    used = next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmSize:")), None)
    if used is not None:
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


def model(
    nodes: list[onnx.NodeProto] | None = None,
    weights: list[onnx.TensorProto] | None = None,
    *,
    shape: list[int | str] | None = None,
    domains: tuple[str, ...] = (),
) -> onnx.ModelProto:
    """y = x @ w, or other nodes from x to y."""
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"], name="product")],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, shape or ["N", 2])],
        [helper.make_tensor_value_info("y", FLOAT, ["a", "b"])],
        [numpy_helper.from_array(np.ones((2, 3), np.float32), "w")] if weights is None else weights,
    )
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def save(proto: onnx.ModelProto) -> Path:
        (tmp_path / "m.onnx").write_bytes(proto.SerializeToString())
        return tmp_path / "m.onnx"

    return save


Save = Callable[[onnx.ModelProto], Path]


def external(**entries: str) -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[2, 3], data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def nested(depth: int) -> onnx.ModelProto:
    """If in If in If ..."""
    result = helper.make_tensor_value_info("y", FLOAT, None)
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "leaf", [], [result])
    for _ in range(depth):
        node = helper.make_node("If", ["c"], ["y"], then_branch=graph, else_branch=graph)
        graph = helper.make_graph([node], "inner", [], [result])
        graph.node[0].attribute[1].g.CopyFrom(helper.make_graph([], "empty", [], []))
    return model(list(graph.node), [numpy_helper.from_array(np.array(True), "c")])


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="w", data_type=FLOAT, dims=[HUGE]),
        TensorProto(name="w", data_type=FLOAT, dims=[HUGE], raw_data=bytes(64)),
        TensorProto(name="w", data_type=FLOAT, dims=[2**31, 2**31, 2**31], float_data=[1.0, 2.0]),
        TensorProto(name="w", data_type=TensorProto.INT4, dims=[1000], raw_data=bytes(499)),
        TensorProto(name="w", data_type=TensorProto.STRING, dims=[HUGE], string_data=[b"x"]),
    ],
    ids=["no data", "a little raw data", "a little typed data", "half a byte too little", "texts"],
)
def test_a_tensor_that_declares_more_than_the_file_holds_is_refused(save: Save, tensor: onnx.TensorProto) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx is refused: the tensor 'w' declares \d+ elements"):
        load_model(save(model(weights=[tensor])))


def test_a_negative_size_is_refused(save: Save) -> None:
    tensor = TensorProto(name="w", data_type=FLOAT, dims=[-1, 3], raw_data=bytes(12))
    with pytest.raises(ModelError, match=r"has the shape \[-1, 3\]"):
        load_model(save(model(weights=[tensor])))


def test_what_an_attribute_or_a_branch_declares_is_looked_at_too(save: Save) -> None:
    huge = TensorProto(name="hidden", data_type=FLOAT, dims=[HUGE])
    constant = helper.make_node("Constant", [], ["w"], value=huge)
    result = [helper.make_tensor_value_info("w", FLOAT, None)]
    branch = helper.make_graph([constant], "b", [], result)
    choice = helper.make_node("If", ["c"], ["w"], then_branch=branch, else_branch=branch)
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    condition = numpy_helper.from_array(np.array(True), "c")
    for proto in (model([constant, product], []), model([choice, product], [condition])):
        with pytest.raises(ModelError, match="the tensor 'hidden' declares"):
            load_model(save(proto))


@pytest.mark.parametrize("shape", [[HUGE, 2], [2**20, 2**20], ["N", 2**62]])
def test_an_input_of_a_huge_fixed_shape_is_refused(save: Save, shape: list[int | str]) -> None:
    with pytest.raises(ModelError, match=r"'x' declares the shape .* more than 8 GiB"):
        load_model(save(model(shape=shape)))


@pytest.mark.parametrize("operator", ["ConstantOfShape", "Expand", "Tile"])
def test_a_constant_that_asks_for_a_huge_tensor_is_refused(save: Save, operator: str) -> None:
    inputs = ["s"] if operator == "ConstantOfShape" else ["x", "s"]
    nodes = [helper.make_node(operator, inputs, ["y"], name="bomb")]
    size = numpy_helper.from_array(np.array([2**20, 2**20]), "s")
    with pytest.raises(ModelError, match=r"its node 'bomb' makes a tensor of shape \[1048576, 1048576\]"):
        load_model(save(model(nodes, [size])))
    constant = helper.make_node("Constant", [], ["s"], value=size)
    with pytest.raises(ModelError, match="its node 'bomb' makes"):
        load_model(save(model([constant, *nodes], [])))


def test_branches_in_branches_are_refused_before_a_parser_sees_them(save: Save) -> None:
    path = save(nested(MAX_DEPTH // 3 + 1))
    assert outline(path, max_fields=10**6, max_depth=10**6).depth > MAX_DEPTH
    with pytest.raises(ModelError, match=f"more than {MAX_DEPTH} deep"):
        load_model(path)
    # As deep as nobody's parser goes: a field of a field of a field, each with its length before it.
    data = b""
    for _ in range(3000):
        length, size = len(data), bytearray()
        while length > 0x7F:
            size.append(length & 0x7F | 0x80)
            length >>= 7
        data = b"\x3a" + bytes([*size, length]) + data if not data else _wrap(data)
    path.write_bytes(b"\x3a" + _varint(len(data)) + data)
    with pytest.raises(ModelError, match=f"more than {MAX_DEPTH} deep"):
        load_model(path)


def _wrap(data: bytes) -> bytes:
    """Graph -> node -> attribute -> graph."""
    for tag in (b"\x32", b"\x2a", b"\x0a"):
        data = tag + _varint(len(data)) + data
    return data


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def test_a_file_that_a_parser_would_blow_up_is_refused(tmp_path: Path) -> None:
    # 5 MB of empty nodes would be half a GB of them parsed.
    nodes = b"\x0a\x00" * 2_500_000
    (tmp_path / "bomb.onnx").write_bytes(b"\x3a" + _varint(len(nodes)) + nodes)
    with pytest.raises(ModelError, match="more than 2000000 fields"):
        load_model(tmp_path / "bomb.onnx")


def test_a_file_larger_than_onnx_can_be_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.onnx"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES)
    with pytest.raises(ModelError, match=r"less than 2 GiB.*not read"):
        load_model(path)


def test_a_device_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path / "pipe.onnx", Path("/dev/zero")):
        with pytest.raises(ModelError, match="is a device or a pipe"):
            load_model(path)


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "w.data", "offset": "0", "length": "25"}, "asks for bytes 0 to 25 of 'w.data', which has 24"),
        ({"location": "w.data", "offset": "-8"}, "asks for bytes -8"),
        ({"location": "w.data", "offset": "8"}, "declares 6 elements"),
        ({"location": "w.data", "length": "8"}, "declares 6 elements"),
        ({"location": "w.data", "offset": "nine"}, "does not say where"),
        ({"offset": "0"}, "does not say where"),
    ],
)
def test_external_data_must_be_where_it_is_said_to_be(
    save: Save, tmp_path: Path, entries: dict[str, str], words: str
) -> None:
    (tmp_path / "w.data").write_bytes(bytes(24))
    load_model(save(model(weights=[external(location="w.data")])))
    with pytest.raises(ModelError, match=words):
        load_model(save(model(weights=[external(**entries)])))


def test_an_unknown_domain_is_refused_where_it_is_not_allowed(save: Save) -> None:
    node = helper.make_node("Mine", ["x"], ["y"], domain="my.domain")
    path = save(model([node], [], domains=("my.domain",)))
    load_model(path)
    load_model(path, domains=("my.domain",))
    with pytest.raises(ModelError, match=r"'Mine' of the unknown domain 'my\.domain'.*domains = \[\"my\.domain\"\]"):
        load_model(path, domains=())
    known = helper.make_node("QGemm", ["x"], ["y"], domain="com.microsoft")
    load_model(save(model([known], [], domains=("com.microsoft",))), domains=())


def test_a_function_of_the_model_itself_is_no_unknown_domain_but_what_it_calls_may_be(save: Save) -> None:
    for inner, allowed in (("", True), ("evil", False)):
        calls = helper.make_node("Relu", ["a"], ["b"], domain=inner)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("evil", 1)]
        proto = model([helper.make_node("F", ["x"], ["y"], domain="own")], [], domains=("own", "evil"))
        proto.functions.append(helper.make_function("own", "F", ["a"], ["b"], [calls], opsets))
        if allowed:
            load_model(save(proto), domains=())
        else:
            with pytest.raises(ModelError, match="unknown domain 'evil'"):
                load_model(save(proto), domains=())


def test_the_outline_ends_quietly_where_bytes_make_no_sense(tmp_path: Path) -> None:
    whole = model().SerializeToString()
    counts = []
    for length in range(len(whole) + 1):
        (tmp_path / "cut").write_bytes(whole[:length])
        counts.append(outline(tmp_path / "cut", max_fields=10**6, max_depth=10**6).fields)
    assert counts == sorted(counts)
    assert counts[0] == 0 and counts[-1] > 20
    (tmp_path / "noise").write_bytes(b"\xff" * 100)
    assert outline(tmp_path / "noise", max_fields=10**6, max_depth=10**6).fields == 0
