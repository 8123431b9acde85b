"""`--require-placement cuda=95%`: how much of a model a provider must have taken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnxptq.comparison.result import Comparison, ComparisonRow
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.runtimes.selection import Runtime


@dataclass(frozen=True)
class PlacementVerdict:
    """Whether a model is placed as required.

    Attributes:
        runtime: as the user wrote it.
        model: name of the file.
        required: least share of the multiply-adds.
        share: on the runtime's provider; None where it is not known.
    """

    runtime: str
    model: str
    required: float
    share: float | None

    @property
    def passed(self) -> bool | None:
        """None where it is not known."""
        return None if self.share is None else self.share >= self.required


def parse_limits(texts: Sequence[str], runtimes: Sequence[str]) -> dict[str, float]:
    """Least shares by runtime from ("cuda=95%", ...). Raises UsageError."""
    limits = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            percent = float(number.removesuffix("%"))
        except ValueError:
            percent = -1.0
        if not name or not 0 <= percent <= 100:
            raise UsageError(f"--require-placement must be RUNTIME=PERCENT, for example cuda=95%; got {text!r}.")
        if name not in runtimes:
            raise UsageError(
                f"--require-placement names {name!r}, which is not compared. {did_you_mean(name, runtimes)}"
            )
        limits[name] = percent / 100
    return limits


def check_limits(comparison: Comparison, limits: dict[str, float]) -> list[PlacementVerdict]:
    """A verdict for each model on each runtime that has a limit. A row that failed has share 0: nothing ran there."""
    asked = {runtime.name: own_provider(runtime) for runtime in comparison.runtimes}
    return [
        PlacementVerdict(row.runtime, row.model, limits[row.runtime], share(row, asked[row.runtime]))
        for row in comparison.rows
        if row.runtime in limits
    ]


def own_provider(runtime: Runtime) -> str:
    """ONNX Runtime's name of the provider that was asked for; "", which takes nothing, where the CPU stands in."""
    return "" if runtime.fallback_reason else runtime.provider.ort_name


def share(row: ComparisonRow, provider: str) -> float | None:
    """The share of a row's multiply-adds on a provider (ONNX Runtime's name); None where it is not known."""
    if row.status != "done":
        return 0.0
    shares = row.placement.multiply_add_share
    return None if shares is None else shares.get(provider, 0.0)
