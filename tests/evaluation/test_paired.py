"""What a row lost is decided in one place."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxptq.errors import DataError
from onnxptq.evaluation.measures import ACCURACY, AGREEMENT
from onnxptq.evaluation.paired import lay_out, paired, scores_of


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
