"""What a tuning came to: plain records, with their JSON."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxptq.gates.verdict import RuleResult, Verdict

TUNING_VERSION = 1


@dataclass(frozen=True)
class Candidate:
    """One way to make the file, judged on the samples that choices are made on. Drops are fractions.

    Attributes:
        name: the method, and how many nodes stay in float beside it.
        method: the method by name.
        float_nodes: names of nodes that stay in float beyond what the method leaves there.
        int8_share: share of the multiply-adds of the model in nodes that are quantized, from 0 to 1; NaN where nothing
            can be counted.
        bytes: size of the file; 0 where none was written.
        samples: rows that it was judged on; fewer than those of finalists where it was left out of the race.
        verdict: of the policy on them; None where the method does not fit the model.
        drop, drop_low, drop_high: of the worst group, cross-fitted, with its 95 % interval.
        possible: what the worst group may lose, the largest upper end of a group's interval.
        group: the group that loses most.
        average_drop: of all samples.
        reason: why the method does not fit, or "".
    """

    name: str
    method: str
    float_nodes: tuple[str, ...] = ()
    int8_share: float = math.nan
    bytes: int = 0
    samples: int = 0
    verdict: Verdict | None = None
    drop: float = math.nan
    drop_low: float = math.nan
    drop_high: float = math.nan
    possible: float = math.nan
    group: str = ""
    average_drop: float = math.nan
    reason: str = ""


@dataclass(frozen=True)
class Tuned:
    """The chosen file and what it is good for.

    Attributes:
        verdict: of the policy on samples that no choice has seen; FAILED where no candidate was worth proving.
        winner: the candidate that was chosen, None where every method failed.
        proof: every rule of the policy on those samples.
        proof_drop, proof_low, proof_high: of the worst group there.
        candidates: all that were tried, the best first.
        choice_sources, proof_sources: original samples that choices were made on, and that none has seen.
        evaluations: what all judging cost, in runs of one INT8 model over all samples.
        output: the file, or None where none was written.
        command: what makes it again on the command line, where the tuning was asked for there; None from Python, and
            where nothing was written.
        policy: the rules, as JSON types.
        warnings: one line each.
    """

    verdict: Verdict
    winner: Candidate | None
    proof: tuple[RuleResult, ...]
    proof_drop: float
    proof_low: float
    proof_high: float
    candidates: tuple[Candidate, ...]
    choice_sources: int
    proof_sources: int
    evaluations: float
    output: Path | None
    command: str | None
    policy: dict[str, Any]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; NaN becomes None."""
        values = {
            "schema": TUNING_VERSION,
            **asdict(self),
            "verdict": self.verdict.value,
            "proof": [rule.to_dict() for rule in self.proof],
            "winner": None if self.winner is None else _candidate(self.winner),
            "candidates": list(map(_candidate, self.candidates)),
            "output": None if self.output is None else str(self.output),
        }
        return {name: _plain(value) for name, value in values.items()}


def _candidate(one: Candidate) -> dict[str, Any]:
    values = {**asdict(one), "verdict": one.verdict and one.verdict.value, "float_nodes": list(one.float_nodes)}
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
