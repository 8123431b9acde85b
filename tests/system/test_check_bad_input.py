"""Bad input to the gate: exit code 2, the line or the name, and the remedy; nothing written, nothing left behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


@pytest.fixture(scope="module")
def cases(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small FP32 model, its INT8 model, data, a baseline, and predictions."""
    import onnxptq
    from onnxptq.evaluation import save_predictions
    from onnxptq.gates import check

    folder = tmp_path_factory.mktemp("cases")
    shutil.copy(inputs / "tensor.onnx", folder / "tensor.onnx")
    data = str(inputs / "good.npz")
    onnxptq.quantize(folder / "tensor.onnx", data=data, output=folder / "int8.onnx", corruptions=["clean"])
    shutil.copy(data, folder / "good.npz")
    result = onnxptq.evaluate([folder / "int8.onnx"], data=data, corruptions=["clean"])
    save_predictions(folder / "p.parquet", result.predictions)
    check(predictions=folder / "p.parquet", baseline=folder / "baseline.json", update_baseline=True)
    return folder


def policy(place: Any, text: str) -> tuple[str, str]:
    # In the temporary folder of the place: a refused command must leave the current one as it was.
    path = place.work.parent / "policy.toml"
    path.write_text(text)
    return "--policy", str(path)


def assert_says(said: str, *words: str) -> None:
    assert not [word for word in words if word not in said], said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[average_drop]\nlimt = 1\n", ["policy.toml, line 2", "unknown key 'limt'", "Did you mean 'limit'"]),
        ('[average_drop]\nlimit = "two"\n', ["line 2", "must be a number", "'two'"]),
        ("[average_drop]\nlimit = 2\n", ["line 2", "out of range", "Two points are 0.02"]),
        ('[placement]\nprovider = "cpuu"\n', ["unknown execution provider 'cpuu'", "Did you mean 'cpu'"]),
        ('[lint]\ntarget = "cpuu"\n', ["'cpuu'", "Did you mean 'cpu'"]),
    ],
)
def test_a_policy_that_is_wrong_is_refused(place: Any, cases: Path, text: str, words: list[str]) -> None:
    said = place.refused(
        "check", cases / "int8.onnx", "--data", cases / "good.npz", "--reference", cases / "tensor.onnx",
        *policy(place, text),
    )  # fmt: skip
    assert_says(said, *words)


def test_a_group_that_the_data_lacks_is_refused(place: Any, cases: Path) -> None:
    for group, words in (("label=9", ["no sample has label=9"]), ("labl=1", ["no column 'labl'", "Did you mean"])):
        options = policy(place, f'[[group_drop]]\ngroup = "{group}"\n')
        assert_says(place.refused("check", "--predictions", cases / "p.parquet", *options), *words)
    options = policy(place, 'group_by = ["labl"]\n[average_drop]\n')
    said = place.refused("check", cases / "int8.onnx", "--data", cases / "good.npz", *options)
    assert_says(said, "unknown group column 'labl'", "Did you mean 'label'")


def test_a_missing_policy_baseline_or_file_of_predictions_is_refused(place: Any, cases: Path) -> None:
    predictions = ("check", "--predictions", cases / "p.parquet")
    assert_says(place.refused(*predictions, "--policy", "gone.toml"), "there is no policy gone.toml", "--init")
    assert_says(place.refused(*predictions, "--baseline", "gone.json"), "there is no baseline", "--update-baseline")
    assert_says(place.refused("check", "--predictions", "gone.parquet"), "there are no predictions gone.parquet")
    assert_says(place.refused("check"), "which model?")


def test_a_reference_with_other_outputs_is_refused(place: Any, cases: Path, inputs: Path) -> None:
    said = place.refused(
        "check", cases / "int8.onnx", "--data", cases / "good.npz", "--reference", inputs / "image.onnx"
    )
    assert_says(said, "int8.onnx has the inputs x (", "image.onnx has", "Give --reference")


def test_a_model_of_unknown_origin_needs_a_reference(place: Any, cases: Path) -> None:
    said = place.refused("check", cases / "tensor.onnx", "--data", cases / "good.npz")
    assert_says(said, "does not say which FP32 model", "--reference FP32.onnx")


def test_a_baseline_that_is_truncated_newer_or_of_other_data_is_refused(place: Any, cases: Path) -> None:
    whole = (cases / "baseline.json").read_text()
    values = json.loads(whole)
    other = {**values, "samples": {**values["samples"], "data": {"digest": "0", "samples": 3}}}
    unlike = {**values, "samples": {**values["samples"], "preprocessing": {"mean": [9]}}}
    baseline = place.work.parent / "baseline.json"
    for text, words in (
        (whole[: len(whole) // 2], ["truncated or damaged", "--update-baseline"]),
        (json.dumps({**values, "format": 3}), ["format 3", "reads formats 1 and 2", "Update onnxptq"]),
        (json.dumps(other), ["another dataset", "--update-baseline"]),
        (json.dumps(unlike), ["another preprocessing", "--update-baseline"]),
        ("[]", ["not a baseline"]),
    ):
        baseline.write_text(text)
        assert_says(place.refused("check", "--predictions", cases / "p.parquet", "--baseline", baseline), *words)


def test_predictions_of_another_model_are_refused(place: Any, cases: Path, inputs: Path) -> None:
    said = place.refused("check", inputs / "image.onnx", "--predictions", cases / "p.parquet")
    assert_says(said, "another model (tensor.onnx, int8.onnx)", "image.onnx", "onnxptq evaluate --predictions")


def test_options_that_make_no_sense_are_refused(place: Any, cases: Path) -> None:
    model = ("check", cases / "int8.onnx", "--data", cases / "good.npz")
    assert_says(place.refused(*model, "--time-limit", "0"), "--time-limit must be more than 0")
    assert_says(place.refused(*model, "--memory-limit", "nan"), "--memory-limit must be more than 0")
    assert_says(place.refused(*model, "--update-baseline"), "--update-baseline needs --baseline FILE")
    assert_says(place.refused(*model, "--junit", "a", "--json", "a"), "named for two outputs")
    assert_says(place.refused(*model, "--junit", "no/such/folder.xml"), "cannot write", "Create it first")
    assert_says(place.refused(*model, "--predictions", cases / "p.parquet"), "--data has no use")
    assert_says(place.refused(*model, "--ep", "cpuu"), "Did you mean 'cpu'")


def hostile(path: Path, kind: str) -> Path:
    size = numpy_helper.from_array(np.array([2**20, 2**20]), "s")
    weights = {
        "huge tensor": TensorProto(name="w", data_type=1, dims=[2**40], raw_data=bytes(8)),
        "elsewhere": TensorProto(name="w", data_type=1, dims=[48, 4], data_location=TensorProto.EXTERNAL),
    }
    weights["elsewhere"].external_data.add(key="location", value="../../../etc/passwd")
    nodes = {
        "huge shape": helper.make_node("ConstantOfShape", ["s"], ["y"]),
        "custom domain": helper.make_node("Mine", ["x"], ["y"], domain="mine"),
    }
    node = nodes.get(kind, helper.make_node("MatMul", ["x", "w"], ["y"]))
    if kind == "deep":
        result = helper.make_tensor_value_info("y", 1, ["a", "b"])
        graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "leaf", [], [result])
        for _ in range(30):
            node = helper.make_node("If", ["c"], ["y"], then_branch=graph)
            graph = helper.make_graph([node], "inner", [], [result])
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 16])],
        [helper.make_tensor_value_info("y", 1, ["N", 4])],
        [weights[kind]] if kind in weights else [size],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=9).SerializeToString())
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("elsewhere", ["outside its own folder", "refused"]),
        ("huge tensor", ["is refused", "more than the file holds"]),
        ("huge shape", ["is refused", "more than 8 GiB"]),
        ("deep", ["is refused", "deep inside each other"]),
        ("custom domain", ["is refused", "unknown domain 'mine'", 'domains = ["mine"]']),
    ],
)
def test_a_hostile_model_is_refused(place: Any, cases: Path, tmp_path: Path, kind: str, words: list[str]) -> None:
    path = hostile(tmp_path / "evil.onnx", kind)
    said = place.refused("check", path, "--data", cases / "good.npz", "--reference", cases / "tensor.onnx")
    assert_says(said, *words)


def test_a_model_that_needs_too_much_time_or_memory_is_refused(place: Any, cases: Path, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Expand", ["nothing", "shape"], ["large"]),
        helper.make_node("ReduceSum", ["large"], ["also_nothing"], keepdims=0),
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["product"]),
        helper.make_node("Add", ["product", "also_nothing"], ["y"]),
    ]
    constants = {"zero": np.float32(0), "shape": np.array([2**10, 2**20]), "w": np.ones((48, 4), np.float32)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", 1, ["N", 3, 16])],
        [helper.make_tensor_value_info("y", 1, ["N", 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "hungry.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    arguments = ("check", path, "--data", cases / "good.npz", "--reference", cases / "tensor.onnx")
    assert_says(
        place.refused(*arguments, "--memory-limit", "0.5"), "hungry.onnx cannot be judged", "--memory-limit GIB"
    )
