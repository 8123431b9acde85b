"""`onnxptq lint`: exit codes, JSON, SARIF, what is printed; damaged files."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from onnxptq.commands.lint import lint as lint_command
from onnxptq.errors import ModelError, OnnxptqError, UsageError
from onnxptq.lint import LINT_RULES, Place, Rule, lint, rules_of, to_sarif
from onnxptq.quantization.targets import TARGETS

from .graphs import Net
from .test_rules import VIOLATIONS, build, clean, with_input


@pytest.fixture
def bad(save):
    """Two findings for TensorRT: an error on two nodes."""
    net = Net("tensorrt")
    return save(net.model(with_input(net, net.pair(net.pair("x", zero=np.int8(3)), zero=np.int8(4)))))


def run(*arguments):
    return CliRunner().invoke(lint_command, [str(argument) for argument in arguments])


def test_an_error_exits_with_1_and_comes_first(bad):
    result = run(bad, "--target", "tensorrt")
    assert result.exit_code == 1
    first, again = result.stdout.splitlines()[:2]
    assert first == f"FAILED: {bad} for tensorrt: 2 errors, 0 warnings, 0 notes"
    assert again == f"again: onnxptq lint {bad} --target tensorrt"
    rule = LINT_RULES.get("QDQ101")
    for text in ("QDQ101", "zero point 3", "zero point 4", rule.title):
        assert text in result.stdout


def test_without_an_error_the_exit_code_is_0(bad, save):
    assert run(bad, "--target", "tensorrt", "--ignore", "QDQ101").exit_code == 0
    result = run(save(build(VIOLATIONS["QDQ221"], "tensorrt")), "--target", "tensorrt")
    assert result.exit_code == 0
    assert result.stdout.startswith("PASSED")
    assert "QDQ221" in result.stdout


def test_wrong_use_is_explained(bad, tmp_path):
    for arguments, text in (
        ((bad,), "does not say what it was made for"),
        ((), "which model"),
        ((bad, "--target", "tensorrtt"), "Did you mean 'tensorrt'"),
        ((bad, "--target", "cpu", "--ignore", "QDQ999"), "QDQ999"),
        ((bad, "--target", "cpu", "--json", "-", "--sarif", "-"), "stdout"),
        ((tmp_path / "nosuch.onnx", "--target", "cpu"), "there is no model"),
    ):
        result = run(*arguments)
        assert isinstance(result.exception, OnnxptqError)
        assert text in str(result.exception)


def test_the_target_is_taken_from_a_model_that_onnxptq_made(bad):
    model = onnx.load(str(bad))
    onnx.helper.set_model_props(model, {"onnxptq.target": "tensorrt"})
    onnx.save(model, str(bad))
    assert run(bad).exit_code == 1


def test_json_on_stdout_is_json_and_nothing_else(bad):
    result = run(bad, "--target", "tensorrt", "--json", "-")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["passed"] is False
    assert report["counts"] == {"error": 2, "warning": 0, "note": 0}
    assert [rule["id"] for rule in report["rules"]] == ["QDQ101"]
    assert report["findings"][0] == {
        "rule": "QDQ101",
        "level": "error",
        "where": "QuantizeLinear n0",
        "message": "zero point 3",
    }


def test_sarif_has_the_structure_that_the_standard_wants(bad, tmp_path, check_sarif):
    run(bad, "--target", "tensorrt", "--sarif", tmp_path / "lint.sarif")
    log = json.loads((tmp_path / "lint.sarif").read_text())
    check_sarif(log)
    (recorded,) = log["runs"]
    assert len(recorded["tool"]["driver"]["rules"]) == len(rules_of("tensorrt"))
    assert len(recorded["results"]) == 2
    for result in recorded["results"]:
        assert (result["ruleId"], result["level"]) == ("QDQ101", "error")
        assert "zero point" in result["message"]["text"]
        (location,) = result["locations"]
        assert location["physicalLocation"]["artifactLocation"]["uri"].endswith("model.onnx")
        assert location["logicalLocations"][0]["fullyQualifiedName"].startswith("QuantizeLinear")


def test_several_models_are_one_report(bad, save, tmp_path, check_sarif):
    """A pattern's float model is left out on demand, a file that is no model is said, and no other is lost for it."""
    net = Net("cpu")
    (tmp_path / "float.onnx").write_bytes(net.model(net.op("Relu", "x")).SerializeToString())
    (tmp_path / "torn.onnx").write_bytes(bad.read_bytes()[:50])
    reports = [tmp_path / name for name in ("lint.json", "lint.sarif")]
    options = ("--target", "tensorrt", "--skip-float", "--json", reports[0], "--sarif", reports[1])
    result = run(tmp_path / "*.onnx", *options)
    assert result.exit_code == 2
    assert "skipped" in result.stderr and "float.onnx" in result.stderr and "torn.onnx: " in result.stderr
    assert result.stdout.startswith("FAILED: ")
    found, log = (json.loads(path.read_text()) for path in reports)
    assert (found["passed"], len(found["models"]), len(found["errors"])) == (False, 1, 1)
    check_sarif(log)
    (recorded,) = log["runs"]
    assert recorded["invocations"][0]["executionSuccessful"] is False
    assert len(recorded["results"]) == 2
    (tmp_path / "torn.onnx").unlink()
    assert run(tmp_path / "*.onnx", "--target", "tensorrt", "--skip-float").exit_code == 1
    onnx.save(build(clean, "cpu"), bad)
    assert run(tmp_path / "*.onnx", "--target", "cpu", "--skip-float").exit_code == 0
    bad.unlink()
    alone = run(tmp_path / "*.onnx", "--skip-float")  # As the hook meets it: nothing to read, nothing wrong.
    assert (alone.exit_code, alone.stdout) == (0, "")
    nothing = run(tmp_path / "*.zip", "--target", "cpu")
    assert isinstance(nothing.exception, UsageError) and "no file fits" in str(nothing.exception)


def test_sarif_says_why_nothing_was_read(tmp_path, check_sarif):
    result = run(tmp_path / "gone.onnx", "--target", "cpu", "--sarif", tmp_path / "lint.sarif")
    assert isinstance(result.exception, ModelError)
    log = json.loads((tmp_path / "lint.sarif").read_text())
    check_sarif(log)
    (notification,) = log["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert "there is no model" in notification["message"]["text"] and not log["runs"][0]["results"]


def test_sarif_names_a_relative_file_by_a_relative_uri(bad, monkeypatch):
    monkeypatch.chdir(bad.parent)
    (bad.parent / "a model.onnx").write_bytes(bad.read_bytes())
    result = to_sarif(lint("a model.onnx", "tensorrt"))["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "a%20model.onnx"


def test_rules_are_listed_with_level_reason_and_source(tmp_path):
    result = run("--rules", "--json", "-")
    listed = {rule["id"]: rule for rule in json.loads(result.stdout)}
    assert set(listed) == set(LINT_RULES.names())
    for rule in listed.values():
        assert all(rule[key] for key in ("title", "levels", "why", "source", "remedy"))
        assert rule["source"].startswith(("https://", "measured"))
    table = run("--rules", "--target", "cuda").stdout
    assert "QDQ304" in table
    assert "QDQ101" not in table


def test_a_rule_of_a_stranger_is_asked_too(bad, monkeypatch):
    def check(graph, target):
        yield Place("", "always")

    entries = {**{rule.name: rule for rule in LINT_RULES}}
    mine = Rule("NPU1", "mine", {"npu": "error"}, "why", "https://example.org", "remedy", check)
    monkeypatch.setattr(LINT_RULES, "_entries", {**entries, "NPU1": mine})
    assert [(f.rule, f.message) for f in lint(bad, "npu").findings] == [("NPU1", "always")]


def test_names_in_the_model_are_no_markup(save):
    net = Net("tensorrt")
    model = net.model(with_input(net, net.pair("x", zero=np.int8(3))))
    model.graph.node[0].name = "[red]\x1b[31m:cat:[/red]"
    result = run(save(model), "--target", "tensorrt")
    assert result.exit_code == 1
    assert "[red]" in result.stdout
    assert "\x1b" not in result.stdout


def test_a_scale_whose_data_do_not_fit_its_shape_is_a_damaged_model(save):
    net = Net("tensorrt")
    model = net.model(net.op("FastGelu", with_input(net, net.pair("x")), domain="com.microsoft"))
    scale = next(t for t in model.graph.initializer if t.name == model.graph.node[0].input[1])
    scale.dims[:] = [7]
    with pytest.raises(ModelError):
        lint(save(model), "tensorrt")


def test_mutated_files_give_a_report_or_an_error_of_ours(tmp_path):
    seeds = random.Random(0)
    for name in ("QDQ116", "QDQ223", "QDQ309"):
        data = bytearray(build(VIOLATIONS[name], "cpu").SerializeToString())
        for _ in range(40):
            mutated = bytearray(data)
            for _ in range(seeds.randint(1, 6)):
                mutated[seeds.randrange(len(mutated))] = seeds.randrange(256)
            (tmp_path / "m.onnx").write_bytes(mutated)
            for target in ("cpu", "tensorrt", "openvino"):
                try:
                    lint(tmp_path / "m.onnx", target)
                except OnnxptqError:
                    continue


def test_an_unknown_target_names_those_that_have_rules(save):
    with pytest.raises(UsageError, match="Known: cpu, cuda, openvino, tensorrt"):
        lint(save(build(clean, "cpu")), "zzz")


def test_the_document_lists_every_rule_with_its_levels():
    page = (Path(__file__).parents[2] / "docs" / "lint.md").read_text(encoding="utf-8")
    for entry in LINT_RULES:
        levels = " | ".join(entry.levels.get(target, "") for target in TARGETS.names())
        assert f"| {entry.name} | {entry.title} | {levels} |" in page
