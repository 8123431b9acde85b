"""Studies: a grid of calibration set x method x strategy x target x runtime x seed, each cell judged per group."""

from __future__ import annotations

from onnxptq.sweeps.study import Cell, CellKey, Study

__all__ = ["Cell", "CellKey", "Study"]
