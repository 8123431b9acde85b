"""Which execution providers really load here, and if not, exactly why.

`onnxruntime.get_available_providers()` lists what was compiled in, and a session that asks for one of those runs on the
CPU without an exception when a library is missing. The truth takes three steps (`_probe.examine`): load the provider's
own library, open a session that may not fall back, run it.
"""

from __future__ import annotations

import functools
import json
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxptq.errors import RuntimeUnavailableError, UsageError, did_you_mean
from onnxptq.registry import Registry
from onnxptq.runtimes._messages import first_logged_error, readable_cause
from onnxptq.runtimes._probe import DRIVER_LIBRARY, NVIDIA_PROVIDERS
from onnxptq.runtimes.cpu import cpu_features
from onnxptq.runtimes.installation import debugging, distribution_name, import_onnxruntime, installation_problems

PROBE_SECONDS = 180
"""How long a provider may take for a tiny model: TensorRT on a cold disk needs most of a minute."""

_REINSTALL = "Install ONNX Runtime again: pip install --force-reinstall onnxruntime."
_GPU_REMEDY = (
    "On Linux x86-64 and Windows: uninstall this ONNX Runtime, then pip install 'onnxptq[{extra}]'. "
    "Elsewhere there is no wheel of onnxruntime-gpu."
)
_PROVIDER_DOCS = "https://onnxruntime.ai/docs/execution-providers/"


@dataclass(frozen=True)
class Provider:
    """An execution provider that a user can ask for.

    Attributes:
        name: as the user writes it, for example "cuda".
        ort_name: as ONNX Runtime calls it, for example "CUDAExecutionProvider".
        compiled_remedy: what to do where this ONNX Runtime was built without it.
        library_remedy: what to do where its libraries do not load.
        companions: providers (ONNX Runtime's names) that take the nodes that it leaves, before the CPU does.
        listed: `onnxptq providers` lists it even where it is not compiled in.
    """

    name: str
    ort_name: str
    compiled_remedy: str
    library_remedy: str
    companions: tuple[str, ...] = ()
    listed: bool = False


@dataclass(frozen=True)
class ProviderStatus:
    """What is true about one execution provider in this environment on this machine.

    Attributes:
        name: as the user writes it, for example "cuda".
        ort_name: as ONNX Runtime calls it.
        compiled: this ONNX Runtime was built with it.
        loads: a session really ran a model on it.
        reason: why it does not load, with the missing library by name; "" where it loads.
        remedy: what to do about that; "" where it loads.
        gpu: the GPU that it runs on, "" for none.
        driver: the version of that GPU's driver, "" for none.
    """

    name: str
    ort_name: str
    compiled: bool
    loads: bool
    reason: str = ""
    remedy: str = ""
    gpu: str = ""
    driver: str = ""


CPU_PROVIDER = Provider(
    name="cpu",
    ort_name="CPUExecutionProvider",
    compiled_remedy=_REINSTALL,
    library_remedy=_REINSTALL,
    listed=True,
)
"""What every ONNX Runtime has."""

PROVIDERS: Registry[Provider] = Registry("execution provider", "onnxptq.runtimes", ())
PROVIDERS.register(CPU_PROVIDER)
PROVIDERS.register(
    Provider(
        name="cuda",
        ort_name="CUDAExecutionProvider",
        compiled_remedy=_GPU_REMEDY.format(extra="cuda"),
        library_remedy="pip install 'onnxptq[cuda]' brings CUDA and cuDNN as this ONNX Runtime needs them.",
        listed=True,
    )
)
PROVIDERS.register(
    Provider(
        name="tensorrt",
        ort_name="TensorrtExecutionProvider",
        compiled_remedy=_GPU_REMEDY.format(extra="tensorrt"),
        library_remedy="pip install 'onnxptq[tensorrt]', or put the libraries on the loader's path (LD_LIBRARY_PATH).",
        companions=("CUDAExecutionProvider",),
        listed=True,
    )
)
PROVIDERS.register(
    Provider(
        name="openvino",
        ort_name="OpenVINOExecutionProvider",
        compiled_remedy="`onnxptq runtimes add openvino` builds an environment of its own for it, and --ep openvino "
        "then means that: in this one onnxruntime-openvino would overwrite the ONNX Runtime that is installed.",
        library_remedy="Install it again: pip install --force-reinstall onnxruntime-openvino.",
        listed=True,
    )
)


def find_provider(name: str) -> Provider:
    """The provider called `name`, by the user's name or ONNX Runtime's.

    One that is compiled in but not registered goes by ONNX Runtime's name without "ExecutionProvider", in lower case
    ("coreml", "dml", "xnnpack"). Raises UsageError, with the closest names, where there is none.
    """
    known = _known_providers()
    for provider in known:
        if name in (provider.name, provider.ort_name):
            return provider
    names = [provider.name for provider in known]
    raise UsageError(f"unknown execution provider {name!r}. {did_you_mean(name, names)}")


def probe(name: str) -> ProviderStatus:
    """Tells whether the provider `name` really loads, and if not why and what helps.

    The first call for a provider tries it with a tiny model in a process of its own (about half a second; longer on a
    GPU), so a crash or a hang in a driver becomes a reason. The answer holds for the life of this process.

    Raises:
        UsageError: there is no such provider.
        RuntimeUnavailableError: ONNX Runtime itself cannot be imported.
    """
    return _probe(find_provider(name))


def probe_all() -> list[ProviderStatus]:
    """The status of every provider that is compiled in or a target of ours, in a fixed order, "cpu" first."""
    compiled = import_onnxruntime().get_available_providers()
    return [_probe(provider) for provider in _known_providers() if provider.listed or provider.ort_name in compiled]


FALLBACK_REMEDY = "--allow-fallback permits the CPU of this environment instead."
"""Said where a user has that option and did not give it."""


def unavailable(status: ProviderStatus) -> RuntimeUnavailableError:
    """The error for whoever asked for a provider that does not load. Who can fall back adds `FALLBACK_REMEDY`."""
    return RuntimeUnavailableError(
        f"the execution provider {status.name!r} does not load here: {status.reason}. {status.remedy} "
        "`onnxptq providers` shows what loads."
    )


def runtime_identity(provider: str) -> dict[str, str]:
    """What decides the numbers that a session on `provider` computes, for content keys and metadata.

    Keys: `provider`, `onnxruntime` (version), `distribution`, `machine` (for example "x86_64"), `cpu_features` (joined
    by spaces), and `gpu` and `driver` for a provider that runs on an NVIDIA GPU and loads.
    """
    found = find_provider(provider)
    onnxruntime = import_onnxruntime()
    identity = {
        "provider": found.name,
        "onnxruntime": str(onnxruntime.__version__),
        "distribution": distribution_name(onnxruntime),
        "machine": platform.machine(),
        "cpu_features": " ".join(cpu_features()),
    }
    if found.ort_name in NVIDIA_PROVIDERS and (status := _probe(found)).loads:
        identity |= {"gpu": status.gpu, "driver": status.driver}
    return identity


def _known_providers() -> list[Provider]:
    """The registered providers, then those that are compiled in under no name of ours."""
    registered = list(PROVIDERS)
    names = {provider.ort_name for provider in registered}
    return registered + [
        Provider(
            name=ort_name.removesuffix("ExecutionProvider").lower(),
            ort_name=ort_name,
            compiled_remedy=f"See {_PROVIDER_DOCS}.",
            library_remedy=f"See its requirements: {_PROVIDER_DOCS}.",
        )
        for ort_name in import_onnxruntime().get_available_providers()
        if ort_name not in names
    ]


@functools.cache
def _probe(provider: Provider) -> ProviderStatus:
    onnxruntime = import_onnxruntime()
    compiled = onnxruntime.get_available_providers()
    if provider.ort_name not in compiled:
        problems = installation_problems()
        return ProviderStatus(
            name=provider.name,
            ort_name=provider.ort_name,
            compiled=False,
            loads=False,
            reason=f"{distribution_name(onnxruntime)} {onnxruntime.__version__} was built without it",
            remedy=" ".join(problems) or provider.compiled_remedy,
        )
    companions = [name for name in provider.companions if name in compiled]
    answer, reason = _ask(provider.ort_name, companions, None)
    loads = not reason
    return ProviderStatus(
        name=provider.name,
        ort_name=provider.ort_name,
        compiled=True,
        loads=loads,
        reason=reason,
        remedy="" if loads else _remedy(provider, answer, onnxruntime),
        gpu=answer.get("gpu", "") if loads else "",
        driver=answer.get("driver", "") if loads else "",
    )


@functools.cache
def probe_in(provider: Provider, python: Path) -> ProviderStatus:
    """As `probe`, in another Python environment, whose ONNX Runtime was built with `provider`. No remedy is given."""
    answer, reason = _ask(provider.ort_name, (), python)
    gpu, driver = ("", "") if reason else (answer["gpu"], answer["driver"])
    return ProviderStatus(provider.name, provider.ort_name, True, not reason, reason, "", gpu, driver)


def _ask(ort_name: str, companions: Sequence[str], python: Path | None) -> tuple[dict[str, Any], str]:
    """The answer of `_probe.examine` in a process of its own, and why the provider does not load ("" where it does)."""
    # -P: the folder of the script holds modules whose names must not shadow anybody's. -I: neither PYTHONPATH nor the
    # user's own packages belong to another environment.
    interpreter = [sys.executable, "-P"] if python is None else [str(python), "-I"]
    command = [*interpreter, str(Path(__file__).with_name("_probe.py")), ort_name, *companions]
    try:
        done = subprocess.run(command, input=_tiny_model(), capture_output=True, timeout=PROBE_SECONDS, check=False)
    except OSError as error:
        return {}, f"the interpreter {interpreter[0]} cannot be started: {error.strerror}"
    except subprocess.TimeoutExpired:
        return {}, f"it did not run a tiny model within {PROBE_SECONDS} seconds"
    log = done.stderr.decode(errors="replace")
    if debugging():
        sys.stderr.write(log)
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        last = log.strip().splitlines()[-1:] or ["it printed nothing"]
        return {}, f"the process that tried it ended with exit code {done.returncode} ({last[0]})"
    return answer, _reason(ort_name, answer, log)


def _reason(ort_name: str, answer: dict[str, Any], log: str) -> str:
    nodes = answer["nodes"]
    if answer["providers"][:1] == [ort_name] and answer["error"] is None:
        return "" if nodes is None or ort_name in nodes else f"it took no node of a convolution: {', '.join(nodes)} did"
    if answer["missing"]:
        names = [f"{name} (the NVIDIA driver)" if name == DRIVER_LIBRARY else name for name in answer["missing"]]
        return f"missing {', '.join(names)}"
    if answer["library_error"] is not None:
        return f"its library does not load: {answer['library_error']}"
    if answer["error"] is not None:
        return readable_cause(answer["error"])
    return first_logged_error(log) or f"ONNX Runtime put a tiny model on {answer['providers'][0]} without saying why"


def _remedy(provider: Provider, answer: dict[str, Any], onnxruntime: Any) -> str:
    """What to install: the provider's libraries where they are missing, the driver where that is, or both."""
    missing = answer.get("missing", [])
    nvidia = provider.ort_name in NVIDIA_PROVIDERS
    parts = installation_problems()
    if tensorrt := re.search(r"nvinfer(?:\.so\.|_)(\d+)", " ".join(missing)):
        parts.append(f"It needs TensorRT {tensorrt.group(1)}.x, no other major version.")
    if set(missing) - {DRIVER_LIBRARY} or not nvidia:
        parts.append(provider.library_remedy)
    if nvidia and (DRIVER_LIBRARY in missing or not missing):
        cuda = getattr(onnxruntime, "cuda_version", "") or "the CUDA version of this ONNX Runtime"
        parts.append(f"It needs an NVIDIA GPU and a driver for CUDA {cuda} or newer (`nvidia-smi` shows both).")
    return " ".join(parts)


@functools.cache
def _tiny_model() -> bytes:
    """A 1x1 convolution over float32 (1, 3, 4, 4), which needs cuDNN on CUDA, as real models do."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["c"]), helper.make_node("Relu", ["c"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(np.ones((2, 3, 1, 1), np.float32), "w")],
    )
    # Old opset and IR version: every ONNX Runtime that may be asked reads them.
    model: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()
    return model
