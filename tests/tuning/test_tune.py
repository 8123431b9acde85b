"""A planted tensor that ruins one group is found, and nothing else; the winner is proved on samples of its own."""

from __future__ import annotations

import json
import shlex
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.errors import OutputError, UsageError
from onnxptq.gates.policy import AverageDrop, GroupScore, LatencyRule, Policy, WorstGroupDrop
from onnxptq.gates.verdict import Verdict
from onnxptq.inputs import DataOptions

LABELLED = DataOptions(head="classification")


@pytest.fixture
def planted(tmp_path: Any) -> tuple[Any, str]:
    """A net whose tensor `h` holds 100 for one group of rows and 0.05 for the other, and data of both."""
    weights = {
        "eye": np.eye(2, dtype=np.float32),
        "wide": np.diag([100, 0.05]).astype(np.float32),
        "last": np.array([[1, -1], [1, -1]], np.float32),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "eye"], ["same"], "first"),
        helper.make_node("MatMul", ["same", "wide"], ["h"], "culprit"),
        helper.make_node("Tanh", ["h"], ["t"], "tanh"),
        helper.make_node("MatMul", ["t", "last"], ["y"], "last"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 2]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "planted", ends[:1], ends[1:], constants)
    model = tmp_path / "planted.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), model)
    rng = np.random.default_rng(0)
    count = 1200
    label, group = rng.integers(0, 2, count), rng.integers(0, 2, count)
    x = np.zeros((count, 2), np.float32)
    x[np.arange(count), group] = np.where(label == 0, 1, -1) * rng.uniform(0.8, 1, count)
    np.savez(tmp_path / "d.npz", x=x, label=label, who=np.array(["wide", "narrow"])[group])
    return model, str(tmp_path / "d.npz")


def tuned(planted: tuple[Any, str], tmp_path: Any, **options: Any) -> Any:
    model, data = planted
    given = {"methods": ["minmax", "percentile"], "groups": ["who"], "corruptions": [], "options": LABELLED}
    return onnxptq.tune(model, data=data, **{**given, "output": tmp_path / "int8.onnx", **options})


def test_the_tensor_that_ruins_a_group_is_given_up_and_nothing_else(planted, tmp_path):
    found = tuned(planted, tmp_path)
    assert found.verdict is Verdict.PASSED
    assert "culprit" in found.winner.float_nodes
    assert set(found.winner.float_nodes) <= {"culprit", "tanh"}
    alone = {one.name: one for one in found.candidates}
    assert alone["minmax"].verdict is alone["percentile"].verdict is Verdict.FAILED
    assert alone["minmax"].group == "who=narrow"
    assert found.winner.int8_share < 1
    assert found.proof_drop == pytest.approx(0, abs=0.01)


def test_no_sample_of_the_proof_was_chosen_by(planted, tmp_path, monkeypatch):
    seen: list[set[str]] = []
    real = onnxptq.tuning.tune.__globals__["judge"]

    def judge(reference: Any, models: Any, runtime: Any, samples: Any, *rest: Any) -> Any:
        seen.append(set(samples.dataset.fingerprints.tolist()))
        return real(reference, models, runtime, samples, *rest)

    monkeypatch.setitem(onnxptq.tuning.tune.__globals__, "judge", judge)
    found = tuned(planted, tmp_path)
    *choices, proof = seen
    assert proof and not proof & set().union(*choices)
    assert (len(set().union(*choices)), len(proof)) == (found.choice_sources, found.proof_sources)


def test_a_policy_that_fp32_fails_is_said_before_anything_is_searched(planted, tmp_path):
    floor = Policy(group_score=(GroupScore("who=narrow", 1.0),), average_drop=AverageDrop())
    model, data = planted
    arrays = dict(np.load(data))
    arrays["label"] = np.where(np.arange(len(arrays["x"])) % 3 == 0, 1 - arrays["label"], arrays["label"])
    np.savez(data, **arrays)
    with pytest.raises(UsageError, match="FP32 itself fails the policy's rule group_score"):
        tuned((model, data), tmp_path, policy=floor)
    assert not (tmp_path / "int8.onnx").exists()


def test_what_no_candidate_can_keep_writes_no_file(planted, tmp_path):
    found = tuned(planted, tmp_path, policy=Policy(average_drop=AverageDrop(limit=0.01)))
    assert found.verdict is Verdict.FAILED
    assert found.output is None and found.command is None
    assert not (tmp_path / "int8.onnx").exists()
    assert any("no nodes were searched" in line for line in found.warnings)


def test_rules_that_are_not_looked_at_and_files_in_the_way_are_refused(planted, tmp_path):
    with pytest.raises(UsageError, match="rule latency, which tune does not look at"):
        tuned(planted, tmp_path, policy=Policy(latency=LatencyRule(), worst_group_drop=WorstGroupDrop()))
    with pytest.raises(UsageError, match="at least one method"):
        tuned(planted, tmp_path, methods=[])
    (tmp_path / "int8.onnx").write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        tuned(planted, tmp_path)
    assert (tmp_path / "int8.onnx").read_text() == "mine"
    model = planted[0].read_bytes()
    with pytest.raises(OutputError, match="is the model itself; it is never replaced"):
        tuned(planted, tmp_path, output=planted[0], force=True)
    assert planted[0].read_bytes() == model


def test_a_method_that_does_not_fit_is_named_and_the_others_go_on(planted, tmp_path):
    found = tuned(planted, tmp_path, methods=["minmax", "minmax-renormalized"])
    unfit = next(one for one in found.candidates if one.name == "minmax-renormalized")
    assert unfit.verdict is None and unfit.reason
    assert found.verdict is Verdict.PASSED


def test_the_command_that_makes_the_file_again_reads_the_data_in_the_same_way(planted, tmp_path, run_here):
    model, data = planted
    words = ["tune", str(model), "--data", data, "--head", "classification", "--group", "who", "--corruption", "clean"]
    reading = ["--input-range", "x=-3:3", "--skip-bad", "--label-column", "label", "--seed", "1"]
    done = run_here([*words, *reading, "-o", "int8.onnx", "--json", "t.json", "--method", "minmax"], tmp_path, {})
    assert done.returncode == 0, done.stderr
    command = json.loads((tmp_path / "t.json").read_text())["command"]
    printed = next(line.removeprefix("again: ") for line in done.stdout.splitlines() if line.startswith("again: "))
    assert printed == command
    assert all(word in shlex.split(command) for word in reading)
    assert not {"--group", "--corruption", "--json"} & set(shlex.split(command))
    made = (tmp_path / "int8.onnx").read_bytes()
    again = run_here(shlex.split(command)[1:], tmp_path, {})
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "int8.onnx").read_bytes() == made


def test_the_command_line_says_verdict_proof_and_candidates_and_what_makes_the_file_again(planted, tmp_path, run_here):
    model, data = planted
    words = ["tune", str(model), "--data", data, "--head", "classification", "--group", "who", "--corruption", "clean"]
    done = run_here([*words, "-o", "int8.onnx", "--json", "t.json"], tmp_path, {})
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("PASSED minmax + ") or done.stdout.startswith("PASSED ")
    assert "samples that no choice has seen" in done.stdout
    assert "What was tried, the best first" in done.stdout
    values = json.loads((tmp_path / "t.json").read_text())
    assert values["verdict"] == "PASSED"
    assert values["candidates"][0]["name"] == values["winner"]["name"]
    assert (tmp_path / "int8.onnx").is_file()
    made = (tmp_path / "int8.onnx").read_bytes()
    again = run_here(shlex.split(values["command"])[1:], tmp_path, {})
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "int8.onnx").read_bytes() == made
