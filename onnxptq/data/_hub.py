"""Datasets of the Hugging Face hub: the only place of this package that touches the network."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

from onnxptq.data.arrow_table import ArrowTable
from onnxptq.data.isolated import DecodeError, ask, memory_for
from onnxptq.errors import DataError

PREFIX = "hub:"

TIMEOUT_SECONDS = 5.0
"""`datasets` itself tries for 23 s when the hub is unreachable, and for minutes when it accepts but never answers."""


def open_hub(source: str) -> dict[str, ArrowTable]:
    """The splits of `hub:NAME` or `hub:NAME:CONFIGURATION`, kept in the hub's own cache folder.

    With HF_HUB_OFFLINE set, only what lies in that folder already is used.

    Raises:
        DataError: the hub cannot be reached, or has no such dataset; the message says how to get the data.
    """
    name, _, configuration = source.removeprefix(PREFIX).partition(":")
    remedy = (
        'On a machine with a network, save it with: python -c "from datasets import load_dataset; '
        f"load_dataset({', '.join(repr(p) for p in (name, configuration) if p)}).save_to_disk('FOLDER')\" "
        "and give FOLDER as the source."
    )
    if not name:
        raise DataError(f"{source!r} names no dataset. Expected hub:NAME or hub:NAME:CONFIGURATION.")
    if not _offline() and (reason := _unreachable()):
        raise DataError(f"{source} needs the network, but the hub cannot be reached: {reason}. {remedy}")
    try:
        # Fetched and converted in the decoder's process: nobody vouches for what lies on the hub. A download has no
        # time limit, and what it unpacks to has none of memory: Ctrl-C ends both.
        found, _ = ask("hub", name=name, configuration=configuration or None, seconds=0.0, memory=_MEMORY)
    except DecodeError as error:
        state = "HF_HUB_OFFLINE is set and it is not in the hub's cache" if _offline() else error.reason
        raise DataError(f"{source} cannot be loaded: {state}. {remedy}") from error
    return {split: ArrowTable.of_files([Path(path) for path in paths]) for split, paths in found.items()}


_MEMORY = memory_for(16 * 2**30)
"""Address space for fetching and converting; tables are written to files piece by piece."""


def _offline() -> bool:
    words = (os.environ.get("HF_HUB_OFFLINE", ""), os.environ.get("HF_DATASETS_OFFLINE", ""))
    return any(word.upper() in {"1", "ON", "YES", "TRUE"} for word in words)


def _unreachable() -> str | None:
    """Why the hub does not answer within the time limit, or None when it does."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=TIMEOUT_SECONDS):
            return None
    except urllib.error.HTTPError:
        return None  # It answered.
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
