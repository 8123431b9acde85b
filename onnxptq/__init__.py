"""What does INT8 do to the group of users that it treats worst, and can we ship this model?

import onnxptq

result = onnxptq.quantize("model.onnx", data="path/to/data", calib="dark@3", method="percentile")
print(result.report.worst_group)
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

_checkout = Path(__file__).resolve().parent.parent
if (_checkout / "setup.cfg").is_file() and (_checkout / "calibrators" / "__init__.py").is_file():
    # In a checkout, `calibrators/`, `models/` and `cli.py` lie beside this package; once installed, inside it.
    __path__.append(str(_checkout))

# ONNX Runtime 1.29 and newer report their use over the network, and keep an identifier in the home folder, unless this
# is set before they are imported. We promise that only `hub:` touches the network. Whoever wants it sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if TYPE_CHECKING:
    from onnxptq.api import (
        EvaluateResult,
        QuantizeResult,
        calibrate,
        draw_calibration,
        evaluate,
        merge_statistics,
        quantize,
        reader,
    )
    from onnxptq.calibrators import CalibrationSet
    from onnxptq.errors import OnnxptqError
    from onnxptq.evaluation import Predictions, Report, compare, load_predictions
    from onnxptq.gates import check
    from onnxptq.inputs import DataOptions
    from onnxptq.recipe import Recipe
    from onnxptq.tuning import tune
    from onnxptq.version import __version__

_HOMES = {
    "CalibrationSet": "onnxptq.calibrators",
    "DataOptions": "onnxptq.inputs",
    "EvaluateResult": "onnxptq.api",
    "OnnxptqError": "onnxptq.errors",
    "Predictions": "onnxptq.evaluation",
    "QuantizeResult": "onnxptq.api",
    "Recipe": "onnxptq.recipe",
    "Report": "onnxptq.evaluation",
    "__version__": "onnxptq.version",
    "calibrate": "onnxptq.api",
    "check": "onnxptq.gates",
    "compare": "onnxptq.evaluation",
    "draw_calibration": "onnxptq.api",
    "evaluate": "onnxptq.api",
    "load_predictions": "onnxptq.evaluation",
    "merge_statistics": "onnxptq.api",
    "quantize": "onnxptq.api",
    "reader": "onnxptq.api",
    "tune": "onnxptq.tuning",
}

__all__ = [
    "CalibrationSet",
    "DataOptions",
    "EvaluateResult",
    "OnnxptqError",
    "Predictions",
    "QuantizeResult",
    "Recipe",
    "Report",
    "__version__",
    "calibrate",
    "check",
    "compare",
    "draw_calibration",
    "evaluate",
    "load_predictions",
    "merge_statistics",
    "quantize",
    "reader",
    "tune",
]


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    """Imports what is asked for when it is asked for: `onnxptq --help` loads neither ONNX Runtime nor numpy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'onnxptq' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
