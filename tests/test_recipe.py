"""A recipe survives every form that it is written in, and two different recipes never have one digest."""

from __future__ import annotations

import json
import string
import tomllib
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxptq.errors import UsageError
from onnxptq.recipe import FORMAT, Environment, Recipe, Step

sizes = st.none() | st.integers(1, 10**6)
texts = st.text(max_size=12)
keys = st.text(string.ascii_lowercase + "_é", min_size=1, max_size=8).filter(lambda key: key != "name")
values = texts | st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
steps = st.builds(
    lambda name, parameters: Step(name, tuple(sorted(parameters.items()))),
    texts,
    st.dictionaries(keys, values, max_size=3),
)
recipes = st.builds(
    Recipe,
    calibration=texts,
    size=sizes,
    seed=st.integers(0, 2**31),
    environments=st.lists(st.builds(Environment, texts, sizes), min_size=1, max_size=3, unique=True).map(tuple),
    weight_transforms=st.lists(steps, max_size=2).map(tuple),
    ranges=steps,
    bounds=st.lists(steps, max_size=2).map(tuple),
    float_nodes=st.lists(texts, max_size=2).map(tuple),
    float_outputs=st.booleans(),
    target=texts,
    engine=texts,
)

OTHER = {
    "calibration": "dark@3",
    "size": 7,
    "seed": 1,
    "environments": (Environment(), Environment("blur@2")),
    "weight_transforms": (Step("equalize"),),
    "ranges": Step.of("percentile", percentile=99.9),
    "bounds": (Step.of("cut", at=6.0),),
    "float_nodes": ("head",),
    "float_outputs": True,
    "float_normalizers": True,
    "guarded": True,
    "quantize_post_processing": True,
    "target": "cuda",
    "remainder": "fp16",
    "engine": "stock",
}


@given(recipes)
def test_every_recipe_survives_a_dictionary_json_and_toml(recipe):
    assert Recipe.from_dict(recipe.to_dict()) == recipe
    assert Recipe.from_dict(json.loads(json.dumps(recipe.to_dict()))) == recipe
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())) == recipe


@given(recipes)
def test_the_digest_survives_toml(recipe):
    assert Recipe.from_dict(tomllib.loads(recipe.to_toml())).digest == recipe.digest


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_every_field_changes_the_digest(name):
    assert Recipe().changed(**{name: OTHER[name]}).digest != Recipe().digest


@given(recipes, recipes)
def test_two_recipes_of_one_digest_are_equal(one, other):
    assert one.digest != other.digest or one == other


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_is_read_back(tmp_path, suffix):
    recipe = Recipe(**OTHER)
    path = tmp_path / f"recipe{suffix}"
    text = recipe.to_toml() if suffix == ".toml" else json.dumps(recipe.to_dict())
    path.write_text(text, encoding="utf-8")
    assert Recipe.read(path) == recipe


def test_what_is_left_out_of_a_file_has_its_default(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('calibration = "dark@3"\nranges = "mse"\nenvironments = ["", "blur@2"]\n')
    expected = Recipe(calibration="dark@3", ranges=Step("mse"), environments=(Environment(), Environment("blur@2")))
    assert Recipe.read(path) == expected


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for name, content in (("a.toml", b"= 1"), ("b.json", b"{"), ("c.toml", b"\xff"), ("missing.toml", None)):
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(UsageError, match=f"{name} (cannot be read|is not)"):
            Recipe.read(tmp_path / name)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"calibratio": "clean"}, "unknown key 'calibratio'.*'calibration'"),
        ({"format": FORMAT + 1}, f"format {FORMAT + 1}, this version reads format {FORMAT}.*Update"),
        ({"calibration": 3}, "'calibration' in the recipe must be str, got 3"),
        ({"seed": "0"}, "'seed' in the recipe must be int, got '0'"),
        ({"seed": True}, "'seed' in the recipe must be int, got True"),
        ({"seed": -1}, "'seed' in the recipe must not be negative, got -1"),
        ({"float_outputs": 1}, "'float_outputs' in the recipe must be bool"),
        ({"size": 0}, "'size' in the recipe must be a positive number of samples, got 0"),
        ({"size": True}, "'size' in the recipe must be a positive number"),
        ({"size": 1.5}, "'size' in the recipe must be a positive number"),
        ({"float_nodes": "head"}, "'float_nodes' in the recipe must be a list, got 'head'"),
        ({"float_nodes": [1]}, "must be names of nodes, got 1"),
        ({"environments": "dark@3"}, "'environments' in the recipe must be a list"),
        ({"environments": []}, "'environments' in the recipe is empty"),
        ({"environments": ["dark@3", {"shifts": "dark@3"}]}, "names one of them twice"),
        ({"environments": [{"shift": "dark@3"}]}, "has the keys 'shifts' and 'size'"),
        ({"environments": [{"shifts": 3}]}, "'shifts' of an environment must be a text"),
        ({"environments": [{"size": 0}]}, "'size' of an environment must be a positive number"),
        ({"bounds": 3}, "'bounds' in the recipe must be a list, got 3"),
        ({"weight_transforms": [3]}, "must be a name or a table with a name, got 3"),
        ({"ranges": {"percentile": 99}}, "must be a name or a table with a name"),
        (
            {"ranges": {"name": "percentile", "percentile": [99]}},
            "'percentile' of 'percentile' must be a text",
        ),
        ({"ranges": {"name": "lp", "p": float("nan")}}, "'p' of 'lp' must be a finite number"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_said(wrong, message):
    with pytest.raises(UsageError, match=message):
        Recipe.from_dict(wrong)


@pytest.mark.parametrize("wrong", [[], "clean", None, 3])
def test_a_recipe_that_is_not_a_table_is_refused(wrong):
    with pytest.raises(UsageError, match="a recipe must be a table"):
        Recipe.from_dict(wrong)


def test_the_order_of_parameters_does_not_matter():
    one = Recipe.from_dict({"ranges": {"name": "x", "a": 1, "b": 2}})
    other = Recipe.from_dict({"ranges": {"b": 2, "a": 1, "name": "x"}})
    assert one == other
    assert one.ranges.keywords == {"a": 1, "b": 2}
