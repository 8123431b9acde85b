"""Which execution providers really load here, and if not, exactly why.

`onnxruntime.get_available_providers()` lists what was compiled in, and a session that asks for one of those runs on the
CPU without an exception when a library is missing. The truth takes three steps (`_probe.examine`): load the provider's
own library, open a session that may not fall back, run it.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import json
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxptq.errors import RuntimeUnavailableError, UsageError, did_you_mean
from onnxptq.registry import Registry
from onnxptq.runtimes._libraries import (
    CUDNN_LIBRARY,
    DRIVER_LIBRARY,
    NVIDIA_PROVIDERS,
    available_providers,
    register_plugins,
)
from onnxptq.runtimes._messages import first_logged_error, gpu_remedy, readable_cause
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
        plugin: module of a package that brings it as a library of its own, which ONNX Runtime registers at run time;
            its `get_library_path()` says where that lies (onnxruntime.ai, "Plugin Execution Provider Libraries"). ""
            for what is compiled into ONNX Runtime.
    """

    name: str
    ort_name: str
    compiled_remedy: str
    library_remedy: str
    companions: tuple[str, ...] = ()
    listed: bool = False
    plugin: str = ""


@dataclass(frozen=True)
class ProviderStatus:
    """What is true about one execution provider in this environment on this machine.

    Attributes:
        name: as the user writes it, for example "cuda".
        ort_name: as ONNX Runtime calls it.
        compiled: this ONNX Runtime was built with it.
        loads: a session really ran a model on it.
        reason: why it does not load, with the missing library by name; "" where it loads.
        remedy: what to do about that, or about its limit; "" where it is whole.
        gpu: the GPU that it runs on, "" for none.
        driver: the version of that GPU's driver, "" for none.
        limit: why it runs no convolutions although it loads (cuDNN is missing); "" where it does.
        libraries: versions of the libraries that decide its numbers: "cublas", "cudnn", "tensorrt".
    """

    name: str
    ort_name: str
    compiled: bool
    loads: bool
    reason: str = ""
    remedy: str = ""
    gpu: str = ""
    driver: str = ""
    limit: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict, hash=False)


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
        library_remedy="pip install 'onnxptq[tensorrt]' fetches them from NVIDIA's index (pypi.nvidia.com), to which "
        "the package on PyPI refers; without a way there download TensorRT from developer.nvidia.com and put its "
        "libraries on the loader's path (LD_LIBRARY_PATH, on Windows PATH).",
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


def probe(name: str, options: Mapping[str, str] | None = None) -> ProviderStatus:
    """Tells whether the provider `name` really loads, and if not why and what helps.

    The first call for a provider tries it with a tiny model in a process of its own (about half a second; longer on a
    GPU), so a crash or a hang in a driver becomes a reason. The answer holds for the life of this process.

    Args:
        name: of the provider.
        options: with which it is tried; the same as in the sessions that follow ("device_id": "1").

    Raises:
        UsageError: there is no such provider.
        RuntimeUnavailableError: ONNX Runtime itself cannot be imported.
    """
    return _probe(find_provider(name), tuple(sorted((options or {}).items())))


def probe_all() -> list[ProviderStatus]:
    """The status of every provider that is compiled in or a target of ours, in a fixed order, "cpu" first."""
    known = _known_providers()
    available = providers_here()
    return [_probe(provider, ()) for provider in known if provider.listed or provider.ort_name in available]


def providers_here() -> list[str]:
    """ONNX Runtime's names of the providers that a session may ask for: compiled in, or of an installed plug-in."""
    onnxruntime = import_onnxruntime()
    register_plugins(onnxruntime, plugin_libraries(tuple(PROVIDERS)))
    return available_providers(onnxruntime)


def plugin_libraries(providers: Sequence[Provider]) -> dict[str, str]:
    """Libraries of those plug-ins that are installed here, by ONNX Runtime's name of the provider.

    Raises RuntimeUnavailableError where a plug-in's package does not say where its library lies.
    """
    found = {}
    for provider in providers:
        if not provider.plugin or importlib.util.find_spec(provider.plugin) is None:
            continue
        try:
            found[provider.ort_name] = str(importlib.import_module(provider.plugin).get_library_path())
        except Exception as error:  # a stranger's module
            raise RuntimeUnavailableError(
                f"the plug-in {provider.plugin} of the execution provider {provider.name!r} does not say where its "
                f"library lies: {error}. Expected a function get_library_path(); install the package again, or "
                "remove it."
            ) from error
    return found


FALLBACK_REMEDY = "--allow-fallback permits the CPU of this environment instead."
"""Said where a user has that option and did not give it."""


def unavailable(status: ProviderStatus) -> RuntimeUnavailableError:
    """The error for whoever asked for a provider that does not load. Who can fall back adds `FALLBACK_REMEDY`."""
    return RuntimeUnavailableError(
        f"the execution provider {status.name!r} does not load here: {status.reason}. {status.remedy} "
        "`onnxptq providers` shows what loads."
    )


def runtime_identity(provider: str, options: Mapping[str, str] | None = None) -> dict[str, str]:
    """What decides the numbers that a session on `provider` computes, for content keys and metadata.

    Keys: `provider`, `onnxruntime` (version), `distribution`, `machine` (for example "x86_64"), `cpu_features` (joined
    by spaces), for a provider that runs on an NVIDIA GPU and loads those of `gpu_identity`, and `option.NAME` for each
    of `options`.
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
    if found.ort_name in NVIDIA_PROVIDERS and (status := probe(found.name, options)).loads:
        identity |= gpu_identity(status)
    return identity | {f"option.{key}": value for key, value in sorted((options or {}).items())}


def gpu_identity(status: ProviderStatus) -> dict[str, str]:
    """What decides numbers on an NVIDIA GPU: its name, its driver, and the libraries by their versions."""
    return {"gpu": status.gpu, "driver": status.driver, **dict(sorted(status.libraries.items()))}


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
        for ort_name in providers_here()
        if ort_name not in names
    ]


@functools.cache
def _probe(provider: Provider, options: tuple[tuple[str, str], ...]) -> ProviderStatus:
    onnxruntime = import_onnxruntime()
    available = providers_here()
    if provider.ort_name not in available:
        problems = installation_problems()
        return ProviderStatus(
            name=provider.name,
            ort_name=provider.ort_name,
            compiled=False,
            loads=False,
            reason=_why_not_available(provider, onnxruntime),
            remedy=" ".join(problems)
            or (provider.library_remedy if plugin_libraries((provider,)) else provider.compiled_remedy),
        )
    companions = [name for name in provider.companions if name in available]
    answer, reason = _ask(provider, companions, dict(options), None)
    loads = not reason
    limit = readable_cause(answer["limit"]) if loads and answer.get("limit") else ""
    return ProviderStatus(
        name=provider.name,
        ort_name=provider.ort_name,
        compiled=True,
        loads=loads,
        reason=reason,
        remedy=_remedy(provider, answer, reason or limit, dict(options), onnxruntime) if reason or limit else "",
        gpu=answer.get("gpu", "") if loads else "",
        driver=answer.get("driver", "") if loads else "",
        limit=limit,
        libraries=answer.get("libraries", {}) if loads else {},
    )


def _why_not_available(provider: Provider, onnxruntime: Any) -> str:
    here = f"{distribution_name(onnxruntime)} {onnxruntime.__version__}"
    if library := plugin_libraries((provider,)).get(provider.ort_name):
        if failed := register_plugins(onnxruntime, {provider.ort_name: library}):
            return f"{here} cannot load the plug-in {library}: {readable_cause(failed[provider.ort_name])}"
        return f"its plug-in {provider.plugin} finds no device here that it supports"
    return f"{here} was built without it" + (f", and {provider.plugin} is not installed" if provider.plugin else "")


def probe_in(provider: Provider, python: Path, options: Mapping[str, str] | None = None) -> ProviderStatus:
    """As `probe`, in another environment, whose ONNX Runtime was built with `provider`.

    A remedy is given only where it lies in the options or in the GPU: what to install there is not ours to say.
    """
    return _probe_in(provider, python, tuple(sorted((options or {}).items())))


@functools.cache
def _probe_in(provider: Provider, python: Path, options: tuple[tuple[str, str], ...]) -> ProviderStatus:
    answer, reason = _ask(provider, (), dict(options), python)
    if reason:
        return ProviderStatus(provider.name, provider.ort_name, True, False, reason, gpu_remedy(reason))
    limit = readable_cause(answer["limit"]) if answer["limit"] else ""
    return ProviderStatus(
        provider.name,
        provider.ort_name,
        True,
        True,
        gpu=answer["gpu"],
        driver=answer["driver"],
        limit=limit,
        libraries=answer["libraries"],
    )


def _ask(
    provider: Provider, companions: Sequence[str], options: Mapping[str, str], python: Path | None
) -> tuple[dict[str, Any], str]:
    """The answer of `_probe.examine` in a process of its own, and why the provider does not load ("" where it does)."""
    # -P: the folder of the script holds modules whose names must not shadow anybody's. -I: neither PYTHONPATH nor the
    # user's own packages belong to another environment.
    interpreter = [sys.executable, "-P"] if python is None else [str(python), "-I"]
    models = _tiny_models()
    shared = {key: options[key] for key in SHARED_OPTIONS if key in options}
    asked = {
        "provider": provider.ort_name,
        "options": dict(options),
        "companions": [[name, shared] for name in companions],
        "plugins": plugin_libraries((provider,)) if python is None else {},
        "sizes": [len(model) for model in models],
    }
    command = [*interpreter, str(Path(__file__).with_name("_probe.py")), json.dumps(asked)]
    try:
        done = subprocess.run(command, input=b"".join(models), capture_output=True, timeout=PROBE_SECONDS, check=False)
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
    return answer, _reason(provider.ort_name, answer, log)


def _reason(ort_name: str, answer: dict[str, Any], log: str) -> str:
    nodes = answer["nodes"]
    if answer["providers"][:1] == [ort_name] and answer["error"] is None:
        return "" if nodes is None or ort_name in nodes else f"it took no node of a product: {', '.join(nodes)} did"
    # cuDNN alone is no reason: what needs none runs without it.
    if set(answer["missing"]) - {CUDNN_LIBRARY} and (answer["library_error"] or DRIVER_LIBRARY in answer["missing"]):
        names = [f"{name} (the NVIDIA driver)" if name == DRIVER_LIBRARY else name for name in answer["missing"]]
        return f"missing {', '.join(names)}"
    if answer["library_error"] is not None:
        return f"its library does not load: {answer['library_error']}"
    if answer["error"] is not None:
        return readable_cause(answer["error"])
    return first_logged_error(log) or f"ONNX Runtime put a tiny model on {answer['providers'][0]} without saying why"


def _remedy(
    provider: Provider, answer: dict[str, Any], cause: str, options: Mapping[str, str], onnxruntime: Any
) -> str:
    """What helps: other options, libraries to install, room in the GPU's memory, or a driver."""
    missing = set(answer.get("missing", []))
    nvidia = provider.ort_name in NVIDIA_PROVIDERS
    if options and re.search("option", cause, flags=re.IGNORECASE):
        return f"Expected options that ONNX Runtime documents for {provider.ort_name}."
    parts = installation_problems()
    if tensorrt := re.search(r"nvinfer(?:\.so\.|_)(\d+)", " ".join(missing)):
        parts.append(f"It needs TensorRT {tensorrt.group(1)}.x, no other major version.")
    if missing - {DRIVER_LIBRARY} or not nvidia:
        parts.append(provider.library_remedy)
    if nvidia and not missing - {CUDNN_LIBRARY, DRIVER_LIBRARY} and (said := gpu_remedy(cause)):
        parts = [*installation_problems(), said]
    elif nvidia and (DRIVER_LIBRARY in missing or not missing):
        cuda = getattr(onnxruntime, "cuda_version", "") or "the CUDA version of this ONNX Runtime"
        parts.append(f"It needs an NVIDIA GPU and a driver for CUDA {cuda} or newer (`nvidia-smi` shows both).")
    return " ".join(dict.fromkeys(parts))


SHARED_OPTIONS = ("device_id", "gpu_mem_limit", "arena_extend_strategy", "use_tf32")
"""Options of NVIDIA's providers that hold for what runs beside them, too: on the same GPU, in the same memory."""


@functools.cache
def _tiny_models() -> tuple[bytes, bytes]:
    """A product of float32 (1, 4) and (4, 2), and a 1x1 convolution over (1, 3, 4, 4).

    The convolution needs cuDNN on CUDA, as most models do; the product does not.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    def model(node: Any, shape: list[int], out: list[int], weights: Any) -> bytes:
        graph = helper.make_graph(
            [node, helper.make_node("Relu", ["c"], ["y"])],
            "tiny",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)],
            [numpy_helper.from_array(weights, "w")],
        )
        # Old opset and IR version: every ONNX Runtime that may be asked reads them.
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return bytes(made.SerializeToString())

    product = helper.make_node("MatMul", ["x", "w"], ["c"])
    convolution = helper.make_node("Conv", ["x", "w"], ["c"])
    return (
        model(product, [1, 4], [1, 2], np.ones((4, 2), np.float32)),
        model(convolution, [1, 3, 4, 4], [1, 2, 4, 4], np.ones((2, 3, 1, 1), np.float32)),
    )
