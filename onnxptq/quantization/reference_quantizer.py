"""ONNX Runtime's static quantizer with our ranges: the reference that everything else must equal."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.graphs.external import has_external_data, load_with_weights
from onnxptq.quantization.settings import QuantizerSettings

Ranges = Mapping[str, tuple[np.float32, np.float32]]


def quantize_with_ranges(
    model_path: str | Path, ranges: Ranges, output: str | Path, settings: QuantizerSettings, *, external: bool = False
) -> None:
    """Writes the QDQ model that `quantize_static` makes of `ranges`.

    Ranges go in through `calibration_cache_path`, the public way. The quantizer works on a private copy, because it
    writes a file of a fixed name beside its input: the input's folder may be read-only or in use by another
    process.

    Args:
        model_path: the float model.
        ranges: tensor name -> (lower, upper), for every name of `CalibrationPlan.cached`.
        output: where the quantized model goes. Written in place: give a temporary name.
        settings: what else the quantizer is told.
        external: keep the weights in `<output>.data`, which models above 2 GB need.
    """
    from onnxruntime.quantization import CalibrationMethod, quantize_static
    from onnxruntime.quantization.calibrate import TensorData, TensorsData, save_tensors_data

    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder, quiet_quantizer():
        cache = Path(folder) / "ranges.json"
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, data), cache)
        quantize_static(
            model_input=_private_copy(Path(model_path), Path(folder)),
            model_output=str(output),
            calibration_data_reader=None,
            calibrate_method=CalibrationMethod.MinMax,
            calibration_cache_path=cache,
            use_external_data_format=external,
            **settings.to_kwargs(),
        )


def _private_copy(model_path: Path, folder: Path) -> Any:
    if has_external_data(model_path):
        return load_with_weights(model_path)
    return shutil.copyfile(model_path, folder / "model.onnx")


@contextlib.contextmanager
def quiet_quantizer() -> Iterator[None]:
    """Keeps three of the quantizer's messages off stderr, and other warnings on it.

    They are the advice to pre-process; that a LayerNormalization's scale, which has one axis, has no axis 1: it is
    quantized per tensor, as it should be; and that types of 4 or 16 bits, which someone asked for, need the operators
    of com.microsoft before opset 21. It logs through the root logger, and logging so would install a handler for the
    whole process.
    """
    root = logging.getLogger()
    handler = logging.NullHandler() if root.handlers else logging.StreamHandler()

    def keep(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if message.startswith("Axis "):
            return "with rank 1" not in message
        return not message.startswith(("Please consider", "ONNX QuantizeLinear and DequantizeLinear operators do not"))

    root.addFilter(keep)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.removeFilter(keep)
