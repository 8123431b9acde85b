"""The robust methods: an explicit recipe in the file, a switch for each step, every target, and no data where none."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.errors import ModelError, UsageError
from onnxptq.graphs import load_model, read_provenance
from onnxptq.methods import apply_method, fitted, method_label
from onnxptq.quantization.robust import SWITCHES
from onnxptq.recipe import AUGMENTATIONS, CLEANED, Environment, Recipe, Step
from onnxptq.tasks import make_task


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """(form, model, data): a linear classifier of a table with its normalizer in the graph, in each form."""
    folder = tmp_path_factory.mktemp("tables")
    random = np.random.default_rng(0)
    columns = [
        random.uniform(18, 80, 600),
        random.gamma(2, 3, 600),
        random.gamma(1, 300, 600),
        random.integers(0, 2, 600),
    ]
    x = np.stack(columns, axis=1).astype(np.float32)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    weights = np.array([-0.8, 1, 0.3, 0.6], np.float32)
    label = ((x - mean) / deviation @ weights > 0).astype(np.int64)
    data = folder / "table.npz"
    np.savez(data, x=x, label=label)
    constants = {
        "mean": mean,
        "deviation": deviation,
        "gain": 1 / deviation,
        "shift": -mean / deviation,
        "one": np.ones(4, np.float32),
        "zero": np.zeros(4, np.float32),
        "variance": deviation**2,
        "w": np.stack([-weights, weights], axis=1),
    }
    forms = {
        "Sub and Div": [("Sub", ["x", "mean"], "c"), ("Div", ["c", "deviation"], "z")],
        "Mul and Add": [("Mul", ["x", "gain"], "c"), ("Add", ["c", "shift"], "z")],
        "BatchNormalization": [("BatchNormalization", ["x", "one", "zero", "mean", "variance"], "z")],
    }
    found = []
    for number, (form, steps) in enumerate(forms.items()):
        nodes = [helper.make_node(operator, inputs, [output]) for operator, inputs, output in steps]
        nodes.append(helper.make_node("MatMul", ["z", "w"], ["logits"]))
        used = {name for node in nodes for name in node.input}
        graph = helper.make_graph(
            nodes,
            "table",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 2])],
            [numpy_helper.from_array(array, name) for name, array in constants.items() if name in used],
        )
        path = folder / f"{number}.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
        found.append((form, path, str(data)))
    return found


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
    assert whole.environments == (Environment(CLEANED), Environment(AUGMENTATIONS, 64))
    for text, changes in (
        ("robust:input_range=0", {"bounds": (Step("operator-bounds"), Step("masked-scores"))}),
        ("robust:operator_bounds=0", {"bounds": (Step("input-range"), Step("masked-scores"))}),
        ("robust:augmentation=0", {"environments": (Environment(),)}),
        ("robust:float_normalizer=0", {"float_normalizers": False}),
        ("robust:float_outputs=0", {"float_outputs": False}),
        ("robust-bn", {"weight_transforms": (Step("renormalize"),)}),
    ):
        assert apply_method(text, Recipe()) == whole.changed(**changes)
    nothing = dict.fromkeys(SWITCHES, 0)
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
    with pytest.raises(UsageError, match=r"no generator of synthetic samples for tensor.*--calib random"):
        onnxptq.quantize(save_classifier(), method="robust-synthetic", **options)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_normalizer_in_the_graph_stays_in_float_and_a_table_keeps_its_predictions(tables, tmp_path):
    """Columns of different units, whatever nodes standardize them, on sets as they are and shifted."""
    for form, model, data in tables:
        for calib in ("clean", "scale@3", "tensor_noise@5"):
            result = onnxptq.quantize(
                model,
                data=data,
                calib=calib,
                method="robust",
                corruptions=["clean"],
                output=tmp_path / "int8.onnx",
                force=True,
            )
            assert result.report.flip_rate < 0.02, (form, calib)


def test_one_scale_for_columns_of_different_units_ruins_a_table_that_robust_keeps(tables, tmp_path):
    (_, model, data) = next(table for table in tables if table[0] == "Mul and Add")
    rates = [
        onnxptq.quantize(
            model, data=data, method=method, corruptions=["clean"], output=tmp_path / "int8.onnx", force=True
        ).report.flip_rate
        for method in ("robust:float_normalizer=0", "robust")
    ]
    assert rates[0] > 0.2 > 0.02 > rates[1]
