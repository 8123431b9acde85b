"""The gate through the installed command: verdicts, exit codes, and everything that it writes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model in INT8, calibrated on clean and on dark."""
    import onnxptq

    folder = tmp_path_factory.mktemp("models")
    for calib in ("clean", "dark"):
        onnxptq.quantize(calib=calib, output=folder / f"{calib}.onnx", evaluate=False)
    return folder


def test_clean_passes_and_dark_fails_under_the_same_default_policy(place: Any, models: Path) -> None:
    clean = place.run("check", models / "clean.onnx")
    assert (clean.returncode, clean.stdout.split()[0]) == (0, "PASSED"), clean
    dark = place.run("check", models / "dark.onnx")
    assert (dark.returncode, dark.stdout.split()[0]) == (1, "FAILED"), dark
    assert "FAILED worst_group_drop in label=" in dark.stdout
    assert dark.stdout.splitlines()[-1] == f"again: onnxptq check {models / 'dark.onnx'}"


def test_the_same_check_writes_the_same_bytes(place: Any, models: Path, tmp_path: Path) -> None:
    arguments = ("check", models / "dark.onnx", "--corruption", "clean", "--junit", "junit.xml", "--json")
    (tmp_path / "other-room").mkdir()
    runs = []
    for cache_folder in ("room", "other-room"):
        done = place.run(*arguments, "-", ONNXPTQ_CACHE=tmp_path / cache_folder)
        assert done.returncode == 1
        runs.append((done.stdout, (place.work / "junit.xml").read_bytes()))
    assert runs[0] == runs[1]
    values = json.loads(runs[0][0])
    assert (values["verdict"], values["policy"]["worst_group_drop"]["limit"]) == ("FAILED", 0.02)
    assert [rule["verdict"] for rule in values["rules"]] == ["PASSED", "FAILED", "FAILED"]
    assert ElementTree.fromstring(runs[0][1]).get("failures") == "2"


def test_a_verdict_can_be_had_again_from_the_predictions(place: Any, models: Path) -> None:
    place.succeeded("evaluate", models / "dark.onnx", "--predictions", "p.parquet")
    again = place.run("check", "--predictions", "p.parquet")
    direct = place.run("check", models / "dark.onnx")
    assert again.returncode == 1
    assert again.stdout.splitlines()[:-1] == direct.stdout.splitlines()[:-1]
    looser = "[average_drop]\nlimit = 0.5\n[latency]\n[size]\n"
    (place.work / "policy.toml").write_text(looser)
    done = place.run("check", "--predictions", "p.parquet", "--policy", "policy.toml")
    assert done.returncode == 0
    assert "NOT JUDGED latency" in done.stdout and "NOT JUDGED size" in done.stdout


def test_with_fp32_s_predictions_int8_is_judged_without_fp32(place: Any, tmp_path: Path) -> None:
    from onnxptq.models import builtin

    own = onnx.load(builtin().model)
    own.doc_string = "a model that is not the built-in one"
    onnx.save(own, place.work / "mine.onnx")
    data, train = builtin().test, builtin().train
    place.succeeded(
        "quantize", "mine.onnx", "--calib-data", train, "--calib", "dark@3", "--no-evaluate", "-o", "int8.onnx"
    )
    place.succeeded("evaluate", "mine.onnx", "--data", data, "--predictions", "fp32.parquet")
    direct = place.run("check", "int8.onnx", "--data", data)
    (place.work / "mine.onnx").unlink()
    missing = place.run("check", "int8.onnx", "--data", data)
    assert missing.returncode == 2 and "mine.onnx, which is not beside it" in missing.stderr
    elsewhere = {"ONNXPTQ_CACHE": tmp_path / "empty"}
    words = ("check", "int8.onnx", "--data", data, "--reference-predictions", "fp32.parquet")
    known = place.run(*words, **elsewhere)
    assert known.returncode == direct.returncode == 1
    assert known.stdout.splitlines()[:-1] == direct.stdout.splitlines()[:-1]
    assert len(list((tmp_path / "empty").rglob("predictions/*/*.parquet"))) == 1  # INT8's alone.
    other = place.run(*words, "--corruption", "fog@3", **elsewhere)
    assert other.returncode == 2 and "another corruptions" in other.stderr


def test_init_writes_a_policy_that_the_check_takes(place: Any, models: Path) -> None:
    place.succeeded("check", models / "clean.onnx", "--init", "--policy", "policy.toml")
    text = (place.work / "policy.toml").read_text()
    assert 'calibration = "clean"' in text and "clean.onnx" in text
    done = place.run("check", models / "clean.onnx", "--policy", "policy.toml")
    assert done.returncode == 0
    said = place.refused("check", models / "clean.onnx", "--init", "--policy", "policy.toml")
    assert "never replaces a policy" in said
    assert place.succeeded("check", models / "clean.onnx", "--init").stdout == text


def test_every_rule_about_the_file_and_the_run(place: Any, models: Path) -> None:
    (place.work / "policy.toml").write_text(
        """
        [latency]
        limit = 1000
        [size]
        limit = 0.5
        [placement]
        provider = "cpu"
        [lint]
        target = "cpu"
        [provenance]
        calibration = "clean"
        [graph]
        minimum_opset = 13
        quantized = true
        [provider_agreement]
        providers = ["cpu"]
        """
    )
    done = place.run("check", models / "clean.onnx", "--policy", "policy.toml", "--json", "-")
    verdicts = {rule["rule"]: rule["verdict"] for rule in json.loads(done.stdout)["rules"]}
    names = ["latency", "size", "placement", "lint", "provenance", "graph"]
    assert verdicts == dict.fromkeys(names, "PASSED")


def test_a_baseline_is_written_and_then_holds(place: Any, models: Path) -> None:
    update = ("check", models / "clean.onnx", "--baseline", "baseline.json", "--update-baseline")
    assert place.run(*update).returncode == 0
    same = place.run("check", models / "clean.onnx", "--baseline", "baseline.json")
    assert same.returncode == 0 and "PASSED regression (worst group)" in same.stdout
    # Dark images are no part of the evaluation of a model that was calibrated on them, unless they are named.
    worse = place.run("check", models / "dark.onnx", "--baseline", "baseline.json")
    assert worse.returncode == 1 and "FAILED regression (average)" in worse.stdout


def test_too_few_samples_are_their_own_verdict(place: Any, models: Path) -> None:
    import pyarrow.parquet as pq

    from onnxptq.models import builtin

    pq.write_table(pq.read_table(builtin().test).slice(0, 100), place.work / "few.parquet")
    done = place.run("check", models / "clean.onnx", "--data", "few.parquet")
    assert (done.returncode, done.stdout.split()[0]) == (3, "UNDECIDED"), done
    assert "have fewer than 50 original samples" in done.stdout


def test_github_gets_a_summary_and_annotations(place: Any, models: Path) -> None:
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": place.work / "summary.md"}
    done = place.run("check", models / "dark.onnx", "--json", "-", **environment)
    assert [line for line in done.stderr.splitlines() if line.startswith("::error title=onnxptq check%3A FAILED")]
    assert json.loads(done.stdout)["verdict"] == "FAILED"
    assert "❌ FAILED" in (place.work / "summary.md").read_text(encoding="utf-8")


def test_the_schema_is_printed(place: Any) -> None:
    assert json.loads(place.succeeded("check", "--schema").stdout)["title"] == "Policy of onnxptq check"


def test_clean_passes_and_dark_fails_on_cifar_10(shared: Path, tmp_path: Path, onnxptq: Callable[..., Any]) -> None:
    import pyarrow.parquet as pq

    # 200 of each class: the size at which the issue asks for a drop of 15 points to be found.
    table = pq.read_table(shared / "data" / "cifar10" / "test.parquet")
    pq.write_table(table.slice(0, 2000), tmp_path / "test.parquet")
    model, train = shared / "models" / "cifar10_resnet20.onnx", shared / "data" / "cifar10" / "train.parquet"
    codes = {}
    for calib in ("clean", "dark"):
        made = onnxptq(
            "quantize", model, "--calib-data", train, "--calib", calib, "--no-evaluate", "-o", f"{calib}.onnx"
        )
        assert made.returncode == 0, made.stderr
        # Where U8S8 products saturate, INT8 loses groups with a clean set too.
        judged = ("--reference", model, "--data", tmp_path / "test.parquet", "--ep", "cpu:exact")
        done = onnxptq("check", f"{calib}.onnx", *judged)
        codes[calib] = (done.returncode, done.stdout.split()[0])
    assert codes == {"clean": (0, "PASSED"), "dark": (1, "FAILED")}


def test_a_quantized_reference_is_refused_and_another_one_than_the_model_was_made_from_is_said(
    place: Any, models: Path
) -> None:
    from onnxptq.models import builtin

    refused = place.run("check", models / "dark.onnx", "--reference", models / "clean.onnx")
    assert refused.returncode == 2 and "is quantized itself" in refused.stderr
    other = onnx.load(builtin().model)
    other.doc_string = "another file"
    onnx.save(other, place.work / "other.onnx")
    said = place.run("check", models / "clean.onnx", "--reference", "other.onnx", "--data", builtin().test)
    assert said.returncode == 0 and "other.onnx is not that file" in said.stderr


def test_what_a_command_reads_is_never_replaced_by_what_it_writes(place: Any, models: Path) -> None:
    import shutil

    shutil.copy(models / "clean.onnx", place.work / "m.onnx")
    (place.work / "m.json").write_text("{}")
    before = (place.work / "m.onnx").read_bytes()
    for words in (
        ["check", "m.onnx", "--junit", "m.onnx"],
        ["check", "m.onnx", "--json", "m.json"],
        ["check", "m.onnx", "--baseline", "m.onnx", "--update-baseline"],
        ["evaluate", "m.onnx", "--predictions", "m.onnx"],
        ["lint", "m.onnx", "--json", "m.onnx"],
        ["inspect", "m.onnx", "--json", "m.onnx"],
    ):
        done = place.run(*words)
        assert done.returncode == 2 and "is read by this command" in done.stderr, (words, done)
    assert (place.work / "m.onnx").read_bytes() == before and (place.work / "m.json").read_text() == "{}"
    for _ in range(2):
        place.run("check", "m.onnx", "--json", "verdict.json", "--baseline", "base.json", "--update-baseline")
    assert (place.work / "verdict.json").stat().st_size > 100 and (place.work / "base.json").is_file()
