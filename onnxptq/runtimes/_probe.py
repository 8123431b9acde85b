"""One execution provider in a process of its own: what is missing, and does a tiny model really run on it?

    python -P _probe.py CUDAExecutionProvider < tiny.onnx

answers with one JSON object on stdout (`examine`). A provider whose libraries do not fit the driver may crash or hang:
then this process ends, not the caller's. It needs onnxruntime and numpy and nothing of ours, so that it also runs in
another Python environment. `preload_libraries` is for whoever opens the real session, too.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

NVIDIA_PROVIDERS = ("CUDAExecutionProvider", "TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider")

# An ONNX Runtime that does not know this entry ignores it.
RECORD_PLACEMENT = ("session.record_ep_graph_assignment_info", "1")

_WINDOWS = sys.platform == "win32"
DRIVER_LIBRARY = "nvcuda.dll" if _WINDOWS else "libcuda.so.1"
_NVML_LIBRARY = "nvml.dll" if _WINDOWS else "libnvidia-ml.so.1"

_MISSING_LIBRARY = re.compile(
    r"^(?P<glibc>\S+): cannot open shared object file"
    r"|Error loading shared library (?P<musl>[^:\s]+)"
    r"|Library not loaded: (?P<macos>\S+)"
)
_TENSORRT_LIBRARY = re.compile(rb"nvinfer_\d+\.dll" if _WINDOWS else rb"libnvinfer\.so\.\d+")


def examine(model: bytes, provider: str, companions: Sequence[str]) -> dict[str, Any]:
    """Tries one provider in the order of growing certainty: its libraries, then a session, then a run.

    Args:
        model: a tiny model without external data, whose inputs are float32 of fixed shape.
        provider: as ONNX Runtime calls it.
        companions: providers that take what it leaves, in this order.

    Returns:
        `missing`: libraries that do not load, by name; `library_error`: the loader's words, or None; `providers`: those
        of the session, the first one being the one that was really accepted, or []; `nodes`: how many nodes each
        provider took, or None where this ONNX Runtime cannot tell; `error`: why there is no session or no run, or None;
        `gpu` and `driver`: the name of the GPU and the driver's version where it runs on one, else "".
    """
    import numpy as np
    import onnxruntime

    preload_libraries(onnxruntime)
    answer: dict[str, Any] = {"providers": [], "nodes": None, "error": None, "gpu": "", "driver": ""}
    answer |= _libraries(Path(onnxruntime.__file__).parent / "capi", provider)
    try:
        options = onnxruntime.SessionOptions()
        options.add_session_config_entry(*RECORD_PLACEMENT)
        session = onnxruntime.InferenceSession(model, options, providers=[provider, *companions], enable_fallback=0)
        answer["providers"] = session.get_providers()
        answer["nodes"] = placement(session)
        session.run(None, {node.name: np.zeros(node.shape, np.float32) for node in session.get_inputs()})
    except Exception as error:  # whatever the provider raises is the answer
        answer["error"] = str(error) or type(error).__name__
    if provider in NVIDIA_PROVIDERS and answer["providers"][:1] == [provider]:
        answer["gpu"], answer["driver"] = _gpu()
    return answer


def placement(session: Any) -> dict[str, int] | None:
    """How many nodes each provider took, by ONNX Runtime's name; None where this ONNX Runtime cannot tell.

    The session was created with the configuration entry RECORD_PLACEMENT.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):  # ONNX Runtime 1.20 has no such call
        return None
    nodes: Counter[str] = Counter()
    for part in session.get_provider_graph_assignment_info():
        nodes[part.ep_name] += len(part.get_nodes())
    return dict(nodes)


def preload_libraries(onnxruntime: Any) -> None:
    """Loads the CUDA, cuDNN and TensorRT libraries that pip installed, which no loader path leads to.

    What cannot be loaded is not reported here: loading the provider's own library names it.
    """
    if hasattr(onnxruntime, "preload_dlls"):  # ONNX Runtime 1.21 and newer
        with contextlib.redirect_stdout(io.StringIO()):
            onnxruntime.preload_dlls()
    # `pip install tensorrt` puts its libraries into a package that ONNX Runtime does not look for.
    package = importlib.util.find_spec("tensorrt_libs")
    for folder in (package.submodule_search_locations or []) if package else []:
        for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
            pattern = f"{name}_[0-9]*.dll" if _WINDOWS else f"lib{name}.so.[0-9]*"
            for library in sorted(Path(folder).glob(pattern)):
                _load_error(str(library))


def _libraries(folder: Path, provider: str) -> dict[str, Any]:
    """`missing` and `library_error` of `examine`, from loading the provider's own library.

    A provider without a library of its own is linked into ONNX Runtime: there is nothing to miss.
    """
    library = folder / library_name(provider)
    if not library.is_file():
        return {"missing": [], "library_error": None}
    # The providers take symbols from this one, which ONNX Runtime loads before them, for all to see.
    _load_error(str(folder / library_name("SharedExecutionProvider")), ctypes.RTLD_GLOBAL)
    error = _load_error(str(library))
    candidates = []
    if error is not None and (match := _MISSING_LIBRARY.search(error)):
        candidates += [name for name in match.groups() if name]
    # The loader names the first missing library only. These two decide what the user has to get.
    if provider == "TensorrtExecutionProvider" and (found := _TENSORRT_LIBRARY.search(library.read_bytes())):
        candidates += [found.group().decode()]
    if provider in NVIDIA_PROVIDERS:
        candidates += [DRIVER_LIBRARY]
    missing = [name for name in dict.fromkeys(candidates) if _load_error(name) is not None]
    return {"missing": missing, "library_error": error}


def library_name(provider: str) -> str:
    """The file name of a provider's shared library, for example `libonnxruntime_providers_cuda.so`."""
    stem = f"onnxruntime_providers_{provider.removesuffix('ExecutionProvider').lower()}"
    if _WINDOWS:
        return f"{stem}.dll"
    return f"lib{stem}.dylib" if sys.platform == "darwin" else f"lib{stem}.so"


def _load_error(library: str, mode: int = ctypes.DEFAULT_MODE) -> str | None:
    """The loader's words where `library` does not load."""
    try:
        ctypes.CDLL(library, mode=mode)
    except OSError as error:
        return str(error)
    return None


def _gpu() -> tuple[str, str]:
    """The name of the first GPU that CUDA shows and the version of the driver, "" where they do not say.

    Source: the CUDA driver API (cuDeviceGetName) and NVML (nvmlSystemGetDriverVersion).
    """
    name, driver, device = ctypes.create_string_buffer(256), ctypes.create_string_buffer(96), ctypes.c_int()
    with contextlib.suppress(OSError):
        cuda = ctypes.CDLL(DRIVER_LIBRARY)
        if cuda.cuInit(0) == 0 and cuda.cuDeviceGet(ctypes.byref(device), 0) == 0:
            cuda.cuDeviceGetName(name, len(name), device)
    with contextlib.suppress(OSError):
        nvml = ctypes.CDLL(_NVML_LIBRARY)
        if nvml.nvmlInit_v2() == 0:
            nvml.nvmlSystemGetDriverVersion(driver, len(driver))
    return name.value.decode(), driver.value.decode()


def main() -> None:
    """Answers on the stdout that the process was started with; what native code prints goes to stderr."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    provider, *companions = sys.argv[1:]
    with answer:
        json.dump(examine(sys.stdin.buffer.read(), provider, companions), answer)


if __name__ == "__main__":
    main()
