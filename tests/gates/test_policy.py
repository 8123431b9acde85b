"""A policy is read strictly: every mistake is said with its line and its remedy, and the published schema agrees."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest

import onnxptq.gates
from onnxptq.errors import UsageError
from onnxptq.gates.check import policy_to_dict
from onnxptq.gates.policy import AverageDrop, GroupAccuracy, GroupDrop, Policy, WorstGroupDrop, default_policy
from onnxptq.gates.policy_file import load_policy, parse_policy
from onnxptq.gates.schema import policy_schema, schema_text
from onnxptq.gates.starter import starter_policy
from onnxptq.models import builtin

WHOLE = """
format = 1
group_by = ["label"]
confidence = 0.9

[samples]
minimum = 30
small_groups = "ignore"

[average_drop]
limit = 0.03
mode = "point"

[[group_drop]]
group = "label=cat"

[[group_drop]]
group = "label=dog"
limit = 0

[[group_accuracy]]
group = "label=cat*corruption=fog@3"
limit = 0.7

[provider_agreement]
providers = ["cpu", "cuda"]

[latency]
limit = 2
against = "baseline"

[graph]
quantized = true
float_nodes = ["/head/*"]
"""


def test_a_policy_holds_what_the_file_says_and_defaults_elsewhere() -> None:
    policy = parse_policy(WHOLE)
    assert (policy.group_by, policy.confidence, policy.samples.minimum) == (("label",), 0.9, 30)
    assert policy.average_drop == AverageDrop(limit=0.03, mode="point")
    assert policy.group_drop == (GroupDrop("label=cat", 0.05), GroupDrop("label=dog", 0.0))
    assert policy.group_accuracy == (GroupAccuracy("label=cat*corruption=fog@3", 0.7),)
    assert policy.latency is not None and policy.latency.limit == 2.0
    assert policy.worst_group_drop is None and policy.size is None


def test_an_empty_policy_has_no_rule() -> None:
    assert parse_policy("") == Policy()


MISTAKES = {
    "an unknown rule": ("\n[averagedrop]\n", 2, ["unknown key 'averagedrop'", "Did you mean 'average_drop'"]),
    "an unknown key": ("[size]\n\nlimt = 1\n", 3, ["unknown key 'limt' in [size]", "Did you mean 'limit'"]),
    "an unknown key of a second table": (
        '[[group_drop]]\ngroup = "label=a"\n[[group_drop]]\ngroup = "label=b"\nlimits = 1\n',
        5,
        ["unknown key 'limits' in [group_drop]"],
    ),
    "a wrong mode": ('[average_drop]\nmode = "fail-if-likly"\n', 2, ["Did you mean 'fail-if-likely'"]),
    "a text for a number": ('[average_drop]\nlimit = "2 %"\n', 2, ["'limit' of [average_drop] must be a number"]),
    "a truth for a number": ("[average_drop]\nlimit = true\n", 2, ["must be a number, got True"]),
    "percent for a fraction": ("[average_drop]\nlimit = 2.0\n", 2, ["out of range", "less than 1", "are 0.02"]),
    "a negative limit": ("[average_drop]\nlimit = -0.1\n", 2, ["out of range", "at least 0"]),
    "not a number": ("[average_drop]\nlimit = nan\n", 2, ["out of range"]),
    "a fraction of a sample": ("[samples]\nminimum = 2.5\n", 2, ["must be a whole number"]),
    "no sample": ("[samples]\nminimum = 0\n", 2, ["at least 1"]),
    "a number for a table": ("average_drop = 0.02\n", 1, ["must be a table", "Write [average_drop]"]),
    "a table for a list of tables": ('[group_drop]\ngroup = "label=a"\n', 1, ["must be a list", "[[group_drop]]"]),
    "a text for a list": ('[graph]\ndomains = "mine"\n', 2, ["must be a list", 'domains = ["..."]']),
    "a number in a list of texts": ("group_by = [1]\n", 1, ["must be a text"]),
    "a tolerance below the limit": (
        "\n[average_drop]\nlimit = 0.03\ntolerance = 0.02\n",
        2,
        ["tolerance 0.02 is below the limit 0.03", "at least the limit"],
    ),
    "a missing group": ("\n[[group_accuracy]]\nlimit = 0.5\n", 2, ["[group_accuracy] needs 'group'"]),
    "a newer format": ("format = 2\n", 1, ["format 2", "reads format 1"]),
    "a key in one line": ("size = { limit = 0.5, than = 1 }\n", 1, ["unknown key 'than'"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_said_with_its_line(tmp_path: Path, mistake: str) -> None:
    text, line, words = MISTAKES[mistake]
    path = tmp_path / "policy.toml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_policy(path)
    said = str(caught.value)
    assert said.startswith(f"{path}, line {line}: ")
    assert not [word for word in words if word not in said], said


@pytest.mark.parametrize("text", ["[", "a = ", "x = 1\nx = 2", "[" * 5000])
def test_what_is_not_toml_is_said(text: str) -> None:
    with pytest.raises(UsageError, match="is not TOML"):
        parse_policy(text)


def test_a_missing_or_unreadable_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no policy .*--init"):
        load_policy(tmp_path / "gone.toml")
    with pytest.raises(UsageError, match="cannot be read"):
        load_policy(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# \xff")
    with pytest.raises(UsageError, match="UTF-8"):
        load_policy(tmp_path / "latin.toml")


def test_the_published_schema_is_the_one_that_the_dataclasses_make() -> None:
    published = Path(onnxptq.gates.__file__).with_name("policy.schema.json")
    assert published.read_text(encoding="utf-8") == schema_text()
    jsonschema.Draft202012Validator.check_schema(policy_schema())


def test_the_schema_accepts_what_the_reader_accepts() -> None:
    for text in (WHOLE, "", starter_policy(builtin().model)):
        jsonschema.validate(tomllib.loads(text), policy_schema())
    for policy in (default_policy(labelled=True), default_policy(labelled=False)):
        jsonschema.validate(json.loads(json.dumps(policy_to_dict(policy))), policy_schema())


@pytest.mark.parametrize(
    "mistake", [name for name in MISTAKES if name not in ("not a number", "a tolerance below the limit")]
)
def test_the_schema_refuses_what_the_reader_refuses(mistake: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(MISTAKES[mistake][0]), policy_schema())


def test_the_default_policy_judges_drops_with_labels_and_flips_without() -> None:
    labelled, unlabelled = default_policy(labelled=True), default_policy(labelled=False)
    assert labelled == Policy(average_drop=AverageDrop(), worst_group_drop=WorstGroupDrop())
    assert unlabelled.average_drop is None and unlabelled.worst_group_drop is None
    assert unlabelled.flip_rate is not None and unlabelled.worst_group_flip_rate is not None


def test_the_starter_policy_is_the_default_one() -> None:
    written, default = parse_policy(starter_policy(builtin().model)), default_policy(labelled=True)
    assert written.average_drop is not None and written.worst_group_drop is not None
    assert (written.average_drop.tolerance, written.worst_group_drop.tolerance) == (0.03, 0.1)
    plain = replace(
        written,
        average_drop=replace(written.average_drop, tolerance=None),
        worst_group_drop=replace(written.worst_group_drop, tolerance=None),
    )
    assert plain == default


def test_every_rule_in_a_comment_of_the_starter_policy_can_be_turned_on() -> None:
    text = re.sub(r"^# (?=\[|\w+ = )", "", starter_policy(builtin().model), flags=re.MULTILINE)
    policy = parse_policy(text)
    off = [name for name, value in vars(policy).items() if value in (None, ())]
    assert off == []
