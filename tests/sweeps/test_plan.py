"""Plans: what a mistake in one says, what a grid holds, and that presets and --init write plans that are read again."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

import onnxptq.sweeps.plan as module
from onnxptq.cache import user_cache
from onnxptq.errors import UsageError
from onnxptq.sweeps.plan import Plan, Reading, compose, load_plan, parse_plan, plan_from_dict, recipe_of, schema_text
from onnxptq.sweeps.presets import PRESETS, plan_toml, preset_plan
from onnxptq.sweeps.study import CellKey


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "calibratons = ['clean']",
            r"plan, line 1: unknown key 'calibratons' in the plan. Did you mean 'calibrations'",
        ),
        ("methods = ['minmx']", "unknown method 'minmx'. Did you mean 'minmax'"),
        ("methods = ['percentile:percentil=1']", "Did you mean 'percentile'"),
        ("calibrations = ['drak@3']", "Did you mean 'dark'"),
        ("strategies = ['autocontrats']", "Did you mean 'autocontrast'"),
        ("targets = ['gpu']", "unknown target 'gpu'"),
        ("seeds = ['one']", "entry 1 of 'seeds' must be a whole number, got 'one'. Expected at least 0"),
        ("seeds = [0, -1]", "entry 2 of 'seeds' is -1, out of range. Expected at least 0"),
        ("[reading]\nsize = [8, 'x']", r"line 2: entry 2 of 'size' of \[reading\] must be a whole number"),
        ("calibrations = ['drak@3']", r"plan: unknown calibration set 'drak@3'\. Did"),
        ("calibrations = ['drak@3+blur@5']", r"unknown calibration set 'drak@3' in 'drak@3\+blur@5'\. Did"),
        ("strategies = ['hrad']", r"plan: unknown strategy 'hrad'\. Did you mean 'hard'"),
        ("seeds = [0, 0]", "'seeds' names 0 twice"),
        ("methods = []", "'methods' is empty"),
        ("methods = 'minmax'", "'methods' must be a list"),
        ("calib_size = 0", "Expected at least 1"),
        ("[reading]\nsizes = [8, 8]", r"line 2: unknown key 'sizes' in \[reading\]. Did you mean 'size'"),
        ("format = 2", "the plan has format 2; this version reads format 1"),
        ("= 3", "the plan plan is not TOML"),
    ],
)
def test_a_mistake_is_said_with_what_was_expected(text: str, expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        parse_plan(text)


def test_a_missing_plan_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"onnxptq sweep --init > study\.toml"):
        load_plan(tmp_path / "study.toml")


@pytest.mark.parametrize("text", ["", "\n \n", "# a study\n  # to be written\n"])
def test_a_plan_without_a_key_is_refused_and_its_format_alone_is_all_defaults(tmp_path: Path, text: str) -> None:
    path = tmp_path / "study.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"study\.toml is empty.*--init > study\.toml"):
        load_plan(path)
    path.write_text(text + "format = 1\n")
    assert load_plan(path) == Plan()


def test_the_documentation_names_every_key_with_its_default() -> None:
    document = (Path(__file__).resolve().parents[2] / "docs/formats.md").read_text(encoding="utf-8")
    section = document.split("## Plan (format 1)")[1].split("\n## ")[0]
    rows = [line.split(" | ") for line in section.splitlines() if line.startswith("| `")]
    said = {key: default for names, default, *_ in rows for key in re.findall(r"`(\w+)`", names)}
    defaults = {"format": module.FORMAT, **{one.name: getattr(Plan(), one.name) for one in fields(Plan)}}
    written = {
        key: "none" if value in (None, Reading()) else f"`{json.dumps(value)}`" for key, value in defaults.items()
    }
    assert said == written


def test_the_grid_crosses_all_lists_the_last_fastest() -> None:
    plan = Plan(calibrations=("clean", "dark@3"), methods=("minmax", "mse"), seeds=(0, 1))
    assert len(plan.grid) == 8
    assert plan.grid[:2] == (
        CellKey("builtin", "clean", "", "minmax", "cpu", "cpu", 0),
        CellKey("builtin", "clean", "", "minmax", "cpu", "cpu", 1),
    )


@pytest.mark.parametrize(
    ("calibration", "strategy", "expected"),
    [
        ("dark@3", "", "dark@3"),
        ("dark@3", "autocontrast", "dark@3+autocontrast@3"),
        ("dark@3", "diverse", "diverse:candidates=1024+dark@3"),
        ("single-class:cat+blur@5", "hard+mixup", "hard:candidates=1024+blur@5+mixup@3"),
        ("random", "autocontrast", "random+autocontrast@3"),
    ],
)
def test_a_strategy_appends_shifts_and_replaces_the_sampler(calibration: str, strategy: str, expected: str) -> None:
    assert compose(calibration, strategy) == expected


def test_a_cell_has_the_recipe_that_quantize_would_use() -> None:
    key = CellKey("m.onnx", "dark@3", "autocontrast", "percentile:percentile=99.9", "tensorrt", "cpu", 7)
    recipe = recipe_of(Plan(calib_size=32), key)
    assert (recipe.calibration, recipe.size, recipe.seed, recipe.target) == ("dark@3+autocontrast@3", 32, 7, "tensorrt")
    assert recipe.ranges.keywords["percentile"] == 99.9


def test_the_published_schema_is_that_of_the_dataclasses() -> None:
    published = Path(module.__file__).with_name("plan.schema.json").read_text()
    assert published == schema_text(), "write it anew: onnxptq sweep --schema > onnxptq/sweeps/plan.schema.json"
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads(published)
    jsonschema.validate(Plan(reading=Reading(size=(8, 8), mean=(0.5,))).to_dict(), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"method": ["minmax"]}, schema)


def test_a_plan_survives_its_json_and_its_toml() -> None:
    plan = Plan(
        title='with "quotes"',
        calibrations=("clean",),
        strategies=("", "mixup"),
        seeds=(0, 5),
        eval_size=100,
        groups=("label",),
        reading=Reading(label_column="y", skip_bad=True, size=(8, 8), mean=(0.5,), std=(0.25,)),
    )
    assert plan_from_dict(json.loads(json.dumps(plan.to_dict())), "plan") == plan
    assert parse_plan(plan_toml(plan)) == plan


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_fits_the_builtin_model(name: str) -> None:
    plan = preset_plan(name, Plan(), user_cache())
    assert parse_plan(plan_toml(plan)) == plan
    assert "scale@3" not in plan.calibrations, "a shift of tensors does not fit images"
    assert not plan.families & {"weather", "motion"}, "it is judged by fog and motion blur"


def test_a_preset_judges_by_corruption_where_classes_are_too_rare_for_a_verdict(tmp_path: Path) -> None:
    import numpy as np

    few = {"x": np.random.default_rng(0).integers(0, 256, (300, 8, 8), np.uint8), "y": np.arange(300) % 10}
    np.savez(tmp_path / "few.npz", **few)
    rare = preset_plan("quick", Plan(data=str(tmp_path / "few.npz")), user_cache())
    assert (rare.groups, rare.minimum_samples) == (("label*corruption", "corruption"), 50)
    assert plan_from_dict(rare.to_dict(), "plan") == rare
    assert preset_plan("quick", Plan(), user_cache()).groups == (), "the built-in data has 90 samples of each class"

    many = {"x": np.random.default_rng(0).integers(0, 256, (6000, 8, 8), np.uint8), "y": np.arange(6000) % 10}
    np.savez(tmp_path / "many.npz", **many)
    assert preset_plan("quick", Plan(data=str(tmp_path / "many.npz")), user_cache()).groups == ()


def test_an_unknown_preset_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="Did you mean 'paper'"):
        preset_plan("papers", Plan(), user_cache())
