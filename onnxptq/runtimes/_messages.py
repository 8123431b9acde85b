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
# CUDA failure 2: out of memory ; GPU=0 ; hostname=box ; file=/onnxruntime_src/... ; line=9 ; expr=cudaMalloc(...);
_SUFFIX = re.compile(r"\s*;\s*(?:GPU=-?\d+|hostname=|file=/|line=\d+|expr=).*$")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def readable_cause(message: str) -> str:
    """The first line of a message of ONNX Runtime, from the first word that means something to a user to the last one.

    Without a full stop at the end: it becomes part of a sentence.
    """
    lines = [line.strip() for line in _COLOUR.sub("", message).splitlines()]
    cause = next((line for line in lines if line), "no cause was given")
    while True:
        stripped = cause
        for pattern in _NOISE:
            stripped = pattern.sub("", stripped)
        if stripped in (cause, ""):
            return (_SUFFIX.sub("", cause) or cause).rstrip(". ;")
        cause = stripped


def first_logged_error(log: str) -> str | None:
    """The cause in the first error that ONNX Runtime logged, or None where it logged none."""
    for line in _COLOUR.sub("", log).splitlines():
        if "[E:onnxruntime:" in line:
            return readable_cause(line)
    return None


_GPU_REMEDIES = (
    (
        r"out of memory|CUDA failure 2:|CUBLAS_STATUS_ALLOC_FAILED|Failed to allocate memory|BFCArena",
        "The GPU's memory is full: `nvidia-smi` shows who takes it. Take another GPU (cuda:1), smaller batches, or a "
        "limit (`onnxptq compare --gpu-memory 2GB`).",
    ),
    (
        r"cuDNN is (?:not available|unavailable)|CUDNN_STATUS_NOT_INITIALIZED|libcudnn|cudnn64_",
        "pip install 'onnxptq[cuda]' brings cuDNN 9, which convolutions and reductions need.",
    ),
    (
        r"CUDA failure 101|invalid device ordinal",
        "There is no GPU of that number: `nvidia-smi -L` lists them, CUDA_VISIBLE_DEVICES hides some.",
    ),
    (
        r"CUDA failure 35|driver version is insufficient",
        "Install a newer NVIDIA driver: `nvidia-smi` shows up to which CUDA version the driver goes.",
    ),
    (
        r"CUDA failure 209|no kernel image",
        "This build of ONNX Runtime has no kernels for a GPU of that age; an older onnxruntime-gpu may.",
    ),
)


def gpu_remedy(cause: str) -> str:
    """What helps against a cause that CUDA, cuDNN or cuBLAS told through ONNX Runtime; "" for any other."""
    return next((remedy for sign, remedy in _GPU_REMEDIES if re.search(sign, cause, flags=re.IGNORECASE)), "")
