"""Calibration as a step of its own: statistics sharded, joined and quantized from, by the installed command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import onnxptq
from onnxptq.calibration import merge_shards
from onnxptq.errors import DataError

SET = ("--calib", "dark@3", "--calib-size", "24")


@pytest.fixture
def whole(place: Any) -> Path:
    place.succeeded("calibrate", *SET, "-o", "all.stats")
    return Path(place.work) / "all.stats"


def test_shards_joined_in_any_order_are_the_bytes_of_one_pass(place: Any, whole: Path) -> None:
    for part in (1, 2, 3):
        done = place.succeeded("calibrate", *SET, "--shard", f"{part}/3", "-o", f"{part}.stats")
        assert f"samples as drawn: 8, part {part}/3" in done.stdout
    done = place.succeeded("merge-stats", "3.stats", "1.stats", "2.stats", "-o", "joined.stats", "--json", "-")
    assert json.loads(done.stdout)["samples"] == {"": 24}
    assert (whole.parent / "joined.stats").read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("method", ["minmax", "percentile", "mse"])
def test_a_model_from_statistics_is_the_one_that_quantize_makes(place: Any, whole: Path, method: str) -> None:
    common = ("--method", method, "--corruption", "clean")
    place.succeeded("quantize", "--stats", whole, *common, "-o", "from-stats.onnx")
    place.succeeded("quantize", *SET, *common, "-o", "direct.onnx")
    assert (place.work / "from-stats.onnx").read_bytes() == (place.work / "direct.onnx").read_bytes()


def test_a_model_from_statistics_is_judged(place: Any, whole: Path) -> None:
    done = place.succeeded("quantize", "--stats", whole, "--corruption", "clean", "--json", "-")
    report = json.loads(done.stdout)
    assert report["recipe"]["calibration"] == "dark@3"
    assert report["largest_drop"] > 0.2


def test_fast_calibration_is_part_of_the_recipe_and_says_what_it_changes(place: Any) -> None:
    done = place.succeeded("calibrate", *SET, "--fast-calibration", "-o", "fast.stats")
    assert "last bits" in done.stderr
    done = place.succeeded("quantize", *SET, "--fast-calibration", "--no-evaluate", "--json", "-")
    assert "last bits" in done.stderr
    assert json.loads(done.stdout)["recipe"]["engine"] == "one-pass-fast"


def test_parts_that_do_not_make_a_whole_are_refused(place: Any, whole: Path) -> None:
    for part in (1, 2):
        place.succeeded("calibrate", *SET, "--shard", f"{part}/3", "-o", f"{part}.stats")
    place.succeeded("merge-stats", "1.stats", "2.stats", "-o", "two.stats")
    assert "lack part 3 of 3" in place.refused("quantize", "--stats", "two.stats", "--no-evaluate")
    assert "given twice" in place.refused("merge-stats", "1.stats", "1.stats", "-o", "x.stats")
    assert "different divisions" in place.refused("merge-stats", "1.stats", whole, "-o", "x.stats")
    place.succeeded("calibrate", *SET, "--fast-calibration", "-o", "fast.stats")
    assert "describe different runs" in place.refused("merge-stats", whole, "fast.stats", "-o", "x.stats")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("calibrate", "--shard", "5/4", "-o", "x.stats"), "from 1/4 to 4/4"),
        (("calibrate", "--shard", "all", "-o", "x.stats"), "PART/PARTS"),
        (("calibrate", "--calib", "drak@3", "-o", "x.stats"), "Did you mean 'dark'"),
        (("calibrate", "-o", "nowhere/x.stats"), "there is no folder nowhere"),
        (("quantize", "--stats", "missing.stats"), "missing.stats"),
    ],
)
def test_wrong_use_is_explained(place: Any, arguments: tuple[str, ...], words: str) -> None:
    assert words in place.refused(*arguments)


def test_the_pass_on_cuda_says_why_it_cannot_run_before_any_work(place: Any) -> None:
    from onnxptq.runtimes import probe

    if (status := probe("cuda")).loads:
        pytest.skip("CUDA loads here")
    for command in (("calibrate", "-o", "x.stats"), ("quantize", "--no-evaluate")):
        said = place.refused(*command, *SET, "--engine", "one-pass-cuda")
        assert status.reason in said
        assert "Leave --engine out" in said


def test_statistics_decide_what_they_decided(place: Any, whole: Path, inputs: Path) -> None:
    assert "--calib" in place.refused("quantize", "--stats", whole, "--calib", "clean")
    assert "another model" in place.refused("quantize", inputs / "tensor.onnx", "--stats", whole, "--no-evaluate")
    assert "exists already" in place.refused("calibrate", *SET, "-o", whole)
    place.succeeded("calibrate", *SET, "-o", whole, "--force")


def test_a_damaged_statistics_file_is_refused(place: Any, whole: Path) -> None:
    whole.write_bytes(whole.read_bytes()[:100])
    assert "all.stats" in place.refused("quantize", "--stats", whole, "--no-evaluate")


def test_parts_of_another_cpu_or_onnx_runtime_are_refused() -> None:
    one = onnxptq.calibrate(calib="dark@3", calib_size=8, shard="1/2")
    runtime = json.loads(one.provenance["runtime"])
    other = json.dumps({**runtime, "cpu_features": f"{runtime['cpu_features']} amx_int8"}, sort_keys=True)
    second = replace(one, provenance={**one.provenance, "shards": "2/2"})
    assert merge_shards([one, second]).provenance["shards"] == "1/1"
    with pytest.raises(DataError, match="amx_int8"):
        merge_shards([one, replace(second, provenance={**second.provenance, "runtime": other})])
