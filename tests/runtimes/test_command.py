from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxptq.commands.providers import providers
from onnxptq.runtimes import probe


def test_json_on_stdout_is_json_and_nothing_else() -> None:
    result = CliRunner().invoke(providers, ["--json", "-"])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert set(report) == {"schema", "onnxruntime", "installation_problems", "cpu", "providers"}
    assert set(report["cpu"]) == {"machine", "features", "u8s8_can_saturate", "u8s8_saturates"}
    (cpu,) = [status for status in report["providers"] if status["name"] == "cpu"]
    assert (cpu["compiled"], cpu["loads"], cpu["reason"]) == (True, True, "")


def test_the_table_shows_each_provider_and_the_remedy_with_its_brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "900")
    result = CliRunner().invoke(providers)
    assert result.exit_code == 0
    for name in ("cpu", "cuda", "tensorrt", "openvino"):
        assert name in result.stdout
        assert probe(name).reason in result.stdout
        assert probe(name).remedy in result.stdout


def test_on_a_narrow_terminal_each_provider_is_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = CliRunner().invoke(providers).stdout.splitlines()
    assert not any("│" in line for line in lines)
    start = lines.index("cuda")
    assert [line.split()[0] for line in lines[start + 1 : start + 3]] == ["compiled", "loads"]
    status = probe("cuda")
    if not status.loads:
        (reason,) = [line for line in lines[start:] if line.startswith("  why not")][:1]
        assert status.reason.startswith(" ".join(reason.split()[2:])), "a sentence a line, not a word"
        assert len(reason.split()) > 4


def test_json_into_a_file_comes_beside_the_table(tmp_path: Path) -> None:
    file = tmp_path / "providers.json"
    result = CliRunner().invoke(providers, ["--json", str(file)])
    assert "cpu" in result.stdout
    assert json.loads(file.read_text())["schema"] == 1
