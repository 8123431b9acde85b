"""Data: sources become datasets, datasets are split, and every sample has a digest of its content."""

from __future__ import annotations

from onnxptq.data._columns import Columns
from onnxptq.data._labels import align_labels
from onnxptq.data._samples import decode_image, fingerprint, not_finite, why_not_decoded
from onnxptq.data.dataset import Dataset, Indices, Rows
from onnxptq.data.sources import Source, open_source
from onnxptq.data.split import (
    CalibrationAndEvaluation,
    calibration_only,
    replay,
    split_source,
    split_sources,
    without_calibration,
)

__all__ = [
    "CalibrationAndEvaluation",
    "Columns",
    "Dataset",
    "Indices",
    "Rows",
    "Source",
    "align_labels",
    "calibration_only",
    "decode_image",
    "fingerprint",
    "not_finite",
    "open_source",
    "replay",
    "split_source",
    "split_sources",
    "why_not_decoded",
    "without_calibration",
]
