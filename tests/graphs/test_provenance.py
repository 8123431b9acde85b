"""An INT8 model says where it came from, and what was there before stays."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest

from onnxptq.errors import ModelError, OutputError, UsageError
from onnxptq.graphs import Provenance, load_model, read_provenance, write_with_provenance
from onnxptq.recipe import Environment, Recipe, Step

PROVENANCE = Provenance(
    task="tensor-classification",
    preprocessing={"classes": ["chat", "größe"], "shape": {"x": [None, 6]}},
    source={"name": "net.onnx", "digest": "a" * 64, "bytes": 123},
    data={"source": "data", "digest": "b" * 64, "split": {"kind": "hash", "seed": 0, "fraction": 0.5, "dropped": 0}},
    recipe=Recipe(
        calibration="dark@3",
        environments=(Environment(), Environment("blur@2", 7)),
        ranges=Step.of("percentile", percentile=99.9),
        target="cuda",
    ),
    calibration={"samples": 128, "digest": "c" * 64},
    versions={"onnxptq": "0.1.0"},
    cpu="avx2 fma",
)


def test_it_is_read_back_from_the_file_as_it_was(save_classifier, tmp_path):
    write_with_provenance(save_classifier(), PROVENANCE, tmp_path / "out.onnx")
    assert read_provenance(load_model(tmp_path / "out.onnx").metadata) == PROVENANCE


def test_the_models_own_metadata_survive(save_classifier, tmp_path):
    path = save_classifier(metadata={"author": "me", "onnxptq.task": "old"})
    write_with_provenance(path, PROVENANCE, tmp_path / "out.onnx")
    metadata = load_model(tmp_path / "out.onnx").metadata
    assert metadata["author"] == "me"
    assert metadata["onnxptq.task"] == "tensor-classification"
    assert metadata["onnxptq.target"] == "cuda"
    assert metadata["onnxptq.recipe_digest"] == PROVENANCE.recipe.digest


def test_nothing_but_the_metadata_changes(save_classifier, tmp_path):
    path = save_classifier()
    write_with_provenance(path, PROVENANCE, tmp_path / "out.onnx")
    written = onnx.load(tmp_path / "out.onnx")
    del written.metadata_props[:]
    assert written.SerializeToString() == onnx.load(path).SerializeToString()


def test_equal_provenance_writes_equal_bytes(save_classifier, tmp_path):
    for name, order in (("a", 1), ("b", -1)):
        data = dict(list(PROVENANCE.data.items())[::order])
        write_with_provenance(save_classifier(), replace(PROVENANCE, data=data), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_model_that_we_did_not_write_has_none():
    assert read_provenance({}) is None
    assert read_provenance({"onnxptq.task": "image-classification", "onnxptq.preprocessing": "{}"}) is None


def test_a_newer_format_is_refused():
    with pytest.raises(ModelError, match=r"has format 2; this version reads 1. Update onnxptq"):
        read_provenance({**PROVENANCE.metadata, "onnxptq.format": "2"})
    recipe = PROVENANCE.metadata["onnxptq.recipe"].replace('"format":1', '"format":2')
    with pytest.raises(UsageError, match="the recipe has format 2"):
        read_provenance({**PROVENANCE.metadata, "onnxptq.recipe": recipe})


@pytest.mark.parametrize("damage", [{"onnxptq.recipe": "{"}, {"onnxptq.data": "x"}, {"onnxptq.cpu": None}])
def test_damage_is_said(damage):
    metadata = {**PROVENANCE.metadata, **damage}
    metadata = {key: value for key, value in metadata.items() if value is not None}
    with pytest.raises(ModelError, match=r"provenance cannot be read .*quantize it again"):
        read_provenance(metadata)


def test_an_output_that_cannot_be_written_is_said(save_classifier, tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        write_with_provenance(save_classifier(), PROVENANCE, tmp_path / "no" / "out.onnx")
