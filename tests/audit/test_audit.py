"""The verdict on sets that were measured to ruin groups and on sets that were measured to be harmless."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from onnxptq import api
from onnxptq.audit import FAILED, PASSED, PROBES, UNDECIDED, audit_calibration
from onnxptq.audit.decisions import outputs_of, undecided
from onnxptq.audit.early import early_note
from onnxptq.audit.missing import MissingGroups
from onnxptq.audit.probe import ProbePart
from onnxptq.audit.verdict import Audit
from onnxptq.audit.yardsticks import MovedInput
from onnxptq.cache import user_cache
from onnxptq.calibration import resolve_calibration
from onnxptq.calibrators import CalibrationSet
from onnxptq.calibrators.samples import draw
from onnxptq.errors import UsageError
from onnxptq.inputs import DataOptions, resolve_for_quantization
from onnxptq.recipe import Environment, Recipe, Step
from onnxptq.reports.audit import audit_sarif

Run = Callable[..., Any]


@pytest.mark.parametrize("probe", PROBES[1:])
def test_a_dark_set_is_dangerous_for_the_input_first(probe: str) -> None:
    audit = audit_calibration(calib="dark@3", calib_size=32, probe=probe)
    assert audit.verdict == FAILED
    assert audit.causes[0].name == "input"
    assert audit.causes[0].coverage()["bounds"] == pytest.approx(0.306, abs=0.01)


@pytest.mark.parametrize("calib", ["clean", "invert@5", "dark@3+autocontrast"])
def test_harmless_sets_pass(calib: str) -> None:
    audit = audit_calibration(calib=calib, calib_size=32)
    assert (audit.verdict, audit.remedies) == (PASSED, ())


def test_missing_groups_are_named_but_do_not_decide() -> None:
    audit = audit_calibration(calib="single-class", calib_size=32)
    assert [(missing.attribute, len(missing.values)) for missing in audit.missing] == [("label", 9)]
    assert audit.verdict == PASSED


def test_an_unknown_probe_is_refused() -> None:
    with pytest.raises(UsageError, match="--probe must be all, undrawn or augmented"):
        audit_calibration(probe="everything")


def test_nothing_to_hold_the_set_against_is_undecided() -> None:
    """The set draws all samples that there are, and no copies are wanted."""
    everything = len(
        resolve_calibration(None, CalibrationSet(), DataOptions(), user_cache(), evaluate=True).calibration
    )
    audit = audit_calibration(calib="clean", calib_size=everything, probe="undrawn")
    assert audit.verdict == UNDECIDED
    assert "--data" in audit.remedies[0]


def test_noise_is_not_held_against_noise() -> None:
    assert audit_calibration(calib="random", calib_size=32, probe="augmented").verdict == UNDECIDED
    assert audit_calibration(calib="random", calib_size=32).verdict == PASSED


def test_an_output_too_narrow_for_the_two_best_classes_loses_the_prediction() -> None:
    inputs = resolve_for_quantization(None, DataOptions(), user_cache(), needs_data=True, evaluate=True)
    samples = draw(CalibrationSet.parse("clean"), inputs.task, inputs.calibration, size=40)
    ran = outputs_of(
        inputs.model,
        [ProbePart("all", "undrawn", samples), ProbePart("few", "undrawn", samples.environment(Environment("", 3)))],
    )
    assert [part.name for part, _ in ran] == ["all"]  # Three samples say nothing of a group.
    (logits,) = ran[0][1]
    second = np.sort(logits, axis=1)[:, -2]
    for limit in (second.min() - 0.1, np.median(second), logits.max()):
        (found,) = undecided(inputs.model, inputs.task, ran, {"logits": (-99.0, float(limit))})["logits"]
        assert found.share == pytest.approx((second >= np.float32(limit)).mean())


def test_the_command_says_the_verdict_first_and_exits_by_it(
    onnxptq: Run, tmp_path: Path, check_sarif: Callable[..., None]
) -> None:
    done = onnxptq("audit", "--calib", "shifted", "--calib-size", "32", "--sarif", "a.sarif")
    assert done.returncode == 1
    log = json.loads((tmp_path / "a.sarif").read_text())
    check_sarif(log)
    errors = [one for one in log["runs"][0]["results"] if one["level"] == "error"]
    assert [one["ruleId"] for one in errors] == ["unfit-range"]
    assert errors[0]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] == "input"
    assert "of what preprocessing allows" in errors[0]["message"]["text"]
    first, again, *_ = done.stdout.splitlines()
    assert first.startswith("FAILED: the calibration set dark@3 for digits.onnx is dangerous: too narrow for input")
    assert again == "again: onnxptq audit --calib shifted --calib-size 32 --sarif a.sarif"
    done = onnxptq("audit", "--calib-size", "32", "--json", "-")
    found = json.loads(done.stdout)
    assert (done.returncode, found["verdict"], found["causes"]) == (0, "PASSED", [])


def test_sarif_has_a_rule_for_each_kind_of_finding(check_sarif: Callable[..., None]) -> None:
    moved = MovedInput(input="x", mean=4.0, deviation=5.0, column="age")
    missing = MissingGroups("label", ("cat", "dog"), 10)
    audit = Audit("UNDECIDED", "m.onnx", "clean", 128, {}, (), (moved,), ("x",), (missing,), ("Check the units.",))
    log = audit_sarif(audit, "out/m.onnx")
    check_sarif(log)
    found = [(one["ruleId"], one["level"]) for one in log["runs"][0]["results"]]
    assert found == [
        ("input-not-as-in-training", "error"),
        ("missing-group", "note"),
        ("nothing-to-compare", "warning"),
    ]
    texts = [one["message"]["text"] for one in log["runs"][0]["results"]]
    assert "column age" in texts[0] and "Check the units." in texts[0] and "cat, dog" in texts[1]


def test_the_command_refuses_a_set_that_there_is_not(onnxptq: Run) -> None:
    done = onnxptq("audit", "--calib", "drak@3")
    assert done.returncode == 2
    assert "dark" in done.stderr


@pytest.fixture
def notes() -> Callable[..., str | None]:
    def notes(calib: str, recipe: Recipe | None = None) -> str | None:
        inputs = resolve_for_quantization(None, DataOptions(), user_cache(), needs_data=True, evaluate=True)
        samples = draw(CalibrationSet.parse(calib), inputs.task, inputs.calibration)
        return early_note(recipe or Recipe(calibration=calib), samples)

    return notes


@pytest.mark.parametrize("calib", ["clean", "small", "imbalanced", "single-class", "noisy", "random", "invert@5"])
def test_quantize_says_nothing_of_harmless_sets(notes: Callable[..., str | None], calib: str) -> None:
    assert notes(calib) is None


@pytest.mark.parametrize("calib", ["dark@1", "dark@3", "contrast@3", "bright@3", "invert@3"])
def test_quantize_warns_of_inputs_that_are_too_narrow(notes: Callable[..., str | None], calib: str) -> None:
    note = notes(calib)
    assert note is not None
    assert calib in note
    assert "% of what preprocessing allows" in note


def test_of_a_harmless_set_quantize_reads_a_few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = resolve_for_quantization(None, DataOptions(), user_cache(), needs_data=True, evaluate=True)
    samples = draw(CalibrationSet.parse("clean"), inputs.task, inputs.calibration)
    read = []
    feeds = type(inputs.task).feeds
    monkeypatch.setattr(type(inputs.task), "feeds", lambda task, batch: read.append(1) or feeds(task, batch))
    assert early_note(Recipe(), samples) is None
    assert len(read) < 10 < len(samples)


def test_quantize_leaves_alone_a_recipe_that_widens_ranges(notes: Callable[..., str | None]) -> None:
    stretched = Recipe(environments=(Environment(), Environment("autocontrast")))
    assert notes("dark@3", stretched) is None
    assert notes("dark@3", Recipe(bounds=(Step("input"),))) is None


def test_the_warning_of_quantize_costs_no_inference(
    notes: Callable[..., str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    def no_session(*arguments: object, **options: object) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(onnxruntime, "InferenceSession", no_session)
    assert notes("dark@3")


def test_quantize_carries_the_warning(tmp_path: Path) -> None:
    made = api.quantize(calib="dark@3", output=tmp_path / "a.onnx", evaluate=False)
    assert any("onnxptq audit" in warning for warning in made.warnings)


def test_a_folder_of_dark_images_is_found_out_without_a_bright_one(tmp_path: Path) -> None:
    """What a user has: the whole folder is dark, so no sample that was not drawn shows the harm."""
    inputs = resolve_for_quantization(None, DataOptions(), user_cache(), needs_data=True, evaluate=True)
    assert inputs.calibration is not None
    batch = inputs.task.load(inputs.calibration.read(np.arange(60)))
    for number, image in enumerate(batch):
        folder = tmp_path / str(number % 3)
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.uint8(image[..., 0] * 255 * 0.15)).save(folder / f"{number}.png")
    audit = audit_calibration(calib="clean", calib_size=20, options=DataOptions(data=str(tmp_path)))
    assert audit.verdict == FAILED
    assert audit.causes[0].name == "input"
    assert {one.share for one in audit.tensors[0].clipping if one.kind == "undrawn"} == {0.0}
