"""Rows of predictions while they come in: what a model said of each sample, and how far that is from the reference."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.evaluation.predictions import OutputShape, Predictions
from onnxptq.evaluation.samples import CLEAN, EvaluationSamples
from onnxptq.heads import Answers, Head, Output, Truths
from onnxptq.signature import Signature

OUTPUTS_KEPT = 1024
"""Values of output a sample up to which predictions keep the outputs themselves (4 KB a sample)."""

Floats = npt.NDArray[np.float64]
Energies = Mapping[str, tuple[Floats, Floats]]

_EXACT = 2**24
"""Integers up to here survive the way to float32 and back."""

_PIXELS = ("uint8", "int8")


@dataclass
class Said:
    """What a model said of some rows.

    Attributes:
        names: of the outputs.
        outputs: each (N, ...), or N arrays where samples differ in shape.
        answers: what the head read from them.
    """

    names: list[str]
    outputs: list[Output]
    answers: Answers = None

    @cached_property
    def shapes(self) -> tuple[OutputShape, ...]:
        """Of the outputs that `flat` holds."""
        return tuple(
            OutputShape(name, output.dtype.name, output.shape[1:])
            for name, output in zip(self.names, self.outputs, strict=True)
        )

    @cached_property
    def flat(self) -> npt.NDArray[np.float32] | None:
        """float32, (N, K): all outputs in a row, or None where float32 cannot hold them."""
        if not all(_keepable(output) for output in self.outputs):
            return None
        rowwise = [o.reshape(len(o), -1).astype(np.float32, copy=False) for o in self.outputs]
        return rowwise[0] if len(rowwise) == 1 else np.concatenate(rowwise, axis=1)


class Gathered:
    """The rows of one model.

    Args:
        rows: how many there will be.
        head: of the task.
    """

    def __init__(self, rows: int, head: Head) -> None:
        self._rows = rows
        self._head = head
        self._columns: dict[str, Any] = {}
        self._outputs: npt.NDArray[np.float32] | None = None
        self._shapes: tuple[OutputShape, ...] | None = None

    def add(self, rows: npt.NDArray[np.int64], said: Said, reference: Said, truths: Truths) -> None:
        """What was said of some rows, and what the reference said of them (the same object for the reference)."""
        head, answers = self._head, said.answers
        found: dict[str, Any] = {
            "code": head.code(answers),
            "certainty": _float32(head.certainty(answers)),
            "fidelity": np.asarray(head.fidelity(answers, reference.answers), np.float32),
        }
        found |= {f"score.{name}": _float32(values) for name, values in head.score(answers, truths).items()}
        found |= {f"record.{name}": values for name, values in head.records(answers, truths).items()}
        energies = _energies_of(reference, said)
        total_signal, total_error = _total(reference, said, energies)
        found |= {"signal": total_signal, "error": total_error}
        for name, (signal, error) in energies.items():
            found |= {f"signal.{name}": signal, f"error.{name}": error}
        for name, values in found.items():
            if values is not None:
                self._put(name, rows, values)
        self._keep(rows, said)

    def predictions(self, samples: EvaluationSamples) -> Predictions:
        """All rows."""
        columns = self._columns

        def named(prefix: str) -> dict[str, Any]:
            return {name.removeprefix(prefix): values for name, values in columns.items() if name.startswith(prefix)}

        records = named("record.")
        source = np.unique(samples.source_id, return_inverse=True)[1].astype(np.int64)
        clean = samples.groups["corruption"] == CLEAN
        whole = self._head.whole_set(records, samples.label, source, clean)
        return Predictions(
            sample_id=samples.sample_id,
            source_id=samples.source_id,
            groups=samples.groups,
            label=samples.label,
            signal_energy=columns["signal"],
            error_energy=columns["error"],
            identity={},
            code=columns.get("code"),
            scores=named("score.") | whole,
            fidelity=columns["fidelity"],
            certainty=columns.get("certainty"),
            records=records,
            outputs=self._outputs,
            shapes=(self._shapes or ()) if self._outputs is not None else (),
            energies={name: (signal, columns[f"error.{name}"]) for name, signal in named("signal.").items()},
        )

    def _put(self, name: str, rows: npt.NDArray[np.int64], values: Any) -> None:
        if len(values) != len(rows):
            raise DataError(
                f"the head {self._head.name!r} gave {len(values)} values of {name!r} for {len(rows)} samples. "
                "Expected one a sample; report it to whoever wrote the head."
            )
        if isinstance(values, np.ndarray):
            column = self._columns.setdefault(name, np.full(self._rows, _nothing(values), values.dtype))
            column[rows] = values
            return
        listed: list[Any] = self._columns.setdefault(name, [None] * self._rows)
        for row, value in zip(rows.tolist(), values, strict=True):
            listed[row] = value

    def _keep(self, rows: npt.NDArray[np.int64], said: Said) -> None:
        """Keeps the outputs where they are few and every sample has the same."""
        first = self._shapes is None
        if first:
            self._shapes = said.shapes
            if said.flat is not None and said.flat.shape[1] <= OUTPUTS_KEPT:
                self._outputs = np.empty((self._rows, said.flat.shape[1]), np.float32)
        if self._outputs is not None and said.flat is not None and said.shapes == self._shapes:
            self._outputs[rows] = said.flat
        else:
            self._outputs = None


def narrow(signature: Signature) -> bool:
    """Whether it says how many values the outputs have for a sample, and those are few enough to be kept."""
    shapes = [spec.shape for spec in signature.outputs]
    if any(not shape or None in shape[1:] for shape in shapes):
        return False
    return sum(math.prod(size or 0 for size in shape[1:]) for shape in shapes) <= OUTPUTS_KEPT


def not_finite(output: Output) -> npt.NDArray[np.bool_]:
    """bool, (N,): whether an output has NaN or infinity for a sample."""
    return _any_value(output, lambda values: ~np.isfinite(values))


def has_nan(output: Output) -> npt.NDArray[np.bool_]:
    """bool, (N,): whether an output has NaN for a sample."""
    return _any_value(output, np.isnan)


def _any_value(output: Output, wrong: Callable[[npt.NDArray[Any]], npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    if output.dtype == object:
        return np.array([bool(_any_value(np.asarray(one)[None], wrong)[0]) for one in output], np.bool_)
    if output.dtype.kind != "f":
        return np.zeros(len(output), np.bool_)
    return np.asarray(wrong(output.reshape(len(output), -1)).any(axis=1))


def kept_energies(reference: Predictions, run: Predictions) -> tuple[Floats, Floats, Energies]:
    """Signal and error energy of two runs that kept their outputs: of all outputs, and by output."""
    assert reference.outputs is not None and run.outputs is not None
    if not (reference.shapes and run.shapes):
        return *_energies(reference.outputs, run.outputs), {}
    exact, said = (Said([s.name for s in one.shapes], list(one.unflattened())) for one in (reference, run))
    energies = _energies_of(exact, said)
    return *_total(exact, said, energies), energies


def _energies_of(reference: Said, said: Said) -> dict[str, tuple[Floats, Floats]]:
    """Of every output that is an amount; integers and text name things."""
    found = {}
    for name, exact, output in zip(said.names, reference.outputs, said.outputs, strict=True):
        if exact.dtype == object or output.dtype == object or exact.shape != output.shape:
            if all(_is_amount(np.asarray(one)) for one in [*exact, *output]):
                found[name] = _ragged_energies(exact, output)
        elif _is_amount(output):
            found[name] = _energies(_rowwise(exact), _rowwise(output))
    return found


def _total(reference: Said, said: Said, energies: Energies) -> tuple[Floats, Floats]:
    """Of all amounts together."""
    nothing = np.full(len(said.outputs[0]), np.nan)
    if not energies:
        return nothing, nothing
    if len(energies) == 1:
        return next(iter(energies.values()))
    amounts = [number for number, name in enumerate(said.names) if name in energies]
    pairs = [(reference.outputs[number], said.outputs[number]) for number in amounts]
    if any(exact.dtype == object or output.dtype == object or exact.shape != output.shape for exact, output in pairs):
        return sum_of([signal for signal, _ in energies.values()]), sum_of([error for _, error in energies.values()])
    exact, output = (np.concatenate([_rowwise(pair[side]) for pair in pairs], axis=1) for side in (0, 1))
    return _energies(exact, output)


def sum_of(parts: Sequence[Floats]) -> Floats:
    """Their sum, row by row."""
    return np.asarray(np.sum(parts, axis=0), np.float64)


def _energies(reference: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]) -> tuple[Floats, Floats]:
    if reference.shape != outputs.shape:
        nothing = np.full(len(outputs), np.nan)
        return nothing, nothing
    exact = reference.astype(np.float64)
    with np.errstate(invalid="ignore"):  # Infinity minus infinity, which is no number, and is said as that.
        return (exact**2).sum(axis=1), ((exact - outputs) ** 2).sum(axis=1)


def _ragged_energies(reference: Output, outputs: Output) -> tuple[Floats, Floats]:
    pairs = [
        _energies(np.asarray(exact, np.float32).reshape(1, -1), np.asarray(one, np.float32).reshape(1, -1))
        for exact, one in zip(reference, outputs, strict=True)
    ]
    return np.array([signal[0] for signal, _ in pairs]), np.array([error[0] for _, error in pairs])


def _rowwise(output: Output) -> npt.NDArray[np.float32]:
    return output.reshape(len(output), -1).astype(np.float32, copy=False)


def _is_amount(output: npt.NDArray[Any]) -> bool:
    return output.dtype.kind == "f" or output.dtype.name in _PIXELS


def _keepable(output: Output) -> bool:
    if output.dtype == object or output.dtype.kind not in "biuf":
        return False
    if output.dtype.kind == "f":
        return output.dtype.itemsize <= 4
    return not output.size or max(abs(int(output.min())), abs(int(output.max()))) <= _EXACT


def _float32(values: Any) -> npt.NDArray[np.float32] | None:
    return None if values is None else np.asarray(values, np.float32)


def _nothing(values: npt.NDArray[Any]) -> Any:
    return np.nan if values.dtype.kind == "f" else 0 if values.dtype.kind in "biu" else None
