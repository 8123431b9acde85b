"""What users write behind flags and in files of preprocessing, as values of a specification."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxptq.errors import DataError, UsageError
from onnxptq.text_files import read_json


def parse_size(text: str) -> list[int]:
    """Height and width from "32x32" or "224". Raises UsageError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--size must be HEIGHTxWIDTH in pixels, for example 224x224, got {text!r}.")
    return [int(parts[0]), int(parts[-1])]


def parse_shape(text: str) -> tuple[str, list[int | None]]:
    """Input and sizes from "x=1x3x224x224"; a "?" leaves a size open. Raises UsageError."""
    name, equals, sizes = text.rpartition("=")
    parts = sizes.lower().split("x") if sizes else []
    if not equals or not name or not all(part == "?" or (part.isdecimal() and int(part) > 0) for part in parts):
        raise UsageError(f"--shape must be INPUT=SIZES, the batch first, for example x=1x3x224x224, got {text!r}.")
    return name, [None if part == "?" else int(part) for part in parts]


def read_preprocessing(path: str) -> dict[str, Any]:
    """Preprocessing from a JSON file. Raises DataError when it cannot be read."""
    expected = 'Expected for example {"size": [224, 224], "mean": [0.5], "std": [0.25]} (docs/data.md).'
    try:
        return read_json(Path(path), "preprocessing", DataError)
    except DataError as error:
        raise DataError(f"{error} {expected}") from error


def parse_numbers(option: str, text: str) -> list[float]:
    """Numbers separated by commas. Raises UsageError."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{option} must be numbers separated by commas, for example 0.49,0.48,0.45; got {text!r}."
        ) from None


def parse_ranges(given: Sequence[str]) -> dict[str, list[float]] | list[float]:
    """Bounds of inputs from "x=-1:1", by name; without names, from "-1:1", of the only float input.

    Raises:
        UsageError: not two numbers, the first below the second; or several, of which one has no name.
    """
    found: dict[str, list[float]] = {}
    for text in given:
        name, _, ends = text.rpartition("=")
        low, colon, high = ends.partition(":")
        try:
            found[name] = [float(low), float(high)]
        except ValueError:
            found[name] = []
        if not colon or not found[name] or not -math.inf < found[name][0] < found[name][1] < math.inf:
            raise UsageError(f"--input-range must be NAME=LOW:HIGH, for example x=-1:1, got {text!r}.")
    if "" in found and len(given) > 1:
        raise UsageError("--input-range is given several times, so each must name its input: NAME=LOW:HIGH.")
    return found.get("", found)
