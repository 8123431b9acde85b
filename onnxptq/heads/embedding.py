"""Embeddings: a vector comes out, and an answer is good where the nearest other samples are of the query's class.

The neighbors of a query are searched among the clean samples of the same model, its own copies left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError
from onnxptq.heads._base import HEADS, Head, HeadKind, Measure, Output, Scores, Specification, Truths
from onnxptq.heads._shared import find_output
from onnxptq.signature import Signature, TensorSpec, described

RECALLS = (
    Measure("recall@1", binary=True, summary="the nearest clean sample of another source has the query's label"),
    Measure("recall@5", binary=True, summary="one of the five nearest has the query's label"),
)
VERIFICATION = Measure(
    "verification AUROC",
    binary=False,
    source="Fawcett, 2006, Pattern Recognition Letters 27:861, of each query alone",
    summary="chance that a clean sample of the query's label is nearer to it than one of another label",
)
FIDELITY = Measure(
    "cosine fidelity", binary=False, against="reference", summary="cosine with the reference, at least 0"
)

_CHUNK = 512

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Embedding(Head):
    """One output with a vector a sample.

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
    """

    output: str
    position: int

    name = "embedding"

    @property
    def specification(self) -> dict[str, Any]:
        """The output."""
        return {"output": self.output}

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    def answers(self, outputs: Sequence[Output]) -> Vectors:
        """Vectors of length 1, float32 (N, D); zero where a vector is. Raises ModelError where they differ in size."""
        vectors = np.asarray(outputs[self.position])
        if vectors.dtype == object or vectors.ndim < 2:
            raise ModelError(
                f"output {self.output!r} has shape {vectors.shape}; an embedding is one vector of fixed size a sample. "
                'Name another output ("output" in the specification).'
            )
        flat = vectors.reshape(len(vectors), -1).astype(np.float64)
        lengths = np.linalg.norm(flat, axis=1, keepdims=True)
        return np.asarray(np.divide(flat, lengths, out=np.zeros_like(flat), where=lengths > 0), np.float32)

    def fidelity(self, answers: Vectors, reference: Vectors) -> Scores:
        """The cosine, 0 where it is negative: a vector at a right angle says nothing of the reference's, so it gets no
        half of the points. 0 where the model gives a zero vector and the reference does not, 1 where both do."""
        cosine = (answers.astype(np.float64) * reference).sum(axis=1)
        nothing = ~answers.any(axis=1) & ~reference.any(axis=1)
        found = np.where(nothing, 1.0, cosine.clip(0, 1))
        return found.astype(np.float32)

    def records(self, answers: Vectors, truths: Truths) -> dict[str, Sequence[Any]]:
        """The vectors."""
        return {"vector": list(answers)}

    def whole_set(
        self,
        records: Mapping[str, Any],
        label: npt.NDArray[np.int64],
        source: npt.NDArray[np.int64],
        clean: npt.NDArray[np.bool_],
    ) -> dict[str, Scores]:
        """1 where a nearest clean sample of another source has the query's label, else 0; and how surely pairs of one
        label are told from others by their cosine. NaN without a label, or without such pairs."""
        gallery = np.flatnonzero(clean & (label >= 0))
        if not len(gallery):
            return {}
        vectors = _stacked(records)
        nearest = neighbors(vectors, source, gallery, 5)
        alike = (label[nearest] == label[:, None]) & (nearest >= 0)
        recalls = {
            measure.name: np.where(label < 0, np.nan, alike[:, :count].any(axis=1)).astype(np.float32)
            for measure, count in zip(RECALLS, (1, 5), strict=True)
        }
        return {**recalls, VERIFICATION.name: verified(vectors, label, source, gallery)}


def verified(
    vectors: Vectors, label: npt.NDArray[np.int64], source: npt.NDArray[np.int64], gallery: npt.NDArray[np.int64]
) -> Scores:
    """Of each query the share of pairs (own label, other label) of a gallery in which its own has the larger cosine.

    Equal ones count half; the query's own source is left out; NaN where there is no such pair. float32, (N,).
    """
    found = np.full(len(vectors), np.nan, np.float32)
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        near = vectors[part].astype(np.float64) @ vectors[gallery].T
        other = source[part, None] != source[gallery][None]
        same = label[part, None] == label[gallery][None]
        for row in range(len(near)):
            own, strange = near[row][same[row] & other[row]], np.sort(near[row][~same[row] & other[row]])
            if label[start + row] < 0 or not len(own) or not len(strange):
                continue
            below, up_to = (np.searchsorted(strange, own, side) for side in ("left", "right"))
            found[start + row] = (below + up_to).mean() / (2 * len(strange))
    return found


def neighbors(vectors: Vectors, source: npt.NDArray[np.int64], gallery: npt.NDArray[np.int64], count: int) -> Any:
    """The nearest rows of a gallery by cosine, those of the query's own source left out: int64, (N, count).

    -1 stands where there is none; a zero vector is near to nothing.
    """
    found = np.full((len(vectors), count), -1, np.int64)
    alive = gallery[vectors[gallery].any(axis=1)]
    if not len(alive):
        return found
    for start in range(0, len(vectors), _CHUNK):
        part = slice(start, start + _CHUNK)
        near = vectors[part].astype(np.float64) @ vectors[alive].T
        near[source[part, None] == source[alive][None]] = -np.inf
        near[~vectors[part].any(axis=1)] = -np.inf
        order = np.argsort(-near, axis=1, kind="stable")[:, :count]
        chosen = np.where(np.isfinite(np.take_along_axis(near, order, axis=1)), alive[order], -1)
        found[part, : chosen.shape[1]] = chosen
    return found


def _stacked(records: Mapping[str, Any]) -> Vectors:
    return np.stack([np.asarray(one, np.float32) for one in records["vector"]])


def build(specification: Specification, signature: Signature) -> Embedding:
    """The head for one model: the output that the specification names, else the first of floats that is (N, D).

    Raises:
        UsageError: the specification names an output that there is not.
        ModelError: no output is a vector a sample.
    """
    found = find_output(specification, signature, _is_vector)
    if found is None:
        raise ModelError(
            f"no output is a vector for each sample: {described(signature.outputs)}. Expected (N, D); name it in the "
            'specification ("output").'
        )
    return Embedding(found[0].name, found[1])


def _is_vector(spec: TensorSpec) -> bool:
    return spec.dtype.startswith("float") and len(spec.shape) == 2


HEADS.register(
    HeadKind(
        "embedding",
        "a vector, judged by whether its nearest neighbor has its label",
        (*RECALLS, VERIFICATION),
        FIDELITY,
        build,
        formats=("labels: samples of one label belong together",),
        keys=("output",),
    )
)
