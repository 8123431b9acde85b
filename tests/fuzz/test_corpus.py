"""What was found so far, each a few bytes or made in code: it was a crash, a hang, or a bug of ours, and is an error."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from onnxptq.calibrators.statistics import CalibrationStatistics
from onnxptq.data import open_source
from onnxptq.errors import DataError, OnnxptqError
from onnxptq.evaluation import load_predictions
from onnxptq.quantization.canonical import canonical
from onnxptq.recipe import Recipe
from onnxptq.tasks.tokenizers import read_tokenizer

TABLES = {
    "bare values crash Arrow's reader of JSON": ("d.json", b"null\ntrue\n1\n"),
    "a number alone": ("d.jsonl", b"1"),
    "brackets without end": ("d.json", b"[" * 5000),
    "a name with a zero character": ("d.csv", b"image,label\na\\0b.png,0\n"),
    "a label that is infinite": ("d.jsonl", b'{"x": [1.0], "label": 1e999}\n'),
    "a first line longer than the reader of CSV takes": ("d.csv", b'"' + b"a" * 200_000 + b"\n"),
    "nothing but the magic of Parquet": ("d.parquet", b"PAR1"),
    "a zip that ends at once": ("d.npz", b"PK\x05\x06" + bytes(18)),
}


@pytest.mark.parametrize("name", TABLES)
def test_data(name: str, tmp_path: Path) -> None:
    file, data = TABLES[name]
    (tmp_path / file).write_bytes(data)
    with pytest.raises(OnnxptqError):
        source = open_source(str(tmp_path / file), cache=tmp_path / "cache")
        for dataset in source.splits.values():
            dataset.read(np.arange(len(dataset)))


RECIPES = (
    {"ranges": {"name": "percentile", "percentile": "a/b"}},
    {"ranges": {"name": "percentile", "percentile": True}},
    {"ranges": {"name": "entropy", "bins": 2.5}},
    {"ranges": {"name": "mse", "bins": "x"}},
    {"environments": [{"shifts": 3}]},
    {"calibration": ["clean"]},
    {"seed": 2**70, "size": 0},
)


@pytest.mark.parametrize("values", RECIPES, ids=json.dumps)
def test_recipes(values: dict[str, object]) -> None:
    with pytest.raises(OnnxptqError):
        canonical(Recipe.from_dict(values))


@pytest.mark.parametrize(
    "header", [b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2)", b"(" * 3000, b"\xff\xfe", b"{'descr': }"]
)
def test_statistics_whose_array_has_a_broken_header(header: bytes, tmp_path: Path) -> None:
    path, buffer = tmp_path / "s.stats", io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("header.json", "{}")
        for name in ("extremes", "bins", "counts"):
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    path.write_bytes(buffer.getvalue())
    with pytest.raises(OnnxptqError, match=r"s\.stats"):
        CalibrationStatistics.load(path)


TOKENIZERS = {
    "a panic in Rust": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////"}},
    "a pre-tokenizer that there is not": {"pre_tokenizer": {"type": "\r\nfoo"}},
    "a post-processor that is a text": {"post_processor": "label"},
    "a vocabulary of texts": {"model": {"type": "WordLevel", "vocab": {"a": "b"}, "unk_token": "a"}},
    "an unknown token that is not there": {"model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "<unk>"}},
    "padding that is a list": {"padding": [1]},
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokenizers(name: str) -> None:
    pytest.importorskip("tokenizers")
    content = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
        "post_processor": None, "decoder": None, "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"},
    }  # fmt: skip
    assert read_tokenizer({"kind": "tokenizer.json", "content": content}).encode("a b", 4)
    with pytest.raises(OnnxptqError):
        read_tokenizer({"kind": "tokenizer.json", "content": {**content, **TOKENIZERS[name]}})


HEADERS = (
    {"schema_version": 1, "runs": []},
    {"schema_version": 1, "runs": [{}]},
    {"schema_version": 1, "runs": [None]},
    {"schema_version": 1, "runs": {}},
    {"schema_version": 1, "runs": [{"model": {"name": 5}, "runtime": {"provider": "cpu"}}]},
    {"schema_version": 1, "runs": [{"model": {"name": "m"}, "runtime": "cpu"}]},
    {"runs": 3},
    [],
)


@pytest.mark.parametrize("header", HEADERS, ids=json.dumps)
def test_predictions(header: object, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"run": pa.array([], pa.int32())})
    pq.write_table(table.replace_schema_metadata({b"onnxptq.predictions": json.dumps(header)}), tmp_path / "p.parquet")
    with pytest.raises(DataError):
        load_predictions(tmp_path / "p.parquet")
