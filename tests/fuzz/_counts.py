"""What became of all inputs of a run, for the line that pytest prints at its end."""

from __future__ import annotations

from collections import Counter

COUNTS: Counter[str] = Counter()
"""By what happened: "accepted" (a command would end with exit code 0, or a verdict) and "refused" (exit code 2)."""
