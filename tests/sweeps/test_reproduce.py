"""What a report prints for doing a study again does it again: the command, the plan, the INT8 model of a cell."""

from __future__ import annotations

import json
import shlex
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from onnxptq.commands.quantize import quantize
from onnxptq.graphs import load_model
from onnxptq.models import builtin
from onnxptq.reports.study.reproduce import (
    command_again,
    input_digests,
    plan_text,
    quantize_command,
    systems,
)
from onnxptq.sweeps.plan import Plan, Reading, parse_plan
from onnxptq.sweeps.study import DONE, Cell, CellKey, Study

from .inline import SMALL

KEY = CellKey("builtin", "clean", "", "minmax", "cpu", "cpu", 0)


def study_of(plan: Plan, command: str = "onnxptq sweep study.toml") -> Study:
    return Study("run", plan.title, "2026", plan.to_dict(), (), {}, {}, command)


@pytest.mark.parametrize(
    ("made_by", "again"),
    [
        ("onnxptq sweep p.toml -o r.html --json - --jobs 2", "onnxptq sweep p.toml --jobs 2"),
        ("onnxptq sweep -or.html --output=r.html --json=x m.onnx --store s", "onnxptq sweep m.onnx --store s"),
        ("onnxptq sweep 'my plan.toml' --resume --dry-run --force", "onnxptq sweep 'my plan.toml'"),
        ("onnxptq sweep --resume --jobs 1", "onnxptq sweep study.toml --jobs 1"),
        ("onnxptq sweep --store=s --resume --engine ray", "onnxptq sweep study.toml --store=s --engine ray"),
        ("onnxptq sweep net.onnx --data photos --resume", "onnxptq sweep net.onnx --data photos"),
        ("onnxptq sweep --resume --data photos --skip-bad net.onnx", "onnxptq sweep --data photos --skip-bad net.onnx"),
        ("", ""),
    ],
)
def test_the_command_again_makes_the_study_and_writes_nothing_over(made_by: str, again: str) -> None:
    assert command_again(study_of(Plan(), made_by)) == again


def test_the_plan_of_a_report_is_one_that_sweep_reads() -> None:
    plan = Plan(
        title='"[#] two\nlines',
        models=("a b.onnx", "builtin"),
        calib_data="c/",
        eval_data="e.npz",
        calibrations=("clean", "imbalanced:ratio=100+mixup"),
        strategies=("", "autocontrast"),
        methods=("percentile:percentile=99.9",),
        runtimes=("cpu:exact",),
        seeds=(3, 1),
        calib_size=32,
        minimum_samples=139,
        reading=Reading(image_column="image", skip_bad=True, size=(8, 9), mean=(0.1, 0.2, 0.3)),
    )
    assert parse_plan(plan_text(study_of(plan))) == plan


def test_a_study_without_a_whole_plan_or_of_unknown_names_has_no_commands() -> None:
    assert quantize_command(Study("r", "s", "", {}, (), {}, {}, ""), KEY) is None
    assert quantize_command(study_of(Plan()), replace(KEY, calibration="<b>")) is None
    assert quantize_command(study_of(Plan()), KEY) is not None


def test_reading_and_judging_stand_in_the_command_as_in_the_plan() -> None:
    reading = Reading(label_column="y", skip_bad=True, size=(8, 9), std=(1.0, 2))
    plan = Plan(models=("d/m.onnx",), data="d/", groups=("label",), reading=reading)
    said = quantize_command(study_of(plan), CellKey("d/m.onnx", "dark@3", "", "mse", "tensorrt", "cpu:exact", 2))
    assert said == (
        "onnxptq quantize d/m.onnx --data d/ --calib dark@3 --seed 2 --method mse --target tensorrt --ep cpu:exact "
        "--group label --label-column y --skip-bad --size 8x9 --std 1.0,2 -o m.dark@3.mse.tensorrt.seed2.int8.onnx"
    )


def test_two_files_of_one_name_make_models_of_two_names() -> None:
    plan = Plan(models=("a/m.onnx", "d/m.onnx"))
    commands = [quantize_command(study_of(plan), replace(KEY, model=model)) or "" for model in plan.models]
    assert [command.split()[-1] for command in commands] == [
        "m-1.clean.minmax.seed0.int8.onnx",
        "m-2.clean.minmax.seed0.int8.onnx",
    ]


def made_again(command: str) -> dict[str, Any]:
    """Runs a command of the report; gives what it says in JSON."""
    program, verb, *arguments = shlex.split(command)
    assert (program, verb) == ("onnxptq", "quantize")
    done = CliRunner().invoke(quantize, [*arguments, "--json", "-"])
    assert done.exit_code == 0, (done.output, done.exception)
    said: dict[str, Any] = json.loads(done.stdout)
    assert Path(said["output"]).is_file()
    return said


def test_the_command_of_a_cell_writes_its_model(
    run_plan: Callable[..., tuple[Study, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(builtin().test, "digits.parquet")
    shutil.copy(builtin().model, "my net.onnx")
    plan = Plan(
        models=("my net.onnx",),
        data="digits.parquet",
        calibrations=("dark@3",),
        strategies=("autocontrast", ""),
        methods=("percentile:percentile=99.0", "robust"),
        corruptions=("clean",),
        seeds=(5,),
        calib_size=16,
    )
    study, _ = run_plan(plan)
    for cell in study.cells[::3]:
        command = quantize_command(study, cell.key)
        assert command is not None
        again = made_again(command)
        assert again["recipe_digest"] == cell.recipe_digest
        # The signal to quantization-noise ratio of all outputs: another bit in a weight or a range would show.
        for metric in ("sqnr_db", "flip_rate", "crossfit_drop", "groups"):
            assert again[metric] == cell.report[metric]
    digests = {one.what: one.digest for one in input_digests(study)}
    assert digests["my net.onnx"] == load_model(Path("my net.onnx")).digest
    assert {"data to calibrate my net.onnx with", "data to judge my net.onnx on"} < digests.keys()
    assert len(systems(study)) == 1


def test_without_corruptions_in_the_plan_a_model_is_judged_again_without_the_families_of_all_sets(
    run_plan: Callable[..., tuple[Study, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = Plan(calibrations=("clean", "fog@3"), methods=("minmax",), calib_size=16)
    study, _ = run_plan(plan)
    for cell in study.cells:
        again = made_again(quantize_command(study, cell.key) or "")
        assert again["groups"] == cell.report["groups"]
    corruptions = study.cells[0].report["origin"]["corruptions"]
    failed = replace(study, cells=(replace(study.cells[0], status="failed", report={}), study.cells[1]))
    command = quantize_command(failed, study.cells[0].key) or ""
    assert command.count("--corruption") == len(corruptions) > 1, "another cell of the model says it"


def test_cells_of_before_are_judged_again_under_what_the_plan_names() -> None:
    before = Cell(KEY, DONE, report={"origin": {"data": "5ca1ab1e"}})
    study = replace(study_of(Plan(corruptions=("fog@3",))), cells=(before,))
    assert "--corruption fog@3 " in (quantize_command(study, KEY) or "")


def test_each_source_of_calibration_samples_has_a_digest_of_its_own(
    run_plan: Callable[..., tuple[Study, object]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(builtin().train, "other.parquet")
    sets = ("random", "foreign:other.parquet", "clean")
    study, _ = run_plan(replace(SMALL, calibrations=sets, methods=("minmax",), data=str(builtin().test)))
    noise, foreign, own = (cell.report["origin"]["data"] for cell in study.cells)
    assert noise is None and foreign != own
    digests = {one.what: one.digest for one in input_digests(study)}
    assert digests["data to calibrate builtin with"] == own
    assert digests["data to calibrate builtin with (other.parquet)"] == foreign

    def of_before(cell: Cell) -> Cell:
        origin = {key: value for key, value in cell.report["origin"].items() if key != "corruptions"}
        return replace(cell, report={**cell.report, "origin": {**origin, "data": own}})

    before = replace(study, cells=tuple(map(of_before, study.cells)))
    assert [one.digest for one in input_digests(before) if "calibrate" in one.what] == [own]
