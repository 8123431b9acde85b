"""What a sweep leaves behind: a study of cells. Engines and the store fill it, the report reads it and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from onnxptq.cache import with_option

if TYPE_CHECKING:
    from onnxptq.evaluation.report import Report

DONE = "done"
FAILED = "failed"

RESUME = "onnxptq sweep --resume"
"""The command line that goes on with a run that did not finish."""


@dataclass(frozen=True, order=True)
class CellKey:
    """Where a cell stands in the grid.

    Attributes:
        model: the FP32 model, as the plan names it.
        calibration: the calibration set without the strategy, as `onnxptq calibs` writes it ("dark@3").
        strategy: augmentation or sampling strategy on top of the set ("autocontrast", "diverse"), or "" for none.
        method: the method with its parameters, as `--method` takes it ("percentile:percentile=99.9").
        target: what the graph is made for ("cpu", "tensorrt").
        runtime: what it was judged on, as `--ep` takes it ("cpu", "openvino", "cpu@1.20").
        seed: of the draw of the calibration samples.
    """

    model: str
    calibration: str
    strategy: str
    method: str
    target: str
    runtime: str
    seed: int


@dataclass(frozen=True)
class Cell:
    """One INT8 model of a study and what it did to every group.

    Attributes:
        key: where it stands in the grid.
        status: DONE or FAILED.
        error: one line; why it failed.
        report: `evaluation.Report.to_dict()` (docs/formats.md, "Report"), groups included; empty when it failed.
        ranges: the range of each quantized tensor, by tensor of the folded model: (lower, upper).
        recipe_digest: what made the model.
        model_digest: of the INT8 file; cells of equal digests were evaluated once.
        seconds: wall time by part: "calibrate", "quantize", "evaluate"; 0.0 where another cell had done it.
        int8_bytes: size of the INT8 file.
        predictions: Parquet file (docs/formats.md, "Predictions"), relative to the folder of the store; "" where
            outputs were too large to keep.
    """

    key: CellKey
    status: str
    error: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    recipe_digest: str = ""
    model_digest: str = ""
    seconds: Mapping[str, float] = field(default_factory=dict)
    int8_bytes: int = 0
    predictions: str = ""

    @cached_property
    def figures(self) -> Report:
        """The report with a type for each figure; NaN where it is not known."""
        from onnxptq.evaluation.report import Report

        return Report.from_dict(self.report)

    @property
    def origin(self) -> Mapping[str, Any]:
        """What made the cell, by digest, what it was judged under, and on what system; {} where it is not known."""
        found: Mapping[str, Any] = self.report.get("origin", {})
        return found


@dataclass(frozen=True)
class Study:
    """All cells of one sweep.

    Attributes:
        run: its name in the store ("2026-11-25-a1b2c3").
        name: the plan's own title.
        created: ISO 8601, UTC.
        plan: the plan as JSON types, complete: it makes the same study again.
        cells: in the order of the grid.
        versions: onnxptq, onnx, onnxruntime, numpy and Python.
        machine: cpu features, cores, GPU if any.
        command: the command line that makes the study again.
        store: the option that named its store, as it was given ("--store DIR"); "" is none.
    """

    run: str
    name: str
    created: str
    plan: Mapping[str, Any]
    cells: tuple[Cell, ...]
    versions: Mapping[str, str]
    machine: Mapping[str, Any]
    command: str
    store: str = field(default="", compare=False)

    @property
    def resume(self) -> str:
        """The command line that goes on with an unfinished one."""
        return with_option(RESUME, self.store)

    @property
    def show(self) -> str:
        """The command line that shows it whole."""
        return with_option(f"onnxptq runs show {self.run}", self.store)
