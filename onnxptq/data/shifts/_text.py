"""Shifts of text: what hurried, careless or shouting writers do to a sentence.

A batch is a tuple of str. Words are what stands between spaces; the words of the result are joined by single spaces,
and at least one word stays.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxptq.data.shifts._apply import Texts, generators
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift

TYPOS = (0.1, 0.2, 0.3, 0.5, 0.8)
DROP_WORDS = (0.1, 0.2, 0.3, 0.4, 0.5)
SWAP_WORDS = (0.1, 0.2, 0.3, 0.4, 0.5)
CASING = (0.1, 0.25, 0.5, 0.75, 1.0)
TRUNCATE = (0.8, 0.6, 0.4, 0.25, 0.1)

LEAST_LETTERS = 4
"""Shorter words keep their letters: the first and the last stay, and two must be left to exchange."""

ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
"""Keys that lie side by side on an English keyboard."""

NEIGHBOURS = {
    letter: "".join(row[i] for i in (position - 1, position + 1) if 0 <= i < len(row))
    for row in ROWS
    for position, letter in enumerate(row)
}


def typos(texts: Texts, severity: int, seeds: Seeds) -> Texts:
    """A share of the words gets one wrong letter inside: exchanged with the next, left out, doubled or a key beside."""
    share = TYPOS[severity - 1]

    def misspell(words: list[str], generator: np.random.Generator) -> list[str]:
        drawn = generator.random((len(words), 3))
        return [_misspelt(word, *row[1:]) if row[0] < share else word for word, row in zip(words, drawn, strict=True)]

    return _each("typos", misspell, texts, seeds)


def drop_words(texts: Texts, severity: int, seeds: Seeds) -> Texts:
    """Each word is left out with probability c; where all would be, the one that came nearest to staying stays."""
    share = DROP_WORDS[severity - 1]

    def drop(words: list[str], generator: np.random.Generator) -> list[str]:
        drawn = generator.random(len(words))
        return [w for w, d in zip(words, drawn, strict=True) if d >= share] or [words[int(drawn.argmax())]]

    return _each("drop_words", drop, texts, seeds)


def swap_words(texts: Texts, severity: int, seeds: Seeds) -> Texts:
    """c times the number of words, at least one: two words, drawn at random, change places."""
    share = SWAP_WORDS[severity - 1]

    def swap(words: list[str], generator: np.random.Generator) -> list[str]:
        words = list(words)
        for _ in range(max(1, round(share * len(words))) if len(words) > 1 else 0):
            first, second = generator.choice(len(words), 2, replace=False)
            words[first], words[second] = words[second], words[first]
        return words

    return _each("swap_words", swap, texts, seeds)


def casing(texts: Texts, severity: int, seeds: Seeds) -> Texts:
    """A share of the words changes its case: words without capitals become capitals, the others small letters."""
    share = CASING[severity - 1]

    def change(words: list[str], generator: np.random.Generator) -> list[str]:
        drawn = generator.random(len(words))
        changed = (word.upper() if word == word.lower() else word.lower() for word in words)
        return [new if d < share else old for old, new, d in zip(words, changed, drawn, strict=True)]

    return _each("casing", change, texts, seeds)


def truncate(texts: Texts, severity: int, seeds: Seeds) -> Texts:
    """The first words only, a share c of them, at least one."""
    share = TRUNCATE[severity - 1]
    return _each("truncate", lambda words, _: words[: max(1, round(share * len(words)))], texts, seeds)


def _each(
    name: str, change: Callable[[list[str], np.random.Generator], list[str]], texts: Texts, seeds: Seeds
) -> Texts:
    """`change` applied to the words of each text; a text without a word stays as it is."""
    pairs = zip(texts, generators(name, seeds), strict=True)
    return tuple(" ".join(change(words, g)) if (words := text.split()) else text for text, g in pairs)


def _misspelt(word: str, where: float, how: float) -> str:
    """`word` with one wrong letter; `where` and `how`, both in [0, 1), say which."""
    if len(word) < LEAST_LETTERS:
        return word
    position = 1 + int(where * (len(word) - 2))  # neither the first letter nor the last
    before, letter, after = word[:position], word[position], word[position + 1 :]
    if how < 0.25 and len(after) > 1:
        return before + after[0] + letter + after[1:]
    if how < 0.5:
        return before + after
    beside = NEIGHBOURS.get(letter.lower(), "")
    if how < 0.75 or not beside:
        return before + letter + letter + after
    return before + beside[int((how - 0.75) * 4 * len(beside))] + after


SHIFTS.register(
    Shift(
        name="typos",
        family="spelling",
        modality="text",
        apply=typos,
        summary="10, 20, 30, 50, 80 % of the words of 4 letters or more with one wrong letter inside",
        source="after arXiv 1711.02173 and 1905.11268 (one edit inside a word)",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="drop_words",
        family="words",
        modality="text",
        apply=drop_words,
        summary="10, 20, 30, 40, 50 % of the words left out",
        source="EDA (arXiv 1901.11196), random deletion",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="swap_words",
        family="order",
        modality="text",
        apply=swap_words,
        summary="two words change places, 0.1, 0.2, 0.3, 0.4, 0.5 times for each word",
        source="EDA (arXiv 1901.11196), random swap",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="casing",
        family="casing",
        modality="text",
        apply=casing,
        summary="10, 25, 50, 75, 100 % of the words in CAPITALS, those that have capitals in small letters",
        source="ours",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="truncate",
        family="length",
        modality="text",
        apply=truncate,
        summary="the first 80, 60, 40, 25, 10 % of the words",
        source="ours",
    )
)
