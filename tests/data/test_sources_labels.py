"""Labels in the order of the model's output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnxptq.data import Dataset, align_labels
from onnxptq.errors import DataError


def labelled(names: Sequence[str], labels: Sequence[int] | None) -> Dataset:
    count = len(labels or [0])
    attributes = {} if labels is None else {"label": np.array([names[i] for i in labels], np.str_)}
    return Dataset(
        source="pets",
        split=None,
        rows=lambda indices: [],
        indices=np.arange(count),
        labels=None if labels is None else np.array(labels, np.int64),
        label_names=tuple(names),
        attributes=attributes,
        fingerprints=np.array([str(i) for i in range(count)], np.str_),
    )


def aligned(names: Sequence[str], labels: Sequence[int], classes: Sequence[str]) -> tuple[list[int], list[str], bool]:
    dataset, warning = align_labels(labelled(names, labels), classes)
    assert dataset.labels is not None
    assert classes == () or dataset.label_names == tuple(classes)
    return dataset.labels.tolist(), dataset.attributes["label"].tolist(), warning is not None


def test_names_match_in_any_case_and_as_a_subset() -> None:
    assert aligned(["Dog", "cat"], [0, 1], ["bird", "cat", "dog"]) == ([2, 1], ["dog", "cat"], False)


def test_a_declared_class_that_does_not_occur_need_not_match() -> None:
    assert aligned(["cat", "unicorn"], [0, 0], ["bird", "cat"]) == ([1, 1], ["cat", "cat"], False)


def test_integers_are_indices_of_classes_even_when_some_are_missing() -> None:
    assert aligned(["0", "3"], [1, 0], ["a", "b", "c", "d"]) == ([3, 0], ["d", "a"], False)


def test_integers_match_by_name_where_the_model_calls_its_classes_so() -> None:
    assert aligned(["3", "7"], [0, 1], ["7", "3"]) == ([1, 0], ["3", "7"], False)


def test_without_class_names_integers_are_indices_and_names_keep_their_order() -> None:
    assert aligned(["2", "5"], [0, 1], ()) == ([2, 5], ["2", "5"], False)
    assert aligned(["cat", "dog"], [0, 1], ()) == ([0, 1], ["cat", "dog"], False)


def test_as_many_other_names_match_by_order_with_a_warning() -> None:
    assert aligned(["chat", "chien"], [1, 0], ["cat", "dog"]) == ([1, 0], ["dog", "cat"], True)


@pytest.mark.parametrize("names", [["cat", "horse"], ["chat", "chien", "oiseau"]])
def test_names_that_fit_no_way_are_refused_with_both_lists(names: list[str]) -> None:
    with pytest.raises(DataError, match=rf"Labels: {', '.join(names)}\. Classes: cat, dog"):
        align_labels(labelled(names, list(range(len(names)))), ["cat", "dog"])


def test_an_integer_beyond_the_classes_is_refused() -> None:
    with pytest.raises(DataError, match=r"label 5, but the model has 2 classes \(cat, dog\)"):
        align_labels(labelled(["0", "5"], [0, 1]), ["cat", "dog"])


def test_data_without_labels_comes_back_as_it_is() -> None:
    dataset = labelled([], None)
    assert align_labels(dataset, ["cat"]) == (dataset, None)
