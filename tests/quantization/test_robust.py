"""The robust methods: an explicit recipe in the file, a switch for each step, every target, and no data where none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import onnxptq
from onnxptq.errors import ModelError, UsageError
from onnxptq.graphs import load_model, read_provenance
from onnxptq.methods import apply_method, fitted, method_label
from onnxptq.recipe import AUGMENTATIONS, Environment, Recipe, Step
from onnxptq.tasks import make_task


@pytest.fixture
def digits(tmp_path):
    """The built-in digit classifier by a method, on 16 images: result, scales and zero points by tensor."""

    def quantize(method, calib="dark@5", **options):
        output = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        result = onnxptq.quantize(calib=calib, method=method, calib_size=16, evaluate=False, output=output, **options)
        arrays = {t.name: numpy_helper.to_array(t) for t in onnx.load(output).graph.initializer}
        scalars = {name: array for name, array in arrays.items() if array.ndim == 0}
        return result, scalars

    return quantize


def recipe_in(result):
    return read_provenance(load_model(result.output).metadata).recipe


def test_the_file_names_the_augmentations_that_fit_and_the_range_of_the_input_is_exact(digits):
    result, scalars = digits("robust")
    recipe = recipe_in(result)
    assert recipe == result.recipe
    chains = [environment.shifts for environment in recipe.environments]
    assert chains[:1] == [""]
    assert "autocontrast@3+invert@5" in chains
    assert "permute_channels@3" not in chains  # The digits are gray.
    assert all(environment.size == 64 for environment in recipe.environments[1:])
    assert [step.name for step in recipe.bounds] == ["input-range", "operator-bounds", "masked-scores"]
    assert recipe.float_outputs
    source = onnx.load(onnxptq.models.builtin().model)
    name = source.graph.input[0].name
    assert any("leaves its result in float" in warning for warning in result.warnings)
    _, dark = digits("minmax")
    assert dark[f"{name}_scale"] < scalars[f"{name}_scale"] * 0.5
    _, clean = digits("robust", calib="clean")
    assert scalars[f"{name}_scale"] == clean[f"{name}_scale"]


def test_a_dark_set_leaves_ranges_as_a_clean_one_does(digits):
    shared = None
    found = {}
    for name, method, calib in (
        ("clean", "minmax", "clean"),
        ("dark", "minmax", "dark@5"),
        ("robust", "robust", "dark@5"),
    ):
        _, scalars = digits(method, calib=calib)
        found[name] = {key: float(value) for key, value in scalars.items() if key.endswith("_scale")}
        shared = set(found[name]) if shared is None else shared & set(found[name])
    share = {name: np.array([found[name][key] / found["clean"][key] for key in sorted(shared)]) for name in found}
    assert share["dark"].min() < 0.5
    assert share["robust"].min() > 0.7


@pytest.mark.parametrize("method", ["robust", "robust-synthetic"])
@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_symmetric_targets_stay_symmetric(digits, method, target):
    _, scalars = digits(method, target=target)
    zeros = [value for name, value in scalars.items() if name.endswith("_zero_point")]
    assert zeros
    assert not np.any(zeros)


def test_the_stock_engine_makes_the_same_ranges(digits):
    assert digits("robust")[1] == digits("robust", engine="stock")[1]


def test_each_step_has_its_switch():
    whole = apply_method("robust", Recipe())
    assert whole.environments == (Environment(), Environment(AUGMENTATIONS, 64))
    for text, changes in (
        ("robust:input_range=0", {"bounds": (Step("operator-bounds"), Step("masked-scores"))}),
        ("robust:operator_bounds=0", {"bounds": (Step("input-range"), Step("masked-scores"))}),
        ("robust:augmentation=0", {"environments": (Environment(),)}),
        ("robust:float_outputs=0", {"float_outputs": False}),
        ("robust-bn", {"weight_transforms": (Step("renormalize"),)}),
    ):
        assert apply_method(text, Recipe()) == whole.changed(**changes)
    nothing = {"input_range": 0, "operator_bounds": 0, "masked_scores": 0, "augmentation": 0, "float_outputs": 0}
    assert apply_method("robust", Recipe(), nothing) == Recipe()
    assert method_label("robust:augmentation=0", {"input_range": 0}) == "robust:augmentation=0,input_range=0"
    with pytest.raises(UsageError, match=r"augmentation of a robust method is 1 .* or 0 .*, got 2"):
        apply_method("robust:augmentation=2", Recipe())


def test_augmentations_are_those_of_the_task(save_classifier):
    signature = load_model(save_classifier()).signature
    task = make_task("tensor-classification", {}, signature)
    recipe = fitted(apply_method("robust", Recipe()), task)
    assert [environment.shifts for environment in recipe.environments] == ["", *task.augmentations()]
    assert fitted(recipe, task) == recipe


def test_it_works_from_statistics_of_its_own_samples_only(digits, tmp_path):
    own, plain = tmp_path / "own.stats", tmp_path / "plain.stats"
    onnxptq.calibrate(calib="dark@5", calib_size=16, method="robust").save(own)
    onnxptq.calibrate(calib="dark@5", calib_size=16).save(plain)
    own_data = onnxptq.models.builtin()
    sides = onnxptq.DataOptions(calib_data=str(own_data.train), eval_data=str(own_data.test))
    direct, _ = digits("robust", options=sides)

    def from_statistics(path, method="robust"):
        output = tmp_path / f"{method}.onnx".replace(":", "-")
        return onnxptq.quantize(statistics=path, method=method, evaluate=False, output=output)

    again = from_statistics(own)
    assert again.recipe == direct.recipe
    assert again.output.read_bytes() == direct.output.read_bytes()
    with pytest.raises(
        UsageError, match=r"plain\.stats was made of dark@5, and this method calibrates on dark@5 and 6"
    ):
        from_statistics(plain)
    assert from_statistics(plain, "robust:augmentation=0").recipe.environments == (Environment(),)
    with pytest.raises(
        UsageError, match=r"changes the model in front of calibration \(renormalize\).*Leave out --stats"
    ):
        from_statistics(own, "robust-bn")


def test_without_data_it_calibrates_on_synthetic_images_and_says_what_it_did_not_use(digits):
    result, _ = digits("robust-synthetic")
    assert result.recipe.calibration == "synthetic"
    assert any("robust-synthetic calibrates on the set synthetic; dark@5 was not used" in w for w in result.warnings)
    assert not [w for w in digits("robust-synthetic", calib="clean")[0].warnings if "not used" in w]


def test_what_cannot_be_done_is_refused_with_the_remedy(save_classifier, tmp_path):
    data = tmp_path / "data.npz"
    np.savez(data, x=np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32), label=np.arange(64) % 4)
    options = {"data": str(data), "evaluate": False, "output": tmp_path / "int8.onnx"}
    with pytest.raises(ModelError, match=r"no BatchNormalization.*--method robust"):
        onnxptq.quantize(save_classifier(), method="robust-bn", **options)
    with pytest.raises(
        UsageError, match=r"no generator of synthetic samples for tensor-classification.*--calib random"
    ):
        onnxptq.quantize(save_classifier(), method="robust-synthetic", **options)
    assert not (tmp_path / "int8.onnx").exists()
