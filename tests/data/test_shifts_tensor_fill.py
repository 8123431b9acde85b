"""Copies of tensor samples that fill a range: by declared bounds, by the training data's moments, or by neither."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxptq.data.shifts import SHIFTS, InputFacts, apply_shift, sample_seeds

SEEDS = sample_seeds(0, list("abcd"))
QUIET = np.random.default_rng(0).uniform(-0.8, 0.5, (4, 1, 6, 20)).astype(np.float32)
TABLE = np.stack([[40.0, 2, 900, 1], [25, 0, 10, 0], [70, 9, 2500, 1], [33, 1, 0, 0]]).astype(np.float32)
COLUMNS = InputFacts("table", None, (40.0, 3.0, 300.0, 0.5), (15.0, 4.0, 300.0, 0.5))


def shifted(name: str, x: np.ndarray, facts: InputFacts | None = None, severity: int = 3, **options: Any) -> np.ndarray:
    known = {} if facts is None else {"x": facts}
    result: np.ndarray = apply_shift(SHIFTS.get(name), {"x": x}, severity, SEEDS, facts=known, **options)["x"]
    assert result.dtype == x.dtype
    assert result.shape == x.shape
    return result


def test_stretched_samples_reach_both_bounds_and_nothing_beyond() -> None:
    filled = shifted("stretch", QUIET, InputFacts("log-mel", (-0.8, 4.0)))
    np.testing.assert_allclose(filled.min(axis=(1, 2, 3)), -0.8, atol=1e-6)
    np.testing.assert_allclose(filled.max(axis=(1, 2, 3)), 4.0, atol=1e-6)
    assert np.all(np.argsort(filled[0].ravel()) == np.argsort(QUIET[0].ravel()))
    np.testing.assert_array_equal(shifted("stretch", QUIET), QUIET)


def test_a_waveform_is_stretched_about_zero() -> None:
    loud = shifted("stretch", QUIET.reshape(4, -1), InputFacts("audio", (-1.0, 1.0)))
    np.testing.assert_allclose(np.abs(loud).max(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(np.sign(loud), np.sign(QUIET.reshape(4, -1)))


def test_a_flat_sample_cannot_be_stretched_and_stays() -> None:
    flat = np.full((4, 3, 5), 2, np.float32)
    np.testing.assert_array_equal(shifted("stretch", flat, InputFacts("tensor", (0.0, 9.0))), flat)


def test_restandardized_samples_have_the_moments_of_the_training_data_in_each_channel() -> None:
    x = np.random.default_rng(1).normal(5, 3, (4, 2, 8, 8)).astype(np.float32)
    moved = shifted("restandardize", x, InputFacts("tensor", None, (10.0, -10.0), (1.0, 4.0), -3))
    np.testing.assert_allclose(moved.mean(axis=(2, 3)), [[10, -10]] * 4, atol=1e-4)
    np.testing.assert_allclose(moved.std(axis=(2, 3)), [[1, 4]] * 4, atol=1e-4)


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (InputFacts("tensor", (-1.0, 3.0)), 2 - QUIET),
        (InputFacts("tensor", None, (0.25,), (1.0,)), 0.5 - QUIET),
        (InputFacts("tensor"), 2 * QUIET.mean(axis=(1, 2, 3), keepdims=True) - QUIET),
    ],
)
def test_samples_are_mirrored_in_bounds_else_at_a_mean(facts: InputFacts, expected: np.ndarray) -> None:
    np.testing.assert_allclose(shifted("negate", QUIET, facts), expected, atol=1e-5)


def test_time_runs_backwards_but_not_in_a_table() -> None:
    np.testing.assert_array_equal(shifted("time_flip", QUIET), QUIET[..., ::-1])
    np.testing.assert_array_equal(
        shifted("time_flip", QUIET[:, 0].transpose(0, 2, 1)), QUIET[:, 0, :, ::-1].transpose(0, 2, 1)
    )
    np.testing.assert_array_equal(shifted("time_flip", TABLE), TABLE)


def test_widened_samples_grow_about_their_smallest_number() -> None:
    wide = shifted("widen", QUIET, severity=2)
    np.testing.assert_allclose(wide.min(axis=(1, 2, 3)), QUIET.min(axis=(1, 2, 3)), atol=1e-6)
    np.testing.assert_allclose(np.ptp(wide, axis=(1, 2, 3)), 1.5 * np.ptp(QUIET, axis=(1, 2, 3)), rtol=1e-5)


def test_rows_drawn_by_the_training_data_have_each_columns_own_moments() -> None:
    seeds = sample_seeds(0, [str(i) for i in range(4000)])
    x = np.zeros((4000, 4), np.float32)
    drawn = apply_shift(SHIFTS.get("normal"), {"x": x}, 3, seeds, facts={"x": COLUMNS})["x"]
    np.testing.assert_allclose((drawn.mean(axis=0) - COLUMNS.mean) / COLUMNS.deviation, 0, atol=0.06)
    np.testing.assert_allclose(drawn.std(axis=0) / COLUMNS.deviation, 1, atol=0.05)


def test_outliers_are_cut_column_by_column() -> None:
    wild = TABLE + np.array([0, 1000, 0, 0], np.float32)
    cut = shifted("cut_outliers", wild, COLUMNS)
    np.testing.assert_allclose(cut[:, 1], 3 + 6 * 4)
    np.testing.assert_array_equal(np.delete(cut, 1, axis=1)[:2], np.delete(TABLE, 1, axis=1)[:2])
    assert cut[2, 2] == 300 + 6 * 300


def test_imputed_columns_are_the_partners() -> None:
    partners = {"x": TABLE[::-1].copy()}
    mixed = shifted("impute", TABLE, severity=4, partners=partners)
    assert np.all((mixed == TABLE) | (mixed == partners["x"]))
    assert not np.array_equal(mixed, TABLE)


def test_noise_in_a_table_is_of_each_columns_own_unit() -> None:
    seeds = sample_seeds(0, [str(i) for i in range(2000)])
    rows = np.tile(TABLE[:1], (2000, 1))
    for facts, unit in (({"x": COLUMNS}, COLUMNS.deviation), ({}, np.abs(TABLE[0]))):
        noise = apply_shift(SHIFTS.get("tensor_noise"), {"x": rows}, 3, seeds, facts=facts)["x"] - rows
        np.testing.assert_allclose(noise.std(axis=0) / unit, 0.3, atol=0.02)


def test_a_lower_gain_is_an_offset_of_log_features_that_stays_inside_the_bounds() -> None:
    lower = shifted("offset", QUIET, InputFacts("log-mel", (-0.8, 4.0)), severity=1)
    np.testing.assert_allclose(lower, np.maximum(QUIET - 0.48, -0.8), atol=1e-6)
