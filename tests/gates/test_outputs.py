"""A verdict reads the same everywhere: terminal, JUnit, GitHub's summary and annotations."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import xmlschema

from onnxptq.errors import OutputError
from onnxptq.gates import CheckResult, RuleResult, Verdict
from onnxptq.gates.github import markdown, workflow_commands, write_summary
from onnxptq.gates.junit import junit_xml, write_junit
from onnxptq.gates.sarif import to_sarif
from onnxptq.gates.several import Checked, worst
from onnxptq.gates.text import full_text, several_text

FAILED = RuleResult(
    "worst_group_drop",
    Verdict.FAILED,
    "of 8 groups the worst one loses 15.0 points",
    "Calibrate again",
    "label=cat*corruption=fog@3",
    0.15,
    0.11,
    0.19,
    0.02,
    "fail-if-likely",
    200,
    100,
    "drop",
)
UNDECIDED = RuleResult(
    "samples", Verdict.UNDECIDED, "1 group is too small", "Evaluate on more", value=7.0, unit="count"
)
PASSED = RuleResult("size", Verdict.PASSED, "half", value=0.5, limit=0.6, unit="ratio")
NOT_JUDGED = RuleResult("latency", Verdict.NOT_JUDGED, "predictions do not tell it", "Check the model")

RESULT = CheckResult(
    Verdict.FAILED,
    (PASSED, FAILED, UNDECIDED, NOT_JUDGED),
    {"model": {"name": "int8.onnx"}, "reference": {"name": "fp32.onnx"}, "runtime": {"provider": "cpu"}, "n": 1600},
    {"format": 1},
    "onnxptq check int8.onnx --data 'my data'",
)
BAD = Checked("gone.onnx", None, "there is no model gone.onnx.")


def checked(result: CheckResult = RESULT, name: str = "int8.onnx") -> list[Checked]:
    return [Checked(name, result)]


ODD = replace(FAILED, group="label=<b>|`x`\x01\ud800 & [y](z)*corruption=100 %, a:b", explanation="::error::\r\nno")


def test_the_verdict_is_first_then_what_failed_then_the_command() -> None:
    lines = full_text(RESULT).splitlines()
    assert lines[0] == (
        "FAILED int8.onnx against fp32.onnx on cpu: 1 failed, 1 undecided, 1 passed, 1 not judged; 1600 samples"
    )
    assert lines[2] == "FAILED worst_group_drop in label=cat*corruption=fog@3"
    assert lines[3].strip() == (
        "15.0 points [11.0 to 19.0], limit 2.0 points, fail-if-likely, n = 200 from 100 original samples"
    )
    assert lines[5] == "  -> Calibrate again"
    starts = [line.split(" ")[0] for line in lines if line and line[0].isupper()]
    assert starts == ["FAILED", "FAILED", "UNDECIDED", "NOT", "PASSED"]
    assert lines[-1] == "again: onnxptq check int8.onnx --data 'my data'"


@pytest.mark.parametrize("rules", [(), RESULT.rules, (ODD, ODD)])
def test_junit_is_what_jenkins_and_gitlab_read(rules: tuple[RuleResult, ...]) -> None:
    schema = xmlschema.XMLSchema(Path(__file__).with_name("junit.xsd"))
    schema.validate(junit_xml([*checked(replace(RESULT, rules=rules)), BAD]).decode())


def test_junit_has_one_test_a_rule(tmp_path: Path) -> None:
    write_junit(tmp_path / "j.xml", checked())
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    outcomes = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert outcomes == {"size": [], "worst_group_drop": ["failure"], "samples": ["error"], "latency": ["skipped"]}
    assert "limit 2.0 points" in str(suite.findtext(".//failure"))
    twice = ElementTree.fromstring(junit_xml(checked(replace(RESULT, rules=(FAILED, FAILED)))))
    assert [case.get("name") for case in twice.iter("testcase")] == ["worst_group_drop", "worst_group_drop (2)"]


def test_several_models_are_one_report_in_which_each_is_named() -> None:
    good = replace(RESULT, verdict=Verdict.PASSED, rules=(PASSED,))
    models = [*checked(good, "a/int8.onnx"), BAD, *checked(RESULT, "b/int8.onnx")]
    root = ElementTree.fromstring(junit_xml(models))
    assert {name: root.get(name) for name in ("tests", "failures", "errors")} == {
        "tests": "6", "failures": "1", "errors": "2",
    }  # fmt: skip
    assert [suite.get("name") for suite in root] == ["a/int8.onnx", "gone.onnx", "b/int8.onnx"]
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(names)) == len(names)  # GitLab ignores a test of a name that it has seen.
    assert several_text(models).splitlines()[:4] == [
        "BAD INPUT 3 models: 1 bad input, 1 failed, 1 passed",
        "  BAD INPUT  gone.onnx: there is no model gone.onnx.",
        "  FAILED     b/int8.onnx",
        "  PASSED     a/int8.onnx",
    ]
    commands = workflow_commands(models, {"GITHUB_ACTIONS": "true"})
    assert commands[0] == "::error title=onnxptq check%3A BAD INPUT::gone.onnx: there is no model gone.onnx."
    assert commands[1].startswith("::error title=onnxptq check%3A FAILED worst_group_drop::b/int8.onnx: ")


@pytest.mark.parametrize(
    ("codes", "expected"),
    [("0", 0), ("00", 0), ("03", 3), ("30", 3), ("13", 1), ("31", 1), ("12", 2), ("0231", 2), ("23", 2)],
)
def test_the_worst_exit_code_stands_for_all(codes: str, expected: int) -> None:
    verdicts = {"0": Verdict.PASSED, "1": Verdict.FAILED, "3": Verdict.UNDECIDED}
    models = [BAD if code == "2" else Checked(code, replace(RESULT, verdict=verdicts[code])) for code in codes]
    assert worst(models).exit_code == expected


def test_sarif_has_what_failed_and_what_is_open_and_why_a_model_was_not_judged(check_sarif: Any) -> None:
    twice = replace(FAILED, rule="regression (worst group)")
    log = to_sarif([*checked(replace(RESULT, rules=(*RESULT.rules, twice)), "out dir/int8.onnx"), BAD])
    check_sarif(log)
    (run,) = log["runs"]
    found = [(one["ruleId"], one["level"]) for one in run["results"]]
    assert found == [("worst_group_drop", "error"), ("samples", "warning"), ("regression", "error")]
    assert "limit 2.0 points" in run["results"][0]["message"]["text"]
    (place,) = run["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "out%20dir/int8.onnx"
    assert place["logicalLocations"][0]["fullyQualifiedName"] == "label=cat*corruption=fog@3"
    ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert ids == ["size", "worst_group_drop", "samples", "latency", "regression"]
    assert run["invocations"][0]["executionSuccessful"] is False
    (why,) = run["invocations"][0]["toolExecutionNotifications"]
    assert why["message"]["text"] == "gone.onnx: there is no model gone.onnx."


def test_annotations_are_for_github_only_and_cannot_be_forged() -> None:
    assert workflow_commands(checked(), {}) == []
    error, warning = workflow_commands(checked(), {"GITHUB_ACTIONS": "true"})
    assert error.startswith("::error title=onnxptq check%3A FAILED worst_group_drop::label=cat*corruption=fog@3: 15.0")
    assert warning.startswith("::warning title=onnxptq check%3A UNDECIDED samples::")
    (odd,) = workflow_commands(checked(replace(RESULT, rules=(ODD,))), {"GITHUB_ACTIONS": "true"})
    assert len(odd.splitlines()) == 1 and "100 %25" in odd


def test_the_summary_is_appended_where_github_asks_for_it(tmp_path: Path) -> None:
    write_summary(checked(), {})
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    write_summary(checked(), {"GITHUB_STEP_SUMMARY": str(summary)})
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n## onnxptq check: ❌ FAILED\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split("|")[2].strip() for row in rows[1:]] == ["worst\\_group\\_drop", "samples", "latency", "size"]
    with pytest.raises(OutputError, match="GITHUB_STEP_SUMMARY"):
        write_summary(checked(), {"GITHUB_STEP_SUMMARY": str(tmp_path)})


def test_names_from_the_data_cannot_become_markup() -> None:
    (row,) = [line for line in markdown(replace(RESULT, rules=(ODD,))).splitlines() if "label=" in line]
    assert row.count(" | ") == 5
    assert "\\<b\\>\\|\\`x\\`" in row


def test_the_json_has_stable_keys_and_no_nan() -> None:
    values = json.loads(json.dumps(replace(RESULT, rules=(replace(FAILED, low=float("nan")),)).to_dict()))
    assert list(values) == ["check_version", "verdict", "rules", "subject", "policy", "command", "warnings"]
    assert values["rules"][0]["low"] is None
    assert set(values["rules"][0]) == {
        "rule", "verdict", "explanation", "next_step", "group", "value", "low", "high", "limit", "mode", "n", "sources",
        "unit", "tolerance", "ruled_out", "samples_to_decide",
    }  # fmt: skip
