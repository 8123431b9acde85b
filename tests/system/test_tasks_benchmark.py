"""benchmarks/tasks.py from end to end with a handful of pictures: it measures both sides and says what it asked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("faster_coco_eval", reason="the extra `detection` is not installed")

pytestmark = pytest.mark.dry
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "tasks.py"


def test_it_measures_a_detector_and_a_segmenter_beside_bare_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--pictures", "2", "--json", tmp_path / "f.json"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode in (0, 1), done.stderr
    rows = json.loads((tmp_path / "f.json").read_text())
    assert [(row["kind"], row["pictures"]) for row in rows] == [
        ("detector", 2), ("detector", 8), ("segmenter", 2), ("segmenter", 8),
    ]  # fmt: skip
    assert all(row["ours_seconds"] > 0 and row["bare_mb"] > 50 for row in rows)
    met = all(row["ratio"] <= 1.15 for row in rows if row["pictures"] == 8)
    assert ("1.15 of the time at the larger number: met" in done.stdout) == met
