"""Text: sentences become the numbers that the model's own tokenizer gives them, without padding unless asked for."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxptq.data import Dataset
from onnxptq.data.shifts import SHIFTS, apply_shift
from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.tasks import Signature, Task, TensorSpec, add_groups, find_specification, make_task
from onnxptq.tasks.tokenizers import read_tokenizer

WORDS = {"kind": "words", "vocabulary": ["<pad>", "<unk>", "good", "bad", "film"]}
IDS, MASK, TYPES = (
    TensorSpec(name, "int64", (None, None)) for name in ("input_ids", "attention_mask", "token_type_ids")
)
OUTPUT = TensorSpec("y", "float32", (None, 2))


def build(specification: dict[str, Any], made: Signature) -> Task:
    return make_task("text-classification", specification, made)


def task(*inputs: TensorSpec, tokenizer: Any = WORDS, **specification: Any) -> Task:
    return build({"tokenizer": tokenizer, **specification}, Signature(inputs or (IDS, MASK), (OUTPUT,)))


def row(text: Any, name: str = "row 0") -> dict[str, Any]:
    return {"_name": name, "sentence": text}


def ids(made: Task, *texts: str) -> list[list[int]]:
    return made.feeds(texts)["input_ids"].tolist()


def test_words_are_looked_up_and_unknown_ones_share_a_token() -> None:
    assert ids(task(), "good  film", "Good film") == [[2, 4], [1, 4]]
    assert ids(task(tokenizer={**WORDS, "lowercase": True}), "GOOD film") == [[2, 4]]


def test_short_texts_are_padded_and_masked_in_every_input_of_the_model() -> None:
    feeds = task(IDS, MASK, TYPES).feeds(("good film", "bad"))
    assert feeds["input_ids"].tolist() == [[2, 4], [3, 0]]
    assert feeds["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert feeds["token_type_ids"].tolist() == [[0, 0], [0, 0]]
    assert {array.dtype for array in feeds.values()} == {np.dtype(np.int64)}


def test_texts_of_equal_length_run_together_without_padding() -> None:
    groups = list(task().feed_groups(("good film", "bad", "bad film")))
    assert [positions.tolist() for positions, _ in groups] == [[1], [0, 2]]
    assert [feeds["input_ids"].tolist() for _, feeds in groups] == [[[3]], [[2, 4], [3, 4]]]
    assert all(feeds["attention_mask"].all() for _, feeds in groups)


def test_a_length_pads_every_text_to_it_and_cuts_longer_ones() -> None:
    for made in (task(length=3), task(TensorSpec("input_ids", "int64", (None, 3)))):
        ((positions, feeds),) = made.feed_groups(("bad", "good bad good bad"))
        assert positions.tolist() == [0, 1]
        assert feeds["input_ids"].tolist() == [[3, 0, 0], [2, 3, 2]]


def test_start_and_end_survive_the_cut() -> None:
    vocabulary = [*WORDS["vocabulary"], "<s>", "</s>"]
    made = task(tokenizer={**WORDS, "vocabulary": vocabulary, "start": "<s>", "end": "</s>"}, max_length=4)
    assert ids(made, "good bad film") == [[5, 2, 3, 6]]


def test_the_models_integer_type_is_fed() -> None:
    made = task(TensorSpec("tokens", "int32", (None, None)))
    assert made.feeds(("good",))["tokens"].dtype == np.int32


def test_the_specification_rebuilds_the_task() -> None:
    made = task(IDS, MASK, TYPES, max_length=9, classes=["bad", "good"], scores="probabilities")
    again = make_task(
        "text-classification", json.loads(json.dumps(made.specification)), Signature((IDS, MASK, TYPES), (OUTPUT,))
    )
    assert again == made
    assert again.classes == ("bad", "good")


def test_noise_is_words_of_the_vocabulary_and_repeats_with_its_seed() -> None:
    made = task()
    noise = made.noise(20, 7)
    assert noise == made.noise(20, 7) != made.noise(20, 8)
    assert {word for text in noise for word in text.split()} == {"good", "bad", "film"}


def test_bounds_hold_whatever_is_fed() -> None:
    made = task(IDS, MASK, TYPES)
    bounds = made.input_bounds()
    assert bounds == {"input_ids": (0, 4), "attention_mask": (0, 1), "token_type_ids": (0, 0)}


def test_shifts_of_other_samples_and_those_without_effect_do_not_fit() -> None:
    assert "for text there are typos, drop_words" in str(task().fits("dark@3"))
    assert task().fits("casing") is None
    lowercase = task(tokenizer={**WORDS, "lowercase": True})
    assert "makes all letters small" in str(lowercase.fits("casing@5"))
    assert "casing@3" in set(task().evaluation_shifts()) & set(task().augmentations())
    assert "casing@3" not in {*lowercase.evaluation_shifts(), *lowercase.augmentations()}


@pytest.mark.parametrize(
    ("text", "length", "negation"),
    [
        ("good " * 10, "short", "no"),
        ("good " * 11, "medium", "no"),
        ("good " * 21, "long", "no"),
        ("it does n't work", "short", "yes"),
        ("Don’t.", "short", "yes"),
        ("NEVER again", "short", "yes"),
        ("a notable nobleman", "short", "no"),
    ],
)
def test_a_text_says_its_groups(text: str, length: str, negation: str) -> None:
    assert task().group_values([row(text)]) == {"length": [length], "negation": [negation]}


def test_groups_join_those_of_the_data_and_never_replace_them() -> None:
    dataset = Dataset(
        source="texts",
        split=None,
        rows=lambda indices: [row("not good") for _ in indices],
        indices=np.arange(2),
        labels=None,
        label_names=(),
        attributes={"length": np.array(["mine", "mine"])},
        fingerprints=np.array(["a", "b"]),
    )
    attributes = add_groups(dataset, task()).attributes
    assert {name: values.tolist() for name, values in attributes.items()} == {
        "length": ["mine", "mine"],
        "negation": ["yes", "yes"],
    }


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(" "), "row 0 has no word"),
        (row(np.zeros(3)), "row 0 is ndarray; the model takes text"),
        ({**row("a"), "title": "b"}, "row 0 has the input columns sentence, title"),
    ],
)
def test_a_row_that_is_no_text_is_named(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task().load([row("good"), bad])


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ({"tokenizer": None}, "needs its tokenizer: a file tokenizer.json beside the model"),
        ({"tokenizer": {"kind": "word"}}, "unknown kind of tokenizer 'word'.*'words'"),
        ({"tokenizer": {"kind": "words", "vocabulary": "abc"}}, '"vocabulary" must be a list of words'),
        ({"tokenizer": {"kind": "words", "vocabulary": ["<pad>", "a"]}}, "\"unknown\" is '<unk>', which is not in"),
        ({"tokenizer": {**WORDS, "vocabulary": ["<pad>", "<unk>", "a", "a"]}}, "has 'a' twice"),
        ({"length": 0}, "length must be a whole number of at least 1, got 0"),
        ({"max_length": "9"}, "max_length must be a whole number of at least 1, got '9'"),
        ({"inputs": {"ids": "input_idz"}}, "no input 'input_idz'.*'input_ids'"),
        ({"inputs": ["input_ids"]}, "inputs must be as"),
    ],
)
def test_a_specification_that_is_wrong_says_what_was_expected(specification: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(**specification)


@pytest.mark.parametrize(
    "inputs",
    [
        (TensorSpec("x", "float32", (None, 16)),),
        (TensorSpec("input_ids", "int64", (None, None, 3)),),
        (IDS, TensorSpec("pixels", "int64", (None, None))),
        (IDS, TensorSpec("attention_mask", "float32", (None, None))),
    ],
    ids=["floats", "three dimensions", "one more input", "float mask"],
)
def test_a_model_that_reads_no_text_is_refused_with_its_inputs(inputs: tuple[TensorSpec, ...]) -> None:
    with pytest.raises(ModelError, match=f"inputs are {inputs[0].name}"):
        task(*inputs)


def test_a_fixed_batch_needs_a_length() -> None:
    with pytest.raises(UsageError, match=r"texts that run in one batch need one length.*\"length\": 64"):
        task(TensorSpec("input_ids", "int64", (8, None)))
    with pytest.raises(ModelError, match="length of a text differs"):
        task(TensorSpec("input_ids", "int64", (None, 9)), length=8)


HUGGING_FACE = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [
        {"id": i, "content": word, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
         "special": True}
        for i, word in enumerate(("[PAD]", "[UNK]", "[CLS]", "[SEP]"))
    ],
    "normalizer": {"type": "Lowercase"},
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            name: {"id": name, "ids": [i], "tokens": [name]} for name, i in (("[CLS]", 2), ("[SEP]", 3))
        },
    },
    "decoder": None,
    "model": {
        "type": "WordPiece",
        "unk_token": "[UNK]",
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": 100,
        "vocab": {w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "film", "##s", "good"])},
    },
}  # fmt: skip


def hugging_face(folder: Path) -> Task:
    (folder / "tokenizer.json").write_text(json.dumps(HUGGING_FACE))
    (folder / "tokenizer_config.json").write_text('{"pad_token": "[PAD]", "model_max_length": 5}')
    (folder / "config.json").write_text('{"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}')
    signature = Signature((IDS, MASK), (OUTPUT,))
    found = find_specification(folder / "model.onnx", {}, {}, signature)
    assert found.task == "text"
    return build(found.specification, signature)


def test_a_tokenizer_json_beside_the_model_is_read_with_what_stands_around_it(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    made = hugging_face(tmp_path)
    assert made.feeds(("Good films", "nonsense"))["input_ids"].tolist() == [[2, 6, 4, 5, 3], [2, 1, 3, 0, 0]]
    assert ids(made, "good good good good good") == [[2, 6, 6, 6, 3]]
    assert made.classes == ("NEGATIVE", "POSITIVE")
    assert made.fits("casing") is not None
    assert all(len(text.split()) <= 5 for text in made.noise(9, 0))
    again = build(json.loads(json.dumps(made.specification)), Signature((IDS, MASK), (OUTPUT,)))
    assert again.feeds(("Good films",))["input_ids"].tolist() == [[2, 6, 4, 5, 3]]


def test_without_the_library_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(UsageError, match=r"library that reads it is not installed.*pip install 'onnxptq\[text\]'"):
        hugging_face(tmp_path)


def test_a_tokenizer_json_that_is_none_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    with pytest.raises(DataError, match="not one that the library `tokenizers` reads"):
        task(tokenizer={"kind": "tokenizer.json", "content": {"model": {"type": "Magic"}}})
    with pytest.raises(UsageError, match=r"padding token '\[NONE\]' is not in the tokenizer's vocabulary"):
        task(tokenizer={"kind": "tokenizer.json", "content": HUGGING_FACE, "pad": "[NONE]"})


def test_a_tokenizer_can_be_a_file_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"tokenizer": "words.json", "max_length": 7}')
    signature = Signature((IDS, MASK), (OUTPUT,))
    with pytest.raises(DataError, match=r"no tokenizer .*words\.json"):
        find_specification(tmp_path / "model.onnx", {}, {}, signature)
    (tmp_path / "words.json").write_text(json.dumps(WORDS))
    found = find_specification(tmp_path / "model.onnx", {}, {}, signature)
    assert (found.task, found.specification["tokenizer"]) == ("text", WORDS)


PAIR = ("premise", "hypothesis")


def pair_of(*texts: str) -> dict[str, Any]:
    return {"_name": "row 0", **dict(zip(PAIR, texts, strict=True))}


def test_two_columns_are_one_sample_with_types_that_tell_them_apart() -> None:
    vocabulary = [*WORDS["vocabulary"], "<cls>", "<sep>"]
    words = {**WORDS, "vocabulary": vocabulary, "start": "<cls>", "end": "<sep>"}
    made = task(IDS, MASK, TYPES, tokenizer=words, columns=list(PAIR))
    assert made.input.columns == PAIR
    batch = made.load([pair_of("good film", "bad")])
    assert batch == (("good film", "bad"),)
    feeds = made.feeds(batch)
    assert feeds["input_ids"].tolist() == [[5, 2, 4, 6, 3, 6]]
    assert feeds["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1]]
    assert feeds["attention_mask"].tolist() == [[1] * 6]
    again = task(IDS, MASK, TYPES, tokenizer=words, columns=made.specification["columns"])
    assert again == made
    assert made.input_bounds()["token_type_ids"] == (0.0, 1.0)
    assert made.group_values([pair_of("good film", "not bad")]) == {"length": ["short"], "negation": ["yes"]}
    noise = made.noise(3, 0)
    assert all(len(one) == 2 for one in noise)
    assert made.noise(3, 0) == noise


def test_each_text_of_a_pair_is_shifted_by_itself() -> None:
    long = "one two three four five six seven eight nine ten"
    seeds = np.arange(4, dtype=np.uint64)
    shifted = apply_shift(SHIFTS.get("drop_words"), ((long, long),) * 4, 3, seeds)
    assert len(shifted) == 4
    assert all(len(one.split()) < 10 for pair in shifted for one in pair)
    assert any(first != second for first, second in shifted)
    alone = apply_shift(SHIFTS.get("drop_words"), (long,) * 4, 3, seeds)
    assert tuple(first for first, _ in shifted) == alone


@pytest.mark.parametrize(
    ("columns", "message"),
    [("premise", "the two of a pair"), (["a", "b", "c"], "the two of a pair"), (["a", "a"], "the two of a pair")],
)
def test_columns_of_a_text_are_one_or_two(columns: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(columns=columns)


def test_a_pair_without_its_second_text_is_named() -> None:
    made = task(columns=list(PAIR))
    with pytest.raises(DataError, match="row 0 has no column 'hypothesis'"):
        made.load([{"_name": "row 0", "premise": "a"}])
    with pytest.raises(DataError, match="has no word"):
        made.load([pair_of("a", " ")])


def test_pairs_of_a_tokenizer_json_are_what_the_library_makes_of_them(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the extra `text` is not installed")
    made = hugging_face(tmp_path)
    content = made.specification["tokenizer"]
    tokenizer = read_tokenizer(content)
    library = tokenizers.Tokenizer.from_str(json.dumps(content["content"]))
    generator = np.random.default_rng(0)
    for _ in range(300):
        first, second = (
            " ".join(["good", "films", "x"][i] for i in generator.integers(0, 3, n))
            for n in generator.integers(1, 9, 2)
        )
        most = int(generator.integers(3, 14))
        library.enable_truncation(most, strategy="longest_first")
        wanted = library.encode(first, second)
        assert tokenizer.encode_pair(first, second, most) == (wanted.ids, wanted.type_ids)
