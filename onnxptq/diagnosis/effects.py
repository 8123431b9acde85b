"""What a variant does to the worst group, from its predictions and those of the float model.

With a few dozen samples in a group, accuracy moves in steps of several points, and most tensors move it not at all. So
tensors are ranked by *harm*: accuracy with its step made smooth,

    right(sample) = 1 / (1 + exp(-margin / width)),  width = a quarter of the float model's median margin,

where the margin is the top output minus the runner-up, negative where the prediction is wrong. A prediction that
comes near to flipping counts in part, one that is far from it does not count, whatever it loses. Harm has the unit of
accuracy and lies between -1 and 1, so it is cross-fitted as a drop is: the worst group is chosen on one half of the
samples and scored on the other. The group that is named is the one that loses most in accuracy: it is what `onnxptq
check` names, and need not be the one with the largest harm. A KL divergence would need logits, and counts changes of
confidence that flip nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from onnxptq.diagnosis.result import Effect
from onnxptq.evaluation.paired import Paired, paired
from onnxptq.evaluation.predictions import Predictions
from onnxptq.evaluation.report import signal_to_noise_db
from onnxptq.evaluation.statistics import crossfit_drop

Floats = npt.NDArray[np.float64]

_WIDTH = 0.25
"""Of the smooth step, in median margins of the float model: a sample of median margin is 98 % right."""


def effect_of(reference: Predictions, run: Predictions, weights: Floats, groupings: Sequence[str]) -> Effect:
    """The effect of a variant on the groups, the worst one first.

    Args:
        reference: predictions of the float model.
        run: predictions of the variant on the same samples, with its errors against the reference.
        weights: float64, (N,): what each row counts in a mean over all of them.
        groupings: as a user writes them; none is the default.
    """
    pair = paired(reference, run, groupings=groupings)
    softly = _softly(reference, run, pair)
    lost, changed = pair.lost, pair.changed
    harms, drops = pair.by_group(softly), pair.by_group(lost)
    fitted, fitted_drop = crossfit_drop(harms), crossfit_drop(drops)
    # The group is the one that loses most, by the statistic of `onnxptq check`; harm decides where groups lose alike,
    # and there are as many ties as groups where nothing changes.
    keys = (fitted_drop.chosen, drops.group_means, fitted.chosen, harms.group_means)
    worst = int(np.lexsort([-np.round(np.nan_to_num(key), 9) for key in reversed(keys)])[0])
    rows = pair.members[worst]
    return Effect(
        harm=fitted.value,
        drop=fitted_drop.value,
        mean_harm=float(np.average(softly, weights=weights)),
        average_drop=float(np.average(lost, weights=weights)),
        group=pair.names[worst],
        group_drop=float(lost[rows].mean()),
        group_flips=float("nan") if changed is None else float(changed[rows].mean()),
        group_sqnr_db=signal_to_noise_db(run.signal_energy[rows], run.error_energy[rows]),
        flips=float("nan") if changed is None else float(np.average(changed, weights=weights)),
        sources=int(drops.n_sources),
        samples=len(run),
        drop_low=fitted_drop.interval()[0],
        drop_high=fitted_drop.interval()[1],
    )


def _softly(reference: Predictions, run: Predictions, pair: Paired) -> Floats:
    """What each row lost, smoothly; scores of answers that are no classes are smooth by themselves."""
    if reference.certainty is None or run.certainty is None or not pair.measure.binary:
        return pair.lost
    width = max(float(np.median(reference.certainty)) * _WIDTH, float(np.finfo(np.float32).tiny))
    return _smooth(reference.certainty, pair.before, width) - _smooth(run.certainty, pair.after, width)


def _smooth(certainty: npt.NDArray[np.float32], right: Floats, width: float) -> Floats:
    margin = np.where(right == 1.0, certainty, -certainty).astype(np.float64)
    smooth: Floats = 1.0 / (1.0 + np.exp(-np.clip(margin / width, -50.0, 50.0)))
    return smooth
