"""The version, as installed; in a checkout that is not installed, as `setup.cfg` has it."""

from __future__ import annotations

import configparser
import importlib.metadata
from pathlib import Path


def _find() -> str:
    setup = Path(__file__).resolve().parent.parent / "setup.cfg"
    if setup.is_file():
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(setup)
        if parser.get("metadata", "name", fallback="") == "onnxptq":
            return parser["metadata"]["version"]
    return importlib.metadata.version("onnxptq")


__version__ = _find()
