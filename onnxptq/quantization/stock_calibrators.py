"""ONNX Runtime's own calibrators on one thread: the reference that the one-pass engine is tested against."""

from __future__ import annotations

import contextlib
import io
import shutil
import tempfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.calibrators import CalibrationSamples, SampleReader
from onnxptq.errors import DataError, OnnxptqError, UsageError
from onnxptq.graphs.external import has_external_data
from onnxptq.quantization.reference_quantizer import Ranges
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.recipe import Step

STOCK_METHODS = ("minmax", "entropy", "percentile")


def stock_ranges(
    folded: Path, environments: list[CalibrationSamples], method: Step, settings: QuantizerSettings, batch: int
) -> Ranges:
    """The range of every tensor as ONNX Runtime's calibrator computes it, environments one after another.

    Args:
        folded: the model after `quant_pre_process`.
        environments: copies of the calibration set.
        method: "minmax", "entropy" (`bins`) or "percentile" (`percentile`).
        settings: of the quantizer: the calibrators make ranges symmetric where it wants them symmetric.
        batch: samples in one feed.

    Raises:
        UsageError: a method that ONNX Runtime does not have.
        DataError: the samples do not fit the model, or the calibrator finds no range.
    """
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    if method.name not in STOCK_METHODS:
        raise UsageError(
            f"ONNX Runtime has no range method {method.name!r}, so --engine stock cannot use it. "
            f"It has {', '.join(STOCK_METHODS)}."
        )
    calibrate_method = {
        "minmax": CalibrationMethod.MinMax,
        "entropy": CalibrationMethod.Entropy,
        "percentile": CalibrationMethod.Percentile,
    }[method.name]
    count = sum(len(samples.reader(batch)) for samples in environments)
    reader = SampleReader(lambda: _feeds(environments, batch), count)
    external = has_external_data(folded)
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder, contextlib.redirect_stdout(io.StringIO()):
        # A copy, since they write a file of a fixed name beside it, which another process may be writing too. Not of
        # gigabytes of weights, though, and onnx does not load those through links.
        source = folded if external else Path(shutil.copyfile(folded, Path(folder) / "model.onnx"))
        try:
            calibrator = create_calibrator(
                source,
                list({*QLinearOpsRegistry, *QDQRegistry}),
                augmented_model_path=str(Path(folder) / "augmented.onnx"),
                calibrate_method=calibrate_method,
                use_external_data_format=external,
                extra_options=_options(method, settings),
            )
            _on_one_thread(calibrator)
            calibrator.collect_data(reader)
            data = calibrator.compute_data()
        except (MemoryError, OnnxptqError):
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            raise DataError(f"ONNX Runtime's {method.name} calibrator failed: {error}") from error
        del calibrator
    return {name: _as_pair(name, tensor.range_value) for name, tensor in sorted(data.items())}


def _on_one_thread(calibrator: Any) -> None:
    """Opens the calibrator's session anew, as it opens it but for its threads: their number changes last bits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    calibrator.infer_session = onnxruntime.InferenceSession(
        calibrator.augmented_model_path, options, providers=calibrator.execution_providers
    )


def _feeds(environments: list[CalibrationSamples], batch: int) -> Iterator[dict[str, Any]]:
    return chain.from_iterable(samples.reader(batch) for samples in environments)


def _options(method: Step, settings: QuantizerSettings) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if method.name == "entropy":
        bins = int(method.keywords.get("bins", 128))
        options = {"num_bins": bins, "num_quantized_bins": min(bins, 128)}
    if method.name == "percentile":
        options = {"percentile": float(method.keywords.get("percentile", 99.999))}
    if settings.extra_options.get("CalibTensorRangeSymmetric"):
        options["symmetric"] = True
    return options


def _as_pair(name: str, values: tuple[Any, Any]) -> tuple[np.float32, np.float32]:
    low, high = (np.float32(np.asarray(value).reshape(())) for value in values)
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError(
            f"ONNX Runtime's calibrator gives the tensor {name!r} the range {low} to {high}: a sample makes it NaN or "
            "infinite. The one-pass engine names the sample: leave out --engine stock."
        )
    return low, high
