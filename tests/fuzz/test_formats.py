"""Every format that is read: whatever an input holds, it is taken or refused with a reason, and nothing crashes or hangs.

Together with `test_fuzz.py` ten thousand inputs and more under the marker `fuzz`, a few by default. Inputs run in a child that
was forked, so that a crash is the outcome of one of them. What was found so far stands in `test_corpus.py` and always runs.
"""

from __future__ import annotations

import io
import json
import sqlite3
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _forked import outcomes
from _mutations import columns, deep, mutate, mutate_json, npz

from onnxptq.cache import Cache
from onnxptq.calibrators.histogram import Accumulator
from onnxptq.calibrators.statistics import CalibrationStatistics, TensorStatistics
from onnxptq.data import DecodeError, decode_picture, decode_sound, open_source
from onnxptq.errors import DataError
from onnxptq.evaluation import load_predictions, save_predictions
from onnxptq.gates.baseline import load_baseline
from onnxptq.gates.policy_file import parse_policy
from onnxptq.gates.rejudge import read_evidence
from onnxptq.graphs import load_model, read_provenance
from onnxptq.inputs import DataOptions, build_task
from onnxptq.quantization.canonical import canonical
from onnxptq.recipe import Recipe
from onnxptq.sweeps.plan import parse_plan, plan_from_dict
from onnxptq.sweeps.store import Store
from onnxptq.sweeps.study import Cell, CellKey, Study
from onnxptq.tasks.tokenizers import read_tokenizer

pytestmark = pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="inputs run in a forked child")


def cases(few: int, many: int) -> Callable[[Any], Any]:
    """How many cases a test runs, by default and under the marker `fuzz`."""

    def mark(function: Any) -> Any:
        function.cases = (few, many)
        return function

    return mark


def generators(seed: int, count: int) -> list[np.random.Generator]:
    return [np.random.default_rng([seed, number]) for number in range(count)]


def written(path: Path, call: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Calls with a file that holds the input."""

    def run(data: bytes) -> object:
        path.write_bytes(data)
        return call(path)

    return run


def read_all(path: Path) -> None:
    """All that is read of a source."""
    source = open_source(str(path), cache=path.parent / "cache")
    for dataset in source.splits.values():
        dataset.read(np.arange(len(dataset)))


SPECIFICATION = {
    "task": "tensor-classification", "shape": {"x": [None, 6]}, "output": "logits", "scores": "logits",
    "classes": ["a", "b", "c", "d"], "size": [8, 8], "mean": [0.5], "std": [0.25], "scale": 1.0, "resize": "none",
    "resize_to": [8, 8], "layout": "NCHW", "color": "RGB", "interpolation": "bilinear", "max_length": 8,
    "tokenizer": {"kind": "words", "vocabulary": ["<pad>", "<unk>", "a"], "lowercase": True},
    "sample_rate": 8000, "length": 800, "front_end": {"kind": "log-mel", "n_fft": 64, "hop": 32, "mels": 6, "high": None},
    "columns": ["a", {"name": "b", "values": {"x": 1}}, {"name": "c", "one_hot": ["y"], "missing": 0}, {"name": "d", "std": 2}],
}  # fmt: skip

RECIPE = Recipe.from_dict(
    {
        "calibration": "imbalanced:ratio=100+dark@3",
        "size": 8,
        "environments": [{"shifts": ""}, {"shifts": "blur@2", "size": 4}],
        "ranges": {"name": "percentile", "percentile": 99.9, "symmetric": True},
        "weight_transforms": [{"name": "equalize"}],
        "bounds": [{"name": "widen", "factor": 1.5}],
        "float_nodes": ["/head/*"],
    }
).to_dict()

TOKENIZER = {
    "kind": "tokenizer.json",
    "pad": "<pad>",
    "content": {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [
            {"id": 0, "content": "<pad>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
        ],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}, {"type": "Replace", "pattern": {"Regex": "a+"}, "content": "a"}]},
        "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "\\s+"}, "behavior": "Removed", "invert": False},
        "post_processor": {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "vocab": {"<pad>": 0, "<unk>": 1, "good": 2, "film": 3}, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    },
}  # fmt: skip


@cases(20, 900)
def test_specifications(save_classifier: Callable[..., Path], cases: int) -> None:
    path = save_classifier()
    model = load_model(path)

    def build(value: Any) -> None:
        path.with_suffix(".json").write_text(json.dumps(value))
        build_task(model, DataOptions())

    tasks = ("tensor", "image", "text", "audio", "table")
    inputs = [
        mutate_json({**SPECIFICATION, "task": f"{tasks[n % len(tasks)]}-classification"}, rng)
        for n, rng in enumerate(generators(20, cases))
    ]
    found = outcomes(build, inputs)
    assert found["refused"]


@cases(20, 900)
def test_recipes(cases: int) -> None:
    found = outcomes(
        lambda value: canonical(Recipe.from_dict(value)), (mutate_json(RECIPE, r) for r in generators(21, cases))
    )
    assert found["refused"]


@cases(10, 400)
def test_recipe_files(tmp_path: Path, cases: int) -> None:
    whole = Recipe.from_dict(RECIPE).to_toml().encode()
    read = written(tmp_path / "r.toml", Recipe.read)
    assert outcomes(read, (mutate(whole, rng) for rng in generators(22, cases)))["refused"]


@cases(10, 500)
def test_plans(cases: int) -> None:
    plan = {
        "format": 1, "title": "t", "models": ["builtin"], "calibrations": ["clean", "dark@3"], "methods": ["minmax", "mse"],
        "targets": ["cpu"], "runtimes": ["cpu"], "seeds": [0, 1], "calib_size": 8, "corruptions": ["fog@3"], "groups": ["label"],
        "reading": {"size": [8, 8], "mean": [0.5], "skip_bad": True, "label_column": "y"},
    }  # fmt: skip
    assert outcomes(lambda value: plan_from_dict(value, "p"), (mutate_json(plan, r) for r in generators(23, cases)))[
        "refused"
    ]
    text = b'format = 1\ntitle = "t"\nmethods = ["minmax", "mse"]\n[reading]\nsize = [8, 8]\n'
    files = (mutate(text, rng).decode(errors="replace") for rng in generators(24, cases // 2))
    assert outcomes(lambda value: parse_plan(value, "p"), files)


@cases(10, 400)
def test_policies_of_damaged_structure(cases: int) -> None:
    lines = [
        "format = 1",
        'group_by = ["label"]',
        "[average_drop]",
        "limit = 0.02",
        "[group_drop]",
        "limit = 0.05",
        "tolerance = 0.03",
    ]

    def text(rng: np.random.Generator) -> str:
        kept = [line for line in lines if rng.random() < 0.9]
        rng.shuffle(kept)
        return mutate("\n".join(kept).encode(), rng).decode(errors="replace")

    assert outcomes(parse_policy, map(text, generators(25, cases)))["refused"]


@cases(20, 1000)
def test_tokenizers(cases: int) -> None:
    pytest.importorskip("tokenizers")

    def use(value: Any) -> None:
        tokenizer = read_tokenizer(value)
        tokenizer.encode("a good FILM\n\u202e\U0001f600", 8)
        assert tokenizer.padding >= 0 and tokenizer.size >= 0
        tokenizer.random_text(np.random.default_rng(0), 3)

    assert outcomes(use, (mutate_json(TOKENIZER, rng) for rng in generators(26, cases)))["refused"]


@cases(20, 700)
def test_arrays(tmp_path: Path, cases: int) -> None:
    found = outcomes(written(tmp_path / "d.npz", read_all), map(npz, generators(27, cases)))
    assert found["refused"] and found["accepted"]


@cases(6, 350)
@pytest.mark.parametrize("kind", ["parquet", "arrow", "jsonl", "csv"])
def test_tables(tmp_path: Path, kind: str, cases: int) -> None:
    inputs = [table_bytes(kind, rng) for rng in generators(28, cases)]
    assert outcomes(written(tmp_path / f"d.{kind}", read_all), inputs)


def table_bytes(kind: str, rng: np.random.Generator) -> bytes:
    """A table of odd columns, every other one damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer, data = io.BytesIO(), columns(rng)
    if kind in ("parquet", "arrow"):
        try:
            table = pa.table(data)
            if kind == "parquet":
                pq.write_table(table, buffer, compression=("none", "snappy", "zstd")[rng.integers(3)])
            else:
                with pa.ipc.new_stream(buffer, table.schema) as writer:
                    writer.write_table(table)
        except (pa.ArrowException, NotImplementedError):
            buffer.write(b"PAR1")
    else:
        rows = [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]
        separator = "," if kind == "csv" else "\n"
        lines = [json.dumps(mutate_json(row, rng) if kind == "jsonl" and row else row, default=str) for row in rows]
        if kind == "csv":
            lines = [separator.join(map(str, data)), *(separator.join(map(str, row.values())) for row in rows)]
        elif rng.random() < 0.3:
            lines.append(("null", "[1]", "1", '"a"', deep("["), "{}", "\\")[rng.integers(7)])
        buffer.write("\n".join(lines).encode(errors="replace"))
    whole = buffer.getvalue()
    return mutate(whole, rng) if rng.random() < 0.5 and whole else whole


@cases(20, 1000)
def test_pictures(cases: int) -> None:
    from PIL import Image

    def decode(data: bytes) -> None:
        try:
            decode_picture(data, size=(8, 8))
        except DecodeError as error:
            raise DataError(error.reason) from error

    wholes = []
    for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"):
        buffer = io.BytesIO()
        Image.effect_noise((16, 16), 50).convert("RGB").save(buffer, form)
        wholes.append(buffer.getvalue())
    inputs = (mutate(wholes[number % len(wholes)], rng) for number, rng in enumerate(generators(29, cases)))
    found = outcomes(decode, inputs)
    assert found["refused"] and found["accepted"]


@cases(20, 1000)
def test_recordings(cases: int) -> None:
    import soundfile

    def decode(data: bytes) -> None:
        try:
            assert np.isfinite(decode_sound(data, 8000).samples).all()
        except DecodeError as error:
            raise DataError(error.reason) from error

    wholes = []
    tone = 0.5 * np.sin(np.arange(600) / 5)
    for form, subtype in (
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("FLAC", "PCM_16"),
        ("OGG", "VORBIS"),
        ("AIFF", "PCM_24"),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.stack([tone, -tone], axis=1), 11025, format=form, subtype=subtype)
        wholes.append(buffer.getvalue())
    inputs = (mutate(wholes[number % len(wholes)], rng) for number, rng in enumerate(generators(35, cases)))
    found = outcomes(decode, inputs)
    assert found["refused"] and found["accepted"]


@cases(10, 500)
def test_statistics(tmp_path: Path, cases: int) -> None:
    import zipfile

    accumulator = Accumulator()
    accumulator.add(np.arange(-3, 9, dtype=np.float32))
    one = TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, *accumulator.sparse())
    path = tmp_path / "s.stats"
    CalibrationStatistics({"": {"t": one, "u": one}}, {"": 3}, {"recipe": "{}"}).save(path)
    with zipfile.ZipFile(path) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}

    def damaged(rng: np.random.Generator) -> bytes:
        chosen, buffer = dict(entries), io.BytesIO()
        if rng.random() < 0.7:
            header = mutate_json(json.loads(chosen["header.json"]), rng)
            chosen["header.json"] = json.dumps(header).encode()
        else:
            name = sorted(chosen)[rng.integers(len(chosen))]
            chosen[name] = mutate(chosen[name], rng)
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, data in chosen.items():
                archive.writestr(name, data)
        return buffer.getvalue()

    def use(path: Path) -> None:
        statistics = CalibrationStatistics.load(path)
        for tensor in statistics.tensors:
            statistics.per_environment(tensor)

    assert outcomes(written(path, use), map(damaged, generators(30, cases)))["refused"]


@cases(10, 400)
def test_predictions_of_damaged_structure(make_predictions: Any, tmp_path: Path, cases: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "p.parquet"
    save_predictions(path, make_predictions())
    whole = pq.read_table(path)
    (key,) = whole.schema.metadata

    def damaged(rng: np.random.Generator) -> bytes:
        table, buffer = whole, io.BytesIO()
        if rng.random() < 0.6:
            header = mutate_json(json.loads(whole.schema.metadata[key]), rng)
            table = table.replace_schema_metadata({key: json.dumps(header).encode()})
        else:
            at = int(rng.integers(table.num_columns))
            name = table.column_names[at]
            odd = [
                pa.nulls(len(table)),
                pa.array(["x"] * len(table)),
                pa.array([1.5] * len(table)),
                pa.array([2**60] * len(table)),
            ]
            table = table.remove_column(at)
            if rng.random() < 0.7:
                table = table.append_column(name, odd[rng.integers(len(odd))])
        pq.write_table(table, buffer)
        return buffer.getvalue()

    def use(path: Path) -> None:
        load_predictions(path)
        read_evidence(path, None, model=None, reference=None, provider=None)

    assert outcomes(written(path, use), map(damaged, generators(31, cases)))["refused"]


@cases(10, 400)
def test_baselines_of_damaged_structure(make_predictions: Any, tmp_path: Path, cases: int) -> None:
    from onnxptq.gates.baseline import make_baseline, save_baseline

    path = tmp_path / "b.json"
    save_baseline(path, make_baseline(*make_predictions()))
    whole = json.loads(path.read_text())
    inputs = (json.dumps(mutate_json(whole, rng)).encode() for rng in generators(32, cases))
    assert outcomes(written(path, load_baseline), inputs)["refused"]


@cases(5, 200)
def test_stores(tmp_path: Path, cases: int) -> None:
    key = CellKey("builtin", "clean", "", "minmax", "cpu", "cpu", 0)
    cell = Cell(key, "done", report={"groups": []}, ranges={"x": (-1.0, 2.0)}, seconds={})
    study = Study("2026-01-02-abcdef", "s", "2026-01-02T00:00:00+00:00", {"format": 1}, (cell,), {}, {}, "cmd")
    with Store(Cache(tmp_path)) as store:
        store.start(study, "digest", ["key"])
        store.put({"key": cell})
        path = store.path
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    connection.close()
    whole = path.read_bytes()

    def use(path: Path) -> None:
        for beside in path.parent.glob("*-*"):
            beside.unlink()
        with Store(Cache(tmp_path), read=True) as store:
            store.runs()
            store.study("last")

    inputs = (mutate(whole, rng) for rng in generators(33, cases))
    assert outcomes(written(path, use), inputs)


@cases(10, 500)
def test_provenance_in_models(int8: Path, tmp_path: Path, cases: int) -> None:
    whole = onnx.load(int8)
    path = tmp_path / "m.onnx"

    def damaged(rng: np.random.Generator) -> bytes:
        proto = onnx.ModelProto()
        proto.CopyFrom(whole)
        entry = proto.metadata_props[rng.integers(len(proto.metadata_props))]
        try:
            entry.value = json.dumps(mutate_json(json.loads(entry.value), rng))
        except ValueError:
            entry.value = str(mutate_json([entry.value], rng))[:2000]
        data: bytes = proto.SerializeToString()
        return data

    def use(path: Path) -> None:
        model = load_model(path)
        read_provenance(model.metadata)
        build_task(model, DataOptions())

    assert outcomes(written(path, use), map(damaged, generators(34, cases)))["refused"]


def test_outcomes_tell_a_crash_a_hang_and_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    import os
    import signal
    import time

    monkeypatch.setattr("_forked.SECONDS", 1)
    assert outcomes(lambda value: None, range(3)) == Counter(accepted=3)
    for bad, says in (
        (lambda value: value and os.kill(os.getpid(), signal.SIGSEGV), "input 1 1: the process ended with -11"),
        (lambda value: value and time.sleep(9), "input 1 1: hung"),
        (lambda value: 1 / (1 - value), "input 1 1: ZeroDivisionError"),
    ):
        with pytest.raises(AssertionError, match=says):
            outcomes(bad, range(3))
