"""Token classification (tagging, entity recognition): a class for every token, judged by the share that is right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError
from onnxptq.heads._base import HEADS, Head, HeadKind, Measure, Output, Scores, Specification, Total, Truths
from onnxptq.heads._shared import codes_of, find_output, find_truth, length_range
from onnxptq.signature import Signature, described

TOKENS = Measure("token accuracy", binary=False, summary="share of a sample's tokens with the right class")
ENTITIES = Measure(
    "entity F1",
    binary=False,
    source="Tjong Kim Sang and De Meulder, 2003 (CoNLL), by sentence",
    summary="F1 of the entities (BIO tags) of a sample; 1 where there are none and none was found",
)
FIDELITY = Measure(
    "token fidelity", binary=False, against="reference", summary="share of the tokens that FP32 says too"
)

UNCOUNTED = -100
"""The class of tokens that count nowhere (padding, later parts of a word), as Hugging Face writes it."""

Tags = tuple[npt.NDArray[np.int64], ...]


@dataclass(frozen=True)
class TokenClassification(Head):
    """One output (N, T, K).

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
        class_names: tags in the order of the output, or ().
    """

    output: str
    position: int
    class_names: tuple[str, ...]

    name = "token-classification"
    group_columns = ("tokens",)

    @property
    def specification(self) -> dict[str, Any]:
        """Output and classes."""
        return {"output": self.output, "classes": list(self.class_names)}

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The tags, or ()."""
        return self.class_names

    def truth_columns(self) -> tuple[str, ...]:
        """A class a token of the model, numbers or names, under one of these names; -100 counts nowhere."""
        return ("tags", "ner_tags", "pos_tags", "token_labels")

    def answers(self, outputs: Sequence[Output]) -> tuple[Tags, npt.NDArray[np.float64]]:
        """The class of each token, and the smallest margin of a sample. Raises ModelError for another rank, or NaN."""
        tags, margins = [], []
        for one in outputs[self.position]:
            values = np.asarray(one, np.float64)
            if values.ndim != 2 or values.shape[1] < 2:
                raise ModelError(
                    f"output {self.output!r} is {values.shape} a sample; expected (T, K), K classes a token."
                )
            if np.isnan(values).any():
                raise ModelError(f"output {self.output!r} holds NaN. Check the model's weights.")
            tags.append(values.argmax(axis=1))
            top = np.partition(values, -2, axis=1)[:, -2:]
            margins.append((top[:, 1] - top[:, 0]).min(initial=np.inf))
        return tuple(tags), np.asarray(margins)

    def score(self, answers: Any, truths: Truths) -> dict[str, Scores]:
        """The share of tokens that are right, and entity F1 where the tags are BIO; NaN without truth."""
        pairs = self._pairs(answers[0], truths)
        found = {TOKENS.name: [np.nan if pair is None else _share(*pair) for pair in pairs]}
        if self._entities:
            tables = [None if pair is None else self._entity_counts(*pair) for pair in pairs]
            found[ENTITIES.name] = [np.nan if table is None else _f1(table) for table in tables]
        return {name: np.asarray(values, np.float32) for name, values in found.items()}

    def fidelity(self, answers: Any, reference: Any) -> Scores:
        """The share of tokens that have the reference's class."""
        pairs = zip(answers[0], reference[0], strict=True)
        return np.asarray(
            [_share(mine, theirs) if len(mine) == len(theirs) else 0.0 for mine, theirs in pairs], np.float32
        )

    def code(self, answers: Any) -> npt.NDArray[np.int64]:
        """A number for each row of tags."""
        return codes_of(tags.tobytes() for tags in answers[0])

    def certainty(self, answers: Any) -> npt.NDArray[np.float64]:
        """The smallest margin of a token."""
        return np.asarray(answers[1], np.float64)

    def records(self, answers: Any, truths: Truths) -> dict[str, Sequence[Any]]:
        """Tokens right and counted; entities right, found and wanted."""
        rows = []
        for pair in self._pairs(answers[0], truths):
            if pair is None:
                rows.append([0, 0, 0, 0, 0])
                continue
            entities = self._entity_counts(*pair) if self._entities else (0, 0, 0)
            rows.append([int((pair[0] == pair[1]).sum()), len(pair[1]), *entities])
        return {"counts": rows}

    def group_values(self, truths: Truths) -> dict[str, list[str]]:
        """How many tokens of a sample count."""
        count = len(next(iter(truths.values())))
        _, values = find_truth(truths, self.truth_columns()) or ("", [None] * count)
        sizes = [None if one is None else sum(1 for tag in one if tag != UNCOUNTED) for one in values]
        return {"tokens": ["unknown" if size is None else length_range(size) for size in sizes]}

    @property
    def _entities(self) -> bool:
        return any(name.startswith("B-") for name in self.class_names)

    def _entity_counts(self, mine: Any, theirs: Any) -> tuple[int, int, int]:
        found, wanted = (entities([self._tag(index) for index in side]) for side in (mine, theirs))
        return len(found & wanted), len(found), len(wanted)

    def _tag(self, index: int) -> str:
        return self.class_names[index] if 0 <= index < len(self.class_names) else "O"

    def _pairs(self, tags: Tags, truths: Truths) -> list[tuple[Any, Any] | None]:
        """Answer and truth of the tokens that count; None where a sample has no truth."""
        if (truth := find_truth(truths, self.truth_columns())) is None:
            return [None] * len(tags)
        column, values = truth
        found: list[tuple[Any, Any] | None] = []
        for mine, value in zip(tags, values, strict=True):
            if value is None:
                found.append(None)
                continue
            wanted = self._indices(value, column)
            if len(wanted) > len(mine):
                raise DataError(
                    f"column {column!r} has {len(wanted)} tags for a sample of {len(mine)} tokens of the model. "
                    "Give one tag a token of the model, -100 for tokens that count nowhere."
                )
            counted = wanted != UNCOUNTED
            found.append((mine[: len(wanted)][counted], wanted[counted]))
        return found

    def check_truth(self, truth: Mapping[str, Any]) -> None:
        """Tags that the model has."""
        for column, value in truth.items():
            if value is not None:
                self._indices(value, column)

    def _indices(self, value: Any, column: str) -> npt.NDArray[np.int64]:
        known = {name: index for index, name in enumerate(self.class_names)}
        try:
            return np.asarray([known[one] if isinstance(one, str) else int(one) for one in value], np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"column {column!r} holds {str(value)[:80]}; expected a class a token ({error})."
            ) from error


def entities(tags: Sequence[str]) -> set[tuple[int, int, str]]:
    """Start, end and kind of each entity of BIO tags; an I- that continues nothing begins one, as CoNLL counts."""
    found = set()
    start, kind = 0, ""
    for place, tag in enumerate([*tags, "O"]):
        prefix, _, name = tag.partition("-")
        if kind and (prefix != "I" or name != kind):
            found.add((start, place, kind))
            kind = ""
        if prefix == "B" or (prefix == "I" and not kind):
            start, kind = place, name
    return found


def _share(mine: Any, theirs: Any) -> float:
    return float((mine == theirs).mean()) if len(theirs) else 1.0


def _f1(table: tuple[int, int, int]) -> float:
    right, found, wanted = table
    return 1.0 if found + wanted == 0 else 2.0 * right / (found + wanted)


def _sums(records: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    return np.asarray(np.asarray(records["counts"], np.float64).reshape(-1, 5).sum(axis=0))


def _entity_f1(records: Mapping[str, Any]) -> float:
    right, found, wanted = _sums(records)[2:]
    return float(2 * right / (found + wanted)) if found + wanted else float("nan")


def _token_share(records: Mapping[str, Any]) -> float:
    right, counted = _sums(records)[:2]
    return float(right / counted) if counted else float("nan")


def build(specification: Specification, signature: Signature) -> TokenClassification:
    """The head for one model: the output that the specification names, else the first of rank 3.

    Raises:
        UsageError: the specification names an output that there is not.
        ModelError: no output has a class for each token.
    """
    found = find_output(specification, signature, lambda spec: len(spec.shape) == 3)
    if found is None:
        raise ModelError(f"no output has a class for each token: {described(signature.outputs)}. Expected (N, T, K).")
    classes = tuple(str(name) for name in specification.get("classes") or ())
    return TokenClassification(found[0].name, found[1], classes)


HEADS.register(
    HeadKind(
        "token-classification",
        "a class for every token (tagging, entities), judged by the share that is right and entity F1",
        (TOKENS, ENTITIES),
        FIDELITY,
        build,
        totals=(
            Total("entity F1 of all", "F1 over all entities", _entity_f1),
            Total("token accuracy of all", "share of all tokens that are right", _token_share),
        ),
        formats=("a column tags: one a token of the model",),
        keys=("output", "classes"),
    )
)
