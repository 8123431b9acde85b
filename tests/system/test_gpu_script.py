"""benchmarks/gpu.py with the CPU in the GPU's place: it runs to its end, resumes, and calls no failure a pass."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def dry_run(file: Path, *arguments: str) -> tuple[int, dict[str, Any], str]:
    command = [sys.executable, str(SCRIPT), "--dry-run", "--results", str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "ONNXPTQ_DEBUG": ""})
    assert file.is_file(), done.stderr
    return done.returncode, json.loads(file.read_text(encoding="utf-8")), done.stdout


def test_claims_are_tried_once_and_their_results_kept_for_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    code, first, _ = dry_run(file, "--only", "keys", "--only", "errors", "--only", "determinism")
    assert (code, first["dry_run"], sorted(first["claims"])) == (0, True, ["determinism", "errors", "keys"])
    assert {one["verdict"] for one in first["claims"].values()} == {"ran"}
    assert first["claims"]["determinism"]["facts"]["extremes apart from the copying pass"] == 0
    code, second, said = dry_run(file, "--only", "keys", "--only", "libraries")
    assert "keys:" not in said
    assert second["claims"]["keys"] == first["claims"]["keys"]
    assert set(second["claims"]) == {*first["claims"], "libraries"}


def test_what_time_did_not_allow_is_not_run_and_tried_at_the_next_start(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    code, found, _ = dry_run(file, "--only", "keys", "--minutes", "-1")
    assert (code, found["claims"]["keys"]["verdict"]) == (3, "not run")
    code, found, _ = dry_run(file, "--only", "keys")
    assert (code, found["claims"]["keys"]["verdict"]) == (0, "ran")


def test_results_of_another_machine_are_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    file.write_text(json.dumps({"schema": 1, "dry_run": False, "machine": "H100", "claims": {"errors": {}}}))
    _, found, said = dry_run(file, "--only", "keys")
    assert "of another machine" in said
    assert set(found["claims"]) == {"keys"}


def test_a_dry_run_is_not_for_the_documents(tmp_path: Path) -> None:
    document = tmp_path / "page.md"
    document.write_text("<!-- gpu -->\n<!-- /gpu -->\n")
    code, _, _ = dry_run(tmp_path / "gpu.json", "--only", "keys", "--write", str(document))
    assert code == 1
    assert document.read_text() == "<!-- gpu -->\n<!-- /gpu -->\n"


def test_a_claim_that_fails_is_broken_whatever_it_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    import _gpu_claims
    import gpu

    def fails(bench: Any) -> Any:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(gpu, "CLAIMS", {"x": _gpu_claims.Claim("x", "It works.", "", fails)})
    results: dict[str, Any] = {"machine": "m", "claims": {}}
    gpu.run(results, tmp_path / "r.json", _gpu_claims.Bench(tmp_path, True, False), 60, only=[], again=[])
    assert results["claims"]["x"]["verdict"] == "broken"
    assert results["claims"]["x"]["reason"] == "RuntimeError: no kernel image"
    assert "| It works. | broken | RuntimeError: no kernel image |" in gpu.table(results)


@pytest.mark.dry
def test_every_claim_runs_on_the_cpu_but_those_that_need_a_gpus_files(tmp_path: Path) -> None:
    code, found, said = dry_run(tmp_path / "gpu.json")
    without = {"missing wheels", "tests"}
    assert code == 3
    assert {name: one["verdict"] for name, one in found["claims"].items() if name not in without} == dict.fromkeys(
        set(found["claims"]) - without, "ran"
    ), said
    assert {found["claims"][name]["verdict"] for name in without} == {"not run"}
