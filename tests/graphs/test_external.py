"""A model whose weights lie in a file of their own takes every step that a small one takes, and gives the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.files import digest_file
from onnxptq.graphs import Provenance, external, fold, load_model, read_provenance, write_with_provenance
from onnxptq.graphs.external import (
    digest_model,
    external_locations,
    has_external_data,
    install,
    load_with_weights,
    save_with_links,
)
from onnxptq.quantization.collect import collect
from onnxptq.quantization.outputs import leave_outputs_in_float
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.writer import FastWriter
from onnxptq.recipe import Recipe
from onnxptq.runtimes import open_session


def save(path, opset=17, *, apart=True, seed=0):
    """x, (N, 32) -> Gemm, Relu, Gemm -> y, (N, 4); weights of 4 KB, which go to the file, and of 0.5 KB."""
    rng = np.random.default_rng(seed)
    shapes = {"w1": (32, 32), "b1": (32,), "w2": (32, 4), "b2": (4,)}
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "body"),
        helper.make_node("Relu", ["h"], ["r"], "relu"),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], "head"),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 32])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    if apart:
        onnx.save(model, path, save_as_external_data=True, location=f"{path.name}.weights", size_threshold=1024)
    else:
        onnx.save(model, path)
    return path


@pytest.fixture
def large(monkeypatch):
    """Every model counts as one above 2 GB."""
    monkeypatch.setattr(external, "SINGLE_FILE_LIMIT", 100)


SAMPLES = [(str(i), {"x": np.random.default_rng(i).standard_normal((1, 32)).astype(np.float32)}) for i in range(8)]
PROVENANCE = Provenance("tensor-classification", {}, {"digest": ""}, {}, Recipe(), {}, {}, "")


def quantized(model, folder, *, external):
    """Through every step: fold, plan, collect, write, provenance."""
    folder.mkdir()
    folded = fold(load_model(model), Cache(folder / "room"))
    assert has_external_data(folded) == external
    writer = FastWriter(folded, QuantizerSettings(per_channel=True), external=external)
    statistics = collect(folded, SAMPLES, writer.plan.observed)
    ranges = {name: (s.minimum, s.maximum) for name, s in statistics.environments[""].items()}
    writer.write(ranges, folder / "plain.onnx")
    leave_outputs_in_float(folder / "plain.onnx")
    write_with_provenance(folder / "plain.onnx", PROVENANCE, folder / "out.onnx")
    return folder / "out.onnx"


@pytest.mark.parametrize("opset", [12, 17])
def test_a_large_model_becomes_the_int8_model_that_a_small_one_becomes(tmp_path, opset, request):
    small = quantized(save(tmp_path / "a.onnx", opset, apart=False), tmp_path / "small", external=False)
    request.getfixturevalue("large")
    big = quantized(save(tmp_path / "b.onnx", opset), tmp_path / "large", external=True)
    assert {p.name for p in big.parent.iterdir()} >= {"out.onnx", "out.onnx.data"}
    assert read_provenance(load_model(big).metadata) == PROVENANCE
    onnx.checker.check_model(str(big), full_check=True)
    for _, feeds in SAMPLES:
        np.testing.assert_array_equal(open_session(big).run(feeds)[0], open_session(small).run(feeds)[0])


def test_a_small_model_with_weights_apart_becomes_one_file(tmp_path):
    out = quantized(save(tmp_path / "a.onnx"), tmp_path / "out", external=False)
    assert not has_external_data(out)


def test_folding_of_a_large_model_is_done_once_and_again_when_its_weights_are_gone(tmp_path, large):
    model, empty_cache = load_model(save(tmp_path / "a.onnx")), Cache(tmp_path / "room")
    folded = fold(model, empty_cache)
    data = folded.with_name(folded.name + ".data")
    written = data.stat()
    assert fold(model, empty_cache) == folded and data.stat() == written
    data.unlink()
    fold(model, empty_cache)
    assert data.is_file()
    assert {p.name for p in folded.parent.iterdir() if p.suffix != ".sha256"} == {folded.name, data.name}
    weights = data.read_bytes()
    data.write_bytes(bytes(len(weights)))
    fold(model, empty_cache)
    assert data.read_bytes() == weights, "and when they were overwritten"


def test_a_model_takes_its_place_with_its_weights_and_nothing_else_is_left(tmp_path):
    model = save(tmp_path / "a.onnx")
    (tmp_path / "there").mkdir()
    for _ in range(2):
        install(model, tmp_path / "there" / "out.onnx")
    assert sorted(p.name for p in (tmp_path / "there").iterdir()) == ["out.onnx", "out.onnx.data"]
    feeds = SAMPLES[0][1]
    found = open_session(tmp_path / "there" / "out.onnx").run(feeds)[0]
    np.testing.assert_array_equal(found, open_session(model).run(feeds)[0])


def test_where_the_model_cannot_be_written_neither_are_its_weights(tmp_path, monkeypatch):
    model = save(tmp_path / "a.onnx")
    (tmp_path / "there").mkdir()

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxptq.graphs.external.shutil.copyfile", fail)
    with pytest.raises(KeyboardInterrupt):
        install(model, tmp_path / "there" / "out.onnx")
    assert list((tmp_path / "there").iterdir()) == []


def test_weights_in_several_files_are_refused(tmp_path):
    model = onnx.load(save(tmp_path / "a.onnx", apart=False))
    path = tmp_path / "several.onnx"
    onnx.save(model, path, save_as_external_data=True, all_tensors_to_one_file=False, size_threshold=0)
    assert len(external_locations(onnx.load(path, load_external_data=False))) == 4
    with pytest.raises(ModelError, match="lie in 4 files; expected one"):
        install(path, tmp_path / "out.onnx")


def test_the_digest_covers_the_weights(tmp_path):
    one, other = save(tmp_path / "a.onnx"), tmp_path / "other"
    other.mkdir()
    two = save(other / "a.onnx", seed=1)
    proto = onnx.load(one, load_external_data=False)
    assert digest_model(one) != digest_model(two)
    before = digest_model(one)
    save_with_links(proto, one, tmp_path / "changed.onnx")
    assert digest_model(tmp_path / "changed.onnx") == before
    plain = save(tmp_path / "plain.onnx", apart=False)
    assert digest_model(plain) == digest_file(plain)


@pytest.mark.parametrize("links", [True, False])
def test_a_changed_model_finds_its_weights_in_another_folder(tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError))
    model = save(tmp_path / "a.onnx")
    whole = onnx.load(model)
    (tmp_path / "there").mkdir()
    save_with_links(onnx.load(model, load_external_data=False), model, tmp_path / "there" / "b.onnx")
    feeds = SAMPLES[0][1]
    np.testing.assert_array_equal(
        open_session(tmp_path / "there" / "b.onnx").run(feeds)[0], open_session(model).run(feeds)[0]
    )
    # onnx itself refuses to load weights through links.
    assert load_with_weights(tmp_path / "there" / "b.onnx") == whole
