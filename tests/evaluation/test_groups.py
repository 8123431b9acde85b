"""Groups: every row in exactly one group of each grouping, crossed where the user says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxptq.errors import UsageError
from onnxptq.evaluation.groups import check_groupings, default_groupings, group_rows

COLUMNS = {
    "label": np.array(["cat", "dog", "cat", "dog", "dog"]),
    "corruption": np.array(["clean", "clean", "fog@3", "fog@3", "clean"]),
    "sex": np.array(["f", "f", "f", "m", "m"]),
}


def as_dict(grouping):
    return {name: np.flatnonzero(grouping.codes == code).tolist() for code, name in enumerate(grouping.names)}


def test_one_column_gives_a_group_for_each_value():
    (grouping,) = group_rows(COLUMNS, ["label"])
    assert as_dict(grouping) == {"label=cat": [0, 2], "label=dog": [1, 3, 4]}


def test_a_crossing_gives_a_group_for_each_pair_that_occurs():
    (grouping,) = group_rows(COLUMNS, ["sex*corruption"])
    assert as_dict(grouping) == {
        "sex=f*corruption=clean": [0, 1],
        "sex=f*corruption=fog@3": [2],
        "sex=m*corruption=clean": [4],
        "sex=m*corruption=fog@3": [3],
    }


def test_several_groupings_come_in_order_and_each_once():
    groupings = group_rows(COLUMNS, ["sex", "label*corruption*sex", "sex"])
    assert [grouping.text for grouping in groupings] == ["sex", "label*corruption*sex"]
    assert len(groupings[1].names) == 5


def test_spaces_around_names_do_not_matter():
    (grouping,) = group_rows(COLUMNS, [" label * sex "])
    assert grouping.names[0] == "label=cat*sex=f"


def test_the_default_is_label_by_corruption_and_corruption_without_labels():
    assert default_groupings(COLUMNS) == ("label*corruption",)
    assert default_groupings({"corruption": COLUMNS["corruption"]}) == ("corruption",)


@pytest.mark.parametrize("text", ["labl", "label*labl", ""])
def test_an_unknown_column_is_explained(text):
    with pytest.raises(UsageError, match=r"unknown group column '(labl)?'( in|\.)"):
        group_rows(COLUMNS, [text])
    with pytest.raises(UsageError, match="unknown group column"):
        check_groupings(list(COLUMNS), ["label", text])
    with pytest.raises(UsageError, match="Did you mean 'label'"):
        check_groupings(list(COLUMNS), ["labl"])


values = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["1", "2", "10"])), min_size=1, max_size=30)


@given(values)
def test_a_crossing_is_a_partition_by_both_values(rows):
    columns = {"x": np.array([x for x, _ in rows]), "y": np.array([y for _, y in rows])}
    (grouping,) = group_rows(columns, ["x*y"])
    assert len(set(grouping.names)) == len(grouping.names) == len(set(rows))
    assert [grouping.names[code] for code in grouping.codes] == [f"x={x}*y={y}" for x, y in rows]
