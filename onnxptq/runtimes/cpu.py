"""The CPU features that decide how INT8 is computed, and whether U8S8 products saturate."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

from onnxptq.runtimes.quiet import stdout_to_stderr

INT8_FEATURES = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "i8mm", "dotprod")
"""In the order in which `cpu_features` lists them: x86 first, then ARM. Names as in Linux' `lscpu`."""

CLIPS = (
    "this CPU has no VNNI, so the INT8 kernels of ONNX Runtime and of OpenVINO can clip sums of products: the drops "
    "may hold that error too."
)
"""What to say where a runtime `saturates` (`onnxptq.runtimes.selection`)."""

_CPUINFO = Path("/proc/cpuinfo")
_LINUX_NAMES = {"asimddp": "dotprod"}
_MACOS_FLAGS = {"avx2": "avx2", "avx512f": "avx512f", "avx512vnni": "avx512_vnni"}
_MACOS_OPTIONS = {"hw.optional.arm.feat_dotprod": "dotprod", "hw.optional.arm.feat_i8mm": "i8mm"}


_most_cores: int | None = None


def limit_cores(number: int | None) -> None:
    """How many cores this process takes, for a worker among several; None takes all that it may use."""
    global _most_cores
    _most_cores = number


def limited_cores() -> int | None:
    """What `limit_cores` said."""
    return _most_cores


def cores() -> int:
    """How many samples this process runs at once."""
    if _most_cores is not None:
        return _most_cores
    if hasattr(os, "sched_getaffinity"):  # Linux: taskset and containers' cpusets count.
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def cpu_features() -> tuple[str, ...]:
    """The features of this CPU that matter for INT8, a subset of `INT8_FEATURES` in its order.

    From /proc/cpuinfo on Linux and from sysctl on macOS. Windows has no call that tells VNNI, so there it is empty, as
    it is where nothing can be read: empty means "not known", never "none".
    """
    if sys.platform == "darwin":
        return parse_sysctl(_sysctl())
    return parse_cpuinfo(_CPUINFO.read_text(errors="replace")) if _CPUINFO.is_file() else ()


def parse_cpuinfo(text: str) -> tuple[str, ...]:
    """The features in the text of Linux' /proc/cpuinfo that all cores have (a thread may run on any of them)."""
    cores = [
        {_LINUX_NAMES.get(flag, flag) for flag in match.group(1).split()}
        for match in re.finditer(r"^(?:flags|Features)[ \t]*:(.*)$", text, flags=re.MULTILINE)
    ]
    return _in_order(set.intersection(*cores)) if cores else ()


def parse_sysctl(text: str) -> tuple[str, ...]:
    """The features in the output of macOS' `sysctl machdep.cpu hw.optional.arm`, of Intel and Apple CPUs."""
    features = set()
    for line in text.lower().splitlines():
        key, _, value = line.partition(":")
        if key in ("machdep.cpu.features", "machdep.cpu.leaf7_features"):
            features |= {_MACOS_FLAGS[flag] for flag in value.split() if flag in _MACOS_FLAGS}
        elif key in _MACOS_OPTIONS and value.strip() == "1":
            features.add(_MACOS_OPTIONS[key])
    return _in_order(features)


def u8s8_can_saturate(features: Collection[str]) -> bool | None:
    """Whether ONNX Runtime's CPU kernels for uint8 activations and int8 weights can saturate on a CPU with `features`.

    Without VNNI, x86 adds two products in INT16 (`vpmaddubsw`): 255 * 127 * 2 does not fit, and the sum is clipped.
    What helps is `reduce_range` (7-bit weights) or the session option `session.x64quantprecision`. VNNI, AMX and ARM
    add in INT32. None where the features are not known.

    Source: the choice of kernels in onnxruntime/core/mlas/lib/platform.cpp, and the comment on
    `session.x64quantprecision` in onnxruntime_session_options_config_keys.h.
    """
    if not features:
        return None
    x86 = "avx2" in features or "avx512f" in features
    return x86 and not {"avx512_vnni", "avx_vnni", "amx_int8"} & set(features)


@functools.cache
def u8s8_saturates() -> bool:
    """The same, measured: a product of 255s and 127s on the CPU provider against its exact value.

    It also answers where the features are not known, and where a virtual machine hides them.
    """
    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    depth = 64
    weights = np.full((depth, 32), 127, np.int8)
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["activations", "weights"], ["sums"])],
        "u8s8",
        [helper.make_tensor_value_info("activations", TensorProto.UINT8, [8, depth])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [8, 32])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with stdout_to_stderr():
        import onnxruntime

        session = onnxruntime.InferenceSession(
            model.SerializeToString(), providers=["CPUExecutionProvider"], enable_fallback=0
        )
        (sums,) = session.run(None, {"activations": np.full((8, depth), 255, np.uint8)})
    return bool((sums != 255 * 127 * depth).any())


def _in_order(features: set[str]) -> tuple[str, ...]:
    return tuple(feature for feature in INT8_FEATURES if feature in features)


def _sysctl() -> str:
    """Empty where it cannot be run. It complains about the names of the other architecture and prints the rest."""
    command = ["sysctl", "machdep.cpu", "hw.optional.arm"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
