"""What decides how stored content becomes samples: part of every content key of something made from samples."""

from __future__ import annotations

import importlib.metadata
from contextlib import suppress

from onnxptq._version import __version__
from onnxptq.data.shifts import DEFINITIONS


def data_versions() -> dict[str, str]:
    """Versions of us, of our shifts, and of the libraries that decode images, read text and draw random numbers."""
    libraries = {name: importlib.metadata.version(name) for name in ("numpy", "pillow")}
    with suppress(importlib.metadata.PackageNotFoundError):  # The extra `text`.
        libraries["tokenizers"] = importlib.metadata.version("tokenizers")
    return {"onnxptq": __version__, "shifts": str(DEFINITIONS), **libraries}
