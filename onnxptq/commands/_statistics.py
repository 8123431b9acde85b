"""How the commands that write statistics describe them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxptq.calibrators.statistics import CalibrationStatistics


def describe(path: Path, statistics: CalibrationStatistics) -> str:
    """One line."""
    samples = ", ".join(f"{name or 'as drawn'}: {count}" for name, count in sorted(statistics.samples.items()))
    part = statistics.provenance.get("shards", "1/1")
    which = "" if part == "1/1" else f", part {part}"
    return f"wrote {path}: {len(statistics.tensors)} tensors, samples {samples}{which}"


def as_json(path: Path, statistics: CalibrationStatistics) -> dict[str, Any]:
    """The same for --json."""
    return {
        "output": str(path),
        "tensors": len(statistics.tensors),
        "samples": dict(statistics.samples),
        "shards": statistics.provenance.get("shards", "1/1"),
    }
