"""The Python API on models and data that a user brings: what is written, what is said, what is kept apart."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest

import onnxptq
from onnxptq import DataOptions, Recipe
from onnxptq.errors import DataError, ModelError, OutputError, RuntimeUnavailableError, UsageError
from onnxptq.flags import parse_numbers, parse_size, read_preprocessing
from onnxptq.graphs import load_model, read_provenance
from onnxptq.quantization.canonical import canonical
from onnxptq.recipe import Step


@pytest.fixture
def model(save_classifier, tmp_path):
    return save_classifier("net.onnx")


@pytest.fixture
def data(tmp_path):
    """An .npz of seeded rows without splits: x, float32 (N, 6), and a label of four."""

    def save(name="data.npz", count=200, seed=0, labels=True):
        x = np.random.default_rng(seed).standard_normal((count, 6)).astype(np.float32)
        columns = {"x": x, "label": np.arange(count) % 4} if labels else {"x": x}
        np.savez(tmp_path / name, **columns)
        return str(tmp_path / name)

    return save


@pytest.fixture
def quantize(model, tmp_path):
    """Quantizes the net into `int8.onnx`."""

    def quantize(data=None, **options):
        return onnxptq.quantize(model, data=data, output=options.pop("output", tmp_path / "int8.onnx"), **options)

    return quantize


def metadata(path):
    return read_provenance(load_model(path).metadata)


def fingerprints(samples):
    return set(samples.dataset.fingerprints.tolist())


def test_the_readmes_lines_work(model, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = onnxptq.quantize("net.onnx", data=data(), calib="scale@3", method="percentile")
    assert result.report.worst_group.startswith("label=")
    assert result.output.name == "net.scale@3.percentile.int8.onnx"
    assert load_model(result.output).quantized
    assert (result.fp32_bytes, result.int8_bytes) == (model.stat().st_size, result.output.stat().st_size)
    assert not result.reused
    assert [run.identity["model"]["name"] for run in result.predictions] == ["net.onnx", result.output.name]


def test_the_file_says_where_it_came_from_and_is_judged_again_without_flags(quantize, data, model, tmp_path):
    source = data()
    result = quantize(source, calib="tensor_noise@2", seed=3)
    made = metadata(result.output)
    assert made.recipe == result.recipe == canonical(Recipe(calibration="tensor_noise@2", seed=3))
    assert made.source == {"name": "net.onnx", "digest": load_model(model).digest, "bytes": model.stat().st_size}
    assert made.data["source"] == "data.npz"
    assert made.data["split"]["kind"] == "hash"
    judged = set(result.predictions[0].source_id.tolist())
    assert made.calibration["samples"] == 200 - len(judged)  # The other half: fewer than the 128 of the set.
    again = onnxptq.evaluate([result.output], data=source, corruptions=["tensor_noise"])
    (report,) = again.reports
    # The model remembers which half calibrated it: the same samples are judged, with the same outcome.
    assert (
        report.to_dict()
        == quantize(source, calib="tensor_noise@2", seed=3, corruptions=["tensor_noise"]).report.to_dict()
    )


def test_calibration_and_evaluation_share_no_sample(quantize, data, model):
    source = data()
    result = quantize(source)
    judged = set(result.predictions[0].source_id.tolist())
    whole = fingerprints(onnxptq.draw_calibration(model, data=source, size=200))
    assert judged < whole
    options = DataOptions(calib_data=source, eval_data=source)
    with pytest.raises(UsageError, match="no sample may be on both sides"):
        quantize(options=options)
    overlap = data("half.npz", count=100)  # The first half of the other file.
    result = quantize(options=DataOptions(calib_data=source, eval_data=overlap), force=True)
    assert "100 calibration samples occur in the evaluation data too" in " ".join(result.warnings)


def test_equal_calls_write_equal_bytes_and_the_second_is_reused(quantize, data, tmp_path):
    source = data()
    first, second = quantize(source), quantize(source)
    other = quantize(source, output=tmp_path / "other.onnx")
    assert (first.reused, second.reused, other.reused) == (False, True, False)
    assert first.output.read_bytes() == other.output.read_bytes()
    assert second.report.to_dict() == first.report.to_dict()
    assert other.report.model == "other.onnx"


def test_an_existing_file_is_replaced_only_by_force_and_the_model_never(quantize, data, model, tmp_path):
    source = data()
    before = quantize(source).output.read_bytes()
    with pytest.raises(OutputError, match=r"exists already, made by another recipe.*--force"):
        quantize(source, seed=1)
    assert (tmp_path / "int8.onnx").read_bytes() == before
    assert quantize(source, seed=1, force=True).recipe.seed == 1
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(OutputError, match="exists already, not made by onnxptq"):
        quantize(source, output=tmp_path / "mine.txt")
    content = model.read_bytes()
    with pytest.raises(OutputError, match="is the model itself"):
        quantize(source, output=model, force=True)
    assert model.read_bytes() == content


def test_nothing_is_left_when_something_fails_at_the_very_end(quantize, data, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise KeyboardInterrupt

    source = data()
    quantize(source)  # What the cache keeps is made.
    names = {path.name for path in tmp_path.iterdir()}
    monkeypatch.setattr("onnxptq.judging.compare", fail)
    with pytest.raises(KeyboardInterrupt):
        quantize(source, seed=1, output=tmp_path / "late.onnx")
    assert {path.name for path in tmp_path.iterdir()} == names


def test_without_evaluation_all_of_a_source_calibrates_and_it_is_never_judged_on_it(quantize, data):
    source = data()
    result = quantize(source, evaluate=False, calib_size=200)
    assert result.report is None
    assert result.predictions == ()
    with pytest.raises(DataError, match="the model was calibrated on all of it"):
        onnxptq.evaluate([result.output], data=source)
    (report,) = onnxptq.evaluate([result.output], data=data("new.npz", seed=1), corruptions=[]).reports
    assert report.n == 200


def test_a_foreign_set_calibrates_on_the_other_source_and_says_so(quantize, data):
    own, other = data(), data("other.npz", seed=1)
    result = quantize(own, calib=f"foreign:{other}")
    assert metadata(result.output).data["source"] == "other.npz"
    (rest,) = onnxptq.evaluate([result.output], data=other, corruptions=[]).reports
    assert rest.n == 200 - 128  # What was drawn of it is not judged.
    every = quantize(own, calib=f"foreign:{other}", calib_size=200, output=result.output.with_name("every.onnx"))
    with pytest.raises(DataError, match="the model was calibrated on all of it"):
        onnxptq.evaluate([every.output], data=other)
    (report,) = onnxptq.evaluate([result.output], data=own, corruptions=[]).reports
    assert report.n == 200  # Nothing of it calibrated the model.


def test_a_foreign_set_never_draws_what_is_judged_on(quantize, data, tmp_path):
    own = data()
    with pytest.raises(DataError, match=r"every sample of .* is in the evaluation data too"):
        quantize(options=DataOptions(eval_data=own), calib=f"foreign:{data('same.npz')}")
    result = quantize(own, calib=f"foreign:{data('same.npz')}")
    judged = set(result.predictions[0].source_id.tolist())
    assert metadata(result.output).calibration["samples"] <= 200 - len(judged)


def test_random_needs_no_data_and_records_none(quantize, data, tmp_path):
    result = quantize(calib="random", evaluate=False)
    assert metadata(result.output).data == {}
    assert metadata(result.output).calibration["samples"] == 128
    with pytest.raises(UsageError, match=r"evaluating needs data.*--no-evaluate"):
        quantize(calib="random", output=tmp_path / "r.onnx")


def test_models_with_different_splits_are_judged_on_what_calibrated_none_of_them(quantize, data, tmp_path):
    source = data()
    half = quantize(source)
    judged = set(half.predictions[0].source_id.tolist())
    everything = quantize(source, calib_size=200, evaluate=False, output=tmp_path / "all.onnx")
    for order in ([half, everything], [everything, half]):
        with pytest.raises(DataError, match="calibrated on all of it"):
            onnxptq.evaluate([result.output for result in order], data=source)
    other = quantize(source, seed=5, output=tmp_path / "other.onnx")
    both = onnxptq.evaluate([half.output, other.output], data=source, corruptions=[])
    assert set(both.predictions[0].source_id.tolist()) == judged


def test_a_file_that_another_pytorch_rounded_is_another_file(quantize, data, monkeypatch):
    source = data()
    torch = "2.0"
    monkeypatch.setattr("onnxptq.quantization.plugins._version", lambda name: {"torch": torch}[name])
    rounded = {"method": "adaround:iterations=0", "evaluate": False}
    assert metadata(quantize(source, **rounded).output).versions["torch"] == "2.0"
    assert quantize(source, **rounded).reused
    torch = "2.1"
    with pytest.raises(OutputError, match="other data or versions"):
        quantize(source, **rounded)
    assert "torch" not in metadata(quantize(source, force=True, evaluate=False).output).versions


def test_a_file_that_nobody_looked_at_says_so_and_is_made_again_to_be_looked_at(quantize, data, monkeypatch):
    from onnxptq import api

    looked = []
    real = api.verify_int8
    monkeypatch.setattr(api, "verify_int8", lambda *given, **more: looked.append(given) or real(*given, **more))
    unseen = quantize(data(), evaluate=False, verify=False)
    assert not looked
    assert not metadata(unseen.output).verified
    assert load_model(unseen.output).metadata["onnxptq.verified"] == "no (--no-verify)"
    assert quantize(data(), evaluate=False, verify=False).reused
    seen = quantize(data(), evaluate=False)
    assert not seen.reused
    assert len(looked) == 1
    assert metadata(seen.output).verified
    assert "onnxptq.verified" not in load_model(seen.output).metadata
    assert quantize(data(), evaluate=False, verify=False).reused  # It is better than what was asked for.


def test_a_file_of_no_use_is_not_written(quantize, data, tmp_path, monkeypatch):
    from onnxptq import int8_file
    from onnxptq.errors import WrittenFileError

    real = int8_file.write_with_provenance

    def write(quantized, provenance, output):
        proto = onnx.load(quantized)
        for node in proto.graph.node:
            node.domain = "com.acme"
        onnx.save(proto, quantized)
        real(quantized, provenance, output)

    monkeypatch.setattr(int8_file, "write_with_provenance", write)
    with pytest.raises(WrittenFileError, match=r"int8\.onnx was made and is of no use.*FP32 model is not at fault"):
        quantize(data(), evaluate=False)
    assert not (tmp_path / "int8.onnx").exists()


def test_a_recipe_makes_what_its_options_make_whatever_it_calls_the_set(quantize, data, tmp_path):
    source = data()
    options = quantize(source, calib="tensor_noise@3", method="percentile:percentile=99", target="cuda")
    path = tmp_path / "r.toml"
    path.write_text(options.recipe.to_toml().replace("tensor_noise@3", "clean+tensor_noise"))
    result = quantize(source, recipe=Recipe.read(path))
    assert result.reused
    assert result.recipe == options.recipe


def test_float_outputs_and_excluded_nodes_reach_the_file(quantize, data):
    source = data()
    recipe = Recipe(float_outputs=True, float_nodes=("body",), ranges=Step("mse"))
    graph = onnx.load(quantize(source, recipe=recipe).output).graph
    producers = {name: node for node in graph.node for name in node.output}
    assert producers["logits"].op_type == "Gemm"
    body = next(node for node in graph.node if node.name == "body")
    assert body.input[1] not in producers  # Its weight is no output of a DequantizeLinear.
    with pytest.raises(UsageError, match=r"no node 'boddy' after folding.*'body'"):
        quantize(source, exclude=["boddy"])


def test_without_labels_the_report_is_agreement(quantize, data):
    result = quantize(data(labels=False), options=DataOptions(head="classification"))
    assert result.report.measure == "agreement"
    assert result.report.fp32_average == 1.0


def test_without_labels_or_a_head_outputs_are_compared_as_they_are(quantize, data):
    result = quantize(data(labels=False))
    assert (result.report.measure, result.report.judged) == ("fidelity", ("logits",))
    assert 0.8 < result.report.int8_average < 1.0
    assert any("choose a head with --head" in warning for warning in result.warnings)


def test_groups_and_corruptions_are_as_asked(quantize, data):
    report = quantize(data(), groups=["corruption"], corruptions=["scale@2"]).report
    assert {group.name for group in report.groups} == {"corruption=clean", "corruption=scale@2"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"calib": "claen"}, UsageError, "unknown calibration set 'claen'.*'clean'"),
        ({"method": "minmx"}, UsageError, "unknown method 'minmx'.*'minmax'"),
        ({"target": "cud"}, UsageError, "unknown target 'cud'.*'cuda'"),
        ({"engine": "stok"}, UsageError, "unknown engine 'stok'.*'stock'"),
        ({"groups": ["labl"]}, UsageError, "unknown group column 'labl'.*'label'"),
        ({"corruptions": ["fgo"]}, UsageError, "unknown shift 'fgo'.*'fog'"),
        ({"calib": "dark@3"}, UsageError, "does not fit the model's input: dark is for image samples"),
        ({"calib_size": 0}, UsageError, "--calib-size must be at least 1"),
        ({"calib_size": 10_000}, DataError, "--calib-size 10000 is more than"),
        ({"seed": -1}, UsageError, "seed must be a whole number of 0 or more"),
        ({"provider": "cpuu"}, UsageError, "unknown .*'cpuu'.*'cpu'"),
        ({"parameters": {"percentile": 99.0}}, UsageError, "'minmax' has no parameter 'percentile'"),
        ({"options": DataOptions(calib_data="x")}, UsageError, "either --data, or --calib-data and --eval-data"),
        ({"output": "no/such/folder/x.onnx"}, OutputError, "there is no folder"),
    ],
)
def test_wrong_use_is_explained_and_nothing_is_written(quantize, data, tmp_path, options, error, message):
    source = data()
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(error, match=message):
        quantize(source, **options)
    assert {path.name for path in tmp_path.iterdir()} == before


def test_data_must_be_named_once_and_completely(quantize, data):
    source = data()
    for options, message in (
        (DataOptions(), "calibrating needs data: give --data SOURCE"),
        (DataOptions(eval_data=source), "--eval-data was given without --calib-data"),
        (DataOptions(calib_data=source), "--calib-data was given without --eval-data"),
    ):
        with pytest.raises(UsageError, match=message):
            quantize(options=options)


def test_data_of_another_shape_is_refused_with_both_shapes(quantize, tmp_path):
    x = np.random.default_rng(0).random((40, 7), np.float32)
    np.savez(tmp_path / "wide.npz", x=x, label=np.arange(40) % 4)
    with pytest.raises(DataError, match=r"\(7,\).*\(6\)"):
        quantize(str(tmp_path / "wide.npz"))


def test_a_quantized_model_is_refused_and_evaluated_against_its_source_beside_it(quantize, data, tmp_path, model):
    source = data()
    int8 = quantize(source).output
    with pytest.raises(ModelError, match="is quantized already"):
        onnxptq.quantize(int8, data=source)
    (report,) = onnxptq.evaluate([int8], data=source).reports
    assert report.reference == "net.onnx"
    model.rename(tmp_path / "elsewhere.onnx")
    with pytest.raises(UsageError, match=r"was made from net\.onnx, which is not beside it.*--reference"):
        onnxptq.evaluate([int8], data=source)
    (report,) = onnxptq.evaluate([int8], data=source, reference=tmp_path / "elsewhere.onnx").reports
    assert report.reference == "elsewhere.onnx"


def test_a_reference_of_another_shape_is_refused(quantize, data, save_classifier, tmp_path):
    source = data()
    int8 = quantize(source).output
    wide = onnx.load(save_classifier("wide.onnx"))
    wide.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7
    wide.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.zeros((7, 8), np.float32), "w1"))
    onnx.save(wide, tmp_path / "wide.onnx")
    with pytest.raises(UsageError, match=r"has the inputs x \(N, 6\), the reference .* has x \(N, 7\)"):
        onnxptq.evaluate([int8], data=source, reference=tmp_path / "wide.onnx")
    # One that fixes its batch is the same model still.
    fixed = save_classifier("fixed.onnx", batch=4)
    assert onnxptq.evaluate([int8], data=source, reference=fixed).reports[0].reference == "fixed.onnx"


def test_evaluating_needs_models_and_data(model):
    with pytest.raises(UsageError, match="at least one model"):
        onnxptq.evaluate([])
    with pytest.raises(UsageError, match="evaluating needs data"):
        onnxptq.evaluate([model])


def test_a_split_by_name_is_judged_and_a_calibrated_one_is_noted(quantize, tmp_path):
    pytest.importorskip("pyarrow")
    rng = np.random.default_rng(0)
    folder = tmp_path / "splits"
    folder.mkdir()
    for name in ("train", "test"):
        rows = [{"x": rng.standard_normal(6).tolist(), "label": i % 4} for i in range(60)]
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    int8 = quantize(str(folder)).output
    assert metadata(int8).data["split"]["calibration"] == "train"
    result = onnxptq.evaluate([int8], data=str(folder), corruptions=[])
    assert not any("calibrated a model" in warning for warning in result.warnings)
    result = onnxptq.evaluate([int8], data=str(folder), corruptions=[], options=DataOptions(split="train"))
    assert any("[train] calibrated a model that is judged on it" in warning for warning in result.warnings)
    with pytest.raises(UsageError, match="has no split 'tran'; it has"):
        onnxptq.evaluate([int8], data=str(folder), options=DataOptions(split="tran"))


def test_a_provider_that_does_not_load_is_refused_or_named_when_it_falls_back(quantize, data):
    from onnxptq.runtimes import probe

    if probe("tensorrt").loads:
        pytest.skip("TensorRT loads here")
    source = data()
    with pytest.raises(RuntimeUnavailableError, match="--allow-fallback permits"):
        quantize(source, provider="tensorrt")
    result = quantize(source, provider="tensorrt", allow_fallback=True)
    assert result.report.provider == "cpu"
    (note,) = [warning for warning in result.warnings if "int8.onnx was judged on cpu: " in warning]
    assert "tensorrt" in note
    assert "--allow-fallback" not in note, "it was given"


def test_entropy_with_one_candidate_is_warned_about_and_a_search_is_not(quantize, data):
    source = data()
    for method, warned in (("entropy", True), ("entropy:bins=128", True), ("entropy:bins=2048", False), ("mse", False)):
        warnings = quantize(source, method=method, evaluate=False, force=True).warnings
        assert any("--entropy-bins 2048" in warning for warning in warnings) == warned


def test_progress_reaches_its_total_in_both_stages(quantize, data):
    seen = {}
    quantize(
        data(), calib_size=20, progress=lambda stage, done, total: seen.setdefault(stage, []).append((done, total))
    )
    assert list(seen) == ["calibrating", "evaluating"]
    assert seen["calibrating"][-1] == (20, 20)
    done, total = seen["evaluating"][-1]
    assert done == total > 100


def test_drawing_gives_the_samples_that_quantize_draws(quantize, data, model):
    source = data()
    samples = onnxptq.draw_calibration(model, data=source, calib="hard", size=10, seed=4)
    result = quantize(source, calib="hard", calib_size=10, seed=4, evaluate=False)
    assert metadata(result.output).calibration == samples.described


def test_hard_asks_the_fp32_model_itself(data, model):
    source = data()
    hard, easy = (onnxptq.draw_calibration(model, data=source, calib=name, size=10) for name in ("hard", "easy"))
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def margins(samples):
        top = np.sort(np.concatenate([session.run(None, feeds)[0] for _, feeds in samples]), axis=1)
        return top[:, -1] - top[:, -2]

    assert margins(hard).max() < margins(easy).min()
    np.testing.assert_allclose(margins(hard), np.sort(margins(hard)), atol=1e-6)


@pytest.mark.parametrize(("text", "expected"), [("32x24", [32, 24]), ("224", [224, 224]), ("8X8", [8, 8])])
def test_a_size_is_height_by_width(text, expected):
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "x", "0x8", "8x8x8", "-8", "8.5", "²x²", "axb"])
def test_what_is_no_size_is_explained(text):
    with pytest.raises(UsageError, match="--size must be HEIGHTxWIDTH"):
        parse_size(text)


def test_numbers_and_preprocessing_are_read_or_explained(tmp_path):
    assert parse_numbers("--mean", "0.5, 1,2e-1") == [0.5, 1.0, 0.2]
    with pytest.raises(UsageError, match=r"--mean must be numbers separated by commas.*got 'a,b'"):
        parse_numbers("--mean", "a,b")
    (tmp_path / "p.json").write_text('{"size": [8, 8]}')
    assert read_preprocessing(str(tmp_path / "p.json")) == {"size": [8, 8]}
    for content in ("[]", "{", "\xff"):
        (tmp_path / "p.json").write_bytes(content.encode("latin-1"))
        with pytest.raises(DataError, match=r"p\.json"):
            read_preprocessing(str(tmp_path / "p.json"))


def test_options_are_not_changed_by_a_call(quantize, data):
    options = DataOptions()
    quantize(data(), options=options)
    assert options == replace(options) == DataOptions()


@pytest.mark.parametrize(("alias", "meant"), [("shifted", "column_shift@3"), ("noisy", "tensor_noise@3")])
def test_an_alias_is_the_shift_that_fits_the_model_in_every_command(quantize, model, data, alias, meant):
    source = data()
    made = quantize(source, calib=alias, evaluate=False)
    assert metadata(made.output).recipe.calibration == made.recipe.calibration == meant
    drawn = onnxptq.draw_calibration(model, data=str(source), calib=alias)
    assert drawn.digest == onnxptq.draw_calibration(model, data=str(source), calib=meant).digest
    assert (
        onnxptq.calibrate(model, data=str(source), calib=alias).provenance["recipe"]
        == onnxptq.calibrate(model, data=str(source), calib=meant).provenance["recipe"]
    )
