"""Names, seeds and checks around a shift, and the shifts of plain tensors."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from onnxptq.data.shifts import SHIFTS, InputFacts, apply_shift, generators, parse_shift, sample_seeds
from onnxptq.errors import DataError, UsageError

IMAGES = np.full((3, 16, 16, 3), 0.5, np.float32)
SEEDS = sample_seeds(0, ["a", "b", "c"])


def test_a_name_alone_means_its_default_severity() -> None:
    assert parse_shift("dark") == (SHIFTS.get("dark"), 3)
    assert parse_shift("invert") == (SHIFTS.get("invert"), 5)


def test_a_name_with_a_severity_means_that_severity() -> None:
    assert [parse_shift(f"fog@{severity}") for severity in range(1, 6)] == [(SHIFTS.get("fog"), s) for s in range(1, 6)]


def test_an_unknown_shift_names_the_closest_one() -> None:
    with pytest.raises(UsageError, match=r"unknown shift 'drak'\. Did you mean 'dark'"):
        parse_shift("drak@3")


@pytest.mark.parametrize("severity", ["0", "6", "", "x", "3.0", "-1", "03", " 3", "³"])
def test_a_severity_that_does_not_exist_names_1_to_5(severity: str) -> None:
    with pytest.raises(UsageError, match=r"must be a whole number from 1 to 5, such as dark@3"):
        parse_shift(f"dark@{severity}")


def test_seeds_are_the_same_on_every_machine() -> None:
    # Written down once: what a seed means must never change, or stored calibration sets would.
    assert sample_seeds(0, ["a", "b"]).tolist() == [16563745722614342077, 16847425317941283170]
    assert sample_seeds(-1, ["a"]).dtype == np.uint64


def test_a_sample_keeps_its_seed_whatever_stands_beside_it() -> None:
    assert sample_seeds(3, ["c", "a"]).tolist() == sample_seeds(3, ["a", "b", "c"])[[2, 0]].tolist()
    assert sample_seeds(3, []).shape == (0,)
    assert sample_seeds(3, np.array(["a", "b"])).tolist() == sample_seeds(3, ["a", "b"]).tolist()


def test_samples_and_seeds_are_told_apart() -> None:
    names = [f"{i:x}" for i in range(1000)]
    everything = np.concatenate([sample_seeds(seed, names) for seed in range(5)])
    assert len(np.unique(everything)) == 5000
    assert sample_seeds(1, ["2:a"]) != sample_seeds(12, [":a"])


def test_a_generator_depends_on_the_sample_and_on_the_shift() -> None:
    first = [g.random() for g in generators("fog", SEEDS)]
    assert first == [g.random() for g in generators("fog", SEEDS)]
    assert len({*first, *(g.random() for g in generators("shot", SEEDS))}) == 6


@pytest.mark.parametrize("severity", [0, 6, 2.5, "3"])
def test_apply_refuses_a_severity_that_does_not_exist(severity: Any) -> None:
    with pytest.raises(UsageError, match="from 1 to 5"):
        apply_shift(SHIFTS.get("dark"), IMAGES, severity, SEEDS)


@pytest.mark.parametrize(
    "batch",
    [
        IMAGES.astype(np.float64),
        IMAGES[0],
        np.zeros((3, 3, 16, 16), np.float32),
        (IMAGES * 255).astype(np.uint8),
        [0.5],
    ],
    ids=["float64", "one image", "channels first", "uint8", "list"],
)
def test_apply_refuses_what_is_not_a_batch_of_images(batch: Any) -> None:
    with pytest.raises(DataError, match=r"float32 \(N, H, W, 1 or 3\) in \[0, 1\], not"):
        apply_shift(SHIFTS.get("dark"), batch, 3, SEEDS)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_apply_names_the_image_with_impossible_values(value: float) -> None:
    batch = IMAGES.copy()
    batch[1, 2, 3, 0] = value
    with pytest.raises(DataError, match="image 1 of the batch"):
        apply_shift(SHIFTS.get("dark"), batch, 3, SEEDS)


def test_apply_refuses_images_below_the_least_size() -> None:
    with pytest.raises(UsageError, match=r"from 16 x 16 pixels on, these images are 16 x 15"):
        apply_shift(SHIFTS.get("jpeg"), IMAGES[:, :, :15], 3, SEEDS)


@pytest.mark.parametrize("seeds", [SEEDS[:2], SEEDS.astype(np.int64), SEEDS[:, None]], ids=["too few", "int64", "2-D"])
def test_apply_refuses_seeds_that_do_not_fit(seeds: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"one uint64 seed a sample, \(3,\)"):
        apply_shift(SHIFTS.get("gaussian"), IMAGES, 3, seeds)


def test_apply_asks_for_partners_only_where_they_are_needed() -> None:
    with pytest.raises(UsageError, match="'mixup' mixes samples: give it `partners`"):
        apply_shift(SHIFTS.get("mixup"), IMAGES, 3, SEEDS)
    with pytest.raises(DataError, match="the partners of shift 'cutmix' must be"):
        apply_shift(SHIFTS.get("cutmix"), IMAGES, 3, SEEDS, IMAGES[:2])
    with pytest.raises(DataError, match="float32"):
        apply_shift(SHIFTS.get("cutmix"), IMAGES, 3, SEEDS, IMAGES.astype(np.float64))
    assert apply_shift(SHIFTS.get("dark"), IMAGES, 3, SEEDS, "ignored").shape == IMAGES.shape


@pytest.mark.parametrize(
    "result", [np.zeros((1, 16, 16, 3), np.float32), IMAGES.astype(np.float64), None], ids=["shape", "dtype", "nothing"]
)
def test_a_strangers_shift_that_breaks_the_contract_is_named(result: Any) -> None:
    rain = dataclasses.replace(SHIFTS.get("dark"), name="rain", apply=lambda images, severity, seeds: result)
    with pytest.raises(UsageError, match="shift 'rain' returned"):
        apply_shift(rain, IMAGES, 3, SEEDS)


def test_a_strangers_modality_goes_through_untouched() -> None:
    upper = dataclasses.replace(
        SHIFTS.get("dark"),
        name="upper",
        modality="genome",
        apply=lambda genomes, severity, seeds: [g.upper() for g in genomes],
    )
    assert apply_shift(upper, ["a", "b", "c"], 3, SEEDS) == ["A", "B", "C"]


def tensors() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {
        "features": random.normal(size=(3, 500)).astype(np.float32) * np.array([[1], [10], [0.1]], np.float32),
        "age": np.array([20, 40, 60], np.float64),
        "ids": np.arange(6).reshape(3, 2),
        "name": np.array(["x", "y", "z"]),
    }


KNOWN = {"features": InputFacts("tensor", (-5.0, 50.0), (0.5,), (0.05,))}
"""So narrow that every shift has something to do."""

KNOWN_TABLE = {"features": InputFacts("table", None, (0.5,), (0.05,))}


def known(shift: Any) -> dict[str, InputFacts]:
    return KNOWN_TABLE if shift.name in ("missing_values", "wrong_unit", "column_shift") else KNOWN


def partners_of(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array[::-1] + 1 if array.dtype.kind == "f" else array for name, array in batch.items()}


TENSOR_SHIFTS = [shift for shift in SHIFTS if shift.modality == "tensor"]
every_tensor_shift = pytest.mark.parametrize("shift", TENSOR_SHIFTS, ids=lambda shift: shift.name)


@every_tensor_shift
@pytest.mark.parametrize("severity", range(1, 6))
def test_tensor_shifts_change_floats_and_nothing_else(shift: Any, severity: int) -> None:
    batch, before = tensors(), tensors()
    result = apply_shift(shift, batch, severity, SEEDS, partners_of(batch), known(shift))
    assert list(result) == list(batch)
    # What fills a range, or some of the cells, may leave single numbers as they are.
    fills = shift.family in ("augmentation", "missing")
    for name, array in result.items():
        assert array.dtype == batch[name].dtype
        assert array.shape == batch[name].shape
        assert not np.shares_memory(array, batch[name])
        np.testing.assert_array_equal(batch[name], before[name])
        changed = (array != batch[name]).reshape(3, -1).any(axis=1)
        assert changed.all() if name == "features" or (name == "age" and not fills) else fills or not changed.any()
        assert not changed.any() or name in {"features", "age"}


@every_tensor_shift
def test_a_tensor_sample_does_not_depend_on_its_neighbours_nor_on_the_order_of_inputs(shift: Any) -> None:
    batch = tensors()
    together = apply_shift(shift, batch, 3, SEEDS, partners_of(batch), KNOWN)
    for i in range(3):
        alone = {name: batch[name][i : i + 1] for name in reversed(batch)}
        partner = {name: array[i : i + 1] for name, array in partners_of(batch).items()}
        result = apply_shift(shift, alone, 3, SEEDS[i : i + 1], partner, KNOWN)
        for name in batch:
            np.testing.assert_array_equal(result[name], together[name][i : i + 1])


@every_tensor_shift
def test_tensor_shifts_react_to_the_seed_exactly_when_they_say_so(shift: Any) -> None:
    first, other = (
        apply_shift(shift, tensors(), 3, sample_seeds(seed, list("abc")), partners_of(tensors()), known(shift))
        for seed in (0, 1)
    )
    assert (first["features"] != other["features"]).any() == shift.seeded


@every_tensor_shift
def test_an_empty_batch_of_tensors_stays_empty(shift: Any) -> None:
    batch = {name: array[:0] for name, array in tensors().items()}
    result = apply_shift(shift, batch, 3, SEEDS[:0], batch)
    assert {name: array.shape for name, array in result.items()} == {name: array.shape for name, array in batch.items()}


@pytest.mark.parametrize(("severity", "factor"), list(enumerate([0.5, 0.3, 0.15, 0.1, 0.05], start=1)))
def test_scale_multiplies(severity: int, factor: float) -> None:
    result = apply_shift(SHIFTS.get("scale"), tensors(), severity, SEEDS)
    np.testing.assert_allclose(result["features"], tensors()["features"] * factor, rtol=1e-6)


@pytest.mark.parametrize(("severity", "ratio"), list(enumerate([0.1, 0.2, 0.3, 0.5, 0.8], start=1)))
def test_tensor_noise_is_relative_to_each_samples_deviation(severity: int, ratio: float) -> None:
    batch = {"features": tensors()["features"].reshape(3, 1, 20, 25)}
    noise = apply_shift(SHIFTS.get("tensor_noise"), batch, severity, SEEDS)["features"] - batch["features"]
    np.testing.assert_allclose(noise.std(axis=(1, 2, 3)) / batch["features"].std(axis=(1, 2, 3)), ratio, rtol=0.15)


def test_tensor_noise_on_single_numbers_is_relative_to_their_size() -> None:
    ages = np.where(np.arange(2000) % 2, -40.0, 40.0)
    seeds = sample_seeds(0, [str(i) for i in range(2000)])
    noise = apply_shift(SHIFTS.get("tensor_noise"), {"age": ages}, 3, seeds)["age"] - ages
    assert noise.std() == pytest.approx(0.3 * 40, rel=0.1)


@pytest.mark.parametrize("batch", [{}, np.zeros((3, 2)), [1, 2, 3]], ids=["empty", "array", "list"])
def test_tensor_shifts_refuse_what_is_not_a_dict_of_arrays(batch: Any) -> None:
    with pytest.raises(DataError, match="a dict of arrays by input name"):
        apply_shift(SHIFTS.get("scale"), batch, 3, SEEDS)


def test_tensor_shifts_refuse_arrays_of_unequal_length() -> None:
    batch = {"a": np.zeros((3, 2)), "b": np.zeros((2, 2))}
    with pytest.raises(DataError, match="must share their first dimension"):
        apply_shift(SHIFTS.get("scale"), batch, 3, SEEDS)
    with pytest.raises(DataError, match="must share their first dimension"):
        apply_shift(SHIFTS.get("scale"), {"a": np.array(1.0)}, 3, SEEDS)
