"""What to do about a calibration set, by what makes it dangerous."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.audit.verdict import FAILED, UNDECIDED, TensorEvidence, dangerous
from onnxptq.calibrators import CalibrationSet
from onnxptq.data import Dataset
from onnxptq.methods import all_methods
from onnxptq.tasks import Task

_STRETCH = "autocontrast"
"""The shift that undid dark and low-contrast sets wherever it was measured (docs/results.md)."""


def remedies_for(
    verdict: str,
    tensors: Sequence[TensorEvidence],
    calibration_set: CalibrationSet,
    task: Task,
    side: Dataset | None,
) -> tuple[str, ...]:
    """One line each, the first best; none for a set that passed."""
    if verdict == UNDECIDED:
        return ("Give more data than the set draws (--data), so that there is something to hold it against.",)
    if verdict != FAILED:
        return ()
    causes = [tensor for tensor in tensors if dangerous(tensor)]
    lines = []
    plain = calibration_set.sampler == "clean" and not calibration_set.shifts
    undrawn = any(tensor.worst is not None and tensor.worst.kind == "undrawn" for tensor in causes)
    if side is not None and not plain and undrawn:
        lines.append("Calibrate with your data as it is: --calib clean.")
    if any(method.name == "robust" for method in all_methods()):
        lines.append("Widen the ranges whatever the set: onnxptq quantize --method robust.")
    if any(tensor.role == "input" for tensor in causes) and task.modality == "image" and task.fits(_STRETCH) is None:
        lines.append(f"Stretch each image before calibrating: --calib '{calibration_set}+{_STRETCH}'.")
    lines.append("Or calibrate with other samples: some that are as bright, as sharp and as varied as any in use.")
    return tuple(lines)
