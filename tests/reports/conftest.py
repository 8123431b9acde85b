"""Studies made of seeded random numbers, with effects that the tests know. No model is run."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from onnxptq.sweeps.study import DONE, FAILED, Cell, CellKey, Study

CLASSES = ("cat", "dog", "fox", "owl")
CORRUPTIONS = ("clean", "fog@3", "shot@3")
HARM = {"clean": 0.0, "noisy": 0.01, "dark@3": 0.3}
"""Drop of the worst group by calibration set; "autocontrast" undoes it."""


def fraction(value: float) -> float:
    return float(np.clip(value, -1.0, 1.0))


def synthetic_report(key: CellKey, rng: np.random.Generator, classes: Sequence[str]) -> dict[str, Any]:
    """A report in the shape of `evaluation.Report.to_dict()`, with made-up numbers."""
    harm = 0.0 if key.strategy == "autocontrast" else HARM.get(key.calibration, 0.05)
    harm += 0.12 if key.method.startswith("entropy") else 0.0
    worst = harm + 0.004 * rng.standard_normal()
    groups = []
    for label, corruption in itertools.product(classes, CORRUPTIONS):
        drop = fraction(worst if label == classes[0] else 0.1 * harm + 0.004 * rng.standard_normal())
        wobble = 0.02 * ((12345.678 * drop) % 1.0)
        groups.append(
            {
                "name": f"label={label}*corruption={corruption}",
                "n": 90,
                "sources": 90,
                "fp32": 0.95,
                "int8": 0.95 - drop,
                "drop": drop,
                "drop_low": drop - 0.03 - wobble,
                "drop_high": drop + 0.05 - wobble,
                "int8_low": 0.5,
                "int8_high": 1.0,
                "flips": abs(drop) + 0.05 * wobble,
                "p_value": 0.5,
                "judged": True,
            }
        )
    hurt = max(groups, key=lambda group: group["drop"])
    average = float(np.mean([group["drop"] for group in groups]))
    return {
        "report_version": 1,
        "measure": "accuracy",
        "model": "m.int8.onnx",
        "reference": key.model,
        "provider": key.runtime,
        "n": 90 * len(groups),
        "sources": 90,
        "fp32_average": 0.95,
        "int8_average": 0.95 - average,
        "average_drop": average,
        "average_drop_low": average - 0.01,
        "average_drop_high": average + 0.01,
        "worst_group": hurt["name"],
        "worst_accuracy": hurt["int8"],
        "largest_drop_group": hurt["name"],
        "largest_drop": hurt["drop"],
        "crossfit_drop": worst,
        "crossfit_drop_low": worst - 0.005,
        "crossfit_drop_high": worst + 0.005,
        "cvar10_drop": hurt["drop"],
        "flip_rate": abs(average),
        "sqnr_db": 20.0,
        "minimum_samples": 20,
        "groups": groups,
    }


def synthetic_study(
    *,
    models: Sequence[str] = ("net.onnx",),
    calibrations: Sequence[str] = tuple(HARM),
    strategies: Sequence[str] = ("", "autocontrast"),
    methods: Sequence[str] = ("minmax", "entropy:bins=2048"),
    targets: Sequence[str] = ("cpu",),
    runtimes: Sequence[str] = ("cpu",),
    seeds: Sequence[int] = (0, 1, 2),
    classes: Sequence[str] = CLASSES,
    tensors: int = 6,
    fails: Callable[[CellKey], bool] = lambda key: False,
    name: str = "Synthetic study",
) -> Study:
    """A study of a complete grid; cells for which `fails` is true have failed."""
    rng = np.random.default_rng(0)
    cells = []
    for place in itertools.product(models, calibrations, strategies, methods, targets, runtimes, seeds):
        key = CellKey(*place)
        report = synthetic_report(key, rng, classes)
        if fails(key):
            cells.append(Cell(key, FAILED, error="the worker was killed (SIGKILL)"))
            continue
        narrow = 0.15 if key.calibration == "dark@3" and not key.strategy else 1.0
        widths = {f"layer{i}/out": narrow * (i + 1) * (1 + 0.05 * rng.random()) for i in range(tensors)}
        ranges = {tensor: (0.0, width) for tensor, width in widths.items()}
        seconds = {"calibrate": 1.0, "quantize": 0.1, "evaluate": 2.0}
        cells.append(Cell(key, DONE, "", report, ranges, "r" * 64, f"{len(cells):064d}", seconds, 12_345))
    plan = {"format": 1, "calibrations": list(calibrations), "methods": list(methods), "seeds": list(seeds)}
    versions = {"onnxptq": "0.1.0", "onnxruntime": "1.31.1"}
    machine = {"cpu": "synthetic", "cores": 2}
    return Study(
        "2026-11-25-a1b2c3",
        name,
        "2026-11-25T12:00:00Z",
        plan,
        tuple(cells),
        versions,
        machine,
        "onnxptq sweep study.toml",
    )


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    return synthetic_study
