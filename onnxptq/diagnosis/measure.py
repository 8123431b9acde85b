"""Running variants: each becomes a file for as long as it runs, several share the decoded samples."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.cache import Cache
from onnxptq.diagnosis.pairs import PairedFile
from onnxptq.diagnosis.variants import make_variant
from onnxptq.evaluation import ModelUnderTest, Predictions, predict
from onnxptq.evaluation.samples import EvaluationSamples
from onnxptq.graphs import Model, load_model
from onnxptq.graphs.passed_through import restore_passed_through
from onnxptq.progress import Advance, uncounted

if TYPE_CHECKING:
    import onnx

_SESSIONS = 64
"""Variants that are loaded together, where they are small: reading samples then costs more than running them."""

_BYTES = 1 << 30
"""Of models that are loaded together."""

_SMALL = 16 << 20
"""Bytes of a float model below which variants run on one thread: the idle thread pools of many sessions spin, and take
more of the processor than one small net gains by a second thread."""

Tensors = frozenset[str]
"""A variant: names of the tensors that are quantized."""


@dataclass(frozen=True)
class VariantRunner:
    """What variants are made of and judged with.

    Attributes:
        reference: the float model.
        base: its graph, as variants are made from it.
        quantized: the INT8 file's graph.
        paired: what it quantizes.
        cache: where predictions are found again.
    """

    reference: Model
    base: onnx.ModelProto
    quantized: onnx.ModelProto
    paired: PairedFile
    cache: Cache

    def write(self, tensors: Iterable[str], path: Path) -> None:
        """Writes the variant in which `tensors` are quantized."""
        import onnx

        wanted = frozenset(tensors)
        pairs = [pair for pair in self.paired.pairs if pair.tensor in wanted]
        onnx.save(make_variant(self.base, self.quantized, pairs), str(path))
        restore_passed_through(path, self.reference.path)

    def float_run(self, samples: EvaluationSamples) -> Predictions:
        """Predictions of the float model."""
        return predict([ModelUnderTest(self.reference)], samples, self.cache)[0]

    def run(
        self, variants: Sequence[Tensors], samples: EvaluationSamples, progress: Advance = uncounted
    ) -> list[Predictions]:
        """Predictions of each variant, with its errors against the float model; equal variants run once.

        Args:
            variants: which tensors are quantized in each.
            samples: what they are judged on.
            progress: called with the number of variants done since the last call.
        """
        distinct = list(dict.fromkeys(variants))
        together = max(1, min(_SESSIONS, _BYTES // max(self.reference.size, 1)))
        threads = 1 if self.reference.size < _SMALL else None
        found: dict[Tensors, Predictions] = {}
        for start in range(0, len(distinct), together):
            chunk = distinct[start : start + together]
            with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
                subjects = [ModelUnderTest(self.reference, threads=threads)]
                for number, variant in enumerate(chunk):
                    path = Path(folder) / f"variant{number}.onnx"
                    self.write(variant, path)
                    subjects.append(ModelUnderTest(load_model(path), threads=threads))
                runs = predict(subjects, samples, self.cache)
            found.update(zip(chunk, runs[1:], strict=True))
            progress(sum(variant in chunk for variant in variants))
        return [found[variant] for variant in variants]
