"""A look at an INT8 file before it is handed over: does it load, does it run, does it compute what was asked for?

1. Lint, with the rules of the file's target: its errors are told.
2. The file is loaded and runs up to `SAMPLES` calibration samples, as ONNX Runtime optimizes it and as it is written.
   A file that does not load, does not run, or gives what is no answer (NaN, the same for every sample) is an error of
   its own, `WrittenFileError`: the FP32 model is sound, so nobody is told to repair it.
3. Where the two ways differ by more than rounding explains, or an output has lost its signal, all quantized tensors are
   compared with those of the FP32 model (`verify_tensors`), and the first that is wrong is named with cause and remedy.

It costs one load of each model and the inference of few samples; sessions are left for the evaluation that follows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError, OnnxptqError, WrittenFileError
from onnxptq.graphs import Model
from onnxptq.quantization._inference import batched
from onnxptq.quantization.verify_tensors import Traced, explain, sqnr_db
from onnxptq.runtimes import open_session
from onnxptq.runtimes.cpu import u8s8_saturates
from onnxptq.runtimes.session import Optimization, Session, handing_over
from onnxptq.signature import Feeds

SAMPLES = 4
"""Calibration samples that are run."""

LOST_DB = 10.0
"""An output whose error is more than a tenth of its signal's energy is looked into."""

ROUNDING_DB = 6.0
"""How much worse the optimized graph may be: fused kernels round once where the graph as written rounds twice."""

SOUND_DB = 20.0
"""From here on nothing is looked into: the optimized graph is good, however much better the one as written is."""

_VARIES = 0.05
"""An output that differs between samples by this share of its size tells them apart; its INT8 form has to as well."""

Outputs = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class _Way:
    """One model at one level of optimization, and what it gave for each sample."""

    session: Session
    answers: list[Outputs]


def verify_int8(
    fp32: Model,
    int8: Model,
    folded: Path,
    samples: Iterable[tuple[str, Feeds]],
    target: str,
    *,
    same_tensors: bool = True,
    stack: ExitStack | None = None,
) -> tuple[str, ...]:
    """Looks at an INT8 file that was just written.

    Args:
        fp32: the model that it was made from.
        int8: the file.
        folded: the folded FP32 model, whose tensors have the names of the INT8 file's.
        samples: calibration samples; the first `SAMPLES` are run. None of them: the file is loaded and not run.
        target: what it was made for, for lint.
        same_tensors: the tensors of `folded` hold what those of the file should; not so where weights were changed.
        stack: keeps the sessions for who opens the same models next, until it is closed.

    Returns:
        One line for each thing that a user should know.

    Raises:
        WrittenFileError: the file does not load or run, or its answers are of no use.
        ModelError: the FP32 model cannot be run.
    """
    notes = _linted(int8.path, target)
    level: Optimization = "exact" if u8s8_saturates() else "all"
    fed = list(islice(samples, SAMPLES))
    optimized, written = (_run(int8, fed, at) for at in (level, "none"))
    if not fed:
        return notes
    session = open_session(fp32.core.path)
    try:
        wanted = [_answers(session, feeds) for _, feeds in fed]
    except Exception as error:
        raise ModelError(f"{fp32.path} does not run on its calibration samples: {reason_of(error)}") from error
    _check_answers(int8, fed, wanted, optimized.answers)
    if stack is not None:
        stack.enter_context(handing_over([session, *([optimized.session] if level == "all" else [])]))
    noises = [_noise(wanted, way.answers) for way in (optimized, written)]
    if not _suspicious(*noises):
        return notes
    traced = Traced(int8.core.path, folded if same_tensors else None, level)
    found = explain(traced, [feeds for _, feeds in fed], optimization_differs=_differs(*noises))
    return (*notes, found or _unexplained(*noises))


def _linted(path: Path, target: str) -> tuple[str, ...]:
    from onnxptq.lint import LINT_RULES, lint

    if not any(target in rule.levels for rule in LINT_RULES):
        return ()
    report = lint(path, target)
    errors = [finding for finding in report.findings if finding.level == "error"]
    if not errors:
        return ()
    first = errors[0]
    more = f" and {len(errors) - 1} more" if len(errors) > 1 else ""
    return (
        f"lint finds an error in the file for {target}: {first.rule} {first.where}: {first.message}{more}. "
        f"`onnxptq lint FILE --target {target}` says more.",
    )


def _run(int8: Model, fed: Sequence[tuple[str, Feeds]], level: Optimization) -> _Way:
    how = "as it is written" if level == "none" else "optimized"
    try:
        session = open_session(int8.core.path, optimization=level)
    except OnnxptqError as error:
        raise useless(int8.path, f"ONNX Runtime cannot load it {how}: {reason_of(error)}") from error
    answers = []
    for sample_id, feeds in fed:
        try:
            answers.append(_answers(session, feeds))
        except Exception as error:
            raise useless(int8.path, f"it fails on the sample {sample_id!r} {how}: {reason_of(error)}") from error
    return _Way(session, answers)


def _answers(session: Session, feeds: Feeds) -> Outputs:
    shapes = {value.name: value.shape for value in session.native.get_inputs()}
    given = {name: batched(array, shapes.get(name)) for name, array in feeds.items() if name in shapes}
    names = [value.name for value in session.native.get_outputs()]
    return dict(zip(names, session.native.run(None, given), strict=True))


def _floats(answers: Sequence[Outputs]) -> list[str]:
    """The outputs that hold floats in every answer."""
    return [
        name
        for name in answers[0]
        if all(isinstance(a.get(name), np.ndarray) and np.issubdtype(a[name].dtype, np.floating) for a in answers)
    ]


def _check_answers(
    int8: Model, fed: Sequence[tuple[str, Feeds]], wanted: Sequence[Outputs], given: Sequence[Outputs]
) -> None:
    """Raises WrittenFileError where the file's answers are none, and those of the FP32 model are."""
    for name in _floats(wanted):
        for (sample_id, _), right, got in zip(fed, wanted, given, strict=True):
            if np.isfinite(right[name]).all() and not np.isfinite(got[name]).all():
                raise useless(int8.path, f"its output {name!r} is NaN or infinite for the sample {sample_id!r}")
    names = [name for name in _floats(wanted) if _varies([answer[name] for answer in wanted])]
    if names and all(_constant([answer[name] for answer in given]) for name in names):
        raise useless(
            int8.path,
            f"it gives the same output {names[0]!r} for all {len(given)} samples, and the FP32 model does not",
        )


def _varies(values: Sequence[npt.NDArray[Any]]) -> bool:
    if len(values) < 2 or len({value.shape for value in values}) > 1:
        return False
    stacked = np.stack(values).astype(np.float64)
    size = np.sqrt((stacked**2).mean()) if stacked.size else 0.0
    return bool(size > 0 and np.isfinite(size) and stacked.std(axis=0).max(initial=0.0) > _VARIES * size)


def _constant(values: Sequence[npt.NDArray[Any]]) -> bool:
    return all(np.array_equal(values[0], value) for value in values[1:])


def _noise(wanted: Sequence[Outputs], given: Sequence[Outputs]) -> float:
    """Signal to noise of the output that lost most, in dB."""
    names = [
        name
        for name in _floats(wanted)
        if all(w[name].shape == g[name].shape for w, g in zip(wanted, given, strict=True))
    ]
    return min((sqnr_db([w[n] for w in wanted], [g[n] for g in given]) for n in names), default=np.inf)


def _differs(optimized: float, written: float) -> bool:
    return optimized < SOUND_DB and optimized < written - ROUNDING_DB


def _suspicious(optimized: float, written: float) -> bool:
    return optimized < LOST_DB or written < LOST_DB or _differs(optimized, written)


def _unexplained(optimized: float, written: float) -> str:
    return (
        f"on the calibration samples the outputs keep {optimized:.0f} dB of the FP32 model's signal, as the graph is "
        f"written {written:.0f} dB. No single tensor explains it: many small errors add up. `onnxptq diagnose` tells "
        "which nodes matter; --method robust or --exclude NODE helps."
    )


def useless(int8: Path, reason: str) -> WrittenFileError:
    """What to raise where a file that was just written cannot be used, and why."""
    return WrittenFileError(
        f"the INT8 file {int8.name} was made and is of no use: {reason.rstrip('.')}. The FP32 model is not at "
        "fault. Leave the node that is named, or those in front of the output, in float with --exclude NODE, or choose "
        "another --method or --target. --no-verify writes the file as it is."
    )


def reason_of(error: Exception) -> str:
    """What ONNX Runtime says, without our own advice on the user's model."""
    text = str(error).strip().splitlines()
    first = text[0] if text else type(error).__name__
    return first.partition(" Expected a ")[0].removeprefix("[ONNXRuntimeError] : ")
