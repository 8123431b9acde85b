"""Are the labels in another order than the model's outputs? Then one renaming of its classes makes it right."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_LEAST = 0.5
"""Accuracy that a renaming must reach on samples that did not choose it."""

_SHOWN = 6
"""Classes of the renaming that a message names."""

Integers = npt.NDArray[np.int64]


def other_order(code: Integers, label: Integers, sources: npt.NDArray[np.generic]) -> str | None:
    """Which renaming of classes makes predictions right, in words; None where none does.

    The renaming is chosen on one half of the original samples and judged on the other, since among many classes one
    that fits by chance is easily found.

    Args:
        code: int64, (N,): predicted classes.
        label: int64, (N,).
        sources: (N,): the original sample of each row.
    """
    half = np.unique(sources, return_inverse=True)[1] % 2 == 0
    renamed = _renaming(code[half], label[half])
    if renamed is None or half.all():
        return None
    judged = [renamed.get(int(one), -1) for one in code[~half]]
    right = float((np.asarray(judged) == label[~half]).mean())
    before = float((code[~half] == label[~half]).mean())
    moved = {old: new for old, new in renamed.items() if old != new}
    if right < max(_LEAST, before + 0.25) or not moved:
        return None
    shown = ", ".join(f"{old} is label {new}" for old, new in sorted(moved.items())[:_SHOWN])
    rest = f" and {len(moved) - _SHOWN} more" if len(moved) > _SHOWN else ""
    return (
        f"with its classes renamed (output {shown}{rest}) it would be right on {100 * right:.1f} %, so the labels are "
        'in another order than its outputs: give "classes" in the order of the outputs'
    )


def _renaming(code: Integers, label: Integers) -> dict[int, int] | None:
    """The most frequent label of each predicted class; None where two classes share one, or one class is predicted."""
    renamed = {}
    for one in np.unique(code).tolist():
        values, counts = np.unique(label[code == one], return_counts=True)
        renamed[int(one)] = int(values[counts.argmax()])
    return renamed if 1 < len(renamed) == len(set(renamed.values())) else None
