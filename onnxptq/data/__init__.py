"""Data: sources become datasets, datasets are split, and every sample has a digest of its content."""

from __future__ import annotations

from onnxptq.data._arrays import stored_arrays
from onnxptq.data._columns import Columns
from onnxptq.data._decoder import resized_size
from onnxptq.data._labels import align_labels
from onnxptq.data._samples import decode_picture, fingerprint, not_finite
from onnxptq.data._sounds import Sound, decode_sound
from onnxptq.data.dataset import Dataset, Indices, Rows
from onnxptq.data.isolated import DecodeError
from onnxptq.data.sources import Source, open_source
from onnxptq.data.split import (
    CalibratedOn,
    CalibrationAndEvaluation,
    calibration_only,
    marks,
    replay,
    split_source,
    split_sources,
    without_calibration,
)

__all__ = [
    "CalibratedOn",
    "CalibrationAndEvaluation",
    "Columns",
    "Dataset",
    "DecodeError",
    "Indices",
    "Rows",
    "Sound",
    "Source",
    "align_labels",
    "calibration_only",
    "decode_picture",
    "decode_sound",
    "fingerprint",
    "marks",
    "not_finite",
    "open_source",
    "replay",
    "resized_size",
    "split_source",
    "split_sources",
    "stored_arrays",
    "without_calibration",
]
