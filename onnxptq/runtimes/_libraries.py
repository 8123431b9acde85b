"""NVIDIA's libraries: found where pip put them, loaded before ONNX Runtime looks for them, asked for their versions.

Needs nothing but the standard library, so that the probe and the worker, which run in other Python environments too,
load this file by its path.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

NVIDIA_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")

_WINDOWS = sys.platform == "win32"
DRIVER_LIBRARY = "nvcuda.dll" if _WINDOWS else "libcuda.so.1"
_NVML_LIBRARY = "nvml.dll" if _WINDOWS else "libnvidia-ml.so.1"
CUDNN_LIBRARY = "cudnn64_9.dll" if _WINDOWS else "libcudnn.so.9"
"""What ONNX Runtime's CUDA provider loads when the first operator needs it (a convolution, a reduction): a session is
created without it, and then fails."""

_PLACES = ("nvidia/*/bin", "nvidia/*/bin/*", "tensorrt_libs") if _WINDOWS else ("nvidia/*/lib", "tensorrt_libs")
"""Where wheels of NVIDIA keep libraries, below a folder of `sys.path`."""

_MISSING_LIBRARY = re.compile(
    r"^(?P<glibc>\S+): cannot open shared object file"
    r"|Error loading shared library (?P<musl>[^:\s]+)"
    r"|Library not loaded: (?P<macos>\S+)"
)
TENSORRT_LIBRARY = re.compile(rb"nvinfer_\d+\.dll" if _WINDOWS else rb"libnvinfer\.so\.\d+")

_MOST_MISSING = 40
"""Libraries that one provider may miss, one after the other, before we stop looking: CUDA and TensorRT have a dozen."""


def library_name(provider: str) -> str:
    """The file name of a provider's shared library, for example `libonnxruntime_providers_cuda.so`."""
    stem = f"onnxruntime_providers_{provider.removesuffix('ExecutionProvider').lower()}"
    if _WINDOWS:
        return f"{stem}.dll"
    return f"lib{stem}.dylib" if sys.platform == "darwin" else f"lib{stem}.so"


def load_error(library: str, mode: int = ctypes.DEFAULT_MODE) -> str | None:
    """The loader's words where `library` does not load."""
    try:
        ctypes.CDLL(library, mode=mode)
    except OSError as error:
        return str(error)
    return None


def missing_library(error: str | None) -> str | None:
    """The library that a loader's error names as missing, or None where it says something else."""
    match = _MISSING_LIBRARY.search(error or "")
    return next((name for name in match.groups() if name), None) if match else None


def preload_libraries(onnxruntime: Any, providers: Iterable[str] = NVIDIA_PROVIDERS) -> None:
    """Loads the CUDA, cuDNN and TensorRT libraries that pip installed, which no loader path leads to.

    ONNX Runtime looks beside itself only. Wheels may lie in any folder of `sys.path`: beside a system's ONNX Runtime in
    a virtual environment over it, or where `pip install --target` put them. What cannot be loaded is not reported here:
    loading the provider's own library names it.

    Args:
        onnxruntime: the module.
        providers: ONNX Runtime's names of those that will be asked for; others than NVIDIA's need nothing.
    """
    wanted = [name for name in providers if name in NVIDIA_PROVIDERS]
    if not wanted:
        return
    if hasattr(onnxruntime, "preload_dlls"):  # ONNX Runtime 1.21 and newer
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    if _WINDOWS:  # its loader does not say what is missing, and it looks for dependencies in folders that are named
        for folder in _folders():
            os.add_dll_directory(str(folder))  # type: ignore[attr-defined,unused-ignore]
        return
    folder = Path(onnxruntime.__file__).parent / "capi"
    # The providers take symbols from this one, which ONNX Runtime loads before them, for all to see.
    load_error(str(folder / library_name("SharedExecutionProvider")), ctypes.RTLD_GLOBAL)
    for provider in wanted:
        if (library := folder / library_name(provider)).is_file():
            supply(str(library))
    if load_error(CUDNN_LIBRARY) is not None and (found := _find(CUDNN_LIBRARY)) is not None:
        supply(str(found))


def supply(library: str) -> str | None:
    """Loads a library, and before it what it misses and wheels on `sys.path` have; the loader's last words, or None."""
    for _ in range(_MOST_MISSING):
        error = load_error(library)
        name = missing_library(error)
        found = _find(name) if name is not None else None
        if found is None or str(found) == library or supply(str(found)) is not None:
            return error
    return error


def _find(name: str) -> Path | None:
    """A library of that file name in a wheel on `sys.path`."""
    return next((folder / name for folder in _folders() if (folder / name).is_file()), None)


def _folders() -> Iterator[Path]:
    """The folders of NVIDIA's wheels on `sys.path`, in its order."""
    for entry in dict.fromkeys(sys.path):
        for pattern in _PLACES:
            yield from sorted(Path(entry or ".").glob(pattern))


def library_versions(onnxruntime: Any) -> dict[str, str]:
    """Versions of the libraries of NVIDIA that are loaded here and decide numbers: "cublas", "cudnn", "tensorrt".

    Source: cublasLtGetVersion, cudnnGetVersion and getInferLibVersion, which need no GPU.
    """
    major = str(getattr(onnxruntime, "cuda_version", "") or "").partition(".")[0]
    cublas = f"cublasLt64_{major}.dll" if _WINDOWS else f"libcublasLt.so.{major}"
    asked = {"cublas": (cublas, "cublasLtGetVersion"), "cudnn": (CUDNN_LIBRARY, "cudnnGetVersion")}
    tensorrt = Path(onnxruntime.__file__).parent / "capi" / library_name("TensorrtExecutionProvider")
    if tensorrt.is_file() and (match := TENSORRT_LIBRARY.search(tensorrt.read_bytes())):
        asked["tensorrt"] = (match.group().decode(), "getInferLibVersion")
    found = {what: _version(*where) for what, where in asked.items()}
    return {what: version for what, version in found.items() if version}


def _version(library: str, function: str) -> str:
    """What a version function without arguments returns, in digits; "" where there is no such library."""
    with contextlib.suppress(OSError, AttributeError):
        ask = getattr(ctypes.CDLL(library), function)
        ask.restype = ctypes.c_size_t if function != "getInferLibVersion" else ctypes.c_int
        return str(ask())
    return ""


def gpu(device: int = 0) -> tuple[str, str]:
    """The name of a GPU, by the number that CUDA gives it, and the version of the driver; "" where they do not say.

    Source: the CUDA driver API (cuDeviceGetName) and NVML (nvmlSystemGetDriverVersion).
    """
    name, driver, handle = ctypes.create_string_buffer(256), ctypes.create_string_buffer(96), ctypes.c_int()
    with contextlib.suppress(OSError):
        cuda = ctypes.CDLL(DRIVER_LIBRARY)
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(handle), device) == 0:
            cuda.cuDeviceGetName(name, len(name), handle)
    with contextlib.suppress(OSError):
        nvml = ctypes.CDLL(_NVML_LIBRARY)
        if nvml.nvmlInit_v2() == 0:
            nvml.nvmlSystemGetDriverVersion(driver, len(driver))
    return name.value.decode(), driver.value.decode()


def gpu_clock(device: int = 0) -> int | None:
    """MHz at which the multiprocessors of a GPU run just now; None where NVML is missing or does not tell.

    Source: NVML (nvmlDeviceGetClockInfo, NVML_CLOCK_SM), which finds the GPU by its address on the bus: it counts GPUs
    otherwise than CUDA, and knows nothing of CUDA_VISIBLE_DEVICES.
    """
    address, handle, clock = ctypes.create_string_buffer(32), ctypes.c_void_p(), ctypes.c_uint()
    with contextlib.suppress(OSError, AttributeError):
        cuda, nvml = ctypes.CDLL(DRIVER_LIBRARY), ctypes.CDLL(_NVML_LIBRARY)
        number = ctypes.c_int()
        if (
            cuda.cuInit(0) == 0
            and cuda.cuDeviceGet(ctypes.byref(number), device) == 0
            and cuda.cuDeviceGetPCIBusId(address, len(address), number) == 0
            and nvml.nvmlInit_v2() == 0
            and nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(handle)) == 0
            and nvml.nvmlDeviceGetClockInfo(handle, 1, ctypes.byref(clock)) == 0
        ):
            return int(clock.value)
    return None


def register_plugins(onnxruntime: Any, plugins: Mapping[str, str]) -> dict[str, str]:
    """Registers plug-in libraries with ONNX Runtime: name of the registration -> why one could not be, or nothing.

    A session that asks for a provider by its name looks among registered libraries before those that were compiled in
    (ONNX Runtime 1.31 says so in its log).
    """
    failed = {}
    for name, path in plugins.items():
        try:
            onnxruntime.register_execution_provider_library(name, path)
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            if "already registered" not in str(error).lower():
                failed[name] = str(error) or type(error).__name__
    return failed


def available_providers(onnxruntime: Any) -> list[str]:
    """ONNX Runtime's names of the providers that a session may ask for: compiled in, or of a registered plug-in."""
    compiled = list(onnxruntime.get_available_providers())
    devices = onnxruntime.get_ep_devices() if hasattr(onnxruntime, "get_ep_devices") else []
    return list(dict.fromkeys([*compiled, *(device.ep_name for device in devices)]))
