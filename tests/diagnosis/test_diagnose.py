"""A tensor whose range was broken is found by the group that it harms, and the nodes to keep in float with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxptq.diagnosis import DiagnoseSettings, Diagnosis, diagnose
from onnxptq.diagnosis.effects import effect_of
from onnxptq.errors import ModelError, OutputError, UsageError
from onnxptq.evaluation import Predictions
from onnxptq.inputs import DataOptions

QUICK = DiagnoseSettings(groups=("site",), screened=20, per_group=40, finalists=4, speed=False)


def settings(**changes: object) -> DiagnoseSettings:
    return DiagnoseSettings(**{**vars(QUICK), **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def two_broken(fp32: Path, data: DataOptions, broken: Callable[..., Path]) -> Diagnosis:
    """`narrow_out` is clipped at 1 where rare samples need 10; `wide_out` has so coarse steps that common ones tie."""
    # Without corruptions, so that what rare samples lose does not depend on what shifts make of them.
    file = broken(narrow_out=1.0, wide_out=255.0)
    return diagnose(fp32, file, options=data, corruptions=["clean"], settings=QUICK)


def test_a_broken_tensor_ranks_first_for_the_group_it_harms_and_not_for_the_mean(two_broken: Diagnosis) -> None:
    first, second = two_broken.tensors[:2]
    assert (first.tensor, first.isolated.group) == ("narrow_out", "site=rare")
    assert first.isolated.drop == pytest.approx(1.0) and first.isolated.group_flips == 1.0
    assert second.tensor == "wide_out" and second.isolated.group in ("site=east", "site=west")
    by_mean = max(two_broken.tensors, key=lambda one: one.isolated.mean_harm)
    assert by_mean.tensor == "wide_out"


def test_the_mean_is_that_of_the_data_and_not_of_the_balanced_samples(two_broken: Diagnosis) -> None:
    # All of the rare samples are lost: a third of the balanced samples, a tenth of the data.
    assert two_broken.tensors[0].isolated.average_drop == pytest.approx(0.1, abs=0.01)


def test_what_is_quantized_before_a_tensor_harms_with_it(two_broken: Diagnosis) -> None:
    cumulative = {one.tensor: one.cumulative for one in two_broken.tensors}
    assert cumulative["x"].drop == pytest.approx(0.0, abs=0.05)
    assert cumulative["narrow_out"].drop == pytest.approx(1.0)
    assert cumulative["logits"].drop == pytest.approx(1.0)
    assert cumulative["w_wide"] is None


def test_a_node_is_ranked_by_all_that_is_quantized_at_it(two_broken: Diagnosis) -> None:
    nodes = {one.node: one for one in two_broken.nodes}
    assert nodes["narrow"].tensors == ("x", "w_narrow", "narrow_out")  # over the Relu that the quantizer removed
    assert nodes["narrow"].isolated.drop == pytest.approx(1.0)
    assert nodes["wide"].isolated.group != "site=rare"


def test_the_pairs_explain_what_the_int8_file_does(two_broken: Diagnosis) -> None:
    assert two_broken.unpaired == ()
    assert two_broken.unexplained == 0.0
    assert two_broken.explained.drop == two_broken.int8.drop == pytest.approx(1.0)


def test_the_group_that_is_named_is_the_one_that_loses_most(two_broken: Diagnosis) -> None:
    assert (two_broken.int8.group, two_broken.int8.group_drop) == ("site=rare", pytest.approx(1.0))
    assert two_broken.int8.surely_loses and two_broken.int8.drop_low <= 1.0 <= two_broken.int8.drop_high


def test_a_group_that_loses_all_its_margin_and_no_sample_is_not_named() -> None:
    """Every sample of `near` comes close to flipping, and half of those of `far` flip."""
    n = 80
    group = np.repeat(["near", "far"], n // 2)
    right = np.zeros(n, np.int64)
    lost = (group == "far") & (np.arange(n) % 2 == 0)
    reference = predictions(group, right, np.ones(n))
    run = predictions(group, np.where(lost, 1, 0), np.where(group == "near", 0.001, np.where(lost, 0.01, 1.0)))
    effect = effect_of(reference, run, np.ones(n), ("group",))
    assert effect.harm > 0 and effect.group == "group=far" and effect.group_drop == pytest.approx(0.5)


def predictions(group: np.ndarray, prediction: np.ndarray, margin: np.ndarray) -> Predictions:
    n = len(group)
    names = np.arange(n).astype(str)
    flat = np.ones(n)
    return Predictions(
        names, names, {"group": group}, np.zeros(n, np.int64), flat, flat,
        {"model": {"name": "m"}, "runtime": {"provider": "cpu"}},
        code=prediction, certainty=margin.astype(np.float32),
    )  # fmt: skip


def test_a_range_says_what_the_integers_can_hold(two_broken: Diagnosis) -> None:
    first = two_broken.tensors[0]
    assert (first.low, first.high) == (0.0, pytest.approx(1.0))


def test_nothing_is_wrong_with_a_good_file(fp32: Path, int8: Path, data: DataOptions) -> None:
    result = diagnose(fp32, int8, options=data, settings=settings(budget=0.02))
    assert all(abs(one.isolated.drop) < 0.05 for one in result.tensors)
    assert result.budget is not None and result.budget.reached and result.budget.float_nodes == ()


def test_the_budget_finds_exactly_the_node_of_a_broken_output(
    fp32: Path, data: DataOptions, broken: Callable[..., Path], tmp_path: Path
) -> None:
    output = tmp_path / "mixed.onnx"
    result = diagnose(fp32, broken(logits=0.9), options=data, settings=settings(budget=0.02, output=output))
    budget = result.budget
    assert budget is not None and budget.reached and budget.float_nodes == ("sum",)
    assert budget.float_tensors == ("logits",)
    assert budget.before_drop > 0.2 and budget.measured_drop <= 0.02
    assert budget.recipe is None and budget.command is None  # The stock quantizer's file does not say how it was made.
    graph = onnx.load(output).graph
    assert [node.op_type for node in graph.node if node.output[0] == "logits"] == ["Add"]


def test_the_budget_frees_a_tensor_inside_with_all_nodes_that_want_it(
    fp32: Path, data: DataOptions, broken: Callable[..., Path]
) -> None:
    result = diagnose(fp32, broken(narrow_out=1.0), options=data, settings=settings(budget=0.02))
    assert result.budget is not None and result.budget.reached
    assert result.budget.float_nodes == ("narrow", "sum")
    assert "narrow_out" in result.budget.float_tensors and "wide_out" not in result.budget.float_tensors


def test_a_tensor_without_a_partner_is_said_and_no_file_is_made_without_it(
    fp32: Path, data: DataOptions, broken: Callable[..., Path], tmp_path: Path
) -> None:
    model = onnx.load(broken(narrow_out=1.0))
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = ["renamed" if name == "narrow_out" else name for name in names]
    onnx.save(model, tmp_path / "renamed.onnx")
    quick = settings(screened=40, cumulative=False)
    result = diagnose(fp32, tmp_path / "renamed.onnx", options=data, settings=quick)
    assert any("renamed: the float model has no such activation" in line for line in result.unpaired)
    assert result.unexplained > 0.2 and result.explained.drop < 0.05 < result.int8.drop
    with pytest.raises(ModelError, match="1 of them have no partner"):
        diagnose(fp32, tmp_path / "renamed.onnx", options=data, settings=settings(budget=0.02))


def test_another_model_or_format_is_refused_with_the_remedy(fp32: Path, data: DataOptions) -> None:
    with pytest.raises(ModelError, match="nothing to take apart"):
        diagnose(fp32, fp32, options=data, settings=QUICK)


def test_settings_are_checked_before_any_work(fp32: Path, int8: Path, data: DataOptions) -> None:
    with pytest.raises(UsageError, match="--budget must be from 0 to 100"):
        diagnose(fp32, int8, options=data, settings=settings(budget=-0.1))
    with pytest.raises(UsageError, match="give --budget"):
        diagnose(fp32, int8, options=data, settings=settings(output=Path("mixed.onnx")))
    with pytest.raises(UsageError, match="at least 4"):
        diagnose(fp32, int8, options=data, settings=settings(per_group=1))
    with pytest.raises(OutputError, match="never replaced"):
        diagnose(fp32, int8, options=data, settings=settings(budget=0.1, output=int8, force=True))
