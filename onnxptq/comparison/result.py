"""What `onnxptq compare` found: plain records, with their JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from onnxptq.comparison._placement import NodePlacement
from onnxptq.comparison.layers import LayerError
from onnxptq.comparison.numerics import Difference
from onnxptq.evaluation import Report
from onnxptq.runtimes.latency import Latency
from onnxptq.runtimes.selection import Runtime

COMPARISON_VERSION = 1

Status = Literal["done", "refused", "crashed", "hung", "out of memory", "missing", "failed"]


@dataclass(frozen=True)
class Speed:
    """Latency of one row at one batch size and number of threads.

    Attributes:
        batch: samples in one call.
        threads: threads inside one operator; None is ONNX Runtime's own choice.
        latency: of one call.
    """

    batch: int
    threads: int | None
    latency: Latency

    @property
    def throughput(self) -> float:
        """Samples a second."""
        return self.batch / self.latency.mean


@dataclass(frozen=True)
class ProviderFlips:
    """What another runtime than the reference runtime changes for the same model.

    Attributes:
        flip_rate: share of samples with another prediction.
        p_value: McNemar's test of equal accuracy over all samples; None without labels.
        groups: judged groups whose accuracy differs between the two (McNemar, corrected for the number of groups,
            p < 0.05).
    """

    flip_rate: float
    p_value: float | None
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Cause:
    """Where the difference of a quantized model to FP32 comes from.

    Quantization is the QDQ graph computed as it is written, in float between Q and DQ (the CPU of this environment
    under ORT_DISABLE_ALL), against FP32. Kernels are the runtime against that: fusion, rounding, saturation.

    Attributes:
        quantization, kernels: differences of the outputs.
        quantization_drop, kernels_drop: accuracy lost, as fractions; their sum is the row's average drop.
    """

    quantization: Difference
    kernels: Difference
    quantization_drop: float
    kernels_drop: float


@dataclass(frozen=True)
class ComparisonRow:
    """One model on one runtime.

    Attributes:
        model: name of the file.
        runtime: as the user wrote it after --ep.
        quantized: whether the model is.
        status: "done", or what went wrong: of these "failed" is a model whose outputs cannot be judged.
        reason: what went wrong, in a sentence; "" where it is done.
        log: the last lines that the worker wrote to stderr where it crashed or hung.
        report: per group against FP32 on the reference runtime.
        against_reference: the outputs against FP32 on the reference runtime; None for that run itself.
        between: against the same model on the reference runtime; None for that one.
        flips: the same in predictions.
        cause: for quantized models.
        placement: where the nodes ran.
        speed: for each batch size and number of threads.
        creation_seconds: how long the session took to create.
        baseline_bytes, peak_bytes: memory of the process before the model, and at most (not the GPU's).
        file_bytes: size of the model.
        layers: error of each tensor, largest first, where it was asked for.
    """

    model: str
    runtime: str
    quantized: bool
    status: Status
    file_bytes: int
    reason: str = ""
    log: tuple[str, ...] = ()
    report: Report | None = None
    against_reference: Difference | None = None
    between: Difference | None = None
    flips: ProviderFlips | None = None
    cause: Cause | None = None
    placement: NodePlacement = field(default_factory=NodePlacement)
    speed: tuple[Speed, ...] = ()
    creation_seconds: float | None = None
    baseline_bytes: int | None = None
    peak_bytes: int | None = None
    layers: tuple[LayerError, ...] | None = None


@dataclass(frozen=True)
class DependentGroup:
    """A group whose verdict against FP32 is not the same on every runtime.

    Attributes:
        model: name of the file.
        group: the group.
        verdicts: for each runtime "worse", "better" or "no difference" (McNemar, corrected, p < 0.05).
    """

    model: str
    group: str
    verdicts: Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """Models on runtimes.

    Attributes:
        reference: name of the FP32 model; it is the first model of the rows.
        runtimes: the first is the reference runtime.
        rows: model by model, in each the runtimes in order.
        dependent_groups: groups whose verdict depends on the runtime.
        warnings: one line each.
    """

    reference: str
    runtimes: tuple[Runtime, ...]
    rows: tuple[ComparisonRow, ...]
    dependent_groups: tuple[DependentGroup, ...]
    warnings: tuple[str, ...]

    @property
    def failed(self) -> tuple[ComparisonRow, ...]:
        """Rows that did not come to their end."""
        return tuple(row for row in self.rows if row.status != "done")

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; what is not a finite number becomes None. Keys are stable (docs/compare.md)."""
        value: dict[str, Any] = _plain(
            {
                "comparison_version": COMPARISON_VERSION,
                "reference": self.reference,
                "runtimes": [_runtime(runtime) for runtime in self.runtimes],
                "rows": [_row(row) for row in self.rows],
                "dependent_groups": [asdict(group) for group in self.dependent_groups],
                "warnings": self.warnings,
            }
        )
        return value


def _runtime(runtime: Runtime) -> dict[str, Any]:
    return {
        "name": runtime.name,
        "provider": runtime.provider.name,
        "ort_provider": runtime.provider.ort_name,
        "optimization": runtime.optimization,
        "environment": runtime.environment.name if runtime.environment else None,
        "options": dict(runtime.options),
        "identity": runtime.identity(),
        "fallback_reason": runtime.fallback_reason,
    }


def _row(row: ComparisonRow) -> dict[str, Any]:
    speed = [{**asdict(one), "throughput": one.throughput} for one in row.speed]
    return {**asdict(row), "speed": speed, "report": None if row.report is None else row.report.to_dict()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
