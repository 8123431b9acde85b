"""Served data against what the INT8 file remembers of its calibration set, without labels."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxptq
from onnxptq import api
from onnxptq.audit import FAILED, PASSED, UNDECIDED
from onnxptq.audit.served import FALSE_ALARMS, audit_served, distance, distance_limit
from onnxptq.calibrators.marginals import POINTS, compressed, marginals, numbers_of
from onnxptq.errors import UsageError
from onnxptq.graphs import load_model, read_provenance
from onnxptq.inputs import DataOptions
from onnxptq.recipe import Environment

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("served") / "digits.int8.onnx"
    return onnxptq.quantize(evaluate=False, output=path).output


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Pictures of the other side of the built-in data, as they are or under shifts, without labels."""
    folder = tmp_path_factory.mktemp("pictures")
    options = DataOptions(calib_data=str(onnxptq.models.builtin().test))
    drawn = api.draw_calibration(None, size=60, seed=3, options=options)

    def write(shifts: str, count: int) -> str:
        samples = drawn.environment(Environment(shifts, count))
        path = folder / f"{shifts or 'clean'}-{count}.npz"
        images = np.stack([np.asarray(batch[0]) for batch in samples.batches()])
        np.savez(path, image=np.rint(images * 255).astype(np.uint8))
        return str(path)

    return write


def test_twenty_dark_pictures_are_not_what_the_model_was_calibrated_on(int8, served) -> None:
    audit = audit_served(load_model(int8), DataOptions(data=served("dark@3", 20)))
    assert (audit.verdict, audit.served, audit.calibrated) == (FAILED, 20, 128)
    assert audit.differences[0].distance > audit.limit
    clean = audit_served(load_model(int8), DataOptions(data=served("", 60)))
    assert clean.verdict == PASSED
    assert audit_served(load_model(int8), DataOptions(data=served("dark@3", 19))).verdict == UNDECIDED


def test_the_command_says_so_and_refuses_what_only_an_fp32_model_has(int8, served, onnxptq: Run) -> None:
    done = onnxptq("audit", str(int8), "--data", served("dark@3", 20), "--json", "-")
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["false_alarms"]) == (1, "FAILED", 0.05)
    done = onnxptq("audit", str(int8), "--data", served("", 60))
    assert done.returncode == 0
    assert done.stdout.startswith("PASSED: 60 served samples and the 128 that calibrated digits.int8.onnx show no")
    done = onnxptq("audit", str(int8), "--data", served("", 60), "--calib", "dark@3")
    assert (done.returncode, "--calib" in done.stderr) == (2, True)


def test_a_file_that_remembers_nothing_is_refused(int8, served) -> None:
    model = load_model(int8)
    older = replace(model, metadata={**model.metadata, "onnxptq.calibration": '{"samples":128,"digest":"0"}'})
    with pytest.raises(UsageError, match="does not say what the samples that calibrated it were like"):
        audit_served(older, DataOptions(data=served("", 60)))


def test_what_is_remembered_is_order_statistics_of_each_number_alone() -> None:
    random = np.random.default_rng(0)
    ids = np.eye(1, 40, dtype=np.int64)
    rows = [{"x": random.normal(size=(1, 3)).astype(np.float32), "ids": ids} for _ in range(90)]
    kept = marginals(rows)
    assert set(kept) == {"x[0]", "x[1]", "x[2]", "ids (share not 0)"}
    assert len(kept["x[0]"]) == POINTS
    assert kept["ids (share not 0)"] == [0.025]
    values = numbers_of(rows)["x[0]"]
    assert kept["x[0]"] == sorted(kept["x[0]"])
    assert set(kept["x[0]"]) <= set(values.tolist())
    assert (kept["x[0]"][0], kept["x[0]"][-1]) == (values.min(), values.max())


@pytest.mark.parametrize("discrete", [False, True])
def test_false_alarms_are_as_rare_as_is_said(discrete: bool) -> None:
    random = np.random.default_rng(1)
    limit = distance_limit(128, 20, 4)
    alarms = 0
    for _ in range(400):
        kept, values = random.normal(size=(4, 128)), random.normal(size=(4, 20))
        if discrete:
            kept, values = np.rint(kept), np.rint(values)
        alarms += max(distance(compressed(one), other) for one, other in zip(kept, values, strict=True)) > limit
    # Twice the standard error of 400 repeats above what is said.
    assert alarms / 400 <= FALSE_ALARMS + 2 * np.sqrt(FALSE_ALARMS / 400)
    assert discrete or alarms > 0


def test_the_file_says_what_it_was_calibrated_on(int8) -> None:
    found = read_provenance(load_model(int8).metadata)
    assert found is not None
    assert set(found.calibration["marginals"]) == {f"input ({n})" for n in ("mean", "deviation", "least", "greatest")}
