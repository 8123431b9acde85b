"""Reading small text files that people and other programs write: bounded, UTF-8, and JSON that is what it should be.

Every reader of JSON goes through `parse_json`, so that one place knows what Python's own parser lets through.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, NoReturn

from onnxptq.errors import OnnxptqError

MOST_BYTES = 256 * 2**20
"""The largest text that is read whole. A `tokenizer.json` of a large vocabulary has 30 MB; a device has no end."""

_SURROGATE = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]")
"""Half of a character: allowed by JSON's grammar, but no text, so that nothing could be written from it."""

Refusal = type[OnnxptqError]


def read_text(path: Path, what: str, refusal: Refusal, most: int = MOST_BYTES) -> str:
    """The text in a file.

    Args:
        path: the file.
        what: what messages call it, for example "recipe".
        refusal: the error to raise.
        most: bytes that are read at most.

    Raises:
        refusal: there is no such file, it cannot be read, is no UTF-8, or is larger than `most`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero character.
        reason = getattr(error, "strerror", None) or error
        raise refusal(f"the {what} {path} cannot be read: {reason}.") from error
    if len(data) > most:
        raise refusal(f"the {what} {path} has more than {most} bytes. Expected a text file.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refusal(f"the {what} {path} cannot be read: {error}. Expected a text in UTF-8.") from error


def parse_json(text: str, what: str, refusal: Refusal) -> Any:
    """The value in a JSON text.

    Args:
        text: JSON.
        what: what messages call it: "the recipe r.json".
        refusal: the error to raise.

    Raises:
        refusal: it is no JSON, holds NaN or infinity (which JSON does not have), a half of a character, or lists and
            tables that are nested more deeply than Python reads.
    """
    try:
        value = json.loads(text, parse_constant=_no_constant)
        if _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError as error:
        raise refusal(f"{what} is nested too deeply. Expected a few levels of JSON.") from error
    except UnicodeEncodeError as error:
        raise refusal(f"{what} holds half of a character (a lone surrogate). Expected text.") from error
    except ValueError as error:
        raise refusal(f"{what} is not JSON: {error}.") from error
    return value


def read_json(path: Path, what: str, refusal: Refusal) -> dict[str, Any]:
    """The JSON object in a file; arguments and errors as for `read_text` and `parse_json`."""
    return json_object(read_text(path, what, refusal), f"the {what} {path}", refusal)


def json_object(text: str, what: str, refusal: Refusal) -> dict[str, Any]:
    """As `parse_json`, for a text that must hold an object. Raises `refusal` where it holds anything else."""
    value = parse_json(text, what, refusal)
    if not isinstance(value, dict):
        raise refusal(f"{what} must be a JSON object, got {type(value).__name__}.")
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number in JSON")
