"""Models that come with onnxptq: real, small, with their data, so that everything can be tried offline.

from onnxptq.models import builtin

digits = builtin()
digits.model, digits.train, digits.test  # paths: ONNX, Parquet, Parquet
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from onnxptq.errors import UsageError, did_you_mean

__all__ = ["BUILTIN_MODELS", "BuiltinModel", "builtin"]


@dataclass(frozen=True)
class BuiltinModel:
    """A model that comes with onnxptq, with the data to calibrate and to judge it.

    Attributes:
        name: as `builtin` takes it.
        model: the FP32 ONNX file. Its metadata holds the task and the preprocessing.
        train: Parquet in the image format of Hugging Face `datasets`: what the net was trained on and calibration
            draws from.
        test: Parquet of the same form, for evaluation; no image of it is in `train`.
        summary: one line on model and data.
        source: where the data comes from and under which licence.
    """

    name: str
    model: Path
    train: Path
    test: Path
    summary: str
    source: str


_DIGITS = Path(__file__).resolve().parent / "digits"

BUILTIN_MODELS: Mapping[str, BuiltinModel] = MappingProxyType(
    {
        "digits": BuiltinModel(
            name="digits",
            model=_DIGITS / "digits.onnx",
            train=_DIGITS / "train.parquet",
            test=_DIGITS / "test.parquet",
            summary="handwritten digits, 8 x 8 gray, and a small convolutional net with depthwise convolutions",
            source="Optical Recognition of Handwritten Digits, Alpaydin and Kaynak (1998), UCI Machine Learning "
            "Repository, doi:10.24432/C50P49, CC BY 4.0, as scikit-learn carries it",
        ),
    }
)
"""The built-in models by name."""


def builtin(name: str = "digits") -> BuiltinModel:
    """The built-in model called `name`. Raises UsageError, with the closest names, when there is none."""
    if name not in BUILTIN_MODELS:
        raise UsageError(f"unknown built-in model {name!r}. {did_you_mean(name, BUILTIN_MODELS)}")
    return BUILTIN_MODELS[name]
