"""Tokenizers: from a sentence to the numbers that a text model reads. They are JSON, so that a model can carry them.

    {"kind": "words", "vocabulary": ["<pad>", "<unk>", "the", "film"], "lowercase": true}
    {"kind": "tokenizer.json", "content": {...}}

The second is what Hugging Face's `tokenizers` library writes; it reads and runs it (the extra `text`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from onnxptq.errors import UsageError, did_you_mean
from onnxptq.tasks._truncation import longest_first

PADDING = "<pad>"
UNKNOWN = "<unk>"


class Tokenizer(Protocol):
    """What a text task needs of a tokenizer."""

    @property
    def specification(self) -> dict[str, Any]:
        """All of it, as JSON; `read_tokenizer` reads it again."""
        ...

    @property
    def size(self) -> int:
        """How many numbers there are: tokens are from 0 to size - 1."""
        ...

    @property
    def padding(self) -> int:
        """The token that fills short sentences."""
        ...

    @property
    def lowercase(self) -> bool:
        """Whether all letters are made small, so that a change of case changes nothing."""
        ...

    def encode(self, text: str, most: int) -> list[int]:
        """The tokens of a sentence, with the special ones, at most `most`: what is beyond them is cut off."""
        ...

    def encode_pair(self, first: str, second: str, most: int) -> tuple[list[int], list[int]]:
        """Tokens and token types of two texts, with the special tokens, at most `most`: the longer one is cut first."""
        ...

    def random_text(self, generator: np.random.Generator, count: int) -> str:
        """`count` tokens drawn uniformly from the vocabulary without the special ones, as text."""
        ...


@dataclass(frozen=True)
class WordTokenizer:
    """One token a word; words are what stands between spaces.

    Attributes:
        vocabulary: the words in the order of their tokens, special ones included.
        lowercase: whether words are looked up in small letters.
        pad: the word that fills short sentences.
        unknown: the word that stands for all that are not in the vocabulary.
        start: the word put in front of every sentence, or "".
        end: the word put behind every sentence, or "".
    """

    vocabulary: tuple[str, ...]
    lowercase: bool = False
    pad: str = PADDING
    unknown: str = UNKNOWN
    start: str = ""
    end: str = ""

    kind = "words"

    @property
    def specification(self) -> dict[str, Any]:
        """Kind, vocabulary, lowercase and the special words."""
        return {
            "kind": self.kind,
            "vocabulary": list(self.vocabulary),
            "lowercase": self.lowercase,
            "pad": self.pad,
            "unknown": self.unknown,
            "start": self.start,
            "end": self.end,
        }

    @property
    def size(self) -> int:
        """The number of words."""
        return len(self.vocabulary)

    @property
    def padding(self) -> int:
        """The token of `pad`."""
        return self._tokens[self.pad]

    @cached_property
    def _tokens(self) -> dict[str, int]:
        return {word: token for token, word in enumerate(self.vocabulary)}

    @cached_property
    def _plain(self) -> tuple[str, ...]:
        special = {self.pad, self.unknown, self.start, self.end}
        return tuple(word for word in self.vocabulary if word not in special) or (self.unknown,)

    def encode(self, text: str, most: int) -> list[int]:
        """The tokens of a sentence between `start` and `end`; as many words are cut off as are too many."""
        unknown = self._tokens[self.unknown]
        words = (text.lower() if self.lowercase else text).split()
        before, after = ([self._tokens[word]] if word else [] for word in (self.start, self.end))
        kept = words[: max(most - len(before) - len(after), 0)]
        return before + [self._tokens.get(word, unknown) for word in kept] + after

    def encode_pair(self, first: str, second: str, most: int) -> tuple[list[int], list[int]]:
        """The words of one text between `start` and `end` with type 0, those of the other and `end` with type 1."""
        unknown = self._tokens[self.unknown]
        one, other = (
            [self._tokens.get(word, unknown) for word in (text.lower() if self.lowercase else text).split()]
            for text in (first, second)
        )
        before, after = ([self._tokens[word]] if word else [] for word in (self.start, self.end))
        here, there = longest_first(len(one), len(other), max(most - len(before) - 2 * len(after), 0))
        head, tail = before + one[:here] + after, other[:there] + after
        return head + tail, [0] * len(head) + [1] * len(tail)

    def random_text(self, generator: np.random.Generator, count: int) -> str:
        """Words drawn uniformly."""
        return " ".join(self._plain[i] for i in generator.integers(0, len(self._plain), count).tolist())


def read_tokenizer(given: Any) -> Tokenizer:
    """A tokenizer from its JSON.

    Raises:
        UsageError: it is not one, is incomplete, or needs the library `tokenizers`, which is not installed.
        DataError: a tokenizer.json that the library `tokenizers` cannot read.
    """
    if not isinstance(given, Mapping):
        raise UsageError(
            "a text model needs its tokenizer: a file tokenizer.json beside the model, or "
            '"tokenizer" in the preprocessing, for example {"kind": "words", "vocabulary": ["<pad>", "<unk>", "the"]} '
            "(docs/text.md)."
        )
    kind = given.get("kind")
    if kind == WordTokenizer.kind:
        return _read_words(given)
    from onnxptq.tasks._tokenizer_json import KIND, HuggingFaceTokenizer

    if kind == KIND:
        return HuggingFaceTokenizer.read(given)
    raise UsageError(f"unknown kind of tokenizer {kind!r}. {did_you_mean(str(kind), (WordTokenizer.kind, KIND))}")


def _read_words(given: Mapping[str, Any]) -> WordTokenizer:
    words = given.get("vocabulary")
    if not isinstance(words, Sequence) or isinstance(words, str) or not all(isinstance(w, str) for w in words):
        raise UsageError('the tokenizer\'s "vocabulary" must be a list of words in the order of their tokens.')
    special = {name: str(given.get(name) or default) for name, default in _SPECIAL.items()}
    known = set(words)
    if len(known) < len(words):
        twice = next(word for position, word in enumerate(words) if word in words[:position])
        raise UsageError(f"the tokenizer's vocabulary has {twice!r} twice; each word must have one token.")
    for name, word in special.items():
        if word and word not in known:
            raise UsageError(
                f'the tokenizer\'s "{name}" is {word!r}, which is not in its vocabulary of {len(words)} words. '
                "Add it at its token, or name another word."
            )
    return WordTokenizer(tuple(words), bool(given.get("lowercase", False)), **special)


_SPECIAL = {"pad": PADDING, "unknown": UNKNOWN, "start": "", "end": ""}
"""The special words of a `WordTokenizer` and what they are where nothing is said."""
