"""Using a shift: read its name, make the seeds of the samples, apply it to a batch with everything checked."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts._base import SHIFTS, Batch, Facts, Seeds, Shift
from onnxptq.errors import DataError, UsageError

Images = npt.NDArray[np.float32]
"""float32, (N, H, W, C), C 1 (gray) or 3 (RGB), values in [0, 1]."""

Sounds = npt.NDArray[np.float32]
"""float32, (N, T): one channel, a full-scale sine from -1 to 1."""

Texts = tuple[str, ...]
"""One text a sample."""

SEVERITIES = (1, 2, 3, 4, 5)

# Images go through a shift in portions of this size: its temporaries then stay in the processor's cache, and a whole
# data set may be one batch. No result depends on it, because no sample depends on its neighbours.
PORTION_BYTES = 1 << 20


def parse_shift(text: str) -> tuple[Shift, int]:
    """The shift and the severity that `text` names: "dark@3", or "dark" for the shift's default severity.

    Raises:
        UsageError: no shift has that name, or the severity is not a whole number from 1 to 5.
    """
    name, at, severity = text.partition("@")
    shift = SHIFTS.get(name)
    if not at:
        return shift, shift.default_severity
    if severity not in {str(known) for known in SEVERITIES}:
        raise UsageError(f"severity {severity!r} in {text!r} must be a whole number from 1 to 5, such as {name}@3")
    return shift, int(severity)


def sample_seeds(seed: int, fingerprints: Sequence[str]) -> Seeds:
    """One seed a sample, from `seed` and the digest of the sample's content.

    A sample keeps its seed in every process, order, selection and batch size; equal samples have equal seeds.

    Args:
        seed: any whole number.
        fingerprints: digests of N samples, such as `Dataset.fingerprints`.

    Returns:
        uint64, (N,).
    """
    digests = (hashlib.blake2b(f"{seed}:{fingerprint}".encode(), digest_size=8) for fingerprint in fingerprints)
    return np.fromiter((int.from_bytes(d.digest(), "little") for d in digests), np.uint64, len(fingerprints))


def generators(name: str, seeds: Seeds) -> Iterator[np.random.Generator]:
    """A random generator for each sample, for the shift called `name`.

    The name is mixed in so that shifts applied one after the other to one sample draw independent numbers. The severity
    is not: a sample meets the same noise pattern at every severity, only stronger.
    """
    salt = np.uint64(int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little"))
    for seed in np.bitwise_xor(seeds, salt).tolist():
        yield np.random.Generator(np.random.PCG64(seed))


def apply_shift(
    shift: Shift,
    batch: Batch,
    severity: int,
    seeds: Seeds,
    partners: Batch | None = None,
    facts: Facts = MappingProxyType({}),
) -> Batch:
    """`batch` under `shift`; `batch` itself is not changed.

    Args:
        shift: what to apply.
        batch: N samples of the shift's modality: `Images`; `Texts`; or a dict of arrays with first dimension N for
            "tensor".
        severity: 1 to 5.
        seeds: uint64, (N,), one a sample; see `sample_seeds`.
        partners: a second sample beside each sample, in a batch of the same shape. Needed by the shifts that mix,
            ignored by the others.
        facts: what is known of tensor inputs, for the shifts that are `informed`.

    Raises:
        UsageError: the severity does not exist, the partners are missing, the seeds do not fit, or the images are
            smaller than the shift's `min_size`.
        DataError: the batch is not of the shift's modality, or holds values that are not finite or outside [0, 1].
    """
    if severity not in SEVERITIES:
        raise UsageError(f"severity {severity!r} of shift {shift.name!r} must be a whole number from 1 to 5")
    if shift.mixes and partners is None:
        raise UsageError(f"shift {shift.name!r} mixes samples: give it `partners`, a batch of the same shape")
    others = [partners] if shift.mixes else []
    if shift.modality == "image":
        return _apply_to_images(shift, batch, severity, seeds, others)
    if shift.modality == "text":
        return _apply_to_texts(shift, batch, severity, seeds, others)
    if shift.modality == "audio":
        return _apply_to_sounds(shift, batch, severity, seeds, others, facts)
    if shift.modality == "tensor":
        _check_seeds(shift, seeds, _check_tensors(shift, batch))
    return shift.apply(batch, severity, seeds, *others, **({"facts": facts} if shift.informed else {}))


def _apply_to_images(shift: Shift, batch: Any, severity: int, seeds: Seeds, others: list[Any]) -> Images:
    for images in (batch, *others):
        _check_images(shift, images)
    if others and others[0].shape != batch.shape:
        raise DataError(
            f"the partners of shift {shift.name!r} must be {batch.shape} like the batch, not {others[0].shape}"
        )
    _check_seeds(shift, seeds, len(batch))
    shifted = np.empty(batch.shape, np.float32)
    portion = max(1, PORTION_BYTES // max(1, batch[:1].nbytes))
    for start in range(0, len(batch), portion):
        part = slice(start, start + portion)
        arguments = [np.ascontiguousarray(images[part]) for images in (batch, *others)]
        shifted[part] = _checked_result(
            shift, shift.apply(arguments[0], severity, seeds[part], *arguments[1:]), arguments[0]
        )
    return shifted


def _checked_result(shift: Shift, result: Any, images: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Assigning would broadcast or cast what a stranger's shift returns; say whose mistake it is instead."""
    if not isinstance(result, np.ndarray) or result.dtype != images.dtype or result.shape != images.shape:
        found = f"{result.dtype} {result.shape}" if isinstance(result, np.ndarray) else type(result).__name__
        raise UsageError(
            f"shift {shift.name!r} returned {found}, it must return float32 {images.shape}. "
            "Update or uninstall the package that brings it."
        )
    return result


def _apply_to_texts(shift: Shift, batch: Any, severity: int, seeds: Seeds, others: list[Any]) -> Any:
    if isinstance(batch, Sequence) and batch and isinstance(batch[0], tuple):
        # Each text of a pair is shifted by itself, with random numbers of its own.
        parts = [
            _apply_to_texts(shift, part, severity, seeds + np.uint64(number), [])
            for number, part in enumerate(zip(*batch, strict=True))
        ]
        return tuple(zip(*parts, strict=True))
    for texts in (batch, *others):
        if not isinstance(texts, Sequence) or isinstance(texts, str) or not all(isinstance(t, str) for t in texts):
            raise DataError(f"shift {shift.name!r} takes a sequence of str, one text a sample")
    _check_seeds(shift, seeds, len(batch))
    shifted = tuple(shift.apply(tuple(batch), severity, seeds, *others))
    if len(shifted) != len(batch) or not all(isinstance(text, str) for text in shifted):
        raise UsageError(
            f"shift {shift.name!r} must return {len(batch)} texts, one a sample. "
            "Update or uninstall the package that brings it."
        )
    return shifted


def _apply_to_sounds(shift: Shift, batch: Any, severity: int, seeds: Seeds, others: list[Any], facts: Facts) -> Sounds:
    for sounds in (batch, *others):
        if not isinstance(sounds, np.ndarray) or sounds.dtype != np.float32 or sounds.ndim != 2:
            found = f"{sounds.dtype} {sounds.shape}" if isinstance(sounds, np.ndarray) else type(sounds).__name__
            raise DataError(f"shift {shift.name!r} takes recordings as float32 (N, T), not {found}")
        if not np.isfinite(sounds).all():
            raise DataError(f"shift {shift.name!r} was given a recording with NaN or infinity")
    _check_seeds(shift, seeds, len(batch))
    known = {"facts": facts} if shift.informed else {}
    return _checked_result(shift, shift.apply(batch, severity, seeds, *others, **known), batch)


def _check_images(shift: Shift, batch: Any) -> None:
    if (
        not isinstance(batch, np.ndarray)
        or batch.dtype != np.float32
        or batch.ndim != 4
        or batch.shape[3] not in (1, 3)
    ):
        found = f"{batch.dtype} {batch.shape}" if isinstance(batch, np.ndarray) else type(batch).__name__
        raise DataError(f"shift {shift.name!r} takes images as float32 (N, H, W, 1 or 3) in [0, 1], not {found}")
    height, width = batch.shape[1:3]
    if min(height, width) < shift.min_size:
        raise UsageError(
            f"shift {shift.name!r} makes sense from {shift.min_size} x {shift.min_size} pixels on, "
            f"these images are {height} x {width}: choose another shift"
        )
    # NaN makes both comparisons false.
    if batch.size and not (batch.min() >= 0 and batch.max() <= 1):
        inside = ((batch >= 0) & (batch <= 1)).all(axis=(1, 2, 3))
        raise DataError(
            f"image {int(np.flatnonzero(~inside)[0])} of the batch has values outside [0, 1] or not finite: "
            f"shift {shift.name!r} takes images before normalisation"
        )


def _check_tensors(shift: Shift, batch: Any) -> int:
    if not isinstance(batch, Mapping) or not batch:
        raise DataError(f"shift {shift.name!r} takes a dict of arrays by input name, not {type(batch).__name__}")
    counts = {name: array.shape[:1] for name, array in batch.items()}
    if len(set(counts.values())) != 1 or () in counts.values():
        raise DataError(
            f"the arrays given to shift {shift.name!r} must share their first dimension, they have {counts}"
        )
    return int(next(iter(counts.values()))[0])


def _check_seeds(shift: Shift, seeds: Seeds, count: int) -> None:
    if seeds.dtype != np.uint64 or seeds.shape != (count,):
        raise UsageError(
            f"shift {shift.name!r} takes one uint64 seed a sample, ({count},), not {seeds.dtype} {seeds.shape}: "
            "make them with `sample_seeds`"
        )
