"""Sets that are shifted as a whole, and ranges that are too wide: FAILED where something tells, else never PASSED."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.audit import FAILED, PASSED, UNDECIDED, Audit, audit_calibration
from onnxptq.inputs import DataOptions
from onnxptq.reports.audit import verdict_line

MEAN, DEVIATION = np.array([49, 6, 600], np.float32), np.array([18, 4, 600], np.float32)


def table(rows: int, seed: int, scale: float = 1.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    columns = [random.uniform(18, 80, rows), random.gamma(2, 3, rows), random.gamma(1, 600, rows)]
    return (np.stack(columns, axis=1) * scale).astype(np.float32)


def spectra(count: int, seed: int, *, lower: float = 0.0) -> np.ndarray:
    """Log spectra of a floor of -10, whose declared top of 14 is never reached."""
    random = np.random.default_rng(seed)
    level = random.uniform(-4, 0, (count, 1, 1)) - lower
    return np.maximum(random.normal(0, 3, (count, 8, 12)) + level, -10).astype(np.float32)


@pytest.fixture
def audited(tmp_path):
    def audit(data: np.ndarray, other: np.ndarray | None = None, *, in_graph: bool = False, **facts: Any) -> Audit:
        model = save(tmp_path / "net.onnx", data.shape[1:], normalizer=in_graph)
        paths = {"calib_data": data, "eval_data": other}
        given = {}
        for side, array in paths.items():
            if array is not None:
                given[side] = str(tmp_path / f"{side}.npz")
                np.savez(given[side], x=array)
        options = DataOptions(**given, head="classification", preprocessing=facts)
        return audit_calibration(model, options=options, calib_size=64)

    return audit


def save(path: Path, shape: tuple[int, ...], *, normalizer: bool) -> Path:
    random, width = np.random.default_rng(0), int(np.prod(shape))
    spread = DEVIATION if width == 3 else np.full(width, 3, np.float32)
    nodes = [helper.make_node("Flatten", ["x"], ["f"])] if len(shape) > 1 else []
    last = "f" if nodes else "x"
    constants = {"w": random.standard_normal((width, 4)) / (1 if normalizer else spread[:, None])}
    if normalizer:
        constants |= {"mean": MEAN, "deviation": DEVIATION}
        nodes += [helper.make_node("Sub", ["x", "mean"], ["c"]), helper.make_node("Div", ["c", "deviation"], ["z"])]
        last = "z"
    nodes += [helper.make_node("MatMul", [last, "w"], ["logits"])]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("scale", [1.0, 5.0, 0.1])
def test_a_whole_set_without_a_yardstick_is_never_passed(scale, audited):
    audit = audited(table(200, 0, scale))
    assert audit.verdict == UNDECIDED
    assert "nothing tells whether x is shifted as a whole" in verdict_line(audit)
    assert "--eval-data" in audit.remedies[0]


def test_one_scale_for_columns_of_different_units_is_named(audited):
    (line,) = [line for line in audited(table(200, 0)).warnings if "whose units differ" in line]
    assert line.startswith("one scale serves columns of the input 'x' whose units differ")
    assert not [line for line in audited(table(200, 0), in_graph=True).warnings if "units differ" in line]


@pytest.mark.parametrize(("scale", "cause"), [(5.0, "too wide for x"), (0.1, "too narrow for x")])
def test_samples_to_judge_on_tell_of_a_set_in_other_units(scale, cause, audited):
    assert audited(table(200, 0), table(200, 1)).verdict == PASSED
    audit = audited(table(200, 0, scale), table(200, 1))
    assert audit.verdict == FAILED
    assert cause in verdict_line(audit)
    assert "Look at units" in " ".join(audit.remedies) or scale < 1
    assert not [remedy for remedy in audit.remedies if "bright" in remedy]


@pytest.mark.parametrize("scale", [5.0, 0.1])
def test_a_normalizer_in_the_graph_tells_of_a_set_in_other_units(scale, audited):
    assert audited(table(200, 0), in_graph=True).verdict == PASSED
    audit = audited(table(200, 0, scale), in_graph=True)
    assert audit.verdict == FAILED
    assert "x is not as in training" in verdict_line(audit)


def test_declared_bounds_that_sound_spectra_seldom_reach_do_not_fail_them(audited):
    facts = {"input_range": {"x": [-10, 14]}, "kind": {"x": "log-mel"}}
    clean, others = spectra(200, 0), spectra(200, 1)
    assert audited(clean, others, **facts).verdict == PASSED
    assert audited(clean, **facts).verdict != FAILED
    silent = np.full_like(clean, -10) + np.float32(0.1) * (clean + 10)
    assert audited(silent, others, **facts).verdict == FAILED


def test_moments_declared_for_spectra_tell_of_a_quiet_set(audited):
    clean = spectra(200, 0)
    facts = {
        "kind": {"x": "log-mel"},
        "normalizer": {"x": {"mean": [float(clean.mean())], "std": [float(clean.std())]}},
    }
    assert audited(spectra(200, 1), **facts).verdict == PASSED
    audit = audited(spectra(200, 1, lower=6.0), **facts)
    assert audit.verdict == FAILED
    assert audit.moved[0].mean < -1
