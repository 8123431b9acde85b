"""A verdict reads the same everywhere: terminal, JUnit, GitHub's summary and annotations."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest
import xmlschema

from onnxptq.errors import OutputError
from onnxptq.gates import CheckResult, RuleResult, Verdict
from onnxptq.gates.github import markdown, workflow_commands, write_summary
from onnxptq.gates.junit import junit_xml, write_junit
from onnxptq.gates.text import full_text

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
    schema.validate(junit_xml(replace(RESULT, rules=rules)).decode())


def test_junit_has_one_test_a_rule(tmp_path: Path) -> None:
    write_junit(tmp_path / "j.xml", RESULT)
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()[0]
    assert [suite.get(name) for name in ("tests", "failures", "errors", "skipped")] == ["4", "1", "1", "1"]
    outcomes = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert outcomes == {"size": [], "worst_group_drop": ["failure"], "samples": ["error"], "latency": ["skipped"]}
    assert "limit 2.0 points" in str(suite.findtext(".//failure"))
    twice = ElementTree.fromstring(junit_xml(replace(RESULT, rules=(FAILED, FAILED))))
    assert [case.get("name") for case in twice.iter("testcase")] == ["worst_group_drop", "worst_group_drop (2)"]


def test_annotations_are_for_github_only_and_cannot_be_forged() -> None:
    assert workflow_commands(RESULT, {}) == []
    error, warning = workflow_commands(RESULT, {"GITHUB_ACTIONS": "true"})
    assert error.startswith("::error title=onnxptq check%3A FAILED worst_group_drop::label=cat*corruption=fog@3: 15.0")
    assert warning.startswith("::warning title=onnxptq check%3A UNDECIDED samples::")
    (odd,) = workflow_commands(replace(RESULT, rules=(ODD,)), {"GITHUB_ACTIONS": "true"})
    assert len(odd.splitlines()) == 1 and "100 %25" in odd


def test_the_summary_is_appended_where_github_asks_for_it(tmp_path: Path) -> None:
    write_summary(RESULT, {})
    summary = tmp_path / "summary.md"
    summary.write_text("before\n")
    write_summary(RESULT, {"GITHUB_STEP_SUMMARY": str(summary)})
    text = summary.read_text(encoding="utf-8")
    assert text.startswith("before\n## onnxptq check: ❌ FAILED\n")
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert [row.split("|")[2].strip() for row in rows[1:]] == ["worst\\_group\\_drop", "samples", "latency", "size"]
    with pytest.raises(OutputError, match="GITHUB_STEP_SUMMARY"):
        write_summary(RESULT, {"GITHUB_STEP_SUMMARY": str(tmp_path)})


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
