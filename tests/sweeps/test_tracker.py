"""What Python does for a worker that was killed, it does without a warning that tells the user nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest

_LEAK = """
import os
from multiprocessing import resource_tracker
from onnxptq.sweeps.local import _start_quiet_tracker

_start_quiet_tracker()
assert "PYTHONWARNINGS" not in os.environ
resource_tracker.register("/onnxptq-leaked", "semaphore")  # As a worker does that does not live to free it.
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no tracker on Windows")
def test_a_semaphore_of_a_killed_worker_is_freed_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONWARNINGS", raising=False)
    done = subprocess.run([sys.executable, "-c", _LEAK], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
