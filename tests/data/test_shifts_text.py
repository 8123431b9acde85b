"""What each shift of text does to a sentence, measured on sentences."""

from __future__ import annotations

import difflib

import pytest

from onnxptq.data.shifts import SHIFTS, Shift, apply_shift, sample_seeds
from onnxptq.errors import DataError, UsageError

TEXTS = tuple(
    f"the {noun} wanders through another lovely evening and quietly finds what {noun}s always wanted"
    for noun in ("sailor", "teacher", "gardener", "painter", "farmer", "lawyer", "singer", "doctor") * 5
)
SEEDS = sample_seeds(0, [str(i) for i in range(len(TEXTS))])
TEXT_SHIFTS = [shift for shift in SHIFTS if shift.modality == "text"]
every_text_shift = pytest.mark.parametrize("shift", TEXT_SHIFTS, ids=lambda shift: shift.name)


def apply(name: str, severity: int, texts: tuple[str, ...] = TEXTS) -> tuple[str, ...]:
    return apply_shift(SHIFTS.get(name), texts, severity, SEEDS[: len(texts)])


def words_changed(name: str, severity: int) -> float:
    """The share of words that are not where and what they were."""
    pairs = zip(TEXTS, apply(name, severity), strict=True)
    kept = [difflib.SequenceMatcher(None, a.split(), b.split(), autojunk=False) for a, b in pairs]
    same = sum(block.size for matcher in kept for block in matcher.get_matching_blocks())
    return 1 - same / sum(len(text.split()) for text in TEXTS)


@every_text_shift
def test_it_changes_more_words_the_higher_the_severity(shift: Shift) -> None:
    changed = [words_changed(shift.name, severity) for severity in range(1, 6)]
    assert changed == sorted(changed)
    assert 0 < changed[0] < changed[-1]


@every_text_shift
def test_a_text_changes_in_the_same_way_whatever_stands_beside_it(shift: Shift) -> None:
    alone = [apply_shift(shift, (text,), 3, SEEDS[i : i + 1])[0] for i, text in enumerate(TEXTS)]
    assert tuple(alone) == apply(shift.name, 3)
    assert apply_shift(shift, list(TEXTS), 3, SEEDS) == apply(shift.name, 3)


@every_text_shift
@pytest.mark.parametrize("text", ["", " ", "a", "Good", "no !", "ß ﬁ 电影 🎬"])
def test_a_word_stays_where_there_was_one(shift: Shift, text: str) -> None:
    for severity in (1, 5):
        (changed,) = apply(shift.name, severity, (text,))
        assert bool(changed.strip()) == bool(text.strip())


def test_typos_keep_first_and_last_letters_and_short_words() -> None:
    for before, after in zip(TEXTS, apply("typos", 5), strict=True):
        for word, typo in zip(before.split(), after.split(), strict=True):
            assert (word[0], word[-1]) == (typo[0], typo[-1])
            assert abs(len(word) - len(typo)) <= 1
            assert len(word) > 3 or typo == word


def test_drop_words_leaves_out_the_share_that_it_says() -> None:
    left = sum(len(text.split()) for text in apply("drop_words", 3)) / sum(len(text.split()) for text in TEXTS)
    assert left == pytest.approx(0.7, abs=0.05)


def test_swap_words_keeps_all_words() -> None:
    for before, after in zip(TEXTS, apply("swap_words", 3), strict=True):
        assert sorted(before.split()) == sorted(after.split())


def test_casing_at_5_shouts_and_makes_capitals_small() -> None:
    assert apply("casing", 5, ("a Fine film", "NASA")) == ("A fine FILM", "nasa")


def test_truncate_keeps_the_beginning() -> None:
    assert apply("truncate", 3, ("a b c d e f g h i j",)) == ("a b c d",)


@pytest.mark.parametrize("batch", ["a text", [1, 2], None], ids=["one text", "numbers", "nothing"])
def test_what_is_not_texts_is_refused(batch: object) -> None:
    with pytest.raises(DataError, match="'typos' takes a sequence of str"):
        apply_shift(SHIFTS.get("typos"), batch, 3, SEEDS)


def test_as_many_seeds_as_texts_are_needed() -> None:
    with pytest.raises(UsageError, match="one uint64 seed a sample"):
        apply_shift(SHIFTS.get("typos"), ("a", "b"), 3, SEEDS[:1])
