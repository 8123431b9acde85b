"""The two sides of the data, opened as a user named them, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxptq.cache import Cache
from onnxptq.data import (
    Columns,
    Dataset,
    Source,
    calibration_only,
    open_source,
    split_source,
    split_sources,
    without_calibration,
)
from onnxptq.data.dataset import TRUTH
from onnxptq.errors import DataError, UsageError
from onnxptq.tasks import Task

if TYPE_CHECKING:
    from onnxptq.inputs import DataOptions

SPLIT_SEED = 0
"""Not the recipe's seed: models of several seeds are to be judged on the same samples."""

Sides = tuple[Dataset | None, Dataset | None, Mapping[str, Any]]


def open_sides(options: DataOptions, cache: Cache, *, evaluate: bool) -> tuple[Sides, tuple[str, ...]]:
    """Calibration, evaluation and their provenance; and one note for samples that were left out."""
    if options.data is None and options.calib_data is None and options.eval_data is None:
        return (None, None, {}), ()
    if options.data is not None:
        source = open_named(options.data, options, cache)
        described = {"source": _short(options.data), "digest": source.digest}
        if not evaluate:
            dataset, rule = calibration_only(source)
            return (dataset, None, {**described, "split": rule}), skipped_notes(source)
        split = split_source(source, seed=SPLIT_SEED)
        notes = skipped_notes(source) + _dropped(split.rule)
        return (split.calibration, split.evaluation, {**described, "split": split.rule}), notes
    if options.calib_data is None:
        return (None, _only(open_named(str(options.eval_data), options, cache)), {}), ()
    first = open_named(options.calib_data, options, cache)
    if options.calib_data == options.eval_data and len(first.splits) == 1:
        raise UsageError(
            f"--calib-data and --eval-data both name {options.calib_data}, but no sample may be on both sides. "
            "Give it once, with --data: its samples are split."
        )
    described = {"source": _short(options.calib_data), "digest": first.digest}
    if options.eval_data is None:
        dataset, rule = calibration_only(first)
        return (dataset, None, {**described, "split": rule}), skipped_notes(first)
    second = open_named(options.eval_data, options, cache)
    split = split_sources(first, second)
    notes = skipped_notes(first) + skipped_notes(second) + _dropped(split.rule)
    return (split.calibration, split.evaluation, {**described, "split": split.rule}), notes


def open_foreign(named: str, options: DataOptions, cache: Cache) -> tuple[Dataset, Mapping[str, Any]]:
    """Another dataset to calibrate with (`foreign:SOURCE`), and its provenance."""
    source = open_named(named, replace(options, columns=Columns()), cache)
    dataset, rule = calibration_only(source)
    return dataset, {"source": _short(named), "digest": source.digest, "split": rule}


def open_named(named: str, options: DataOptions, cache: Cache) -> Source:
    """One source, read as the options say. Errors as of `open_source`."""
    return open_source(
        named,
        columns=options.columns,
        cache=cache.folder("datasets"),
        skip_bad=options.skip_bad,
        trusted=options.trust_data,
    )


def with_truths(options: DataOptions, task: Task) -> DataOptions:
    """The options with what a task reads: the columns of its truth and of its inputs, and what is wrong with a row."""
    columns = replace(
        options.columns,
        truths=task.head.truth_columns(),
        model_inputs=task.input.columns,
        tabular=task.input.tabular,
        defect=partial(_defect, task, options.skip_bad) if task.input.tabular or options.skip_bad else None,
    )
    return replace(options, columns=columns)


def _defect(task: Task, truths: bool, row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row as the task reads it, and with its truth where such rows are left out."""
    if task.input.tabular and (found := task.input.defect(row)) is not None:
        return found
    try:
        if truths:
            task.head.check_truth(row.get(TRUTH, {}))
    except DataError as error:
        return str(error)
    return None


def _only(source: Source) -> Dataset:
    return without_calibration(source, None)


def _short(named: str) -> str:
    # The name of the source and not its place: two machines that hold the same data make the same file.
    return named if named.startswith("hub:") else Path(named).name


def skipped_notes(source: Source) -> tuple[str, ...]:
    """One line for the samples that were left out."""
    if not source.skipped:
        return ()
    shown = "; ".join(source.skipped[:3])
    more = f" and {len(source.skipped) - 3} more" if len(source.skipped) > 3 else ""
    return (f"left out {len(source.skipped)} bad samples of {source.name}: {shown}{more}",)


def _dropped(rule: Mapping[str, Any]) -> tuple[str, ...]:
    dropped = rule.get("dropped", 0)
    if not dropped:
        return ()
    return (f"{dropped} calibration samples occur in the evaluation data too; they were not used for calibration.",)
