"""Measured tables in the documents: a benchmark replaces its own, between two comments that bear its name."""

from __future__ import annotations

import platform
from pathlib import Path


def replace_tables(document: Path, name: str, markdown: str) -> None:
    """Puts `markdown` between `<!-- NAME -->` and `<!-- /NAME -->`.

    Raises:
        SystemExit: the document has no such place.
    """
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    text = document.read_text(encoding="utf-8")
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise SystemExit(f"{document} has no place for the tables: expected {begin} and {end} on lines of their own.")
    document.write_text(f"{before}{begin}\n{markdown.strip()}\n{end}{after}", encoding="utf-8")


def machine() -> str:
    """The processor, the number of cores that this process may use, and the system."""
    import os

    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {count} cores, {platform.system()}"


def versions(*modules: str) -> str:
    """Names and versions of imported modules."""
    import importlib

    return ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in modules)
