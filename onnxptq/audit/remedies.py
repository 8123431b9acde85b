"""What to do about a calibration set, by what makes it dangerous."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.audit.verdict import FAILED, UNDECIDED, TensorEvidence, dangerous
from onnxptq.audit.yardsticks import MovedInput
from onnxptq.calibrators import CalibrationSet
from onnxptq.data import Dataset
from onnxptq.tasks import Task

_STRETCH = "autocontrast"
"""The shift that undid dark and low-contrast sets wherever it was measured (docs/results.md)."""


def remedies_for(
    verdict: str,
    tensors: Sequence[TensorEvidence],
    moved: Sequence[MovedInput],
    without_yardstick: Sequence[str],
    calibration_set: CalibrationSet,
    task: Task,
    side: Dataset | None,
) -> tuple[str, ...]:
    """One line each, the first best; none for a set that passed."""
    if verdict == UNDECIDED and without_yardstick:
        names = ", ".join(without_yardstick)
        return (
            "Give samples like those that the model will be served, to hold the set against: --eval-data (nothing "
            f"tells whether {names} is shifted as a whole).",
            "Or say how the training data was distributed: a normalizer in the specification (docs/data.md).",
        )
    if verdict == UNDECIDED:
        return ("Give data (--data), more than the set draws, so that there is something to hold it against.",)
    if verdict != FAILED:
        return ()
    causes = [tensor for tensor in tensors if dangerous(tensor)]
    lines = []
    plain = calibration_set.sampler == "clean" and not calibration_set.shifts
    if side is not None and not plain and any(_shown_by_undrawn(tensor) for tensor in causes):
        lines.append("Calibrate with your data as it is: --calib clean.")
    if moved or any(tensor.role == "input" and not tensor.exact and tensor.width > 1 for tensor in causes):
        lines.append("Look at units, gain and preprocessing of the set: are its numbers those that the model takes?")
    lines.append("Let ranges follow from more than the set: onnxptq quantize --method robust.")
    if any(tensor.role == "input" for tensor in causes) and task.modality == "image" and task.fits(_STRETCH) is None:
        lines.append(f"Stretch each image before calibrating: --calib '{calibration_set}+{_STRETCH}'.")
    lines.append(f"Or calibrate with other samples: {_VARIED.get(task.modality, 'as varied as any in use')}.")
    return tuple(lines)


_VARIED = {
    "image": "some that are as bright, as sharp and as varied as any in use",
    "audio": "some that are as loud, as near and as varied as any in use",
    "text": "some that are as long and as varied as any in use",
}


def _shown_by_undrawn(tensor: TensorEvidence) -> bool:
    """Whether samples of the user's own data go beyond the range."""
    return any(one.kind != "augmented" and one.distortion > 0 for one in tensor.clipping)
