"""Claims that hold for every registered image shift."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxptq.data.shifts import SHIFTS, Shift, apply_shift, sample_seeds
from onnxptq.data.shifts import _apply as apply_module

IMAGE_SHIFTS = [shift for shift in SHIFTS if shift.modality == "image"]
SIZES = [(8, 8, 1), (32, 32, 3), (64, 64, 3), (224, 224, 3)]
# Stronger severities move further from the original, except where severity changes the kind (saturation: paler, then
# stronger) or has no meaning.
NOT_MONOTONE = {"saturation", "autocontrast", "permute_channels"}


def pictures(count: int, height: int, width: int, channels: int, seed: int = 0) -> np.ndarray:
    """Sums of random waves, long ones stronger, with some texture: 8-bit values, each image from 0.04 to 0.96."""
    random = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None, None] / height, np.arange(width)[None, :, None] / width
    images = 0.3 * random.normal(size=(count, height, width, channels))
    for frequency in (0.5, 1, 2, 3.5):
        down, right = random.uniform(-frequency, frequency, (2, count, 1, 1, 1))
        phase = random.uniform(0, 2 * np.pi, (count, 1, 1, channels))
        images += np.cos(2 * np.pi * (down * rows + right * columns) + phase) / frequency
    images -= images.min(axis=(1, 2, 3), keepdims=True)
    images /= images.max(axis=(1, 2, 3), keepdims=True)
    return (np.rint((0.04 + 0.92 * images) * 255) / 255).astype(np.float32)


def seeds_for(count: int, seed: int = 7) -> np.ndarray:
    return sample_seeds(seed, [f"sample {i}" for i in range(count)])


def shifted(shift: Shift, images: np.ndarray, severity: int, seeds: np.ndarray | None = None) -> np.ndarray:
    partners = np.roll(images, 1, axis=0) if shift.mixes else None
    return apply_shift(shift, images, severity, seeds_for(len(images)) if seeds is None else seeds, partners)


def fits(shift: Shift, size: tuple[int, int, int]) -> bool:
    return min(size[:2]) >= shift.min_size


def case_name(value: object) -> str:
    return value.name if isinstance(value, Shift) else str(value)


CASES = [(shift, size) for shift in IMAGE_SHIFTS for size in SIZES if fits(shift, size)]
# Of 64 pixels impulse@1 changes less than one on average: how many images that hits has a test of its own.
SURE_TO_CHANGE = [(shift, size) for shift, size in CASES if shift.name != "impulse" or size[0] > 8]

cases = pytest.mark.parametrize(("shift", "size"), CASES, ids=case_name)
every_shift = pytest.mark.parametrize("shift", IMAGE_SHIFTS, ids=lambda shift: shift.name)


def test_the_documented_shifts_are_registered_in_their_families() -> None:
    families = {shift.name: shift.family for shift in SHIFTS}
    assert (
        families.items()
        >= {
            "dark": "light",
            "bright": "light",
            "gamma": "tone",
            "contrast": "contrast",
            "saturation": "color",
            "invert": "invert",
            "gaussian": "noise",
            "shot": "noise",
            "speckle": "noise",
            "uniform": "noise",
            "impulse": "impulse",
            "blur": "blur",
            "motion_blur": "motion",
            "fog": "weather",
            "jpeg": "digital",
            "pixelate": "digital",
            "mixup": "augmentation",
            "cutmix": "augmentation",
            "cutout": "augmentation",
            "autocontrast": "augmentation",
            "permute_channels": "augmentation",
            "jitter": "augmentation",
            "scale": "scale",
            "tensor_noise": "noise",
        }.items()
    )


@pytest.mark.parametrize(("shift", "size"), SURE_TO_CHANGE, ids=case_name)
def test_changes_every_image_at_every_severity(shift: Shift, size: tuple[int, int, int]) -> None:
    images = pictures(3, *size)
    unchanged = shift.needs_color and size[2] == 1
    for severity in range(1, 6):
        differs = (shifted(shift, images, severity) != images).any(axis=(1, 2, 3))
        assert differs.all() != unchanged, severity
        assert differs.any() != unchanged, severity


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.01, 0.02, 0.03, 0.05, 0.07], start=1)))
def test_impulse_hits_as_many_tiny_images_as_chance_says(severity: int, share: float) -> None:
    images = pictures(2000, 8, 8, 1)
    differs = (shifted(SHIFTS.get("impulse"), images, severity) != images).any(axis=(1, 2, 3))
    assert differs.mean() == pytest.approx(1 - (1 - share) ** 64, abs=0.04)


@pytest.mark.parametrize("side", [8, 9, 13, 28, 63])
def test_pixelate_changes_every_small_image_at_every_severity(side: int) -> None:
    images = pictures(3, side, side + 1, 1)
    for severity in range(1, 6):
        assert (shifted(SHIFTS.get("pixelate"), images, severity) != images).any(axis=(1, 2, 3)).all()


@cases
def test_keeps_shape_dtype_and_range_and_leaves_its_input_alone(shift: Shift, size: tuple[int, int, int]) -> None:
    images = pictures(2, *size)
    before = images.copy()
    images.setflags(write=False)
    for severity in (1, 5):
        result = shifted(shift, images, severity)
        assert result.dtype == np.float32
        assert result.shape == images.shape
        assert result.min() >= 0
        assert result.max() <= 1
        assert not np.shares_memory(result, images)
    np.testing.assert_array_equal(images, before)


@every_shift
@pytest.mark.parametrize("size", [(17, 16, 3), (32, 32, 3), (32, 32, 1), (40, 33, 1)], ids=str)
def test_a_sample_does_not_depend_on_its_neighbours(shift: Shift, size: tuple[int, int, int]) -> None:
    images, partners, seeds = pictures(5, *size), pictures(5, *size, seed=1), seeds_for(5)
    for severity in (1, 3, 5):
        together = apply_shift(shift, images, severity, seeds, partners)
        order = [3, 0, 4, 1, 2]
        reordered = apply_shift(shift, images[order], severity, seeds[order], partners[order])
        np.testing.assert_array_equal(reordered, together[order])
        for i in range(5):
            one = slice(i, i + 1)
            np.testing.assert_array_equal(
                apply_shift(shift, images[one], severity, seeds[one], partners[one]), together[one]
            )


@every_shift
def test_portions_do_not_show_in_the_result(shift: Shift, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pictures(7, 16, 16, 3)
    whole = shifted(shift, images, 3)
    monkeypatch.setattr(apply_module, "PORTION_BYTES", 2 * images[0].nbytes)
    np.testing.assert_array_equal(shifted(shift, images, 3), whole)


@every_shift
def test_memory_layout_does_not_show_in_the_result(shift: Shift) -> None:
    images = pictures(3, 16, 16, 3)
    channels_first = np.ascontiguousarray(images.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
    expected = shifted(shift, images, 3)
    np.testing.assert_array_equal(shifted(shift, channels_first, 3), expected)
    others = [np.roll(channels_first, 1, axis=0)] if shift.mixes else []
    np.testing.assert_array_equal(shift.apply(channels_first, 3, seeds_for(3), *others), expected)


@every_shift
def test_reacts_to_the_seed_exactly_when_it_says_so(shift: Shift) -> None:
    images = pictures(4, 32, 32, 3)
    for severity in range(1, 6):
        first = shifted(shift, images, severity, seeds_for(4, seed=1))
        again = shifted(shift, images, severity, seeds_for(4, seed=1))
        other = shifted(shift, images, severity, seeds_for(4, seed=2))
        np.testing.assert_array_equal(again, first)
        assert (other != first).any() == shift.seeded


@every_shift
def test_equal_samples_with_other_seeds_come_out_different(shift: Shift) -> None:
    images = np.repeat(pictures(1, 32, 32, 3), 20, axis=0)
    distinct = len(np.unique(apply_shift(shift, images, 3, seeds_for(20), images[::-1]), axis=0))
    if not shift.seeded or shift.name == "cutmix":  # here each sample is its own partner
        assert distinct == 1
    else:
        assert distinct == 5 if shift.name == "permute_channels" else distinct >= 15


@pytest.mark.parametrize(
    ("shift", "size"),
    [(s, size) for s in IMAGE_SHIFTS for size in SIZES[:3] if fits(s, size) and s.name not in NOT_MONOTONE],
    ids=case_name,
)
def test_grows_with_severity(shift: Shift, size: tuple[int, int, int]) -> None:
    images = pictures(40, *size)
    distance = [np.abs(shifted(shift, images, severity) - images).mean() for severity in range(1, 6)]
    steps = np.diff(distance)
    # On 8 x 8 pixels two severities may fall on the same number of blocks or patch pixels.
    coarse = size[0] == 8 and shift.name in {"pixelate", "cutout"}
    assert (steps >= 0).all() if coarse else (steps > 0).all(), distance
    assert distance[4] > 1.1 * distance[0]


@every_shift
def test_an_empty_batch_stays_empty(shift: Shift) -> None:
    images, seeds = np.empty((0, 32, 32, 3), np.float32), np.empty(0, np.uint64)
    others = [images] if shift.mixes else []
    for result in (apply_shift(shift, images, 3, seeds, images), shift.apply(images, 3, seeds, *others)):
        assert result.shape == images.shape
        assert result.dtype == np.float32


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_any_image_of_any_size_stays_an_image(data: st.DataObject) -> None:
    shift = data.draw(st.sampled_from(IMAGE_SHIFTS))
    side = st.integers(shift.min_size, 40)
    shape = (data.draw(st.integers(1, 3)), data.draw(side), data.draw(side), data.draw(st.sampled_from([1, 3])))
    # A few values, so that flat, black, white and nearly black images (subnormal numbers) come up often.
    values = data.draw(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=4))
    picks = np.random.default_rng(data.draw(st.integers(0, 2**32))).integers(len(values), size=shape)
    images = np.array(values, np.float32)[picks]
    seeds = np.array(data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=shape[0], max_size=shape[0])), np.uint64)
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        result = apply_shift(shift, images, data.draw(st.integers(1, 5)), seeds, images[::-1])
    assert result.shape == shape
    assert result.dtype == np.float32
    assert result.min() >= 0  # False for NaN
    assert result.max() <= 1


def test_every_shift_says_what_it_is_and_where_it_comes_from() -> None:
    for shift in SHIFTS:
        assert shift.summary
        assert "\n" not in shift.summary
        assert shift.source.startswith("ours") or "arXiv" in shift.source
        assert shift.default_severity in range(1, 6)


def test_the_documentation_names_every_shift_with_its_family() -> None:
    rows = (Path(__file__).parents[2] / "docs" / "shifts.md").read_text().splitlines()
    for shift in SHIFTS:
        assert any(row.startswith(f"| `{shift.name}` | {shift.family} |") for row in rows), shift.name


def test_listing_the_shifts_loads_no_image_library() -> None:
    code = (
        "from onnxptq.data.shifts import SHIFTS; SHIFTS.names(); import sys; print([m for m in %r if m in sys.modules])"
    )
    heavy = ["PIL", "datasets", "onnxruntime", "scipy", "torch", "numba", "pyarrow"]
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code % heavy], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
