"""The ONNX Runtime that is installed here: is it whole, and is it one?"""

from __future__ import annotations

import importlib.metadata
import os
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxptq.errors import RuntimeUnavailableError
from onnxptq.runtimes.quiet import stdout_to_stderr

_FATAL_ONLY = 4


def installation_problems(path: Sequence[str] | None = None) -> list[str]:
    """What is wrong with how ONNX Runtime is installed: one sentence, with its remedy, for each problem.

    Several distributions (onnxruntime, onnxruntime-gpu, onnxruntime-openvino ...) bring the same module. In one folder
    the one installed last overwrites the others file by file, which neither pip nor ONNX Runtime notices.

    Args:
        path: folders to look at instead of `sys.path`.
    """
    return [
        f"{' and '.join(f'{name} {version}' for name, version in sorted(names.items()))} are installed over each other "
        f"in {folder}: they overwrite each other's files. Remove both, then install the one you need: "
        f"pip uninstall -y {' '.join(sorted(names))}."
        for folder, names in _distributions(sys.path if path is None else path).items()
        if len(names) > 1
    ]


def distribution_name(onnxruntime: Any) -> str:
    """The distribution that the module comes from, for example "onnxruntime-gpu"; several are joined by "+"."""
    said = str(getattr(onnxruntime, "package_name", ""))  # empty in ONNX Runtime 1.20
    folder = Path(onnxruntime.__file__).resolve().parent.parent
    return said or "+".join(sorted(_distributions([str(folder)]).get(folder, {}))) or "onnxruntime"


def import_onnxruntime() -> Any:
    """The module `onnxruntime`, which logs only what is fatal (its errors are exceptions) unless ONNXPTQ_DEBUG is set.

    Raises RuntimeUnavailableError where it is missing or incomplete, as it is after one of two distributions that
    shared the module was uninstalled.
    """
    try:
        with stdout_to_stderr():
            import onnxruntime

            onnxruntime.InferenceSession  # noqa: B018 - a folder that pip left half empty still imports
    except (ImportError, AttributeError) as error:
        remedy = " ".join(installation_problems()) or "Uninstall every onnxruntime* and install onnxptq again."
        raise RuntimeUnavailableError(f"ONNX Runtime cannot be imported: {error}. {remedy}") from error
    if not debugging():
        onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    return onnxruntime


def debugging() -> bool:
    """Whether the environment variable ONNXPTQ_DEBUG asks for the native libraries' own messages."""
    return bool(os.environ.get("ONNXPTQ_DEBUG"))


def _distributions(path: Sequence[str]) -> dict[Path, dict[str, str]]:
    """For each folder on `path`, the names and versions of the distributions that bring the module `onnxruntime`."""
    owners: dict[Path, dict[str, str]] = defaultdict(dict)
    for distribution in importlib.metadata.distributions(path=list(path)):
        name = distribution.metadata["Name"] or ""
        if not name.startswith(("onnxruntime", "ort-", "ort_")):  # reading the file list of every package takes long
            continue
        if any(file.as_posix() == "onnxruntime/__init__.py" for file in distribution.files or []):
            owners[Path(str(distribution.locate_file(""))).resolve()][name] = distribution.version
    return owners
