"""Calibration as a step of its own: draw a set, observe it in one pass, keep the statistics, join those of shards."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.cache import Cache
from onnxptq.calibrators import SAMPLERS, CalibrationSamples, CalibrationSet
from onnxptq.calibrators.sampler import Asked
from onnxptq.calibrators.samples import DECODED_BYTES, DecodedSamples, draw
from onnxptq.calibrators.statistics import CalibrationStatistics, merge
from onnxptq.data import Dataset
from onnxptq.errors import DataError, UsageError
from onnxptq.evaluation.run import batch_size
from onnxptq.evaluation.sample_runner import SampleRunner
from onnxptq.graphs import Model
from onnxptq.inputs import DataOptions, Inputs, resolve_for_quantization
from onnxptq.progress import Progress, counted
from onnxptq.quantization.passes import observe
from onnxptq.quantization.plan import observed_tensors
from onnxptq.quantization.static import environments_of, is_optimized, provider_of, quantizer_settings
from onnxptq.recipe import Recipe
from onnxptq.runtimes import open_session
from onnxptq.runtimes.provider_options import calibration_identity
from onnxptq.sides import open_foreign
from onnxptq.tasks import add_groups

SHARDS = "shards"
"""The key of a part's provenance that says which part it is, "2/4"; parts that are joined must not share one."""


@dataclass(frozen=True)
class StatisticsOrigin:
    """What statistics were made of, as `quantize --stats` needs it.

    Attributes:
        source: digest of the FP32 model.
        recipe: calibration set, size, seed, environments and engine; the rest is as it was when they were made.
        data: provenance of the data.
        calibration: `CalibrationSamples.described` of what was drawn.
    """

    source: str
    recipe: Recipe
    data: Mapping[str, Any]
    calibration: Mapping[str, Any]


def resolve_calibration(
    model: str | Path | None, calibration_set: CalibrationSet, options: DataOptions, cache: Cache, *, evaluate: bool
) -> Inputs:
    """The inputs, with the calibration side that the set really draws from."""
    inputs = resolve_for_quantization(model, options, cache, needs_data=draws_here(calibration_set), evaluate=evaluate)
    return with_calibration_side(inputs, calibration_set, options, cache)


def draws_here(calibration_set: CalibrationSet) -> bool:
    """Whether a set draws from the user's own data, and not from noise or another dataset."""
    return calibration_set.needs_data and not calibration_set.foreign


def with_calibration_side(
    inputs: Inputs, calibration_set: CalibrationSet, options: DataOptions, cache: Cache
) -> Inputs:
    """Inputs that were resolved, with the calibration side that one set really draws from."""
    if not calibration_set.needs_data:
        return replace(inputs, calibration=None, data={})
    if not calibration_set.foreign:
        return inputs
    dataset, described = open_foreign(calibration_set.foreign, options, cache)
    dataset = add_groups(dataset, inputs.task)
    if inputs.evaluation is not None:
        dataset = dataset.select(np.flatnonzero(~np.isin(dataset.fingerprints, inputs.evaluation.fingerprints)))
    if not len(dataset):
        raise DataError(
            f"every sample of {calibration_set.foreign} is in the evaluation data too, so none is left to calibrate "
            "with. Name another dataset."
        )
    return replace(inputs, calibration=dataset, data=described)


def check_labels(calibration_set: CalibrationSet, dataset: Dataset | None) -> None:
    """Raises DataError when a set chooses by label from data that has none, before anything is computed."""
    if dataset is None or dataset.labels is not None or not draws_here(calibration_set):
        return
    if SAMPLERS.get(calibration_set.sampler).needs_labels:
        raise DataError(
            f"the calibration set {calibration_set.short!r} chooses by label, and {dataset.source} has none. Name the "
            "column of the labels, or leave the set out; `onnxptq calibs` lists those that need no labels."
        )


def draw_from(inputs: Inputs, calibration_set: CalibrationSet, size: int | None, seed: int) -> CalibrationSamples:
    """The calibration set drawn from the calibration side; the FP32 model is asked only by sets that need it.

    Its images are decoded once, as far as `DECODED_BYTES` hold them: an early look, the pass, and what the file
    remembers of the set all read them.
    """

    def ask(chosen: Dataset) -> Asked:
        return _asked(inputs, chosen)

    drawn = draw(calibration_set, inputs.task, inputs.calibration, size=size, seed=seed, ask=ask)
    return replace(drawn, decoded=DecodedSamples(DECODED_BYTES))


def _asked(inputs: Inputs, dataset: Dataset) -> Asked:
    """What the FP32 model says of each sample: certainty, and its judged outputs in a row."""
    session = open_session(inputs.model.core.path)
    runner, head = SampleRunner(session), inputs.task.head
    positions_of = [spec.name for spec in session.signature.outputs]
    judged = [positions_of.index(name) for name in head.judged]
    certainty: list[float | None] = [None] * len(dataset)
    vectors: dict[int, npt.NDArray[np.float32]] = {}
    size = batch_size([session])
    for start in range(0, len(dataset), size):
        rows = dataset.read(np.arange(start, min(start + size, len(dataset))))
        for together in inputs.task.loadable_together(rows):
            for positions, feeds in inputs.task.feed_groups(inputs.task.load([rows[i] for i in together])):
                outputs = runner.run(feeds)
                sure = head.certainty(head.answers(outputs))
                for number, position in enumerate(positions):
                    place = start + together[position]
                    certainty[place] = None if sure is None else float(sure[number])
                    vectors[place] = np.concatenate(
                        [_numbers(outputs[output][number]) for output in judged] or [np.zeros(0, np.float32)]
                    )
    known = None if None in certainty else np.array(certainty, np.float64)
    return Asked(known, [vectors[position] for position in range(len(dataset))])


def _numbers(output: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The values of one output for one sample; text has none."""
    values = np.asarray(output).ravel()
    return values.astype(np.float32) if values.dtype.kind in "biuf" else np.zeros(0, np.float32)


def observe_calibration(
    inputs: Inputs,
    folded: Path,
    samples: CalibrationSamples,
    recipe: Recipe,
    shard: tuple[int, int],
    cache: Cache,
    progress: Progress,
) -> CalibrationStatistics:
    """One pass over the recipe's environments, or over one part of each.

    Args:
        inputs: what was resolved.
        folded: the FP32 model after `quant_pre_process`.
        samples: the drawn set.
        recipe: calibration set, environments, target, engine.
        shard: (i, n): the i-th of n parts, counted from 1.
        cache: where statistics are found and kept.
        progress: called as samples are done.
    """
    parts = {
        name: replace(environment, shard=(shard[0] - 1, shard[1]))
        for name, environment in environments_of(recipe, samples).items()
    }
    count = counted(progress, "calibrating", sum(map(len, parts.values())))
    statistics = observe(
        folded,
        parts,
        observed_tensors(folded, quantizer_settings(recipe, folded)),
        histograms=True,
        optimized=is_optimized(recipe),
        provider=provider_of(recipe),
        cache=cache,
        progress=count,
    )
    origin = {
        "source": inputs.model.digest,
        "recipe": json.dumps(recipe.to_dict(), sort_keys=True),
        "data": json.dumps(dict(inputs.data), sort_keys=True),
        "calibration": json.dumps(samples.described, sort_keys=True),
        # Another CPU, GPU, driver or library may compute other last bits: its parts are not parts of this.
        "runtime": json.dumps(calibration_identity(provider_of(recipe)), sort_keys=True),
        SHARDS: f"{shard[0]}/{shard[1]}",
    }
    return replace(statistics, provenance={**statistics.provenance, **origin})


def merge_shards(parts: Sequence[CalibrationStatistics]) -> CalibrationStatistics:
    """Joins parts of one calibration, byte for byte what one process would have made of them all.

    Raises:
        DataError: nothing to join, a part given twice, or parts of different calibrations or of different machines.
    """
    if not parts:
        raise DataError("there are no statistics to merge; give at least one file.")
    # First: of other calibrations "given twice" would say nothing.
    merged = merge(*(replace(part, provenance={**part.provenance, SHARDS: ""}) for part in parts))
    indices = [_shard_indices(part) for part in parts]
    counts = {count for _, count in indices}
    if len(counts) > 1:
        raise DataError(f"these are parts of different divisions ({', '.join(map(str, sorted(counts)))} parts each).")
    listed = sorted(i for part, _ in indices for i in part)
    twice = sorted({i for i in listed if listed.count(i) > 1})
    if twice:
        raise DataError(f"part {twice[0]} of {counts.pop()} was given twice; its samples would count double.")
    (count,) = counts
    joined = f"{','.join(map(str, listed))}/{count}" if len(listed) < count else "1/1"
    return replace(merged, provenance={**merged.provenance, SHARDS: joined})


def origin_of(statistics: CalibrationStatistics, where: str) -> StatisticsOrigin:
    """What complete statistics were made of.

    Raises:
        DataError: they lack their origin, or parts are missing.
    """
    provenance = statistics.provenance
    if "recipe" not in provenance:
        raise DataError(f"the statistics {where} do not say what they were made of; make them with onnxptq calibrate.")
    present, count = _shard_indices(statistics)
    if len(present) < count:
        missing = sorted(set(range(1, count + 1)) - set(present))
        raise DataError(
            f"the statistics {where} lack part {', '.join(map(str, missing))} of {count}. "
            "Join all parts first: onnxptq merge-stats PART... -o ALL"
        )
    return StatisticsOrigin(
        source=provenance["source"],
        recipe=Recipe.from_dict(json.loads(provenance["recipe"])),
        data=json.loads(provenance["data"]),
        calibration=json.loads(provenance["calibration"]),
    )


def check_origin(origin: StatisticsOrigin, model: Model, where: str) -> None:
    """Raises UsageError when the statistics are of another model."""
    if origin.source != model.digest:
        raise UsageError(
            f"the statistics {where} are of another model than {model.path}. Give that model, or calibrate this one."
        )


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) from "i/n", counted from 1. Raises UsageError."""
    first, slash, second = text.partition("/")
    if not slash or not first.isdigit() or not second.isdigit() or not 1 <= int(first) <= int(second):
        raise UsageError(f"--shard must be PART/PARTS, from 1/4 to 4/4 for four parts, got {text!r}.")
    return int(first), int(second)


def _shard_indices(part: CalibrationStatistics) -> tuple[list[int], int]:
    text = part.provenance.get(SHARDS, "1/1")
    indices, _, count = text.partition("/")
    return [int(i) for i in indices.split(",")], int(count)
