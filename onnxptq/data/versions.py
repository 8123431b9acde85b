"""What decides how stored content becomes samples: part of every content key of something made from samples."""

from __future__ import annotations

import functools
import importlib.metadata
from contextlib import suppress

from onnxptq.data.shifts import DEFINITIONS
from onnxptq.version import __version__


def data_versions() -> dict[str, str]:
    """Versions of us, of our shifts, and of the libraries that decode images, read text and draw random numbers."""
    return {"onnxptq": __version__, "shifts": str(DEFINITIONS), **dict(_libraries())}


@functools.cache  # Metadata is read from files, and a sweep asks once a cell.
def _libraries() -> tuple[tuple[str, str], ...]:
    libraries = {name: importlib.metadata.version(name) for name in ("numpy", "pillow")}
    for name in ("tokenizers", "soundfile", "soxr"):
        with suppress(importlib.metadata.PackageNotFoundError):  # The extras `text` and `audio`.
            libraries[name] = importlib.metadata.version(name)
    return tuple(libraries.items())
