"""Sequences (OCR, speech, translation by greedy decoding): a text comes out, and is as good as 1 - its error rate.

Greedy decoding: the likeliest symbol at each step. With "ctc" repeated symbols are merged and blanks removed (Graves et
al., 2006); with "greedy" the text ends at the end symbol; with "ids" the output holds the symbols' numbers already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.heads._base import HEADS, Head, HeadKind, Measure, Output, Scores, Specification, Total, Truths
from onnxptq.heads._shared import codes_of, find_output, find_truth, length_range
from onnxptq.signature import Signature, described

CHARACTERS = Measure("1 - CER", binary=False, source="Levenshtein, 1966", summary="max(0, 1 - character error rate)")
WORDS = Measure("1 - WER", binary=False, source="Levenshtein, 1966", summary="max(0, 1 - word error rate)")
EXACT = Measure("exact match", binary=True, summary="the text is the true one")
FIDELITY = Measure("text fidelity", binary=False, against="reference", summary="1 - CER against the reference's text")

DECODINGS = ("ctc", "greedy", "ids")


@dataclass(frozen=True)
class Spoken:
    """The answers for N samples: texts, the symbols' numbers, and the smallest margin of a step, float64 (N,)."""

    texts: tuple[str, ...]
    symbols: tuple[tuple[int, ...], ...]
    margins: npt.NDArray[np.float64] | None


@dataclass(frozen=True)
class SequenceHead(Head):
    """One output (N, T, V) with a value a symbol, or (N, T) with the symbols' numbers.

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
        decoding: "ctc", "greedy" or "ids".
        vocabulary: the text of each symbol, or (): the number itself, a word each.
        blank: CTC's symbol for nothing.
        end: the symbol that ends a text, or None.
        words: whether symbols are words, with spaces between them.
    """

    output: str
    position: int
    decoding: str
    vocabulary: tuple[str, ...]
    blank: int
    end: int | None
    words: bool

    name = "sequence"
    group_columns = ("text_length",)

    @property
    def specification(self) -> dict[str, Any]:
        """Output, decoding, vocabulary, blank, end and words."""
        return {
            "output": self.output,
            "decoding": self.decoding,
            "vocabulary": list(self.vocabulary),
            "blank": self.blank,
            "end": self.end,
            "words": self.words,
        }

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    def truth_columns(self) -> tuple[str, ...]:
        """The true text, under one of these names."""
        return ("transcript", "transcription", "sentence", "text")

    def answers(self, outputs: Sequence[Output]) -> Spoken:
        """The text of each sample. Raises ModelError where the output has another rank, or holds NaN."""
        symbols, margins = [], []
        for one in outputs[self.position]:
            path, margin = self._path(np.asarray(one))
            symbols.append(self._symbols(path))
            margins.append(margin)
        texts = tuple(self._text(one) for one in symbols)
        known = None if self.decoding == "ids" else np.asarray(margins, np.float64)
        return Spoken(texts, tuple(symbols), known)

    def _path(self, values: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int64], float]:
        """The symbol of each step of one sample, and the smallest margin."""
        values = values.squeeze(0) if values.ndim == (2 if self.decoding == "ids" else 3) else values
        if self.decoding == "ids":
            if values.ndim != 1:
                raise ModelError(
                    f"output {self.output!r} is {values.shape} a sample; expected numbers of symbols, (T,)."
                )
            return values.astype(np.int64), float("nan")
        if values.ndim != 2 or values.shape[1] < 2:
            raise ModelError(f"output {self.output!r} is {values.shape} a sample; expected (T, V): a value a symbol.")
        if not len(values):
            return np.empty(0, np.int64), float("inf")
        values = values.astype(np.float64)
        if np.isnan(values).any():
            raise ModelError(f"output {self.output!r} holds NaN. Check the model's weights.")
        top = np.partition(values, -2, axis=1)[:, -2:]
        return values.argmax(axis=1), float((top[:, 1] - top[:, 0]).min())

    def _symbols(self, path: npt.NDArray[np.int64]) -> tuple[int, ...]:
        if self.decoding == "ctc":
            changed = np.ones(len(path), np.bool_)
            changed[1:] = path[1:] != path[:-1]
            path = path[changed & (path != self.blank)]
        elif self.end is not None and (path == self.end).any():
            path = path[: int((path == self.end).argmax())]
        return tuple(path.tolist())

    def _text(self, symbols: Sequence[int]) -> str:
        if not self.vocabulary:
            return " ".join(map(str, symbols))
        found = [
            self.vocabulary[one] if 0 <= one < len(self.vocabulary) else "\N{REPLACEMENT CHARACTER}" for one in symbols
        ]
        return " ".join((" " if self.words else "").join(found).split())

    def score(self, answers: Spoken, truths: Truths) -> dict[str, Scores]:
        """1 - CER, 1 - WER and exact match of each sample; NaN without truth."""
        pairs = list(zip(answers.texts, self._wanted(truths, len(answers.texts)), strict=True))
        measures: tuple[tuple[Measure, Callable[[str, str], float]], ...] = (
            (CHARACTERS, lambda said, true: closeness(said, true)),
            (WORDS, lambda said, true: closeness(said.split(), true.split())),
            (EXACT, lambda said, true: float(said == true)),
        )
        return {
            measure.name: np.asarray([np.nan if true is None else rate(said, true) for said, true in pairs], np.float32)
            for measure, rate in measures
        }

    def fidelity(self, answers: Spoken, reference: Spoken) -> Scores:
        """1 - CER with the reference's text as the truth."""
        return np.asarray(
            [closeness(said, true) for said, true in zip(answers.texts, reference.texts, strict=True)], np.float32
        )

    def code(self, answers: Spoken) -> npt.NDArray[np.int64]:
        """A number for each text."""
        return codes_of(text.encode("utf-8", "surrogatepass") for text in answers.texts)

    def certainty(self, answers: Spoken) -> npt.NDArray[np.float64] | None:
        """The smallest margin of a step; None where the output holds numbers of symbols."""
        return answers.margins

    def records(self, answers: Spoken, truths: Truths) -> dict[str, Sequence[Any]]:
        """Errors and length in characters, and in words: four numbers."""
        rows = []
        for said, true in zip(answers.texts, self._wanted(truths, len(answers.texts)), strict=True):
            if true is None:
                rows.append([0, 0, 0, 0])
                continue
            words = said.split(), true.split()
            rows.append([distance(said, true), len(true), distance(*words), len(words[1])])
        return {"errors": rows}

    def group_values(self, truths: Truths) -> dict[str, list[str]]:
        """How long the true text is, in characters."""
        count = len(next(iter(truths.values())))
        lengths = [None if true is None else len(true) for true in self._wanted(truths, count)]
        return {"text_length": ["unknown" if one is None else length_range(one) for one in lengths]}

    def check_truth(self, truth: Mapping[str, Any]) -> None:
        """Texts."""
        for column, value in truth.items():
            if value is not None and not isinstance(value, str):
                raise DataError(f"column {column!r} holds {value!r}; expected the true text.")

    def _wanted(self, truths: Truths, count: int) -> list[str | None]:
        if (found := find_truth(truths, self.truth_columns())) is None:
            return [None] * count
        column, values = found
        for value in values:
            self.check_truth({column: value})
        return [None if value is None else " ".join(value.split()) for value in values]


def distance(said: Sequence[Any], true: Sequence[Any]) -> int:
    """Insertions, deletions and substitutions that lead from one to the other, by rapidfuzz.

    Raises:
        UsageError: the extra `sequence` is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError as error:
        raise UsageError("error rates need the extra `sequence`: pip install 'onnxptq[sequence]'.") from error
    return int(Levenshtein.distance(said, true))


def closeness(said: Sequence[Any], true: Sequence[Any]) -> float:
    """max(0, 1 - errors / length of the truth); of an empty truth 1 where nothing was said, else 0."""
    if not len(true):
        return float(not len(said))
    return max(0.0, 1.0 - distance(said, true) / len(true))


def _rate(first: int) -> Any:
    def compute(records: Mapping[str, Any]) -> float:
        sums = np.asarray(records["errors"], np.float64).reshape(-1, 4).sum(axis=0)
        return float(sums[first] / sums[first + 1]) if sums[first + 1] else float("nan")

    return compute


TOTALS = (
    Total("corpus CER", "character errors over all characters", _rate(0), larger_is_better=False),
    Total("corpus WER", "word errors over all words", _rate(2), larger_is_better=False),
)


def build(specification: Specification, signature: Signature) -> SequenceHead:
    """The head for one model: the output that the specification names, else the first of rank 3 (of rank 2 for ids).

    Raises:
        UsageError: a key is wrong, or it names an output that there is not.
        ModelError: no output can be a sequence.
    """
    decoding = specification.get("decoding") or "ctc"
    if decoding not in DECODINGS:
        raise UsageError(f"decoding must be one of {', '.join(DECODINGS)}, got {decoding!r}.")
    vocabulary = specification.get("vocabulary") or ()
    if isinstance(vocabulary, str):
        vocabulary = list(vocabulary)
    rank = 2 if decoding == "ids" else 3
    found = find_output(specification, signature, lambda spec: len(spec.shape) in (rank, 0))
    if found is None:
        raise ModelError(
            f"no output can be a sequence: {described(signature.outputs)}. Expected (N, T, V), a value for each symbol."
        )
    return SequenceHead(
        output=found[0].name,
        position=found[1],
        decoding=decoding,
        vocabulary=tuple(str(one) for one in vocabulary),
        blank=_whole(specification, "blank", 0) or 0,
        end=_whole(specification, "end", None),
        words=bool(specification.get("words", False)),
    )


def recognize(specification: Specification, signature: Signature, hints: Any) -> str | None:
    """A specification that says how to decode."""
    return "the specification says how to decode" if specification.get("decoding") else None


def _whole(specification: Specification, key: str, default: int | None) -> int | None:
    value = default if specification.get(key) is None else specification[key]
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise UsageError(f"{key} must be the number of a symbol, from 0, got {value!r}.")
    return value


HEADS.register(
    HeadKind(
        "sequence",
        "text by CTC or greedy decoding (OCR, speech), judged by character and word error rates",
        (CHARACTERS, WORDS, EXACT),
        FIDELITY,
        build,
        totals=TOTALS,
        recognize=recognize,
        formats=("a column transcript or text",),
        extra="sequence",
        keys=("output", "decoding", "vocabulary", "blank", "end", "words"),
    )
)
