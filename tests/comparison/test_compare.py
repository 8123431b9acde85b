from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import onnxptq
from onnxptq.comparison import CompareSettings, Comparison
from onnxptq.comparison.named import compare_models
from onnxptq.errors import UsageError
from onnxptq.evaluation import Predictions
from onnxptq.inputs import DataOptions

from .conftest import QUICK

Compared = tuple[Comparison, list[Predictions]]


@pytest.fixture(scope="session")
def compared(int8: Path, small: DataOptions) -> Compared:
    settings = CompareSettings(groups=("label",), batch_sizes=(1, 4), threads=(None, 1), runs=4, layers=True)
    return compare_models([int8], ["cpu", "cpu:none"], corruptions=["clean"], options=small, settings=settings)


def test_the_reference_and_every_model_run_on_every_runtime(compared: Compared) -> None:
    rows = [(row.model, row.runtime, row.status) for row in compared[0].rows]
    assert rows == [
        ("digits.onnx", "cpu", "done"),
        ("digits.onnx", "cpu:none", "done"),
        ("digits.int8.onnx", "cpu", "done"),
        ("digits.int8.onnx", "cpu:none", "done"),
    ]


def test_predictions_are_those_of_evaluate(compared: Compared, int8: Path, small: DataOptions) -> None:
    expected = onnxptq.evaluate([int8], corruptions=["clean"], options=small).predictions
    for mine, theirs in ((compared[1][0], expected[0]), (compared[1][2], expected[1])):
        np.testing.assert_array_equal(mine.code, theirs.code)
        np.testing.assert_array_equal(mine.outputs, theirs.outputs)
        assert mine.identity == theirs.identity  # so that one finds what the other computed


def test_the_unfused_graph_is_where_the_kernels_add_nothing(compared: Compared) -> None:
    cause = compared[0].rows[3].cause
    assert cause is not None
    assert cause.kernels.equal
    assert cause.kernels_drop == 0


def test_the_drop_is_the_sum_of_its_causes(compared: Compared) -> None:
    row = compared[0].rows[2]
    assert row.cause is not None
    assert row.report is not None
    assert row.cause.quantization_drop + row.cause.kernels_drop == pytest.approx(row.report.average_drop)


def test_full_optimization_fuses_what_none_leaves_alone(compared: Compared) -> None:
    fused, plain = (row.placement.unfused for row in compared[0].rows[2:])
    assert fused is not None
    assert plain is not None
    assert fused < plain
    assert compared[0].rows[2].placement.multiply_add_share == {"CPUExecutionProvider": 1.0}


def test_speed_is_measured_for_every_batch_size_and_number_of_threads(compared: Compared) -> None:
    for row in compared[0].rows:
        assert [(s.batch, s.threads) for s in row.speed] == [(1, None), (1, 1), (4, None), (4, 1)]
        assert all(s.latency.runs == 4 for s in row.speed)
        assert all(s.throughput == pytest.approx(s.batch / s.latency.mean) for s in row.speed)


def test_layers_are_ranked_by_their_noise_for_quantized_models_only(compared: Compared) -> None:
    rows = compared[0].rows
    assert [row.layers is None for row in rows] == [True, True, False, False]
    ratios = [layer.sqnr_db for layer in rows[2].layers or () if layer.sqnr_db is not None]
    assert ratios == sorted(ratios)
    assert "logits" in {layer.tensor for layer in rows[2].layers or ()}


def test_the_json_is_json_and_names_every_runtime_with_its_versions(compared: Compared) -> None:
    value = json.loads(json.dumps(compared[0].to_dict(), allow_nan=False))
    assert [runtime["optimization"] for runtime in value["runtimes"]] == ["all", "none"]
    assert value["runtimes"][0]["identity"]["onnxruntime"]
    assert value["rows"][2]["report"]["provider"] == "cpu"
    assert value["rows"][2]["speed"][0]["throughput"] > 0


def test_two_models_of_one_file_name_are_told_apart(int8: Path, small: DataOptions, tmp_path: Path) -> None:
    other = tmp_path / int8.name
    onnxptq.quantize(evaluate=False, output=other, calib="dark@5")
    comparison, _ = compare_models([int8, other], ["cpu"], corruptions=["clean"], options=small, settings=QUICK)
    assert [row.model for row in comparison.rows] == ["digits.onnx", str(int8), str(other)]


def test_a_runtime_named_twice_is_an_error(int8: Path) -> None:
    with pytest.raises(UsageError, match="'cpu' is named twice"):
        compare_models([int8], ["cpu", "cpu"], corruptions=["clean"], settings=QUICK)


def test_a_quantized_reference_is_an_error(int8: Path) -> None:
    with pytest.raises(UsageError, match="is quantized"):
        compare_models([int8], ["cpu"], reference=int8, corruptions=["clean"], settings=QUICK)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"batch_sizes": (0,)}, "batch size"), ({"threads": (-1,)}, "threads"), ({"timeout_s": 0.0}, "time limit")],
)
def test_numbers_that_make_no_sense_are_errors(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CompareSettings(**wrong)  # type: ignore[arg-type]
