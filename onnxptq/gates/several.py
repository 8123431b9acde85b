"""Several models in one check: what became of each, and one verdict and exit code for all."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from onnxptq.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, EXIT_UNDECIDED
from onnxptq.gates.verdict import CheckResult

SUMMARY_VERSION = 1

BAD_INPUT = "BAD INPUT"

WORST_FIRST = (EXIT_BAD_INPUT, EXIT_FAILED, EXIT_UNDECIDED, EXIT_DONE)
"""Which exit code stands for several models. As with grep and ESLint, a run that could not look at everything says so
first: behind a FAILED, a model that was never judged would be forgotten."""


@dataclass(frozen=True)
class Checked:
    """What became of one model.

    Attributes:
        name: the model as outputs call it; with several, as the user named it.
        result: what the check says, or None where the model was not judged.
        error: why it was not; "" where it was.
    """

    name: str
    result: CheckResult | None
    error: str = ""

    @property
    def verdict(self) -> str:
        """PASSED, FAILED, UNDECIDED or BAD INPUT."""
        return BAD_INPUT if self.result is None else self.result.verdict.value

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 2 bad input, 3 undecided."""
        return EXIT_BAD_INPUT if self.result is None else self.result.exit_code


def worst(models: Iterable[Checked]) -> Checked:
    """The model whose exit code stands for all, the first of them."""
    return min(models, key=lambda one: WORST_FIRST.index(one.exit_code))


def summary_to_dict(models: tuple[Checked, ...], command: str) -> dict[str, Any]:
    """The check of several models as JSON types, with stable keys (docs/check.md)."""
    return {
        "check_summary_version": SUMMARY_VERSION,
        "verdict": worst(models).verdict,
        "models": [
            {
                "model": one.name,
                "verdict": one.verdict,
                "error": one.error or None,
                "check": None if one.result is None else one.result.to_dict(),
            }
            for one in models
        ],
        "command": command,
    }
