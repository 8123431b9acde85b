"""Drawn calibration samples: which ones, what happens to each, and the feeds that a model reads."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from onnxptq.calibrators._reader import SampleReader
from onnxptq.calibrators.marginals import marginals
from onnxptq.calibrators.sampler import DEFAULT_SIZE, SAMPLERS, Asked, Pool
from onnxptq.calibrators.sets import SYNTHETIC, CalibrationSet, applied
from onnxptq.data import marks
from onnxptq.data.dataset import Dataset
from onnxptq.data.shifts import Batch, apply_shift, parse_shift, sample_seeds
from onnxptq.errors import DataError, UsageError
from onnxptq.recipe import Environment
from onnxptq.signature import Feeds
from onnxptq.tasks import Task

Ask = Callable[[Dataset], Asked]
"""Asks the FP32 model about each sample of a dataset."""


DECODED_BYTES = 64 * 2**20
"""Of decoded images that are kept: 109 of 224 x 224 in color."""


@dataclass
class DecodedSamples:
    """Images that were read and decoded, for sets that draw the same ones and shift them differently.

    Attributes:
        most: bytes that are kept; what comes later is read each time, as are samples that need no decoding.
    """

    most: int
    _kept: dict[Hashable, tuple[str, Batch]] = field(default_factory=dict, repr=False)
    _size: int = 0

    def get(self, key: Hashable, read: Callable[[], tuple[str, Batch]]) -> tuple[str, Batch]:
        """Where a sample lies, and the sample, which nobody may change; `read` gives both the first time."""
        if key in self._kept:
            return self._kept[key]
        place, batch = read()
        if isinstance(batch, np.ndarray) and self._size + batch.nbytes <= self.most:
            self._kept[key] = place, batch
            self._size += batch.nbytes
        return place, batch


@dataclass(frozen=True)
class CalibrationSamples:
    """What was drawn. Iterating gives `(place, feeds)`, one sample at a time, the same at each iteration.

    A place tells a reader of messages where the sample lies and what was done to it: "photos: cat/3.png under dark@3".

    Attributes:
        task: reads and feeds the samples.
        dataset: the drawn samples in order, or None where the task makes them.
        count: how many samples.
        seed: of the draw; shifts draw their random numbers from it and from the sample's content.
        shifts: (name, severity) applied to each sample, in order.
        synthetic: without a dataset, make synthetic samples instead of noise.
        shard: (i, n): only every n-th sample is given, from the i-th on, counted from 0.
        decoded: shared with other sets of the same task; None reads each sample each time.
    """

    task: Task
    dataset: Dataset | None
    count: int
    seed: int
    shifts: tuple[tuple[str, int], ...]
    synthetic: bool = False
    shard: tuple[int, int] = (0, 1)
    decoded: DecodedSamples | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self._positions)

    def __iter__(self) -> Iterator[tuple[str, Feeds]]:
        for place, feeds in self.in_front():
            yield place, self.task.arrange(feeds)

    def in_front(self) -> Iterator[tuple[str, Feeds]]:
        """The same, with the one sample in the first dimension of each feed, wherever the model has it."""
        for position in self._positions:
            place, raw = self._read(position)
            under = f" under {'+'.join(self._chain)}" if self.shifts else ""
            yield place + under, self.task.feeds(self._shifted(position, raw))

    def batches(self) -> Iterator[Batch]:
        """Each sample, shifted, in the units of the data: what `Task.input_facts` speaks of."""
        for position in self._positions:
            yield self._shifted(position, self._read(position)[1])

    @property
    def _positions(self) -> range:
        return range(self.shard[0], self.count, self.shard[1])

    def sample_id(self, position: int) -> str:
        """The name of a sample in keys: its content's digest, and what was done to it."""
        name = self._made(position) if self.dataset is None else str(self.dataset.fingerprints[position])
        return "+".join([name, *self._chain])

    @property
    def _chain(self) -> list[str]:
        return [f"{shift}@{severity}" for shift, severity in self.shifts]

    @property
    def digest(self) -> str:
        """SHA-256 over everything that decides the feeds of the whole set, 64 hexadecimal digits."""
        text = "\n".join([str(self.seed), *(self.sample_id(position) for position in range(self.count))])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def described(self) -> Mapping[str, Any]:
        """What an INT8 file says of the whole set.

        {"samples", "digest"}, as "used" the `marks` of what was drawn of the data, and as "marginals" how a few numbers
        of a sample are distributed (`calibrators.marginals`).
        """
        drawn = {} if self.dataset is None else {"used": marks(self.dataset.fingerprints[: self.count])}
        kept = marginals(feeds for _, feeds in replace(self, shard=(0, 1)).in_front())
        return {"samples": self.count, "digest": self.digest, **drawn, "marginals": kept}

    def environment(self, environment: Environment) -> CalibrationSamples:
        """A copy of the set under further shifts, of its first samples only where the environment says so."""
        chain = tuple(
            (shift.name, severity)
            for shift, severity in (parse_shift(term) for term in environment.shifts.split("+") if term)
        )
        return replace(self, shifts=self.shifts + chain, count=min(self.count, environment.size or self.count))

    def reader(self, batch: int = 1) -> SampleReader:
        """A `CalibrationDataReader` over the samples, `batch` of them in one feed (a model may fix its batch)."""

        def produce() -> Iterator[Feeds]:
            return map(self.task.arrange, _batched((feeds for _, feeds in self.in_front()), batch))

        return SampleReader(produce, -(-len(self) // batch))

    def _shifted(self, position: int, raw: Batch) -> Batch:
        batch = raw
        seeds = sample_seeds(self.seed, [self.sample_id(position)])
        for index, (shift, severity) in enumerate(applied(self.shifts)):
            partners = None
            if shift.mixes:
                # The partner is the next sample of the set, itself under the shifts that came before.
                before = replace(self, shifts=self.shifts[:index])
                partner = (position + 1) % self.count
                partners = before._shifted(partner, self._read(partner)[1])
            batch = apply_shift(shift, batch, severity, seeds + np.uint64(index), partners, self.task.input_facts())
        return batch

    def _read(self, position: int) -> tuple[str, Batch]:
        """Where a sample lies, for messages, and the sample as it is there."""
        dataset = self.dataset
        if dataset is None:
            name = self._made(position)
            seed = int(sample_seeds(self.seed, [name])[0] >> np.uint64(1))
            return name, self.task.synthetic(position, seed) if self.synthetic else self.task.noise(1, seed)

        def read() -> tuple[str, Batch]:
            (row,) = dataset.read(np.asarray([position]))
            return dataset.place(row), self.task.load([row])

        if self.decoded is None:
            return read()
        return self.decoded.get((dataset.source, dataset.split, int(dataset.indices[position])), read)

    def _made(self, position: int) -> str:
        return f"{'synthetic' if self.synthetic else 'noise'}-{position}"


def _batched(feeds: Iterator[Feeds], batch: int) -> Iterator[Feeds]:
    """Feeds joined in groups of `batch`; a last group that is short repeats its own last sample."""
    group: list[Feeds] = []
    for one in feeds:
        group.append(one)
        if len(group) == batch:
            yield _joined(group)
            group = []
    if group:
        yield _joined(group + [group[-1]] * (batch - len(group)))


def _joined(group: list[Feeds]) -> Feeds:
    return (
        group[0] if len(group) == 1 else {name: np.concatenate([feeds[name] for feeds in group]) for name in group[0]}
    )


def draw(
    calibration_set: CalibrationSet,
    task: Task,
    dataset: Dataset | None,
    *,
    size: int | None = None,
    seed: int = 0,
    ask: Ask | None = None,
) -> CalibrationSamples:
    """Draws a calibration set.

    Args:
        calibration_set: what to draw.
        task: reads the samples.
        dataset: the calibration side of the data (of the foreign source for `foreign`); None for sets that need none.
        size: number of samples; None is the set's own default, or all there are where they are fewer.
        seed: the same seed draws the same samples of the same data, whatever order its rows are in.
        ask: asks the FP32 model, for hard, easy and diverse.

    Raises:
        UsageError: a size below 1, a negative seed, or a shift that does not fit the task.
        DataError: no data, or fewer samples than `size`.
    """
    for name, _ in calibration_set.shifts:
        if reason := task.fits(name):
            raise UsageError(f"the calibration set {str(calibration_set)!r} does not fit the model's input: {reason}")
    if size is not None and size < 1:
        raise UsageError(f"--calib-size must be at least 1, got {size}.")
    if seed < 0:
        raise UsageError(f"the seed must be a whole number of 0 or more, got {seed}.")
    if not calibration_set.needs_data:
        synthetic = calibration_set.sampler == SYNTHETIC
        return CalibrationSamples(task, None, size or DEFAULT_SIZE, seed, calibration_set.shifts, synthetic)
    if dataset is None:
        raise DataError(f"the calibration set {str(calibration_set)!r} draws from data: give --data.")
    drawn = _draw_from(calibration_set, dataset, size, seed, ask)
    return CalibrationSamples(task, drawn, len(drawn), seed, calibration_set.shifts)


def _draw_from(
    calibration_set: CalibrationSet, dataset: Dataset, size: int | None, seed: int, ask: Ask | None
) -> Dataset:
    sampler = SAMPLERS.get(calibration_set.sampler)
    # By content and not by row, so that the draw does not depend on the order of the rows.
    dataset = dataset.select(np.argsort(dataset.fingerprints, kind="stable"))
    generator = np.random.default_rng(seed)
    wanted = size or sampler.size
    of_positions = None if ask is None else lambda positions: ask(dataset.select(positions))
    parameters = {**sampler.parameters, **dict(calibration_set.parameters)}
    chosen = sampler.choose(Pool(dataset, of_positions), wanted, generator, **parameters)
    if not len(chosen):
        raise DataError(f"the calibration set {str(calibration_set)!r} finds no sample in {dataset.source}.")
    if size is not None and len(chosen) < size:
        raise DataError(
            f"--calib-size {size} is more than the {len(chosen)} samples that the calibration set "
            f"{str(calibration_set)!r} can draw from {dataset.source}. Ask for fewer, or give more data."
        )
    return dataset.select(np.asarray(chosen))
