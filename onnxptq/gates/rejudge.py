"""Judging again: what the rules need to know, read from a file of predictions; no model runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxptq.data.isolated import DecodeError, ask, memory_for, seconds_for
from onnxptq.errors import DataError, UsageError
from onnxptq.evaluation import Predictions, load_predictions
from onnxptq.evaluation.measures import kind_of
from onnxptq.evaluation.paired import fidelity_measure, measure_named, paired
from onnxptq.evaluation.totals import totals_by_name
from onnxptq.foreign_text import one_line
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, settle
from onnxptq.graphs import Model, load_model
from onnxptq.heads import RAW


def read_evidence(
    file: Path,
    policy: Policy | None,
    *,
    model: Path | None,
    reference: Path | None,
    provider: str | None,
    groups: tuple[str, ...] = (),
) -> tuple[Policy, Evidence]:
    """What a file of predictions tells, and the policy: None is the default one.

    The first run of the file is the reference unless one is named.

    Args:
        file: as `onnxptq evaluate --predictions` writes it.
        policy: the rules.
        model: the file that was judged; it picks the run, and is looked at by rules about the file. None takes the
            only model in the file that is not the reference.
        reference: the FP32 file.
        provider: picks the run where the model ran on several; None takes the first.
        groups: groupings, instead of the policy's.

    Raises:
        DataError: no such file, not predictions, or predictions of another model.
        UsageError: it is not clear which run is meant.
    """
    runs = read_predictions(file)
    domains = policy.graph.domains if policy and policy.graph else ()
    judged = load_model(model, domains=domains) if model else None
    base = load_model(reference, domains=domains) if reference else None
    before = _of(runs, base, file)[0] if base else runs[0]
    own = _runs_of_model(runs, before, judged, file)
    chosen = _on(own, provider, file)
    found = settle(
        policy,
        groups,
        labelled=chosen.labelled,
        flips=fidelity_measure(chosen).binary,
        raw=kind_of(chosen).name == RAW,
    )
    names = {run.runtime: run for run in reversed(own)}
    evidence = Evidence(
        model=judged,
        reference=base,
        predictions=chosen,
        reference_predictions=before,
        pairing=paired(before, chosen, measure_named(chosen, found.score), found.group_by),
        totals=totals_by_name(before, chosen) if found.total_drop else {},
        by_provider={name: run for name, run in names.items() if run is not chosen},
    )
    return found, evidence


def read_predictions(file: Path) -> list[Predictions]:
    """The runs of a file that anybody may have written.

    Raises:
        DataError: no such file, or not predictions.
    """
    if not file.exists():
        raise DataError(f"there are no predictions {file}. `onnxptq evaluate --predictions FILE` writes them.")
    _vet(file)
    return list(map(_shown, load_predictions(file)))


def _vet(file: Path) -> None:
    """Reads the file in the decoder's process first: a damaged one can crash Arrow, or ask for all memory."""
    size = file.stat().st_size
    try:
        ask("parquet", path=str(file.resolve()), seconds=seconds_for(size), memory=memory_for(size))
    except DecodeError as error:
        raise DataError(
            f"the predictions {file} cannot be read: {error.reason}. Make them again with `onnxptq evaluate "
            "--predictions FILE`."
        ) from error


def _shown(run: Predictions) -> Predictions:
    """The run with names that can be shown: whoever wrote the file wrote them."""
    names = {name: np.array(list(map(one_line, values.tolist())), np.str_) for name, values in run.groups.items()}
    model = {**run.identity["model"], "name": one_line(run.identity["model"]["name"])}
    return replace(run, groups=names, identity={**run.identity, "model": model})


def _runs_of_model(
    runs: Sequence[Predictions], before: Predictions, judged: Model | None, file: Path
) -> list[Predictions]:
    if judged is not None:
        return _of(runs, judged, file)
    digests = {_digest(run) for run in runs} - {_digest(before)}
    if len(digests) != 1:
        names = ", ".join(sorted({str(run.identity["model"]["name"]) for run in runs if run is not before}))
        what = f"of several models ({names})" if digests else "of the reference only"
        raise UsageError(f"{file} has predictions {what}. Give the MODEL that is to be judged.")
    return [run for run in runs if _digest(run) in digests]


def _of(runs: Sequence[Predictions], model: Model, file: Path) -> list[Predictions]:
    found = [run for run in runs if _digest(run) == model.digest]
    if not found:
        names = ", ".join(dict.fromkeys(str(run.identity["model"]["name"]) for run in runs))
        raise DataError(
            f"{file} has predictions of another model ({names}), not of {model.path} ({model.digest[:8]}). Evaluate "
            "it with `onnxptq evaluate --predictions FILE`."
        )
    return found


def _on(runs: Sequence[Predictions], provider: str | None, file: Path) -> Predictions:
    for run in runs:
        if provider in (None, run.runtime):
            return run
    names = ", ".join(run.runtime for run in runs)
    raise UsageError(f"{file} has no predictions on {provider!r}, only on {names}. Leave out --ep, or choose of them.")


def _digest(run: Predictions) -> str:
    return str(run.identity["model"].get("digest"))
