"""The recipe of the text model makes a model that runs, and says what it needs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from onnxptq.errors import EXIT_BAD_INPUT, DataError
from onnxptq.models._training import TRAINING
from onnxptq.models.sst2 import train as recipe

SENTENCES = recipe.Sentences(("good good film", "bad film", "good fun", "bad , bad bad idea") * 8, (1, 0, 1, 0) * 8)


def test_the_tokenizer_knows_the_words_that_occur_more_than_once() -> None:
    tokenizer = recipe.build_tokenizer(["a film a", "A film once"])
    assert tokenizer.vocabulary == ("<pad>", "<unk>", "<cls>", "a", "film")
    assert tokenizer.encode("a rare film", 64) == [2, 3, 1, 4]


@pytest.mark.parametrize("header", ["", "sentence\tlabel\n"], ids=["without a header", "with a header"])
def test_sentences_are_read_with_their_labels(tmp_path: Path, header: str) -> None:
    from onnxptq.cache import Cache

    (tmp_path / "train.tsv").write_text(f"{header}good film\t1\nbad film\t0\n")
    assert recipe.load_sentences(str(tmp_path / "train.tsv"), Cache(tmp_path / "room")) == recipe.Sentences(
        ("good film", "bad film"), (1, 0)
    )
    (tmp_path / "other.tsv").write_text("text\tlabel\ngood film\tfine\nbad film\tpoor\n")
    with pytest.raises(DataError, match="has the labels fine, poor; expected 0"):
        recipe.load_sentences(str(tmp_path / "other.tsv"), Cache(tmp_path / "room"))


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    assert recipe.main(["--data", str(tmp_path / "no.tsv"), "-o", str(tmp_path / "made.onnx")]) == EXIT_BAD_INPUT
    message = capsys.readouterr().err
    assert "onnxscript" in message
    assert "pip install '.[train]'" in message


def test_what_is_exported_computes_what_was_trained(tmp_path: Path) -> None:
    for module, package in TRAINING.items():
        pytest.importorskip(module, reason=f"{package} (extra `train`) is not installed")
    import onnx
    import onnxruntime
    import torch

    tokenizer = recipe.build_tokenizer(SENTENCES.texts)
    network = recipe.train_network(SENTENCES, tokenizer, epochs=3)
    recipe.export_network(network, tokenizer, tmp_path / "text.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "text.onnx", providers=["CPUExecutionProvider"])
    ids = np.array([[2, 3, 4, 5, 1], [2, 6, 0, 0, 0], [2, 5, 3, 0, 0]])
    feeds = {"input_ids": ids, "attention_mask": (ids != 0).astype(np.int64)}
    (logits,) = session.run(None, feeds)
    with torch.no_grad():
        expected = network(*(torch.from_numpy(array) for array in feeds.values())).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)
    assert len(np.unique(logits[:, 0])) == 3
    # What the mask hides does not count.
    shorter = {name: array[1:2, :2] for name, array in feeds.items()}
    np.testing.assert_allclose(session.run(None, shorter)[0], logits[1:2], rtol=0, atol=1e-5)
    metadata = {entry.key: entry.value for entry in onnx.load(tmp_path / "text.onnx").metadata_props}
    assert metadata["onnxptq.task"] == "text-classification"
    assert json.loads(metadata["onnxptq.preprocessing"])["tokenizer"]["vocabulary"] == list(tokenizer.vocabulary)
