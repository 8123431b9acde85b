"""Texts, by way of the model's tokenizer, which is part of the specification."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts import SHIFTS, Batch
from onnxptq.errors import DataError
from onnxptq.signature import Feeds, Signature
from onnxptq.tasks._base import INPUTS, Input, InputKind, Row
from onnxptq.tasks._rows import input_columns, row_name
from onnxptq.tasks._text_groups import length_of, negation_of
from onnxptq.tasks._text_specification import TextSpecification, text_specification

EVALUATION_SHIFTS = ("typos@3", "drop_words@3", "swap_words@3", "casing@3")
"""The default evaluation."""

AUGMENTATIONS = ("drop_words@3", "swap_words@3", "casing@3")
"""Environments that widen a calibration set: words that are missing, in another order, and unknown ones."""

NOISE_LENGTH = 32
"""Most tokens of a sentence of noise: about as long as sentences are."""


Tokens = tuple[list[int], list[int]]
"""Of one sample its tokens and their types."""


@dataclass(frozen=True)
class TextInput(Input):
    """Batches are tuples of str, or of pairs of them. Feeds are int arrays (N, L).

    L is the longest of the batch, or what the model fixes.
    """

    details: TextSpecification

    name = "text"
    modality = "text"
    group_columns = ("length", "negation")

    @property
    def columns(self) -> tuple[str, ...]:
        """Those that the specification names."""
        return self.details.columns

    @property
    def specification(self) -> dict[str, Any]:
        """Tokenizer, inputs, max_length, length, and columns where they are named."""
        return self.details.to_json()

    def load(self, rows: Sequence[Row]) -> Batch:
        """The texts of the rows, as a tuple of str, or of pairs of str.

        Raises:
            DataError: a row has several inputs, or one that is not text or has no word; it names the sample.
        """
        if not self.details.pairs:
            return tuple(self._text(row) for row in rows)
        return tuple((self._part(row, 0), self._part(row, 1)) for row in rows)

    def feeds(self, batch: Batch) -> Feeds:
        """Tokens, mask and, where the model takes them, token types: arrays (N, L), padded on the right.

        Raises:
            DataError: a text has no token.
        """
        tokens = self._tokens(batch)
        return self._arrays(tokens, self.details.length or max(len(ids) for ids, _ in tokens))

    def feed_groups(self, batch: Batch) -> Iterator[tuple[npt.NDArray[np.int64], Feeds]]:
        """Texts of equal length together, so that nothing is padded unless the specification fixes the length."""
        tokens = self._tokens(batch)
        lengths = np.array([self.details.length or len(ids) for ids, _ in tokens])
        for length in np.unique(lengths).tolist():
            positions = np.flatnonzero(lengths == length)
            yield positions, self._arrays([tokens[i] for i in positions], length)

    def noise(self, count: int, seed: int) -> Batch:
        """Tokens drawn uniformly from the vocabulary; 1 to `NOISE_LENGTH` of them in a text, equally often."""
        if self.details.pairs:
            return tuple(zip(self._noise(count, seed), self._noise(count, seed + 1), strict=True))
        return self._noise(count, seed)

    def _noise(self, count: int, seed: int) -> tuple[str, ...]:
        generator = np.random.default_rng(seed)
        lengths = generator.integers(1, min(self.details.max_length, NOISE_LENGTH) + 1, count)
        texts = (self.details.tokenizer.random_text(generator, length) for length in lengths.tolist())
        # A tokenizer.json may decode a token to nothing; what stands in is a word to every tokenizer.
        return tuple(text if text.strip() else "a" for text in texts)

    def evaluation_shifts(self) -> tuple[str, ...]:
        """Those of `EVALUATION_SHIFTS` that change what the tokenizer sees."""
        return tuple(shift for shift in EVALUATION_SHIFTS if self.fits(shift) is None)

    def augmentations(self) -> tuple[str, ...]:
        """Those of `AUGMENTATIONS` that change what the tokenizer sees."""
        return tuple(shift for shift in AUGMENTATIONS if self.fits(shift) is None)

    def input_bounds(self) -> dict[str, tuple[float, float]]:
        """The least and the greatest value of each input: tokens of the vocabulary, 0 or 1 in the mask, types."""
        details = self.details
        bounds = {details.ids: (0.0, float(details.tokenizer.size - 1))}
        if details.mask is not None:
            bounds[details.mask] = (0.0, 1.0)
        if details.types is not None:
            bounds[details.types] = (0.0, float(details.pairs))
        return bounds

    def fits(self, shift_name: str) -> str | None:
        """None where the shift (`name` or `name@severity`) makes sense for texts, else the reason why not."""
        shift = SHIFTS.get(shift_name.partition("@")[0])
        if shift.modality != self.modality:
            known = ", ".join(other.name for other in SHIFTS if other.modality == self.modality)
            return f"{shift.name} is for {shift.modality} samples, not for text; for text there are {known}"
        if shift.name == "casing" and self.details.tokenizer.lowercase:
            return "casing changes nothing, as the tokenizer makes all letters small"
        return None

    def group_values(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """Length (short, medium, long) and negation (yes, no) of each text as it is stored."""
        texts = [text if isinstance(text, str) else " ".join(text) for text in self.load(rows)]
        return {"length": [length_of(text) for text in texts], "negation": [negation_of(text) for text in texts]}

    def _text(self, row: Row) -> str:
        columns = input_columns(row)
        if len(columns) != 1:
            raise DataError(
                f"{row_name(row)} has the input columns {', '.join(columns) or 'none'}; a text model takes one. "
                "Name the column of the text with --image-column, or the two columns of a pair in the specification "
                '("columns", docs/text.md).'
            )
        return self._checked(row, columns[0])

    def _part(self, row: Row, number: int) -> str:
        name = self.details.columns[number]
        if name not in row:
            raise DataError(
                f"{row_name(row)} has no column {name!r}; the model takes the two texts "
                f"{' and '.join(self.details.columns)}."
            )
        return self._checked(row, name)

    def _checked(self, row: Row, column: str) -> str:
        text = row[column]
        if not isinstance(text, str):
            raise DataError(
                f"{row_name(row)} is {type(text).__name__}; the model takes text. Name the column of the "
                "text with --image-column."
            )
        if not text.strip():
            raise DataError(f"{row_name(row)} has no word. Fill it, or leave bad samples out with --skip-bad.")
        return text

    def _tokens(self, batch: Sequence[Any]) -> list[Tokens]:
        """Tokens and token types of each sample."""
        most = min(self.details.max_length, self.details.length or self.details.max_length)
        tokenizer = self.details.tokenizer
        if self.details.pairs:
            tokens = [tokenizer.encode_pair(first, second, most) for first, second in batch]
        else:
            tokens = [(ids, [0] * len(ids)) for ids in (tokenizer.encode(text, most) for text in batch)]
        for text, (ids, _) in zip(batch, tokens, strict=True):
            if not ids:
                raise DataError(f"the model's tokenizer finds no token in the text {text!r}. Leave it out.")
        return tokens

    def _arrays(self, tokens: Sequence[Tokens], length: int) -> Feeds:
        details = self.details
        dtype = np.dtype(details.dtype)
        ids = np.full((len(tokens), length), details.tokenizer.padding, dtype)
        mask, types = np.zeros_like(ids), np.zeros_like(ids)
        for row, present, kinds, (one, type_ids) in zip(ids, mask, types, tokens, strict=True):
            row[: len(one)] = one
            present[: len(one)] = 1
            kinds[: len(one)] = type_ids
        feeds: Feeds = {details.ids: ids}
        if details.mask is not None:
            feeds[details.mask] = mask
        if details.types is not None:
            feeds[details.types] = types
        return feeds


def build(specification: Mapping[str, Any], signature: Signature) -> TextInput:
    """The input of one model.

    Raises:
        UsageError: a value of the specification is wrong, or the tokenizer's library is not installed.
        ModelError: the model's inputs are not those of a text model.
    """
    return TextInput(text_specification(specification, signature))


INPUTS.register(
    InputKind(
        "text",
        "one text or a pair of them, by way of the model's tokenizer",
        build,
        formats=("a table with a column of text, or two",),
        keys=("tokenizer", "inputs", "length", "max_length", "columns"),
    )
)
