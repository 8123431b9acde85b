"""Policies by name, in words, and what rules say they need."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxptq.cli import cli
from onnxptq.errors import UsageError
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.explain import explain_policy, policy_toml
from onnxptq.gates.named_policies import NAMED, find_policy
from onnxptq.gates.policy import (
    AverageDrop,
    GroupAccuracy,
    LatencyRule,
    Lint,
    PlacementRule,
    Policy,
    ProvenanceRule,
    QualityShare,
    Size,
    WorstGroupDrop,
    default_policy,
    tolerated,
)
from onnxptq.gates.policy_file import parse_policy
from onnxptq.gates.rules import RULES, judge, needs
from onnxptq.gates.starter import starter_policy
from onnxptq.gates.verdict import Verdict
from onnxptq.models import builtin

Make = Callable[..., Evidence]


def test_every_table_of_a_policy_has_a_rule() -> None:
    assert {field.name for field in fields(Policy)} - {"group_by", "confidence", "score"} == set(RULES)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (Policy(), set()),
        (default_policy(labelled=True), {"predictions", "reference", "labels", "all groups"}),
        (Policy(group_accuracy=(GroupAccuracy("label=cat", 0.5),)), {"predictions", "labels"}),
        (Policy(size=Size()), {"model", "reference"}),
        (Policy(size=Size(against="baseline"), lint=Lint("cpu")), {"model"}),
        (Policy(provenance=ProvenanceRule(source="0" * 64)), {"model"}),
        (Policy(latency=LatencyRule(against="baseline")), {"latency", "reference"}),
        (Policy(placement=PlacementRule("cpu")), {"placement"}),
    ],
)
def test_a_policy_needs_what_its_rules_need_and_no_more(policy: Policy, expected: set[str]) -> None:
    assert needs(policy) == expected


def test_a_name_or_a_file_is_a_policy_and_anything_else_is_said(tmp_path: Path) -> None:
    assert find_policy("default") is None
    assert find_policy("strict") == NAMED["strict"].make(True)
    (tmp_path / "mine.toml").write_text("[average_drop]\nlimit = 0.03\n")
    assert find_policy(tmp_path / "mine.toml") == Policy(average_drop=AverageDrop(0.03))
    with pytest.raises(UsageError, match="Did you mean 'strict'"):
        find_policy("stict")
    with pytest.raises(UsageError, match="there is no policy gone"):
        find_policy("gone.toml")


def test_strict_asks_for_more_than_default(evidence: Make) -> None:
    strict = NAMED["strict"].make(True)
    found = evidence(100, {"label=cat*corruption=fog@3": 0.03})
    assert {one.verdict for one in judge(strict, found)} == {Verdict.PASSED, Verdict.UNDECIDED}
    assert {one.verdict for one in judge(default_policy(labelled=True), found)} == {Verdict.PASSED}
    assert {one.verdict for one in judge(strict, evidence(400))} == {Verdict.PASSED}


@pytest.mark.parametrize(
    ("lost", "expected"),
    [(0.0, Verdict.PASSED), (0.008, Verdict.PASSED), (0.012, Verdict.FAILED), (0.1, Verdict.FAILED)],
)
def test_mlperf_asks_for_a_share_of_the_quality(evidence: Make, lost: float, expected: Verdict) -> None:
    (result,) = judge(
        NAMED["mlperf-99"].make(True), evidence(2000, {f"label={name}": lost for name in ("cat", "dog", "fox", "owl")})
    )
    assert result.verdict is expected and result.value == pytest.approx(1 - lost)


def test_few_samples_do_not_show_a_share_of_the_quality(evidence: Make) -> None:
    (result,) = judge(NAMED["mlperf-99"].make(True), evidence(20))
    assert result.verdict is Verdict.UNDECIDED and result.low is not None and result.low < 0.98


def test_a_policy_in_words_says_where_each_rule_fails_and_passes() -> None:
    policy = Policy(
        average_drop=AverageDrop(),
        quality_share=QualityShare(mode="point"),
        worst_group_drop=WorstGroupDrop(mode="fail-if-possible"),
        size=Size(),
    )
    said = "\n".join(explain_policy(policy))
    assert "FAILED where it is surely more than 1.0 points, PASSED where more than 3.0 points can be ruled out" in said
    assert "FAILED where it is measured less than 99.0 %, PASSED where less than 97.0 % can be ruled out" in said
    assert "FAILED where it is possibly more than 2.0 points, else PASSED." in said
    assert "limit = 0.5, against = 'reference'" in said
    assert said.endswith("It takes: labels, model, predictions, reference.")


def test_every_rule_can_be_explained() -> None:
    import re

    text = re.sub(r"^# (?=\[|\w+ = )", "", starter_policy(builtin().model), flags=re.MULTILINE)
    policy = parse_policy(text)
    said = "\n".join(explain_policy(policy))
    assert not [name for name in RULES if f"[{name}]" not in said]
    assert policy.worst_group_fidelity is not None and tolerated(policy.worst_group_fidelity) < 0.85


def test_the_command_explains_a_name_and_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('[[group_drop]]\ngroup = "label=cat"\n')
    for name, words in (("strict", "more than 5.0 points"), (str(tmp_path / "mine.toml"), "label=cat: FAILED where")):
        done = CliRunner().invoke(cli, ["policy", "explain", name])
        assert done.exit_code == 0 and words in done.output
    assert "flip_rate" in CliRunner().invoke(cli, ["policy", "explain", "--no-labels"]).output
    assert "mlperf-99.9" in CliRunner().invoke(cli, ["policy", "list"]).output


@pytest.mark.parametrize("name", NAMED)
def test_a_policy_as_toml_is_read_back_as_the_same(name: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["policy", "explain", name, "--toml"])
    assert done.exit_code == 0 and done.stdout.startswith(f"# {name}: ")
    assert parse_policy(done.stdout) == NAMED[name].make(True)
    rules = Policy(
        group_by=("label*corruption",),
        group_accuracy=(GroupAccuracy("label=a cat", 0.5), GroupAccuracy('label="', 0.25)),
        placement=PlacementRule("cpu"),
        lint=Lint("tensorrt"),
    )
    assert parse_policy(policy_toml(rules)) == rules
