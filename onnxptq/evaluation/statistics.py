"""The statistics of group evaluation: how sure is it that INT8 treats a group worse, and how much worse?

`docs/statistics.md` says what each number can and cannot tell. All of it is deterministic given a seed and does not
depend on the order of rows.
"""

from __future__ import annotations

from onnxptq.evaluation._bootstrap import (
    REPLICATES,
    BootstrapMeans,
    bootstrap_mean,
    bootstrap_means,
    percentile_interval,
    resampling_weights,
)
from onnxptq.evaluation._intervals import (
    drop_interval,
    graded_interval,
    mean_interval,
    paired_drop_interval,
    student_interval,
    wilson_interval,
)
from onnxptq.evaluation._paired_tests import equality_p_values, exceedance_p_values, holm, mcnemar, sign_flip_test
from onnxptq.evaluation._source_sums import (
    SourceCells,
    SourceSums,
    cells_by_source,
    design_effects,
    losses_and_gains,
    sum_by_source,
)
from onnxptq.evaluation._worst_group import (
    SPLITS,
    CrossfitDrop,
    crossfit_drop,
    cvar_drop,
    sources_to_decide,
    worst_count,
)

__all__ = [
    "REPLICATES",
    "SPLITS",
    "BootstrapMeans",
    "CrossfitDrop",
    "SourceCells",
    "SourceSums",
    "bootstrap_mean",
    "bootstrap_means",
    "cells_by_source",
    "crossfit_drop",
    "cvar_drop",
    "design_effects",
    "drop_interval",
    "equality_p_values",
    "exceedance_p_values",
    "graded_interval",
    "holm",
    "losses_and_gains",
    "mcnemar",
    "mean_interval",
    "paired_drop_interval",
    "percentile_interval",
    "resampling_weights",
    "sign_flip_test",
    "sources_to_decide",
    "student_interval",
    "sum_by_source",
    "wilson_interval",
    "worst_count",
]
