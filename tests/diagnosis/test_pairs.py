"""What is read from a QDQ file, what is put into the float graph, and which nodes want what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.diagnosis.float_nodes import read_wishes
from onnxptq.diagnosis.pairs import read_pairs
from onnxptq.diagnosis.variants import make_variant
from onnxptq.graphs import fold, load_model
from onnxptq.models import builtin


def run(model: onnx.ModelProto | Path, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    session = onnxruntime.InferenceSession(given, providers=["CPUExecutionProvider"])
    output: np.ndarray = session.run(None, dict(feeds))[0]
    return output


@pytest.fixture(scope="module")
def folded() -> Path:
    return fold(load_model(builtin().model), user_cache())


@pytest.fixture(scope="module")
def feeds() -> Mapping[str, np.ndarray]:
    signature = load_model(builtin().model).signature.inputs[0]
    shape = [16, *(size or 1 for size in signature.shape[1:])]
    return {signature.name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}


@pytest.fixture(scope="module", params=["cpu", "tensorrt"])
def file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("digits") / f"{request.param}.onnx"
    onnxptq.quantize(evaluate=False, calib_size=8, target=request.param, output=path)
    return path


def test_without_a_pair_the_variant_is_the_float_model_and_with_all_it_is_the_int8_file(
    file: Path, folded: Path, feeds: Mapping[str, np.ndarray]
) -> None:
    base, quantized = onnx.load(folded), onnx.load(file)
    paired = read_pairs(base, quantized)
    assert paired.unpaired == ()
    np.testing.assert_array_equal(run(make_variant(base, quantized, ()), feeds), run(folded, feeds))
    whole = make_variant(base, quantized, paired.pairs)
    onnx.checker.check_model(whole)
    np.testing.assert_allclose(run(whole, feeds), run(file, feeds), atol=1e-5)


def test_pairs_come_in_the_order_in_which_the_float_graph_computes(file: Path, folded: Path) -> None:
    pairs = read_pairs(onnx.load(folded), onnx.load(file)).pairs
    assert pairs[0].tensor == "input" and pairs[0].kind == "activation"
    assert [pair.kind for pair in pairs[1:3]] == ["constant", "constant"] or "tensorrt" in file.name


def test_keeping_a_node_in_float_leaves_what_the_quantizer_leaves(tmp_path: Path, file: Path, folded: Path) -> None:
    nodes = ("node_conv2d", "node_linear")
    other = tmp_path / "excluded.onnx"
    onnxptq.quantize(evaluate=False, calib_size=8, target=file.stem, exclude=nodes, output=other)
    base, quantized = onnx.load(folded), onnx.load(file)
    provenance = onnxptq.graphs.read_provenance(load_model(file).metadata)
    from onnxptq.quantization.static import quantizer_settings

    settings = quantizer_settings(provenance.recipe, folded)
    pairs = read_pairs(base, quantized).pairs
    silent = settings.extra_options.get("OpTypesToExcludeOutputQuantization") or ()
    kept = read_wishes(base, pairs, settings.nodes_to_exclude, silent).kept(nodes)
    assert kept == {pair.tensor for pair in read_pairs(base, onnx.load(other)).pairs}
    assert read_wishes(base, pairs, settings.nodes_to_exclude, silent).kept(()) == {pair.tensor for pair in pairs}
