"""`onnxptq schema`: a schema for every command with `--json`, and it can fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from jsonschema import Draft202012Validator, ValidationError

from onnxptq import cli
from onnxptq.commands._schemas import OUTPUTS, schema_for
from onnxptq.json_schema import schema_of

ROOT = Path(__file__).resolve().parents[2]


def commands_with_json() -> Iterator[str]:
    context = click.Context(cli.cli)
    for name in cli.COMMANDS:
        command = cli.cli.get_command(context, name)
        inner = command.commands.values() if isinstance(command, click.Group) else [command]
        for one in inner:
            if any("--json" in parameter.opts for parameter in one.params):
                yield name if one is command else f"{name} {one.name}"


def test_every_command_with_json_has_a_schema_and_no_other() -> None:
    assert set(commands_with_json()) == OUTPUTS.keys()


@pytest.mark.parametrize("name", OUTPUTS)
def test_it_is_a_schema_with_a_version_and_names_its_page(place: Any, name: str) -> None:
    schema = json.loads(place.succeeded("schema", *name.split()).stdout)
    Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:onnxptq:json:{name.replace(' ', '-')}:{OUTPUTS[name].version}"
    assert not (ROOT / "docs").is_dir() or (ROOT / OUTPUTS[name].page).is_file()


def test_without_a_name_they_are_listed_and_a_wrong_name_is_refused(place: Any) -> None:
    assert [line[:16].strip() for line in place.succeeded("schema").stdout.splitlines()] == list(OUTPUTS)
    assert "Did you mean 'check'" in place.refused("schema", "chek")


def test_what_is_written_satisfies_it_and_what_is_not_does_not(place: Any) -> None:
    place.succeeded("quantize", "--calib-size", "16", "--corruption", "clean", "-o", "int8.onnx", "--json", "q.json")
    place.succeeded("check", "int8.onnx", "--corruption", "clean", "--json", "c.json")
    place.succeeded("policy", "explain", "strict", "--json", "p.json")
    for name, file in (("quantize", "q.json"), ("check", "c.json"), ("policy explain", "p.json")):
        validator, value = Draft202012Validator(schema_for(name)), json.loads((place.work / file).read_text())
        validator.validate(value)
        validator.validate({**value, "a key of a later version": 1})
        for key in schema_for(name).get("required", ["verdict"]):
            with pytest.raises(ValidationError):
                validator.validate({one: value[one] for one in value if one != key})
    value["confidence"] = "high"
    with pytest.raises(ValidationError, match="'high' is not of type"):
        validator.validate(value)


@dataclass(frozen=True)
class Part:
    names: tuple[str, ...]
    share: float | None


@dataclass(frozen=True)
class Whole:
    kind: Literal["a", "b"]
    parts: dict[str, Part]
    best: Part | None


def test_a_dataclass_becomes_a_schema() -> None:
    validator = Draft202012Validator(schema_of(Whole))
    part = {"names": ["x"], "share": None}
    validator.validate({"kind": "a", "parts": {"one": part}, "best": None})
    validator.validate({"kind": "b", "parts": {}, "best": {**part, "share": 0.5}})
    for wrong in (
        {"kind": "c", "parts": {}, "best": None},
        {"kind": "a", "parts": {"one": {"names": "x", "share": 1}}, "best": None},
        {"kind": "a", "parts": {}, "best": {"names": []}},
        {"kind": "a", "parts": {}},
    ):
        with pytest.raises(ValidationError):
            validator.validate(wrong)
    with pytest.raises(TypeError, match="has no form in JSON"):
        schema_of(set[str])


@pytest.mark.parametrize(
    ("typed", "found"), [("onnxptq qua", "plain,quantize"), ("onnxptq check --sari", "plain,--sarif")]
)
def test_the_shell_completes_commands_and_options(place: Any, typed: str, found: str) -> None:
    """As the script does that README.md has a shell read."""
    source = place.with_processes.run(_ONNXPTQ_COMPLETE="bash_source").stdout
    assert "complete -o nosort -F _onnxptq_completion onnxptq" in source
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    done = place.with_processes.run(_ONNXPTQ_COMPLETE="bash_complete", **words)
    assert (done.returncode, done.stdout.split()) == (0, [found])
