"""The report is computed from predictions alone; an example small enough to check by hand."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from onnxptq.errors import DataError, UsageError
from onnxptq.evaluation import Report, compare
from onnxptq.evaluation.totals import TotalDrop

# 25 of class 0, 25 of class 1, 3 of class 2 (too few to be judged).
LABELS = [0] * 25 + [1] * 25 + [2] * 3
# FP32: all of class 0, 20 of class 1, all of class 2.
FP32 = [0] * 25 + [1] * 20 + [0] * 5 + [2] * 3
# INT8: class 0 loses 5; class 1 loses 2 and gains 1; class 2 loses all.
INT8 = [0] * 20 + [1] * 5 + [1] * 18 + [0] * 2 + [1] + [0] * 4 + [0] * 3


@pytest.fixture
def report(predictions):
    def make(*groupings, minimum_samples=20, **options):
        runs = [
            predictions(side, LABELS, name=name, energies=energies, **options)
            for side, name, energies in ((FP32, "fp32.onnx", (4.0, 0.0)), (INT8, "int8.onnx", (4.0, 0.004)))
        ]
        return compare(*runs, groupings or ("label",), minimum_samples=minimum_samples)

    return make


def test_averages_flips_and_sqnr_are_those_counted_by_hand(report):
    made = report()
    assert (made.n, made.sources) == (53, 53)
    assert made.fp32_average == pytest.approx(48 / 53)
    assert made.int8_average == pytest.approx(39 / 53)
    assert made.average_drop == pytest.approx(9 / 53)
    assert made.average_drop_low < 9 / 53 < made.average_drop_high
    assert made.flip_rate == pytest.approx((5 + 3 + 3) / 53)
    assert made.sqnr_db == pytest.approx(30.0)
    assert (made.measure, made.model, made.reference, made.provider) == ("accuracy", "int8.onnx", "fp32.onnx", "cpu")


def test_groups_are_counted_by_hand_and_come_from_the_worst_to_the_best(report):
    groups = report().groups
    assert [group.name for group in groups] == ["label=class2", "label=class1", "label=class0"]
    found = {g.name: (g.n, g.sources, g.fp32, g.int8, g.drop, g.flips, g.judged) for g in groups}
    assert found == {
        "label=class0": (25, 25, 1.0, 0.8, pytest.approx(0.2), 0.2, True),
        "label=class1": (25, 25, 0.8, 0.76, pytest.approx(0.04), 0.12, True),
        "label=class2": (3, 3, 1.0, 0.0, 1.0, 1.0, False),
    }


def test_a_small_group_is_shown_but_never_called_worst(report):
    made = report()
    assert (made.worst_group, made.worst_accuracy) == ("label=class1", 0.76)
    assert (made.largest_drop_group, made.largest_drop) == ("label=class0", pytest.approx(0.2))
    assert made.cvar10_drop == pytest.approx(0.2)  # The worst tenth of two groups is one.
    everything = report(minimum_samples=3)
    assert (everything.worst_group, everything.largest_drop_group) == ("label=class2", "label=class2")
    assert everything.largest_drop == everything.cvar10_drop == 1.0


def test_the_cross_fitted_drop_lies_between_the_smallest_and_the_largest(report):
    made = report()
    assert 0.04 < made.crossfit_drop <= 0.2
    assert made.crossfit_drop_low < made.crossfit_drop < made.crossfit_drop_high
    assert made.crossfit_drop < made.largest_drop


def test_intervals_hold_what_was_counted_and_equal_the_references(report):
    from statsmodels.stats.contingency_tables import mcnemar
    from statsmodels.stats.proportion import proportion_confint

    for group in report(minimum_samples=3).groups:
        assert group.drop_low <= group.drop <= group.drop_high
        low, high = proportion_confint(round(group.int8 * group.n), group.n, method="wilson")
        assert (group.int8_low, group.int8_high) == (pytest.approx(low), pytest.approx(high))
    p = {group.name: group.p_value for group in report().groups}
    raw = {  # Rows lost and gained: 5 and 0, 2 and 1.
        name: mcnemar([[0, lost], [gained, 0]], exact=True).pvalue
        for name, lost, gained in (("label=class0", 5, 0), ("label=class1", 2, 1))
    }
    # Holm: the smaller of two times two.
    assert p["label=class0"] == pytest.approx(2 * raw["label=class0"])
    assert p["label=class1"] == 1.0
    assert p["label=class2"] is None  # Not judged, so it is not tested and takes nothing from the others.


def test_copies_of_sources_make_nothing_more_certain(predictions):
    def made(copies):
        sources = [f"s{i}" for i in range(len(LABELS))] * copies
        runs = [predictions(side * copies, LABELS * copies, sources=sources) for side in (FP32, INT8)]
        return compare(*runs, ("label",))

    one, ten = made(1), made(10)
    assert (ten.n, ten.sources) == (530, 53)
    assert [g.judged for g in ten.groups] == [g.judged for g in one.groups]  # 30 rows of 3 sources are still few.
    for a, b in zip(one.groups, ten.groups, strict=True):
        for name in ("int8", "drop", "int8_low", "int8_high", "drop_low", "drop_high"):
            assert getattr(b, name) == pytest.approx(getattr(a, name), abs=1e-9)
    assert ten.crossfit_drop == pytest.approx(one.crossfit_drop)
    assert (ten.average_drop_low, ten.average_drop_high) == pytest.approx((one.average_drop_low, one.average_drop_high))


def test_the_report_does_not_depend_on_the_order_of_rows(predictions, report):
    order = np.random.default_rng(0).permutation(len(LABELS))
    runs = [predictions(side, LABELS) for side in (FP32, INT8)]
    shuffled = [
        replace(
            run,
            groups={name: column[order] for name, column in run.groups.items()},
            **{name: getattr(run, name)[order] for name in ("sample_id", "source_id", "label", "code")},
        )
        for run in runs
    ]
    assert compare(*shuffled, ("label",)).to_dict() == compare(*runs, ("label",)).to_dict()


def test_without_labels_accuracy_is_agreement_with_the_reference(predictions):
    corruption = ["clean"] * 30 + ["fog@3"] * 23
    runs = [predictions(side, groups={"corruption": corruption}) for side in (FP32, INT8)]
    made = compare(*runs)
    assert made.measure == "agreement"
    assert made.fp32_average == 1.0
    assert made.average_drop == made.flip_rate == pytest.approx(11 / 53)
    assert {group.name for group in made.groups} == {"corruption=clean", "corruption=fog@3"}
    assert all(group.fp32 == 1.0 and group.drop == group.flips and group.p_value is None for group in made.groups)


def test_the_default_grouping_is_label_by_corruption(predictions):
    runs = [predictions(side, LABELS) for side in (FP32, INT8)]
    assert {g.name for g in compare(*runs).groups} == {f"label=class{i}*corruption=clean" for i in range(3)}


def test_equal_runs_lose_nothing(predictions):
    run = predictions(FP32, LABELS)
    made = compare(run, run, ("label",))
    assert made.average_drop == made.largest_drop == made.crossfit_drop == made.flip_rate == made.cvar10_drop == 0
    assert made.sqnr_db is None
    assert made.largest_drop_group == "label=class0"  # Of equal ones, the first by name.


KEYS = {
    "report_version", "measure", "model", "reference", "provider", "n", "sources", "fp32_average", "int8_average",
    "average_drop", "average_drop_low", "average_drop_high", "worst_group", "worst_accuracy", "largest_drop_group",
    "largest_drop", "crossfit_drop", "crossfit_drop_low", "crossfit_drop_high", "cvar10_drop", "flip_rate", "sqnr_db",
    "minimum_samples", "groups", "task", "judged", "sqnr_db_by_output",
}  # fmt: skip
GROUP_KEYS = {
    "name", "n", "sources", "fp32", "int8", "drop", "drop_low", "drop_high", "int8_low", "int8_high", "flips",
    "p_value", "judged",
}  # fmt: skip


@pytest.mark.parametrize("minimum", [1, 20, 1000])
def test_json_has_stable_keys_and_no_nan(report, minimum):
    values = report(minimum_samples=minimum).to_dict()
    assert set(values) == KEYS
    assert all(set(group) == GROUP_KEYS for group in values["groups"])
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["report_version"] == 1


@pytest.mark.parametrize("minimum", [1, 1000])
@pytest.mark.parametrize("measure", ["accuracy", "agreement", "F1 at IoU 0.5"])
def test_json_is_read_as_the_report_that_wrote_it(report, minimum, measure):
    against = "reference" if measure == "agreement" else "truth"
    totals = (TotalDrop("mAP", 0.5, math.nan, math.nan, math.nan, 20, 64, 64),)
    made = replace(report(minimum_samples=minimum), measure=measure, against=against, totals=totals)
    read = Report.from_dict(json.loads(json.dumps(made.to_dict())))
    assert (read.to_dict(), repr(read)) == (made.to_dict(), repr(made))


def test_a_report_that_is_not_there_knows_nothing():
    nothing = Report.from_dict({})
    assert (nothing.measure, nothing.n, nothing.groups) == ("", 0, ())
    assert math.isnan(nothing.crossfit_drop)


def test_where_no_group_can_be_judged_nothing_is_called_worst(report):
    made = report(minimum_samples=1000)
    assert made.worst_group is None
    assert made.largest_drop_group is None
    for value in (made.worst_accuracy, made.largest_drop, made.crossfit_drop, made.cvar10_drop):
        assert math.isnan(value)
    assert made.to_dict()["worst_accuracy"] is None
    assert made.average_drop == pytest.approx(9 / 53)


def test_runs_over_other_samples_are_refused(predictions):
    one = predictions(FP32, LABELS)
    with pytest.raises(DataError, match="not over the same samples"):
        compare(one, predictions(FP32[:-1], LABELS[:-1]))


def test_an_unknown_group_is_explained(report):
    with pytest.raises(UsageError, match=r"unknown group column 'labl'.*'label'"):
        report("labl")


def test_sqnr_is_not_given_where_it_is_not_known(predictions):
    for energies in ((np.nan, np.nan), (4.0, 0.0), (0.0, 1.0)):
        run = predictions(INT8, LABELS, energies=energies)
        assert compare(predictions(FP32, LABELS), run).sqnr_db is None
