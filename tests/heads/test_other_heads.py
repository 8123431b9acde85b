"""Regression, sequences, tags, several labels and embeddings: scores and totals equal those of known libraries."""

from __future__ import annotations

import numpy as np
import pytest

import onnxptq
from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.heads import HEADS
from onnxptq.heads.embedding import neighbors
from onnxptq.heads.token_classification import entities
from onnxptq.inputs import DataOptions
from onnxptq.reports.terminal import print_report
from onnxptq.signature import Signature, TensorSpec


def head(name, *shapes, dtype="float32", **specification):
    outputs = tuple(TensorSpec(f"out{number}", dtype, shape) for number, shape in enumerate(shapes))
    return HEADS.get(name).build(specification, Signature((TensorSpec("x", "float32", (None, 4)),), outputs))


def totals(name, records):
    return {total.name: total.compute(records) for total in HEADS.get(name).totals}


# Regression.


def test_an_error_of_the_scale_is_worth_nothing():
    regression = head("regression", (None, 2), error_scale=4.0, tolerance=1.0)
    answers = regression.answers([np.array([[1.0, 2.0], [3.0, 2.0], [99.0, 2.0]], np.float32)])
    scores = regression.score(
        answers, {"target": [[1.0, 2.0], [1.0, 2.0], [1.0, 2.0]], "value": [None] * 3, "y": [None] * 3}
    )
    assert scores["1 - error / scale"].tolist() == [1.0, 0.75, 0.0]
    assert scores["within tolerance"].tolist() == [1.0, 0.0, 0.0]
    assert regression.fidelity(answers, answers).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.oracle
def test_regression_totals_equal_scikit_learn_s():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    wanted = rng.normal(size=(50, 2))
    said = (wanted + 0.3 * rng.normal(size=wanted.shape)).astype(np.float32)
    regression = head("regression", (None, 2), error_scale=1.0)
    records = regression.records(
        regression.answers([said]), {"y": list(wanted), "value": [None] * 50, "target": [None] * 50}
    )
    found = totals("regression", records)
    assert found["RMSE"] == pytest.approx(metrics.mean_squared_error(wanted, said) ** 0.5)
    assert found["MAE"] == pytest.approx(metrics.mean_absolute_error(wanted, said))
    assert found["R2"] == pytest.approx(metrics.r2_score(wanted, said))


def test_regression_without_a_scale_is_refused_since_the_data_must_not_give_it():
    with pytest.raises(UsageError, match="error_scale"):
        head("regression", (None, 1))
    with pytest.raises(DataError, match="has 3 numbers a sample"):
        one = head("regression", (None, 1), error_scale=1)
        one.score(one.answers([np.zeros((1, 1))]), {"target": [[1, 2, 3]], "value": [None], "y": [None]})


# Sequences.

LETTERS = ["-", "a", "b", "c", " "]


def ctc(path, size=5):
    """Logits (1, T, V) whose likeliest path this is."""
    return np.eye(size, dtype=np.float32)[np.asarray(path)][None] * 3


def sequence(**keys):
    return head("sequence", (None, None, 5), decoding="ctc", vocabulary=LETTERS, **keys)


def transcripts(*texts):
    nothing = [None] * len(texts)
    return {"transcript": list(texts), "transcription": nothing, "sentence": nothing, "text": nothing}


def test_ctc_merges_repeated_symbols_and_drops_blanks():
    assert sequence().answers([ctc([1, 1, 0, 1, 2, 2, 0, 4, 3])]).texts == ("aab c",)
    assert sequence().answers([ctc([0, 0, 0])]).texts == ("",)
    ended = head("sequence", (None, None, 5), decoding="greedy", vocabulary=LETTERS, end=0)
    assert ended.answers([ctc([1, 1, 2, 0, 3])]).texts == ("aab",)
    numbers = head("sequence", (None, None), decoding="ids", vocabulary=LETTERS, dtype="int64")
    assert numbers.answers([np.array([[1, 2, 3]])]).texts == ("abc",)


def test_error_rates_equal_jiwer_s():
    jiwer = pytest.importorskip("jiwer")
    pytest.importorskip("rapidfuzz")
    rng = np.random.default_rng(0)
    said, true, records = [], [], []
    decoder = sequence()
    for _ in range(40):
        truth = " ".join("".join(rng.choice(list("abc "), 12)).split()) or "a"
        path = rng.integers(0, 5, 20)
        answer = decoder.answers([ctc(path)])
        scores = decoder.score(answer, transcripts(truth))
        assert scores["1 - CER"][0] == pytest.approx(max(0, 1 - jiwer.cer(truth, answer.texts[0])), abs=1e-6)
        assert scores["1 - WER"][0] == pytest.approx(max(0, 1 - jiwer.wer(truth, answer.texts[0])), abs=1e-6)
        records += decoder.records(answer, transcripts(truth))["errors"]
        said.append(answer.texts[0])
        true.append(truth)
    found = totals("sequence", {"errors": records})
    assert found["corpus CER"] == pytest.approx(jiwer.cer(true, said))
    assert found["corpus WER"] == pytest.approx(jiwer.wer(true, said))


def test_equal_texts_have_equal_codes_and_fidelity_is_against_the_reference():
    pytest.importorskip("rapidfuzz")
    decoder = sequence()
    one, same, other = (decoder.answers([ctc(path)]) for path in ([1, 0, 2], [1, 1, 2], [1, 0, 3]))
    assert decoder.code(one) == decoder.code(same) != decoder.code(other)
    assert decoder.fidelity(other, one).tolist() == [0.5]
    assert decoder.group_values(transcripts("abc", None)) == {"text_length": ["1-5", "unknown"]}


# Tags.

TAGS = ["O", "B-PER", "I-PER", "B-LOC"]


def tag_logits(*rows):
    return np.stack([np.eye(4, dtype=np.float32)[list(row)] * 2 for row in rows])


@pytest.mark.oracle
def test_entity_f1_equals_seqeval_s():
    seqeval = pytest.importorskip("seqeval.metrics")
    tagger = head("token-classification", (None, None, 4), classes=TAGS)
    rng = np.random.default_rng(0)
    said, true = rng.integers(0, 4, (30, 8)), rng.integers(0, 4, (30, 8))
    answers = tagger.answers([tag_logits(*said)])
    truth = {name: [None] * 30 for name in tagger.truth_columns()} | {"tags": list(true)}
    named = [[[TAGS[tag] for tag in row] for row in side] for side in (true, said)]
    found = totals("token-classification", tagger.records(answers, truth))
    assert found["entity F1 of all"] == pytest.approx(seqeval.f1_score(*named))
    assert found["token accuracy of all"] == pytest.approx((said == true).mean())
    scores = tagger.score(answers, truth)
    for row in range(30):
        wanted, given = ([side[row]] for side in named)
        if entities(wanted[0]) or entities(given[0]):
            assert scores["entity F1"][row] == pytest.approx(seqeval.f1_score(wanted, given, zero_division=0), abs=1e-6)


def test_tokens_that_count_nowhere_are_left_out():
    tagger = head("token-classification", (None, None, 4), classes=TAGS)
    answers = tagger.answers([tag_logits([1, 2, 0, 3])])
    truth = {name: [None] for name in tagger.truth_columns()} | {"tags": [["B-PER", -100, "O"]]}
    assert tagger.score(answers, truth)["token accuracy"].tolist() == [1.0]
    with pytest.raises(DataError, match="has 5 tags for a sample of 4 tokens"):
        tagger.score(answers, truth | {"tags": [[0] * 5]})
    with pytest.raises(ModelError, match="no output has a class for each token"):
        head("token-classification", (None, 4))


# Several labels.


@pytest.mark.oracle
def test_jaccard_and_macro_f1_equal_scikit_learn_s():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    true, said = rng.random((40, 5)) < 0.4, rng.random((40, 5)) < 0.4
    true[:, 0] |= ~true.any(axis=1)
    labels = head("multilabel", (None, 5))
    answers = labels.answers([np.where(said, 1.5, -2.0).astype(np.float32)])
    truth = {name: [None] * 40 for name in labels.truth_columns()} | {"labels": [np.flatnonzero(one) for one in true]}
    mean = metrics.jaccard_score(true, said, average="samples")
    assert labels.score(answers, truth)["Jaccard"].mean() == pytest.approx(mean, abs=1e-6)
    found = totals("multilabel", labels.records(answers, truth))
    assert found["macro-F1"] == pytest.approx(metrics.f1_score(true, said, average="macro"))


def test_the_true_classes_may_be_names_numbers_or_zeros_and_ones():
    labels = head("multilabel", (None, 3), classes=["cat", "dog", "fox"], scores="probabilities")
    answers = labels.answers([np.array([[0.9, 0.2, 0.7]], np.float32)])
    for value in (["cat", "fox"], [0, 2], [1, 0, 1]):
        truth = {name: [None] for name in labels.truth_columns()} | {"labels": [value]}
        assert labels.score(answers, truth)["Jaccard"].tolist() == [1.0]
    with pytest.raises(DataError, match="'owl', which the model lacks"):
        labels.score(answers, {name: [None] for name in labels.truth_columns()} | {"labels": [["owl"]]})


# Embeddings.


@pytest.mark.oracle
def test_neighbors_equal_scikit_learn_s():
    nearest = pytest.importorskip("sklearn.neighbors").NearestNeighbors
    vectors = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.arange(60)
    expected = nearest(n_neighbors=4, metric="cosine").fit(vectors).kneighbors(vectors, return_distance=False)[:, 1:]
    assert neighbors(vectors, rows, rows, 3).tolist() == expected.tolist()


def test_a_query_is_found_among_the_clean_samples_of_other_sources():
    embedding = head("embedding", (None, 2))
    raw = np.array([[1, 0], [2, 0.1], [0, 1], [0.1, 3], [1, 0.05]], np.float32)
    records = embedding.records(embedding.answers([raw]), {})
    label, clean = np.array([0, 0, 1, 1, 1]), np.array([True, True, True, True, False])
    scores = embedding.whole_set(records, label, np.array([0, 1, 2, 3, 2]), clean)
    assert scores["recall@1"].tolist() == [1, 1, 1, 1, 0]
    assert scores["recall@5"].tolist() == [1, 1, 1, 1, 1]


def test_a_dead_embedding_is_worth_nothing():
    embedding = head("embedding", (None, 2))
    alive, dead = (embedding.answers([value]) for value in (np.eye(2, dtype=np.float32), np.zeros((2, 2), np.float32)))
    assert embedding.fidelity(dead, alive).tolist() == [0, 0]
    assert embedding.fidelity(alive, alive).tolist() == [1, 1]
    found = embedding.whole_set(embedding.records(dead, {}), np.array([0, 0]), np.array([0, 1]), np.array([True, True]))
    assert found["recall@1"].tolist() == [0, 0]


# Through the commands.


def test_a_head_that_is_named_judges_images_that_are_stored_as_the_model_takes_them(save, tmp_path, capsys):
    kernel = np.full((3, 1, 3, 3), 1 / 9, np.float32)
    model = save(
        [("Conv", ["x", "k"], ["y"], {"pads": [1] * 4, "group": 3})],
        [("x", ["N", 3, 8, 8])],
        [("y", ["N", 3, 8, 8])],
        {"k": kernel},
    )
    x = np.random.default_rng(0).random((120, 3, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x, wanted=x)
    options = DataOptions(head="restoration")
    report = onnxptq.quantize(
        model, data=str(tmp_path / "d.npz"), corruptions=["clean"], output=tmp_path / "q.onnx", options=options
    ).report
    assert (report.task, report.measure) == ("tensor-restoration", "PSNR / 50 dB")
    (total,) = report.totals
    assert not total.share
    assert 5 < total.before < 50  # decibels, and shown as such
    print_report(report)
    assert f"PSNR: {total.before:.4g} ->" in capsys.readouterr().out


def test_tokens_that_count_are_counted_for_groups():
    tagger = head("token-classification", (None, 6, 3))
    truths = {"tags": [[0, 1, -100], [1] * 6, None], "ner_tags": [None] * 3, "pos_tags": [None] * 3}
    truths["token_labels"] = [None] * 3
    assert tagger.group_values(truths) == {"tokens": ["1-5", "6-20", "unknown"]}


def test_a_set_of_labels_says_how_many_there_are():
    labels = head("multilabel", (None, 3), classes=["cat", "dog", "fox"])
    assert labels.group_values({"labels": [["cat", "dog"], [0, 1, 0], [], None]}) == {
        "present": ["2-4", "1", "0", "unknown"]
    }
    assert head("multilabel", (None, 5)).group_values({"labels": [[0, 1, 1, 0, 0], [4], None]}) == {
        "present": ["2-4", "1", "unknown"]
    }


@pytest.mark.oracle
def test_verification_is_the_auroc_of_each_query():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(5)
    label, source = rng.integers(0, 4, 60), np.arange(60) // 2
    raw = (np.eye(4)[label] + rng.normal(0, 0.6, (60, 4))).astype(np.float32)
    raw[7] = raw[9]  # Equal cosines.
    embedding = head("embedding", (None, 4))
    vectors = embedding.answers([raw])
    clean = np.arange(60) % 2 == 0
    scores = embedding.whole_set(embedding.records(vectors, {}), label, source, clean)["verification AUROC"]
    for query in range(60):
        others = np.flatnonzero(clean & (source != source[query]))
        wanted = metrics.roc_auc_score(label[others] == label[query], vectors[others] @ vectors[query])
        assert scores[query] == pytest.approx(wanted, abs=1e-5)


def test_verification_needs_pairs_and_a_label():
    embedding = head("embedding", (None, 2))
    records = embedding.records(embedding.answers([np.eye(2, dtype=np.float32)[[0, 0, 1, 1]]]), {})
    clean, source = np.ones(4, bool), np.arange(4)
    found = embedding.whole_set(records, np.array([0, 0, 1, -1]), source, clean)["verification AUROC"]
    assert found[:2].tolist() == [1, 1]
    assert np.isnan(found[2:]).all()  # Alone of its label; without a label.
