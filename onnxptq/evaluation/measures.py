"""What predictions are judged by: the measures of the head that made them."""

from __future__ import annotations

from onnxptq.evaluation.predictions import Predictions
from onnxptq.heads import HEADS, Against, HeadKind, Measure
from onnxptq.heads.classification import ACCURACY, AGREEMENT

__all__ = ["ACCURACY", "AGREEMENT", "Against", "Measure", "kind_of", "measure_of"]


def measure_of(run: Predictions) -> Measure:
    """What the answers of a run are judged by: the truth where every sample has one, else the reference's answers.

    Raises:
        UsageError: the head that made them is not installed here.
    """
    kind = kind_of(run)
    if not run.labelled:
        return kind.agreement
    chosen = next(iter(run.scores), kind.measures[0].name)
    return next(measure for measure in kind.measures if measure.name == chosen)


def kind_of(run: Predictions) -> HeadKind:
    """The head that made predictions; files of schema 1 know classifiers only.

    Raises:
        UsageError: it is not installed here.
    """
    return HEADS.get(str(run.identity.get("head") or "classification"))
