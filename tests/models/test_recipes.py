"""Recipes that train: what they need of their data, and what they write, without training where PyTorch is missing."""

from __future__ import annotations

import io
import json

import numpy as np
import onnx
import pytest

from onnxptq.errors import DataError
from onnxptq.models.recipes import sequence, speech, table


def recordings(folder, digits=(0, 1), speakers=("ann", "bob"), numbers=(0, 7)):
    import soundfile

    folder.mkdir()
    for digit in digits:
        for speaker in speakers:
            for number in numbers:
                sound = 0.4 * np.sin(np.arange(4000) * (0.05 + 0.1 * digit)) + 0.01 * number
                buffer = io.BytesIO()
                soundfile.write(buffer, sound, 8000, format="WAV")
                (folder / f"{digit}_{speaker}_{number}.wav").write_bytes(buffer.getvalue())
    return folder


def test_recordings_are_parted_by_their_numbers(tmp_path):
    train, held = speech.split_recordings(str(recordings(tmp_path / "r")))
    assert [(label, speaker) for _, label, speaker in held] == [(label, speaker) for _, label, speaker in train]
    assert {file.name for file, _, _ in held} == {f"{d}_{s}_0.wav" for d in (0, 1) for s in ("ann", "bob")}
    features, labels = speech.load_features(train)
    assert features.shape == (4, 1, 40, 61) and labels.tolist() == [0, 0, 1, 1]


@pytest.mark.parametrize("name", ["zero_ann_1.wav", "11_ann_1.wav", "1_ann.wav"])
def test_recordings_of_other_names_are_refused(name, tmp_path):
    folder = recordings(tmp_path / "r")
    (folder / name).write_bytes(b"")
    with pytest.raises(DataError, match="DIGIT_SPEAKER_NUMBER"):
        speech.split_recordings(str(folder))
    with pytest.raises(DataError, match=r"no \.wav file"):
        speech.split_recordings(str(tmp_path))


def test_the_net_of_digits_is_a_task_by_itself(tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'onnxptq[train]'")
    pytest.importorskip("onnxscript")
    folder = recordings(tmp_path / "r")
    speech.write_model(str(folder), folder / "digits.onnx", epochs=1)
    assert (folder / "digits.held.csv").read_text().splitlines()[:2] == ["path,label,speaker", "0_ann_0.wav,zero,ann"]
    carried = {entry.key: entry.value for entry in onnx.load(folder / "digits.onnx").metadata_props}
    assert carried["onnxptq.task"] == "audio-classification"
    assert json.loads(carried["onnxptq.preprocessing"])["sample_rate"] == 8000


def compas(path, count=60):
    rng = np.random.default_rng(0)
    lines = [",".join((*table.COLUMNS, "race", table.LABEL))]
    for i in range(count):
        numbers = ",".join(str(int(v)) for v in rng.integers(0, 60, len(table.NUMBERS)))
        lines.append(f"{numbers},{'FM'[i % 2]},{('Male', 'Female')[i % 3 > 0]},{'ab'[i % 2]},{int(rng.integers(2))}")
    path.write_text("\n".join(lines) + "\n")
    return path


def test_rows_are_parted_by_their_content_and_the_file_reads_them(tmp_path, run_here):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'onnxptq[train]'")
    pytest.importorskip("onnxscript")
    table.write_model(str(compas(tmp_path / "compas.csv")), tmp_path / "net.onnx", epochs=1)
    train, held = ((tmp_path / f"net.{side}.csv").read_text().splitlines() for side in ("train", "held"))
    assert len(train) + len(held) == 62 and not set(train[1:]) & set(held[1:])
    words = (
        "quantize net.onnx --calib-data net.train.csv --eval-data net.held.csv --group race --calib-size 10 -o q.onnx"
    )
    done = run_here(words.split(), tmp_path, {})
    assert done.returncode == 0, done.stderr


def test_a_table_without_a_column_is_refused(tmp_path):
    (tmp_path / "t.csv").write_text("age,two_year_recid\n1,0\n")
    with pytest.raises(DataError, match="lacks the columns"):
        table.read_table(str(tmp_path / "t.csv"))


def test_words_are_drawn_alike_and_never_into_both_folders(tmp_path, monkeypatch):
    monkeypatch.setattr(sequence, "FOLDERS", {"train": 30, "held": 10})
    assert sequence.write_words(tmp_path) == 40
    pictures, texts = sequence.load_words(str(tmp_path / "train"))
    assert pictures.shape == (30, sequence.HEIGHT, sequence.WIDTH, 3)
    assert not set(texts) & set(sequence.load_words(str(tmp_path / "held"))[1])
    assert all(2 <= len(text) <= sequence.LONGEST for text in texts)
    # There is ink on every paper.
    assert all(picture.max() - picture.min() > 60 for picture in pictures.astype(int))


@pytest.mark.parametrize(
    ("content", "message"),
    [("path,text\n", "has no rows"), ("path,text\na.png,Zürich\n", "line 2: the text is 'Zürich'; expected letters")],
)
def test_words_of_other_letters_are_refused(content, message, tmp_path):
    with pytest.raises(DataError, match=r"has no words\.csv"):
        sequence.load_words(str(tmp_path))
    (tmp_path / "words.csv").write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        sequence.load_words(str(tmp_path))


def test_the_net_that_reads_words_is_a_task_by_itself(tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'onnxptq[train]'")
    pytest.importorskip("onnxscript")
    monkeypatch.setattr(sequence, "FOLDERS", {"train": 16, "held": 8})
    sequence.write_words(tmp_path)
    sequence.write_model(str(tmp_path / "train"), tmp_path / "words.onnx", epochs=1)
    carried = {entry.key: entry.value for entry in onnx.load(tmp_path / "words.onnx").metadata_props}
    assert carried["onnxptq.task"] == "image-sequence"
    assert json.loads(carried["onnxptq.preprocessing"])["vocabulary"][1:] == list(sequence.ALPHABET)
