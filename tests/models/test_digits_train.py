"""The recipe of the built-in model makes what is stored, and says what it needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from onnxptq.errors import EXIT_BAD_INPUT, OutputError
from onnxptq.models import builtin
from onnxptq.models.digits import train as recipe


@pytest.mark.oracle
def test_the_stored_split_is_the_recipes(digits_train: SimpleNamespace, digits_test: SimpleNamespace) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn (extra `train`) carries the digits")
    for made, stored in zip(recipe.load_split(), (digits_train, digits_test), strict=True):
        np.testing.assert_array_equal(made.pixels, stored.pixels)
        np.testing.assert_array_equal(made.labels, stored.labels)
        assert made.ids == stored.ids


def test_what_the_recipe_writes_is_what_is_stored(
    tmp_path: Path, digits_test: SimpleNamespace, read_digits: Callable[[Path], SimpleNamespace]
) -> None:
    digits = recipe.Digits(digits_test.pixels, digits_test.labels, digits_test.ids)
    path = tmp_path / "again.parquet"
    recipe.write_parquet(digits, path)
    again = read_digits(path)
    np.testing.assert_array_equal(again.pixels, digits.pixels)
    np.testing.assert_array_equal(again.labels, digits.labels)
    assert again.ids == digits.ids
    assert pq.read_schema(path).equals(pq.read_schema(builtin("digits").test), check_metadata=True)


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert recipe.main(["-o", str(tmp_path / "made")]) == EXIT_BAD_INPUT
    message = capsys.readouterr().err
    assert "not installed" in message
    assert "onnxscript" in message
    assert "pip install '.[train]'" in message
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_the_folder_is_an_output_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipe, "NEEDS", {})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"cannot make the folder .*file.*Choose another with -o"):
        recipe.write_all(tmp_path / "file")


def test_one_epoch_of_the_recipe_makes_a_net_that_runs(
    tmp_path: Path,
    digits_test: SimpleNamespace,
    digits_feeds: Callable[[Any], dict[str, Any]],
    predict: Callable[[Path, dict[str, Any]], Any],
) -> None:
    for module, package in recipe.NEEDS.items():
        pytest.importorskip(module, reason=f"{package} (extra `train`) is not installed")
    recipe.write_all(tmp_path, epochs=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits.onnx", "test.parquet", "train.parquet"]
    import onnx

    stored, made = (onnx.load(path) for path in (builtin("digits").model, tmp_path / "digits.onnx"))
    assert [node.op_type for node in made.graph.node] == [node.op_type for node in stored.graph.node]
    predicted = predict(tmp_path / "digits.onnx", digits_feeds(digits_test.pixels / 255))
    assert predicted.shape == digits_test.labels.shape
