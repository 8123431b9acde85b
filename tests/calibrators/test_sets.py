"""The name of a calibration set says all that it is: it parses back to the same set, and a wrong one is explained."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxptq.calibrators import ALIASES, SAMPLERS, CalibrationSet, Sampler, meant_for
from onnxptq.data.shifts import SHIFTS
from onnxptq.errors import UsageError

VALUES = {
    "imbalanced": [{"ratio": 7}, {"ratio": 2.5}],
    "few-class": [{"k": 3}],
    "single-class": [{"label": "cat"}, {"label": "a,b"}, {"label": "k=v"}, {"label": "größe 2"}],
    "missing-group": [{"group": "cat"}, {"group": "sex=f"}, {"group": "label=a,b"}],
    "only-group": [{"group": "cat"}, {"group": "sex=f"}],
    "stratified": [{"column": "sex"}],
    "hard": [{"candidates": 5}],
    "easy": [{"candidates": 5}],
    "diverse": [{"candidates": 5}],
}

parse = CalibrationSet.parse


def all_samplings() -> list[CalibrationSet]:
    sets = []
    for sampler in SAMPLERS:
        for given_values in VALUES.get(sampler.name, [{}]):
            parameters = {**sampler.parameters, **given_values}
            sets.append(CalibrationSet(sampler.name, tuple(sorted(parameters.items()))))
    return [*sets, CalibrationSet("random"), CalibrationSet(foreign="/data/other.parquet")]


SHIFT_NAMES = SHIFTS.names()
chains = st.lists(st.tuples(st.sampled_from(SHIFT_NAMES), st.integers(1, 5)), max_size=4).map(tuple)


@given(st.sampled_from(all_samplings()), chains)
def test_the_name_of_every_set_parses_back_to_it(sampling, chain):
    made = CalibrationSet(sampling.sampler, sampling.parameters, sampling.foreign, chain)
    assert parse(str(made)) == made


def test_every_sampler_with_parameters_is_covered_above():
    assert {sampler.name for sampler in SAMPLERS if sampler.parameters} == set(VALUES)


@pytest.mark.parametrize("name", SHIFT_NAMES)
def test_a_bare_shift_means_its_default_severity(name):
    assert parse(name) == parse(f"{name}@{SHIFTS.get(name).default_severity}")
    assert str(parse(name)) == f"{name}@{SHIFTS.get(name).default_severity}"


def test_aliases_mean_one_shift_each():
    assert dict(ALIASES) == {"shifted": "dark@3", "noisy": "gaussian@3"}
    for alias, meaning in ALIASES.items():
        assert parse(alias) == parse(meaning)
        assert len(parse(alias).shifts) == 1
    assert str(parse("imbalanced+shifted")) == "imbalanced:ratio=100+dark@3"


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("clean", "clean"),
        ("clean+dark@3", "dark@3"),
        (" hard + dark ", "hard:candidates=1024+dark@3"),
        ("dark+hard", "hard:candidates=1024+dark@3"),
        ("single-class:cat", "single-class:label=cat"),
        ("single-class", "single-class"),
        ("missing-group:label=cat", "missing-group:group=label=cat"),
        ("few-class:3", "few-class:k=3"),
        ("imbalanced:10", "imbalanced:ratio=10"),
        ("foreign:data/other", "foreign:data/other"),
        ("foreign:C:\\data+dark", "foreign:C:\\data+dark@3"),
        ("random+dark@2", "random+dark@2"),
        ("dark@1+mixup+dark@2", "dark@1+mixup@3+dark@2"),
    ],
)
def test_every_way_of_writing_a_set_has_one_canonical_name(text, canonical):
    assert str(parse(text)) == canonical


def test_what_a_set_needs_and_which_families_it_is_of():
    assert not parse("random+dark").needs_data
    assert parse("foreign:x").needs_data
    assert parse("hard+dark+gaussian@1").families == {"light", SHIFTS.get("gaussian").family}
    assert parse("clean").families == frozenset()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dakr", "unknown calibration set 'dakr'. Did you mean 'dark'"),
        ("clean+imbalance", "unknown calibration set 'imbalance'.*'imbalanced'"),
        ("shited", "Did you mean 'shifted'"),
        ("randon", "Did you mean 'random'"),
        ("", "unknown calibration set ''"),
        ("dark+", "unknown calibration set ''"),
        ("dark@6", "severity '6'.* from 1 to 5"),
        ("dark@0", "severity '0'"),
        ("dark@", "severity ''"),
        ("dark@x", "severity 'x'"),
        ("hard@3", "'hard' has no severity; write 'hard'"),
        ("dark:3", "takes a severity as dark@3 and no parameters, got '3'"),
        ("hard+easy", "says twice which samples are drawn: 'hard' and 'easy'"),
        ("random+imbalanced", "says twice which samples are drawn"),
        ("foreign", "as foreign:PATH"),
        ("random:3", "random takes no parameters, got '3'"),
        ("imbalanced:rato=3", "unknown parameter 'rato' of the calibration set 'imbalanced'.*ratio"),
        ("imbalanced:ratio=x", "imbalanced:ratio must be a number, got 'x'"),
        ("clean:3", "unknown parameter '3' of the calibration set 'clean'. None is known"),
        ("missing-group", "needs its group, as missing-group:GROUP"),
        ("missing-group:group=", "needs its group"),
    ],
)
def test_what_is_wrong_in_a_name_is_said(text, message):
    with pytest.raises(UsageError, match=message):
        parse(text)


def test_a_toml_file_is_a_set(tmp_path):
    path = tmp_path / "set.toml"
    path.write_text('sampling = "imbalanced"\nratio = 7\nshifts = ["dark@2", "mixup"]\n')
    assert parse(str(path)) == parse("imbalanced:ratio=7+dark@2+mixup")
    path.write_text("")
    assert parse(str(path)) == parse("clean")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("= 1", "cannot be read"),
        ("sampling = 3", "sampling must be a name and shifts a list of names"),
        ('shifts = "dark"', "shifts a list of names"),
        ("shifts = [3]", "shifts a list of names"),
        ('sampler = "hard"', "unknown parameter 'sampler'"),
        ('sampling = "imbalanced"\nrato = 3', "unknown parameter 'rato'"),
        ('shifts = ["dakr"]', "Did you mean 'dark'"),
    ],
)
def test_what_is_wrong_in_a_toml_file_is_said(tmp_path, content, message):
    (tmp_path / "set.toml").write_text(content)
    with pytest.raises(UsageError, match=message):
        parse(str(tmp_path / "set.toml"))


def test_a_missing_toml_file_is_named():
    with pytest.raises(UsageError, match=r"no-such\.toml cannot be read"):
        parse("no-such.toml")


def test_a_stranger_adds_a_set(tensor_task, make_dataset):
    from onnxptq.calibrators.samples import draw

    def evens(pool, size, generator, step):
        return np.arange(0, len(pool.dataset), step)[:size]

    sampler = SAMPLERS.register(Sampler("every", "every step-th", "a test", evens, {"step": 2}, positional="step"))
    try:
        dataset = make_dataset(20)
        drawn = draw(parse("every:5+scale@1"), tensor_task, dataset)
        ordered = np.sort(dataset.fingerprints)
        assert drawn.dataset.fingerprints.tolist() == ordered[::5].tolist()
        assert sampler.name in SAMPLERS
    finally:
        del SAMPLERS._entries["every"]


@pytest.mark.parametrize(
    ("fitting", "shifted", "noisy"),
    [
        ({"dark", "gaussian", "scale"}, "dark@3", "gaussian@3"),
        ({"quiet", "background_noise"}, "quiet@5", "background_noise@5"),
        ({"drop_words", "typos"}, "drop_words@3", "typos@3"),
        ({"column_shift", "scale", "tensor_noise"}, "column_shift@3", "tensor_noise@3"),
        ({"scale", "tensor_noise"}, "scale@3", "tensor_noise@3"),
        (set(), "shifted", "noisy"),
    ],
)
def test_an_alias_is_the_first_shift_that_fits_the_input(fitting: set[str], shifted: str, noisy: str) -> None:
    class Fake:
        def fits(self, name: str) -> str | None:
            return None if name.partition("@")[0] in fitting else "does not fit"

    assert meant_for("shifted", Fake()) == shifted
    assert meant_for("imbalanced:ratio=10+noisy", Fake()) == f"imbalanced:ratio=10+{noisy}"
    assert meant_for("noisy.toml", Fake()) == "noisy.toml"
