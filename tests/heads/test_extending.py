"""The head of docs/extending.md, as a stranger would write it: it is run as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import onnxptq
from onnxptq.heads import HEADS
from onnxptq.inputs import DataOptions

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"


@pytest.fixture
def amount():
    code = re.search(r"## A head.*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL).group(1)
    names: dict = {}
    HEADS.names()
    exec(compile(code, str(PAGE), "exec"), names)
    yield code
    HEADS._entries.pop("amount")


def test_the_example_judges_amounts_by_the_column_that_holds_them(amount, save, tmp_path):
    lines = [line for line in amount.splitlines() if line.strip() and not line.startswith(("import", "from"))]
    assert len(lines) <= 32
    generator = np.random.default_rng(0)
    weights = generator.standard_normal((8, 1)).astype(np.float32)
    model = save([("MatMul", ["x", "w"], ["y"], {})], [("x", ["N", 8])], [("y", ["N", 1])], {"w": weights})
    x = generator.standard_normal((300, 8)).astype(np.float32)
    truth = (x @ weights)[:, 0] + 1
    np.savez(tmp_path / "d.npz", x=x, amount=truth, sex=generator.choice(["f", "m"], 300))
    result = onnxptq.quantize(
        model, data=str(tmp_path / "d.npz"), corruptions=["clean"], groups=["sex"], output=tmp_path / "q.onnx",
        options=DataOptions(head="amount"),
    )  # fmt: skip
    report = result.report
    assert (report.measure, report.task, report.judged) == ("nearness", "tensor-amount", ("y",))
    assert report.fp32_average == pytest.approx(0.9, abs=1e-6)
    assert {group.name for group in report.groups} == {"sex=f", "sex=m"}
    assert 0.85 < report.int8_average < 0.95
    run = result.predictions[1]
    assert 0.99 < run.fidelity.mean() < 1
    # Other truth is another data set, though its inputs are the same: nothing old is found.
    np.savez(tmp_path / "d.npz", x=x, amount=truth + 1, sex=generator.choice(["f", "m"], 300))
    again = onnxptq.evaluate(
        [tmp_path / "q.onnx"], data=str(tmp_path / "d.npz"), reference=model, corruptions=["clean"]
    )
    assert again.reports[0].fp32_average == pytest.approx(0.8, abs=1e-6)
