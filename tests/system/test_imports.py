"""What a command imports is what its user waits for: libraries that it does not need stay out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from onnxptq.models import builtin

SLOW = ("datasets", "numba", "sympy", "torch")
"""Each takes as long to import as a small model takes to be quantized."""

RUN = """
import sys
from onnxptq.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("loaded:", [name for name in {slow!r} if name in sys.modules])
"""


def loaded(folder: Path, *words: str, slow: tuple[str, ...] = SLOW) -> str:
    """The last line that a command leaves: which of the slow libraries it imported."""
    done = subprocess.run(
        [sys.executable, "-c", RUN.format(slow=slow), *words], capture_output=True, text=True, cwd=folder
    )
    return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr


def test_commands_on_known_data_import_what_they_need(tmp_path: Path) -> None:
    fp32 = str(builtin().model)
    assert loaded(tmp_path, "quantize", fp32, "--no-evaluate", "-o", "int8.onnx") == "loaded: []"
    assert loaded(tmp_path, "inspect", fp32, slow=(*SLOW, "pandas")) == "loaded: []"
    assert loaded(tmp_path, "evaluate", "int8.onnx") == "loaded: []"
    # Predictions of both models are known by now.
    assert loaded(tmp_path, "check", "int8.onnx", slow=(*SLOW, "pandas")) == "loaded: []"
