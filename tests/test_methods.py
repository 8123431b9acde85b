"""`--method` is a preset of a recipe: what it says ends up there, and what it does not have is refused."""

from __future__ import annotations

import pytest

from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.errors import UsageError
from onnxptq.methods import METHODS, Method, all_methods, apply_method
from onnxptq.quantization.canonical import canonical
from onnxptq.recipe import Recipe, Step

BASE = Recipe(calibration="dark@3", size=5, seed=2, target="cuda")


@pytest.fixture
def preset():
    def apply(recipe: Recipe, strength: float = 1.0, rounds: int = 3, mode: str = "a") -> Recipe:
        return recipe.changed(ranges=Step("mse"), bounds=(Step.of("cut", strength=strength, rounds=rounds, mode=mode),))

    parameters = {"strength": 1.0, "rounds": 3, "mode": "a"}
    yield METHODS.register(Method("test-preset", "x", "x", "x", apply, parameters))
    del METHODS._entries["test-preset"]


@pytest.mark.parametrize("name", RANGE_METHODS.names())
def test_every_range_method_is_a_method_that_changes_the_ranges_only(name):
    assert apply_method(name, BASE) == BASE.changed(ranges=Step(name))


def test_every_method_says_what_it_does_where_it_comes_from_and_when_to_use_it():
    names = [method.name for method in all_methods()]
    assert len(set(names)) == len(names)
    for method in all_methods():
        assert method.summary
        assert method.source
        assert method.when


def test_parameters_come_from_the_name_and_from_options():
    expected = BASE.changed(ranges=Step.of("percentile", percentile=99.5))
    assert apply_method("percentile:percentile=99.5", BASE) == expected
    assert apply_method("percentile", BASE, {"percentile": 99.5, "bins": None}) == expected
    assert apply_method("percentile:percentile=1", BASE, {"percentile": 99.5}) == expected


def test_a_whole_number_stays_whole():
    assert apply_method("entropy:bins=2048", BASE).ranges.keywords == {"bins": 2048}


def test_a_preset_of_a_stranger_sets_more_than_the_ranges(preset):
    made = apply_method("test-preset:strength=2,rounds=5,mode=b", BASE)
    assert made.bounds == (Step.of("cut", strength=2.0, rounds=5, mode="b"),)
    assert (made.ranges, made.calibration) == (Step("mse"), "dark@3")
    assert preset in all_methods()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("percentil", "unknown method 'percentil'. Did you mean 'percentile'"),
        ("", "unknown method ''"),
        ("percentile:99.9", "written key=value, got '99.9'"),
        ("percentile:percentil=x", "has no parameter 'percentil'. Did you mean 'percentile'"),
        ("percentile:percentile=x", "percentile:percentile must be a number, got 'x'"),
        ("percentile:percentile=nan", "must be a number, got 'nan'"),
        ("percentile:percentile=inf", "must be a number, got 'inf'"),
        ("entropy:bins=2.5", "entropy:bins must be a whole number, got '2.5'"),
    ],
)
def test_what_a_method_does_not_have_is_refused(text, message):
    with pytest.raises(UsageError, match=message):
        apply_method(text, BASE)


def test_an_option_of_another_method_is_refused():
    with pytest.raises(UsageError, match="'minmax' has no parameter 'percentile'"):
        apply_method("minmax", BASE, {"percentile": 99.0})


@pytest.mark.parametrize(
    ("method", "message"),
    [("percentile:percentile=200", "between 0 and 100"), ("entropy:bins=3", "at least as many bins")],
)
def test_a_wrong_value_of_a_parameter_is_refused_before_anything_is_read(method, message):
    with pytest.raises(UsageError, match=message):
        canonical(apply_method(method, Recipe()))
