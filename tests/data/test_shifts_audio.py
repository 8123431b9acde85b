"""Shifts of recordings against what they say of themselves."""

from __future__ import annotations

import numpy as np
import pytest

from onnxptq.data.shifts import SHIFTS, InputFacts, apply_shift, sample_seeds
from onnxptq.errors import DataError

RATE = 8000
SOUNDS = [shift for shift in SHIFTS if shift.modality == "audio"]
FACTS = {"x": InputFacts("audio", (-1.0, 1.0), rate=RATE)}


def waves(count=3, length=RATE):
    times = np.arange(length) / RATE
    rng = np.random.default_rng(0)
    tones = [np.sin(2 * np.pi * rng.uniform(200, 3000) * times) * np.hanning(length) * 0.5 for _ in range(count)]
    return np.stack(tones).astype(np.float32)


def shifted(name, batch, severity=3, **facts):
    seeds = sample_seeds(0, [str(i) for i in range(len(batch))])
    return apply_shift(SHIFTS.get(name), batch, severity, seeds, batch[::-1].copy(), facts or FACTS)


def ratio_db(clean, noisy):
    noise = noisy.astype(np.float64) - clean
    return 10 * np.log10((clean.astype(np.float64) ** 2).sum(axis=1) / (noise**2).sum(axis=1))


@pytest.mark.parametrize("shift", SOUNDS, ids=lambda shift: shift.name)
@pytest.mark.parametrize("severity", [1, 3, 5])
def test_a_recording_stays_one_and_does_not_depend_on_its_neighbours(shift, severity):
    batch = waves()
    before = batch.copy()
    made = shifted(shift.name, batch, severity)
    assert made.shape == batch.shape and made.dtype == np.float32 and np.abs(made).max() <= 1
    assert np.array_equal(batch, before)
    if not shift.mixes:
        seeds = sample_seeds(0, ["1"])
        np.testing.assert_array_equal(apply_shift(shift, batch[1:2], severity, seeds, facts=FACTS)[0], made[1])


@pytest.mark.parametrize("shift", SOUNDS, ids=lambda shift: shift.name)
@pytest.mark.parametrize("length", [1, 2, 7])
def test_silence_and_the_shortest_recordings_are_taken(shift, length):
    for batch in (np.zeros((2, length), np.float32), np.full((2, length), 0.5, np.float32)):
        assert np.isfinite(shifted(shift.name, batch, 5)).all()


@pytest.mark.parametrize("name", ["background_noise", "hiss"])
@pytest.mark.parametrize(("severity", "wanted"), list(enumerate([20, 15, 10, 5, 0], start=1)))
def test_noise_lies_so_many_decibel_below_loud_and_quiet_recordings_alike(name, severity, wanted):
    for gain in (0.4, 0.01):  # So soft that nothing is clipped.
        batch = np.float32(gain) * waves()
        np.testing.assert_allclose(ratio_db(batch, shifted(name, batch, severity)), wanted, atol=0.05)


def test_hum_is_the_mains_and_its_multiples():
    batch = np.float32(0.1) * waves()
    noise = shifted("hum", batch, 5) - batch
    spectrum = np.abs(np.fft.rfft(noise, axis=1)) ** 2
    multiples = spectrum[:, [50, 100, 150, 200, 250]].sum(axis=1)  # One second: a bin is a Hertz.
    assert (multiples > 0.999 * spectrum.sum(axis=1)).all()
    np.testing.assert_allclose(ratio_db(batch, batch + noise), 10, atol=0.05)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.9, 0.8, 0.7, 0.55, 0.4], start=1)))
def test_a_limited_band_holds_nothing_above(severity, share):
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, RATE)).astype(np.float32)
    spectrum = np.abs(np.fft.rfft(shifted("band_limit", noise, severity), axis=1))
    limit = int(share * spectrum.shape[1])
    assert spectrum[:, limit:].max() < 1e-3 < spectrum[:, : limit - 1].mean()


def test_reverberation_decays_by_sixty_decibel_in_its_time_and_keeps_the_energy():
    click = np.zeros((1, RATE), np.float32)
    click[0, 0] = 0.5
    made = shifted("reverberation", click, 3)[0].astype(np.float64)  # 0.5 s
    early, late = (made[start : start + 400] for start in (100, 3500))
    decay = 10 * np.log10((early**2).sum() / (late**2).sum())
    assert decay == pytest.approx(60 * 3400 / 4000, abs=2)
    batch = waves()
    np.testing.assert_allclose((shifted("reverberation", batch, 5) ** 2).sum(1), (batch**2).sum(1), rtol=1e-4)


def test_the_rate_decides_what_a_second_is():
    batch = waves()
    slow = shifted("hum", batch, 3, x=InputFacts("audio", rate=4000))
    assert not np.array_equal(slow, shifted("hum", batch, 3))


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.2, 0.4, 0.6, 0.8, 1.0], start=1)))
def test_so_much_of_a_recording_is_silent(severity, share):
    batch = np.full((4, 1000), 0.3, np.float32)
    assert ((shifted("silence", batch, severity) == 0).mean(axis=1) == share).all()


@pytest.mark.parametrize(("severity", "bits"), list(enumerate([8, 7, 6, 5, 4], start=1)))
def test_companding_leaves_so_many_values(severity, bits):
    ramp = np.linspace(-1, 1, 40_001, dtype=np.float32)[None]
    made = shifted("mu_law", ramp, severity)[0]
    assert len(np.unique(made)) == 2**bits - 1
    assert np.all(np.diff(made) >= 0)


def test_clipping_gain_and_copies_are_what_they_say():
    batch = waves()
    peaks = np.abs(batch).max(axis=1)
    np.testing.assert_allclose(np.abs(shifted("clipping", batch, 2)).max(axis=1), 0.3 * peaks, rtol=1e-6)
    np.testing.assert_allclose(shifted("quiet", batch, 5), 0.05 * batch, rtol=1e-6)
    np.testing.assert_array_equal(shifted("loud", batch, 5), np.clip(8 * batch.astype(np.float64), -1, 1).astype("f4"))
    np.testing.assert_allclose(np.abs(shifted("full_scale", 0.01 * batch)).max(axis=1), 1, rtol=1e-6)
    assert np.abs(shifted("full_scale", np.zeros((1, 100), np.float32))).max() == 1
    np.testing.assert_array_equal(shifted("reverse", batch), batch[:, ::-1])
    np.testing.assert_array_equal(shifted("polarity", batch), -batch)


@pytest.mark.parametrize("batch", [np.zeros((2, 3), np.float64), np.zeros(3, np.float32), [[0.0]]])
def test_what_is_no_batch_of_recordings_is_refused(batch):
    with pytest.raises(DataError, match=r"float32 \(N, T\)"):
        apply_shift(SHIFTS.get("quiet"), batch, 1, sample_seeds(0, ["a"] * len(batch)), facts=FACTS)
