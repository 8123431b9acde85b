"""`onnxptq quantize`: what a user gets from it, as files, as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.graphs import fold, load_model
from onnxptq.models import builtin

SHIFTED = "digits.dark@3.minmax.int8.onnx"
CLEAN = "digits.clean.minmax.int8.onnx"

FORBID_NETWORK = """
import os, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
        os.write(2, f"touched the network: {event} {arguments}".encode())
        os._exit(99)

sys.addaudithook(watch)
"""


@dataclasses.dataclass(frozen=True)
class Run:
    """A command that has run once for all tests: where, what it printed, and its JSON."""

    place: Any
    stdout: str
    stderr: str
    report: dict[str, Any]


@pytest.fixture(scope="session")
def shifted(
    new_place: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory, user_cache_of_the_tests: Path
) -> Run:
    """README's first command, on a machine where whoever touches the network is caught."""
    spy = tmp_path_factory.mktemp("spy")
    (spy / "sitecustomize.py").write_text(FORBID_NETWORK)
    place = new_place().with_processes
    if shutil.which("unshare") and subprocess.run(["unshare", "-n", "true"], capture_output=True).returncode == 0:
        place = dataclasses.replace(place, before=("unshare", "-n"))
    options = ["--json", "report.json", "--predictions", "predictions.parquet"]
    path = os.pathsep.join(filter(None, [str(spy), os.environ.get("PYTHONPATH")]))
    done = place.succeeded("quantize", "--calib", "shifted", *options, PYTHONPATH=path, HF_HUB_OFFLINE="")
    return Run(place, done.stdout, done.stderr, json.loads((place.work / "report.json").read_text()))


@pytest.fixture(scope="session")
def clean(new_place: Callable[[], Any], user_cache_of_the_tests: Path) -> Run:
    place = new_place()
    done = place.succeeded("quantize", "--json", "-")
    return Run(place, done.stdout, done.stderr, json.loads(done.stdout))


def said(run: Run) -> list[str]:
    """The lines of stderr, but for what is said of a CPU that clips: these are claims about the set."""
    return [line for line in run.stderr.splitlines() if not line.startswith("note: this CPU has no VNNI")]


def test_the_default_run_needs_no_network_and_writes_one_model(shifted: Run) -> None:
    assert shifted.place.files() == [SHIFTED, "predictions.parquet", "report.json"]
    onnx.checker.check_model(shifted.place.work / SHIFTED)
    *stages, warning = said(shifted)
    assert stages == ["calibrating ...", "evaluating ..."]
    assert warning.startswith("note: the calibration set dark@3 is dangerous")


def test_a_harmless_set_is_quantized_without_a_warning(clean: Run) -> None:
    assert said(clean) == ["calibrating ...", "evaluating ..."]


def test_one_line_says_average_worst_group_largest_drop_and_size(shifted: Run) -> None:
    first, line = shifted.stdout.splitlines()[:2]
    assert first == f"wrote {SHIFTED}"
    report = shifted.report
    fp32, int8 = (f"{100 * report[key]:.1f} %" for key in ("fp32_average", "int8_average"))
    assert f"average accuracy {fp32} -> {int8}" in line
    assert f"worst group {report['worst_group']} at {100 * report['worst_accuracy']:.1f} %" in line
    assert f"largest drop {100 * report['largest_drop']:+.1f} in {report['largest_drop_group']}" in line
    sizes = [path.stat().st_size for path in (builtin().model, shifted.place.work / SHIFTED)]
    assert line.endswith(f"{sizes[0] / 1e3:.0f} KB -> {sizes[1] / 1e3:.0f} KB")


def test_the_table_has_the_ten_worst_groups_from_the_worst_up(shifted: Run) -> None:
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shifted.stdout.splitlines() if line[:1] == "│"]
    assert len(rows) == 10 and len(shifted.report["groups"]) == 60
    int8 = [float(row[3].removesuffix(" %")) for row in rows]
    assert int8 == sorted(int8)
    for row, group in zip(rows, shifted.report["groups"][:10], strict=True):
        assert row[0].strip("()").replace(" · ", "*") == group["name"]
        assert row[1] == str(group["n"])
        percents = [f"{100 * group[key]:.1f} %" for key in ("fp32", "int8", "flips")]
        assert [row[2], row[3], row[6]] == percents
        points = [f"{100 * group[key]:+.1f}" for key in ("drop", "drop_low", "drop_high")]
        assert [row[4], row[5]] == [points[0], f"{points[1]} to {points[2]}"]


def test_json_on_stdout_is_json_and_nothing_else(clean: Run) -> None:
    assert clean.stdout.startswith("{\n")
    assert clean.report["output"] == CLEAN
    documented = {
        "report_version", "measure", "model", "reference", "provider", "n", "sources", "fp32_average", "int8_average",
        "average_drop", "average_drop_low", "average_drop_high", "worst_group", "worst_accuracy", "largest_drop_group",
        "largest_drop", "crossfit_drop", "crossfit_drop_low", "crossfit_drop_high", "cvar10_drop", "flip_rate",
        "sqnr_db", "minimum_samples", "groups", "output", "reused", "recipe", "recipe_digest", "fp32_bytes",
        "int8_bytes", "warnings",
    }  # fmt: skip
    assert set(clean.report) >= documented
    groups = {"name", "n", "sources", "fp32", "int8", "drop", "drop_low", "drop_high", "int8_low", "int8_high", "flips"}
    assert set(clean.report["groups"][0]) >= groups | {"p_value", "judged"}


def test_the_calibration_set_decides_what_happens_to_a_group(shifted: Run, clean: Run) -> None:
    """INT8 from `shifted` differs from INT8 from `clean` by more than the interval in some group."""
    good = {group["name"]: group for group in clean.report["groups"]}
    apart = [g["name"] for g in shifted.report["groups"] if g["int8_high"] < good[g["name"]]["int8_low"]]
    assert apart
    assert shifted.report["crossfit_drop_low"] > clean.report["crossfit_drop_high"]


def test_predictions_can_be_judged_again(shifted: Run) -> None:
    fp32, int8 = onnxptq.load_predictions(shifted.place.work / "predictions.parquet")
    again = onnxptq.compare(fp32, int8).to_dict()
    assert {key: shifted.report[key] for key in again} == again
    by_label = onnxptq.compare(fp32, int8, ["label"])
    assert [group.n for group in by_label.groups] == [540] * 10


def test_running_it_again_says_so_and_evaluates(shifted: Run) -> None:
    written = (shifted.place.work / SHIFTED).stat().st_mtime_ns
    done = shifted.place.succeeded("quantize", "--calib", "shifted")
    first, *rest = done.stdout.splitlines()
    assert first == f"already there, made by the same recipe: {SHIFTED}"
    assert rest == shifted.stdout.splitlines()[1:]
    assert (shifted.place.work / SHIFTED).stat().st_mtime_ns == written


def test_a_model_of_another_recipe_is_replaced_by_force_only(place: Any, inputs: Path) -> None:
    command = ["quantize", inputs / "tensor.onnx", "--data", inputs / "good.npz", "--no-evaluate", "-o", "model.onnx"]
    model = place.work / "model.onnx"
    model.write_bytes(b"something precious")
    said = place.refused(*command)
    assert "model.onnx exists already, not made by onnxptq" in said
    assert "--force" in said
    assert model.read_bytes() == b"something precious"
    place.succeeded(*command, "--force")
    before = model.read_bytes()
    assert recipe_of(model)["calibration"] == "clean"
    assert "model.onnx exists already, made by another recipe" in place.refused(*command, "--calib", "tensor_noise@3")
    assert model.read_bytes() == before
    place.succeeded(*command, "--calib", "tensor_noise@3", "--force")
    assert recipe_of(model)["calibration"] == "tensor_noise@3"


def test_the_same_command_in_another_folder_writes_the_same_bytes(place: Any, shifted: Run) -> None:
    done = place.succeeded("quantize", "--calib", "shifted", "--no-evaluate")
    assert done.stdout == f"wrote {SHIFTED}\n"
    assert done.stderr.splitlines()[0] == "calibrating ..."
    with_split, without = (onnx.load(folder.work / SHIFTED) for folder in (shifted.place, place))
    # The split that is recorded differs: nothing was evaluated here. Everything else is the same.
    assert (
        json.loads(metadata(with_split)["onnxptq.data"])["digest"]
        == json.loads(metadata(without)["onnxptq.data"])["digest"]
    )
    assert bare(with_split) == bare(without)
    again = place.succeeded("quantize", "--calib", "shifted", "-o", "again.onnx")
    assert "wrote again.onnx" in again.stdout
    assert (place.work / "again.onnx").read_bytes() == (shifted.place.work / SHIFTED).read_bytes()


def test_the_model_says_where_it_came_from(shifted: Run) -> None:
    found = metadata(onnx.load(shifted.place.work / SHIFTED))
    ours = {key.removeprefix("onnxptq."): value for key, value in found.items() if key.startswith("onnxptq.")}
    assert set(ours) == {
        "format", "task", "preprocessing", "source", "data", "recipe", "recipe_digest", "calibration", "target",
        "versions", "cpu",
    }  # fmt: skip
    fp32 = load_model(builtin().model)
    assert json.loads(ours["source"]) == {"name": "digits.onnx", "digest": fp32.digest, "bytes": fp32.size}
    assert json.loads(ours["preprocessing"])["classes"] == [str(digit) for digit in range(10)]
    assert json.loads(ours["recipe"]) == shifted.report["recipe"]
    assert json.loads(ours["recipe"])["calibration"] == "dark@3"  # What `shifted` stands for.
    assert ours["recipe_digest"] == shifted.report["recipe_digest"]
    assert json.loads(ours["calibration"])["samples"] == 128
    assert json.loads(ours["data"])["source"] == "train.parquet"
    assert set(json.loads(ours["versions"])) == {"onnx", "onnxruntime", "onnxptq"}
    assert (ours["task"], ours["target"]) == ("image-classification", "cpu")
    assert str(shifted.place.work) not in str(ours), "a path of this machine is nobody's business"


def test_evaluate_needs_no_flags_and_finds_the_same(shifted: Run) -> None:
    (report,) = shifted.place.json("evaluate", SHIFTED)["reports"]
    assert report == {key: shifted.report[key] for key in report}


def test_a_recipe_file_makes_the_same_bytes_as_the_options(place: Any, inputs: Path) -> None:
    command = ["quantize", inputs / "tensor.onnx", "--data", inputs / "good.npz", "--no-evaluate"]
    options = ["--calib", "imbalanced:ratio=50+tensor_noise@2", "--method", "percentile", "--percentile", "99.9"]
    options += ["--calib-size", "12", "--seed", "7", "--target", "cuda", "--exclude", "flatten"]
    place.succeeded(*command, *options, "-o", "options.onnx", "--json", "made.json")
    recipe = onnxptq.Recipe.from_dict(json.loads((place.work / "made.json").read_text())["recipe"])
    (place.work / "recipe.toml").write_text(recipe.to_toml())
    (place.work / "recipe.json").write_text(json.dumps(recipe.to_dict()))
    for kind in ("toml", "json"):
        place.succeeded(*command, "--recipe", f"recipe.{kind}", "-o", f"{kind}.onnx")
        assert (place.work / f"{kind}.onnx").read_bytes() == (place.work / "options.onnx").read_bytes()


def test_groups_and_corruptions_are_the_ones_asked_for(place: Any) -> None:
    report = place.json("quantize", "--corruption", "gamma@2", "--group", "corruption", "--group", "label")
    names = {group["name"] for group in report["groups"]}
    assert names == {"corruption=clean", "corruption=gamma@2", *(f"label={digit}" for digit in range(10))}
    (report,) = place.json("evaluate", CLEAN, "--corruption", "clean", "--group", "label*corruption")["reports"]
    assert {group["name"] for group in report["groups"]} == {f"label={d}*corruption=clean" for d in range(10)}


def test_without_labels_everything_is_agreement_with_fp32(place: Any, inputs: Path) -> None:
    arrays = np.load(inputs / "good.npz")
    np.savez(place.work / "unlabelled.npz", x=arrays["x"])
    report = place.json("quantize", inputs / "tensor.onnx", "--data", "unlabelled.npz", "--head", "classification")
    assert report["measure"] == "agreement"
    assert report["fp32_average"] == 1.0
    assert report["average_drop"] == pytest.approx(report["flip_rate"])
    assert {group["name"] for group in report["groups"]} == {"corruption=clean", "corruption=tensor_noise@3"}
    said = place.succeeded("quantize", inputs / "tensor.onnx", "--data", "unlabelled.npz", "--head", "classification")
    assert "No labels" in said.stdout


def test_noise_calibrates_without_data_when_asked_for_by_name(place: Any, inputs: Path) -> None:
    place.succeeded("quantize", inputs / "tensor.onnx", "--calib", "random", "--no-evaluate")
    assert place.files() == ["tensor.random.minmax.int8.onnx"]


TARGETS = {
    "cpu": (TensorProto.UINT8, False),
    "cuda": (TensorProto.INT8, True),
    "tensorrt": (TensorProto.INT8, True),
    "tensorrt11": (TensorProto.INT8, True),
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_decides_types_and_zero_points(target: str, place: Any) -> None:
    kind, symmetric = TARGETS[target]
    place.succeeded("quantize", "--no-evaluate", "--target", target, "-o", "model.onnx")
    graph = onnx.load(place.work / "model.onnx").graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    activations = [n for n in graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in constants]
    zero_points = [constants[node.input[2]] for node in activations]
    assert {onnx.helper.np_dtype_to_tensor_dtype(point.dtype) for point in zero_points} == {kind}
    assert all((point == 0).all() for point in zero_points) == symmetric
    weights = [n for n in graph.node if n.op_type in ("DequantizeLinear", "QuantizeLinear") and n.input[0] in constants]
    scales = [constants[node.input[1]] for node in weights if constants[node.input[0]].ndim == 4]
    assert scales
    assert all(scale.ndim == 1 and len(scale) > 1 for scale in scales), "one scale a channel"
    assert all((constants[node.input[2]] == 0).all() for node in weights)


def test_excluded_nodes_stay_in_float(place: Any) -> None:
    place.succeeded("quantize", "--no-evaluate", "--exclude", "node_linear", "--exclude", "*conv2d", "-o", "model.onnx")
    graph = onnx.load(place.work / "model.onnx").graph
    quantized = {output for node in graph.node if node.op_type == "DequantizeLinear" for output in node.output}
    weights = {node.name: node.input[1] in quantized for node in graph.node if node.op_type in ("Conv", "Gemm")}
    assert {name for name, is_quantized in weights.items() if not is_quantized} == {"node_conv2d", "node_linear"}


def test_the_stock_engine_makes_the_same_minmax_model(place: Any, clean: Run) -> None:
    place.succeeded("quantize", "--no-evaluate", "--engine", "stock", "-o", "stock.onnx")
    assert bare(onnx.load(place.work / "stock.onnx")) == bare(onnx.load(clean.place.work / CLEAN))


def test_clean_minmax_equals_onnx_runtime_on_the_same_samples(clean: Run, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    folded = fold(load_model(builtin().model), user_cache())
    quantize_static(
        shutil.copyfile(folded, tmp_path / "folded.onnx"),
        tmp_path / "stock.onnx",
        onnxptq.reader("clean", model=builtin().model),
        quant_format=QuantFormat.QDQ,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        per_channel=True,
    )
    assert bare(onnx.load(tmp_path / "stock.onnx")) == bare(onnx.load(clean.place.work / CLEAN))


def metadata(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}


def recipe_of(path: Path) -> dict[str, Any]:
    return json.loads(metadata(onnx.load(path))["onnxptq.recipe"])


def bare(model: onnx.ModelProto) -> bytes:
    """The file without its metadata."""
    del model.metadata_props[:]
    return model.SerializeToString(deterministic=True)
