"""Reading a policy: every mistake is said with its line, what was expected and what to write instead."""

from __future__ import annotations

from pathlib import Path

from onnxptq.errors import UsageError
from onnxptq.gates.policy import FORMAT, Policy
from onnxptq.text_files import read_text
from onnxptq.toml_tables import parse_tables


def load_policy(path: Path) -> Policy:
    """The policy in a TOML file.

    Raises:
        UsageError: no such file, no TOML, an unknown key, a value of the wrong type or range; with the line.
    """
    try:
        text = read_text(path, "policy", UsageError)
    except UsageError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            raise UsageError(f"there is no policy {path}. `onnxptq check MODEL --init` writes one.") from error
        raise UsageError(f"{error} Expected a TOML file in UTF-8.") from error
    return parse_policy(text, str(path))


def parse_policy(text: str, name: str = "policy") -> Policy:
    """The policy in TOML `text`; `name` is what messages call it. Raises UsageError as `load_policy` does."""
    return parse_tables(
        Policy,
        text,
        name,
        what="policy",
        format_version=FORMAT,
        remedy="`onnxptq check MODEL --init` shows one.",
    )
