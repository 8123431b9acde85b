"""What a row lost is decided in one place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxptq.errors import DataError, UsageError
from onnxptq.evaluation.measures import ACCURACY, AGREEMENT, Measure
from onnxptq.evaluation.paired import lay_out, measure_named, paired, scores_of, share_changed


def test_a_row_loses_one_where_only_the_reference_is_right(predictions):
    label = [0, 0, 1, 1]
    rows = paired(predictions([0, 1, 1, 0], label), predictions([0, 0, 0, 2], label), groupings=("label",))
    assert rows.measure == ACCURACY and rows.labelled
    assert rows.lost.tolist() == [0, -1, 1, 0]
    assert rows.changed.tolist() == [0, 1, 1, 1]  # Wrong before and after, but another answer: a flip without a drop.
    assert rows.names == ("label=class0", "label=class1")
    assert rows.by_group(rows.lost).group_means.tolist() == [-0.5, 0.5]


def test_without_labels_the_reference_is_the_truth_and_a_drop_is_a_flip(predictions):
    rows = paired(predictions([0, 1, 2]), predictions([0, 2, 2]))
    assert rows.measure == AGREEMENT and not rows.labelled
    assert rows.before.tolist() == [1, 1, 1]
    assert rows.lost.tolist() == rows.changed.tolist() == [0, 1, 0]


def test_labelled_runs_can_be_judged_by_agreement_too(predictions):
    reference, model = predictions([0, 1], [1, 1]), predictions([0, 0], [1, 1])
    assert scores_of(model, reference, AGREEMENT).tolist() == [1, 0]
    assert paired(reference, model, AGREEMENT).lost.tolist() == [0, 1]


def test_a_layout_of_another_run_on_the_same_samples_gives_the_same_sums(predictions):
    reference, model = predictions([0, 1, 1], [0, 1, 1]), predictions([0, 0, 1], [0, 1, 1])
    shared = paired(reference, model, layout=lay_out(reference))
    own = paired(reference, model)
    assert shared.names == own.names
    np.testing.assert_array_equal(shared.by_group(shared.lost).total, own.by_group(own.lost).total)


def test_runs_over_other_samples_or_none_are_refused(predictions):
    reference = predictions([0, 1], [0, 1])
    with pytest.raises(DataError, match="not over the same samples"):
        paired(reference, replace(reference, sample_id=reference.sample_id[::-1]))
    none = predictions([], [])
    with pytest.raises(DataError, match="no rows"):
        paired(none, none)


def test_sums_are_graded_where_the_measure_is_unless_told(predictions):
    rows = paired(predictions([0, 1], [0, 1]), predictions([0, 0], [0, 1]))
    graded = replace(rows, measure=Measure("F1", binary=False))
    assert rows.by_group(rows.lost).binary and rows.over(rows.all_rows, rows.lost).binary
    assert not graded.by_group(graded.lost).binary and not graded.over(graded.all_rows, graded.lost).binary
    assert graded.by_group(graded.changed, binary=True).binary
    assert graded.over(graded.all_rows, graded.changed, binary=True).binary
    assert rows.changed.dtype == rows.before.dtype == rows.after.dtype == np.float64


def test_graded_scores_come_from_the_head_that_made_the_predictions(predictions):
    reference, model = predictions([0, 1, 2], [0, 1, 1]), predictions([0, 1, 1], [0, 1, 1])
    scores = np.array([0.25, 1.0, 0.5], np.float32)
    judged = replace(model, scores={"accuracy": scores})
    assert scores_of(judged, reference, ACCURACY).tolist() == scores.tolist()
    fidelity = Measure("fidelity", binary=False, against="reference")
    near = replace(model, fidelity=scores)  # Its codes differ in one row; how near the answers are is another matter.
    assert scores_of(near, reference, fidelity).tolist() == scores.tolist()
    assert scores_of(reference, reference, fidelity).tolist() == [1.0, 1.0, 1.0]
    assert share_changed(reference, model) == pytest.approx(1 / 3)
    continuous = replace(model, code=None, fidelity=scores)
    assert paired(reference, continuous, fidelity).changed is None
    assert np.isnan(share_changed(reference, continuous))


def test_a_score_that_a_task_lacks_is_named(predictions):
    run = predictions([0], [0])
    assert measure_named(run, "") == ACCURACY and measure_named(run, "agreement") == AGREEMENT
    with pytest.raises(UsageError, match=r"no score 'acuracy'.*'accuracy'"):
        measure_named(run, "acuracy")
