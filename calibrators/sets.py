"""Calibration sets: seeded recipes that draw calibration samples from a dataset.

A set is written `term+term+...`. At most one term says which samples are drawn (a sampler, `random` or
`foreign:SOURCE`; without one they are drawn at random); every other term is a shift or an augmentation that is applied
to each sample, from left to right:

    dark@3                      random samples, darkened at severity 3
    imbalanced:ratio=100        a long tail over the classes
    single-class:cat+blur@5     cats, blurred
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxptq.calibrators.sampler import SAMPLERS, Sampler
from onnxptq.data.shifts import SHIFTS, Shift, parse_shift
from onnxptq.errors import UsageError, did_you_mean, inside
from onnxptq.recipe import Value
from onnxptq.tasks import Task
from onnxptq.text_files import read_text

PARTS: Mapping[str, tuple[str, ...]] = {
    "shifted": ("dark@3", "quiet@5", "drop_words@3", "column_shift@3", "scale@3"),
    "noisy": ("gaussian@3", "background_noise@5", "typos@3", "tensor_noise@3"),
}
"""Names for one set each, that of the first shift that fits the model's input: images, recordings, texts, tables, other
tensors. `shifted` is a single shift on purpose: a mixture of shifts widens ranges and hides harm."""

ALIASES: Mapping[str, str] = {name: shifts[0] for name, shifts in PARTS.items()}
"""What these names mean where nothing is known of the input: as for images."""

NOISE = "random"
SYNTHETIC = "synthetic"
GENERATED = (NOISE, SYNTHETIC)
"""Sets whose samples the task makes, without data."""

FOREIGN = "foreign"


@dataclass(frozen=True)
class CalibrationSet:
    """A calibration set by its parts; `str()` gives its canonical name, which parses to an equal set.

    Attributes:
        sampler: name of the sampler, or one of `GENERATED`, which need no data: "random" (noise from the model's
            input signature), "synthetic" (samples that resemble real ones).
        parameters: of the sampler, (name, value) sorted by name; `parse` includes the defaults.
        foreign: the source of another dataset to draw from, or "".
        shifts: (name, severity) of what is applied to each sample, in this order.
    """

    sampler: str = "clean"
    parameters: tuple[tuple[str, Value], ...] = ()
    foreign: str = ""
    shifts: tuple[tuple[str, int], ...] = ()

    @property
    def needs_data(self) -> bool:
        """Whether samples of a dataset are drawn (`random` and `synthetic` make their own)."""
        return self.sampler not in GENERATED

    @property
    def families(self) -> frozenset[str]:
        """The families of the shifts in use; the default evaluation avoids them."""
        return frozenset(SHIFTS.get(name).family for name, _ in self.shifts)

    @property
    def short(self) -> str:
        """The canonical name without parameters at their defaults and folders of a foreign source: for file names."""
        defaults = SAMPLERS.get(self.sampler).parameters if self.needs_data else {}
        changed = tuple((key, value) for key, value in self.parameters if defaults.get(key) != value)
        return self._name(changed, Path(self.foreign).name)

    def __str__(self) -> str:
        return self._name(self.parameters, self.foreign)

    def _name(self, parameters: tuple[tuple[str, Value], ...], foreign: str) -> str:
        terms = []
        if foreign:
            terms.append(f"{FOREIGN}:{foreign}")
        elif self.sampler != "clean" or not self.shifts:
            given = ",".join(f"{key}={value}" for key, value in parameters)
            terms.append(f"{self.sampler}:{given}" if given else self.sampler)
        terms.extend(f"{name}@{severity}" for name, severity in self.shifts)
        return "+".join(terms)

    @staticmethod
    def parse(text: str, what: str = "calibration set") -> CalibrationSet:
        """A set from its name, or from a TOML file whose name ends in `.toml`.

        Args:
            text: the name.
            what: what messages call it.

        Raises:
            UsageError: an unknown name, severity or parameter, or two terms that both say which samples are drawn.
        """
        if text.endswith(".toml"):
            return _read(Path(text))
        sampler, foreign = "", ""
        parameters: tuple[tuple[str, Value], ...] = ()
        shifts: list[tuple[str, int]] = []
        for term in text.split("+"):
            term = ALIASES.get(term.strip(), term.strip())
            name, _, rest = term.partition(":")
            base = name.partition("@")[0]
            if base in SHIFTS:
                if rest:
                    raise UsageError(
                        f"the shift {name!r} takes a severity as {base}@3 and no parameters, got {rest!r}."
                    )
                shift, severity = parse_shift(name)
                shifts.append((shift.name, severity))
                continue
            before = sampler
            sampler, parameters, foreign = _sampling(name, rest, text, what)
            if before:
                raise UsageError(
                    f"the {what} {text!r} says twice which samples are drawn: {before!r} and {sampler!r}. "
                    "Keep one of them; shifts may follow it."
                )
        return CalibrationSet(sampler or "clean", parameters, foreign, tuple(shifts))


def meant_for(text: str, task: Task) -> str:
    """The name of a set, `shifted` and `noisy` written out as the shift that plays their part for a task's input."""
    if text.endswith(".toml"):
        return text
    terms = [(term, PARTS.get(term.strip(), ())) for term in text.split("+")]
    return "+".join(next((one for one in shifts if task.fits(one) is None), term) for term, shifts in terms)


def _sampling(name: str, rest: str, text: str, what: str) -> tuple[str, tuple[tuple[str, Value], ...], str]:
    """Sampler, parameters and foreign source of one term."""
    if name == FOREIGN:
        if not rest:
            raise UsageError("foreign needs the dataset to draw from, as foreign:PATH.")
        return "clean", (), rest
    if name in GENERATED:
        if rest:
            raise UsageError(f"{name} takes no parameters, got {rest!r}.")
        return name, (), ""
    if name not in SAMPLERS:
        base = name.partition("@")[0]
        if base in SAMPLERS:
            raise UsageError(f"the {what} {base!r} has no severity; write {base!r}.")
        known = [*SAMPLERS.names(), *GENERATED, FOREIGN, *ALIASES, *(s.name for s in SHIFTS)]
        raise UsageError(f"unknown {what} {name!r}{inside(name, text)}. {did_you_mean(base, known)}")
    return name, parse_parameters(SAMPLERS.get(name), rest), ""


def parse_parameters(sampler: Sampler, text: str) -> tuple[tuple[str, Value], ...]:
    """The parameters of a sampler from `key=value,key=value`, or from a bare text for its positional parameter."""
    values = dict(sampler.parameters)
    if text:
        pairs = [pair.partition("=") for pair in text.split(",")]
        if all(key in sampler.parameters and equals for key, equals, _ in pairs):
            for key, _, value in pairs:
                values[key] = _typed(sampler, key, value)
        elif sampler.positional is not None and (pairs[0][1] == "" or isinstance(values[sampler.positional], str)):
            # "label=a,b" has a comma inside the value: it is not a list of pairs.
            text = text.removeprefix(f"{sampler.positional}=")
            values[sampler.positional] = _typed(sampler, sampler.positional, text)
        else:
            wrong = next((key for key, equals, _ in pairs if key not in sampler.parameters or not equals), text)
            hint = did_you_mean(wrong, sampler.parameters)
            raise UsageError(f"unknown parameter {wrong!r} of the calibration set {sampler.name!r}. {hint}")
    needed = sampler.required
    if needed is not None and values[needed] == "":
        raise UsageError(f"{sampler.name} needs its {needed}, as {sampler.name}:{needed.upper()}.")
    return tuple(sorted((key, chosen) for key, chosen in values.items() if chosen != ""))


def _typed(sampler: Sampler, key: str, text: str) -> Value:
    kind = type(sampler.parameters[key])
    if kind is str:
        return text
    try:
        return int(text) if kind is int and text.lstrip("-").isdigit() else float(text)
    except ValueError:
        raise UsageError(f"{sampler.name}:{key} must be a number, got {text!r}.") from None


def _read(path: Path) -> CalibrationSet:
    """A set from a file: `sampling = "imbalanced"`, its parameters beside it, `shifts = ["dark@3", "mixup"]`."""
    try:
        values: dict[str, Any] = tomllib.loads(read_text(path, "calibration set", UsageError))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the calibration set {path} cannot be read: {error}") from error
    sampling = values.pop("sampling", "clean")
    shifts = values.pop("shifts", [])
    if not isinstance(sampling, str) or not isinstance(shifts, list) or not all(isinstance(s, str) for s in shifts):
        raise UsageError(f"in {path}, sampling must be a name and shifts a list of names.")
    given = ",".join(f"{key}={value}" for key, value in values.items())
    return CalibrationSet.parse("+".join([f"{sampling}:{given}" if given else sampling, *shifts]))


def applied(chain: tuple[tuple[str, int], ...]) -> tuple[tuple[Shift, int], ...]:
    """The shifts of a chain with their severities."""
    return tuple((SHIFTS.get(name), severity) for name, severity in chain)
