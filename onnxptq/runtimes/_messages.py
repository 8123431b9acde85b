"""ONNX Runtime's messages without the noise of C++: no colours, time stamps, source files or function signatures."""

from __future__ import annotations

import re

_NOISE = tuple(
    re.compile(pattern)
    for pattern in (
        # 2026-11-23 09:31:52.911 [E:onnxruntime:Default, provider_bridge_ort.cc:2458 operator()]
        r"^\d{4}-\d\d-\d\d \S+ \[[A-Z]:onnxruntime:[^\]]*\]\s*",
        # /onnxruntime_src/onnxruntime/core/x.cc:2043 onnxruntime::Provider& onnxruntime::ProviderLibrary::Get()
        r"^/\S+\.(?:cc|cpp|cu|cuh|h|hpp):\d+ .*?\)(?: const)? ",
        # D:\a\_work\1\s\onnxruntime\core\x.cc:46 onnxruntime::model_load_utils::ValidateOpsetForDomain
        r"^[A-Za-z]:\\\S+\.(?:cc|cpp|cu|cuh|h|hpp):\d+ \S+ ",
        r"^\[ONNXRuntimeError\] : \d+ : \w+ : ",
        r"^Load model from .*? failed:\s*",
        r"^Fatal error: ",
    )
)
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def readable_cause(message: str) -> str:
    """The first line of a message of ONNX Runtime, from the first word that means something to a user.

    Without a full stop at the end: it becomes part of a sentence.
    """
    lines = [line.strip() for line in _COLOUR.sub("", message).splitlines()]
    cause = next((line for line in lines if line), "no cause was given")
    while True:
        stripped = cause
        for pattern in _NOISE:
            stripped = pattern.sub("", stripped)
        if stripped in (cause, ""):
            return cause.rstrip(".")
        cause = stripped


def first_logged_error(log: str) -> str | None:
    """The cause in the first error that ONNX Runtime logged, or None where it logged none."""
    for line in _COLOUR.sub("", log).splitlines():
        if "[E:onnxruntime:" in line:
            return readable_cause(line)
    return None
