"""Evaluation: predictions, groups, statistics, and the report that is computed from them."""

from __future__ import annotations

from onnxptq.evaluation.groups import group_rows
from onnxptq.evaluation.model_under_test import ModelUnderTest
from onnxptq.evaluation.predictions import Predictions, load_predictions, save_predictions
from onnxptq.evaluation.report import GroupResult, Report, compare
from onnxptq.evaluation.run import predict
from onnxptq.evaluation.samples import EvaluationSamples, default_corruptions, named_corruptions

__all__ = [
    "EvaluationSamples",
    "GroupResult",
    "ModelUnderTest",
    "Predictions",
    "Report",
    "compare",
    "default_corruptions",
    "group_rows",
    "load_predictions",
    "named_corruptions",
    "predict",
    "save_predictions",
]
