"""From what a user wrote after `--ep` to the runtime that is meant.

    PROVIDER[@ENVIRONMENT][:DEVICE][:LEVEL]    cpu, cuda, cuda:1, cpu:none, cpu@openvino:basic
    ENVIRONMENT[:DEVICE][:LEVEL]               openvino, cpu@1.20 (added by `onnxptq runtimes add`)

DEVICE is the number of a GPU, for NVIDIA's providers. LEVEL is how far ONNX Runtime may rewrite the graph: all (the
default), extended, basic or none. Another one is exact: as all, but sums of INT8 products are not clipped on CPUs
without VNNI. An environment that has the whole name before the colon comes first. Nothing is installed here: only
`onnxptq runtimes add` does that.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

from onnxptq.cache import Cache
from onnxptq.errors import RuntimeUnavailableError, UsageError, did_you_mean
from onnxptq.runtimes._libraries import NVIDIA_PROVIDERS
from onnxptq.runtimes.cpu import cpu_features, u8s8_can_saturate
from onnxptq.runtimes.environments import PythonEnvironment, default_packages, environments, find_environment
from onnxptq.runtimes.provider_options import (
    Batches,
    DeviceSettings,
    cache_options,
    companion_options,
    environment_variables,
    model_options,
    profile_options,
    provider_options,
    tf32_identity,
    thread_options,
)
from onnxptq.runtimes.providers import (
    CPU_PROVIDER,
    FALLBACK_REMEDY,
    PROVIDERS,
    Provider,
    ProviderStatus,
    find_provider,
    gpu_identity,
    plugin_libraries,
    probe,
    probe_in,
    providers_here,
    runtime_identity,
    unavailable,
)
from onnxptq.runtimes.session import Optimization

if TYPE_CHECKING:
    from onnxptq.graphs import Model


@dataclass(frozen=True)
class Runtime:
    """An execution provider, where it runs and how.

    Attributes:
        name: as the user wrote it.
        provider: the execution provider.
        environment: the other Python environment that it runs in, or None for this one.
        optimization: how far the graph may be rewritten.
        options: the provider's options, without the places of caches and what follows from a model.
        companion: options of the provider that takes what this one leaves.
        tf32: whether an NVIDIA GPU may compute products of float32 in TF32.
        fallback_reason: why this is the CPU although the name says something else, or None.
    """

    name: str
    provider: Provider
    environment: PythonEnvironment | None = None
    optimization: Optimization = "all"
    options: Mapping[str, str] = field(default_factory=dict)
    companion: Mapping[str, str] = field(default_factory=dict)
    tf32: bool = False
    fallback_reason: str | None = None

    @property
    def python(self) -> Path | None:
        """The interpreter of its environment; None is this one."""
        return self.environment.python if self.environment else None

    @property
    def here(self) -> bool:
        """Whether it needs no process of its own: the CPU of this environment, which is trusted."""
        return self.environment is None and self.provider == CPU_PROVIDER

    @property
    def saturates(self) -> bool:
        """Whether its kernels can clip sums of INT8 products, see `saturates`."""
        return saturates(self.identity())

    @property
    def compiled(self) -> tuple[str, ...]:
        """The providers that its ONNX Runtime was built with, or has as plug-ins."""
        if self.environment is not None:
            return self.environment.description.providers
        return tuple(providers_here())

    @property
    def on_gpu(self) -> bool:
        """Whether inputs and outputs can be bound to the memory of an NVIDIA GPU."""
        return self.provider.ort_name in NVIDIA_PROVIDERS

    @property
    def device(self) -> int:
        """Number of the GPU."""
        return int(self.options.get("device_id", "0"))

    @property
    def variables(self) -> dict[str, str]:
        """What its process has in its environment beside ours."""
        return environment_variables(self.provider, self.tf32)

    @property
    def plugins(self) -> dict[str, str]:
        """Libraries that its process registers with ONNX Runtime, by ONNX Runtime's name of the provider."""
        return plugin_libraries((self.provider,)) if self.environment is None else {}

    def fallen_back(self, reason: str) -> Runtime:
        """The CPU of this environment in its place, which says why."""
        return replace(self, provider=CPU_PROVIDER, environment=None, options={}, companion={}, fallback_reason=reason)

    def identity(self) -> dict[str, str]:
        """What decides the numbers that it computes, for content keys and metadata: as `runtime_identity`, and more."""
        if self.environment is None:
            identity = runtime_identity(self.provider.name, self.options)
        else:
            found = self.environment.description
            identity = {
                "provider": self.provider.name,
                "onnxruntime": found.onnxruntime,
                "distribution": found.distribution,
                "machine": platform.machine(),
                "cpu_features": " ".join(cpu_features()),
            }
            if self.on_gpu:
                identity |= gpu_identity(probe_in(self.provider, self.environment.python, self.options))
            identity |= {f"option.{key}": value for key, value in sorted(self.options.items())}
        if self.optimization != "all":
            identity["optimization"] = self.optimization
        return identity | tf32_identity(self.provider, self.variables)

    def session_providers(
        self, cache: Cache, model: Model, threads: int | None = None, batches: Batches | None = None
    ) -> tuple[tuple[str, dict[str, str]], ...]:
        """What a session of a model is created with: ONNX Runtime's names with their options, in order.

        Args:
            cache: where a provider keeps what it builds.
            model: what the session is of.
            threads: for a provider with a thread pool of its own, which the session's number does not reach.
            batches: what will run, for a provider that builds for sizes; None where nobody knows.
        """
        options = {**model_options(self.provider, quantized=model.quantized), **self.options}
        options |= profile_options(self.provider, model.core.signature, batches)
        places = cache_options(self.provider, cache, model.digest, self.identity(), options)
        companions = [name for name in self.provider.companions if name in self.compiled]
        return (
            (self.provider.ort_name, {**options, **places, **thread_options(self.provider, threads)}),
            *((name, dict(self.companion)) for name in companions),
        )


def saturates(identity: Mapping[str, str]) -> bool:
    """Whether the kernels of a runtime can clip sums of INT8 products: on x86 without VNNI those of two providers.

    The CPU provider's do where the graph is optimized: at less optimization the products of a graph with Q and DQ are
    not fused, and so computed in float. OpenVINO's do on its device "CPU", the default, and fuses whatever ONNX
    Runtime left: at every level, the exact one included (measured: onnxruntime-openvino 1.24.1, Conv and MatMul).

    Args:
        identity: of the runtime, on the machine that it runs on.
    """
    if not u8s8_can_saturate(identity["cpu_features"].split()):
        return False
    if identity["provider"] == "openvino":
        return identity.get("option.device_type", "CPU") == "CPU"
    return identity["provider"] == CPU_PROVIDER.name and identity.get("optimization", "all") in ("all", "extended")


CPU = Runtime("cpu", CPU_PROVIDER)
"""The CPU of this environment."""


def resolve_runtime(text: str, cache: Cache, settings: DeviceSettings | None = None) -> Runtime:
    """The runtime that `text` names.

    Raises:
        UsageError: no such provider, level or environment; the message says how an environment is added.
    """
    name, *parts = text.split(":")
    numbers = [part for part in parts if part.isdigit()]
    levels = [part for part in parts if not part.isdigit()] or ["all"]
    for level in levels:
        if level not in get_args(Optimization):
            raise UsageError(
                f"unknown optimization level {level!r} in {text!r}. {did_you_mean(level, get_args(Optimization))}"
            )
    if len(numbers) > 1 or len(levels) > 1:
        raise UsageError(f"{text!r} names two devices or two levels. Expected one of each at most, as in cuda:1:basic.")
    provider, environment = _provider_and_environment(name, cache)
    settings = settings or DeviceSettings()
    if numbers:
        if provider.ort_name not in NVIDIA_PROVIDERS:
            raise UsageError(f"{name!r} has no devices with numbers, got {text!r}. Write {name} alone.")
        settings = replace(settings, device=int(numbers[0]))
    options = provider_options(provider, settings)
    return Runtime(
        name=text,
        provider=provider,
        environment=environment,
        optimization=cast(Optimization, levels[0]),
        options=options,
        companion=companion_options(provider, settings),
        tf32=settings.tf32 or options.get("use_tf32") in ("1", "true", "True"),
    )


def chosen_runtime(text: str, cache: Cache, *, allow_fallback: bool | None = None) -> Runtime:
    """The runtime that `text` names, tried: `resolve_runtime`, then `ready`."""
    return ready(resolve_runtime(text, cache), allow_fallback=allow_fallback)


def ready(runtime: Runtime, *, allow_fallback: bool | None = None) -> Runtime:
    """The runtime, tried with a tiny model; with `allow_fallback` the CPU of this environment where it does not load.

    Args:
        runtime: what is meant.
        allow_fallback: what the user chose, or None where there is nothing to choose.

    Raises:
        RuntimeUnavailableError: it does not load; the message says why and what helps.
    """
    if runtime.here:
        return runtime  # Trying it in a process of its own would take longer than a small model.
    if runtime.environment is None:
        status = probe(runtime.provider.name, runtime.options)
    else:
        status = probe_in(runtime.provider, runtime.environment.python, runtime.options)
    if status.loads:
        return runtime
    error = unavailable(status) if runtime.environment is None else _unavailable_there(runtime, status)
    if allow_fallback:
        return runtime.fallen_back(str(error))
    raise error if allow_fallback is None else RuntimeUnavailableError(f"{error} {FALLBACK_REMEDY}")


def _provider_and_environment(name: str, cache: Cache) -> tuple[Provider, PythonEnvironment | None]:
    if (environment := find_environment(cache, name)) is not None:
        return _provider_of(environment, environment.provider), environment
    provider, at, place = name.partition("@")
    if at and (environment := find_environment(cache, place)) is not None:
        return _provider_of(environment, provider), environment
    if at:
        raise UsageError(f"there is no runtime {name!r}. {_how_to_add(name, cache)}")
    found = find_provider(name)
    if found.ort_name not in providers_here() and found.name == "openvino":
        raise RuntimeUnavailableError(f"{name!r} is not in this environment. {_how_to_add(name, cache)}")
    return found, None


def _provider_of(environment: PythonEnvironment, name: str) -> Provider:
    """The provider called `name` in another environment, whose ONNX Runtime may know others than ours."""
    compiled = environment.description.providers
    for provider in PROVIDERS:
        if name in (provider.name, provider.ort_name) and provider.ort_name in compiled:
            return provider
    for ort_name in compiled:
        short = ort_name.removesuffix("ExecutionProvider").lower()
        if name in (short, ort_name):
            return Provider(name=short, ort_name=ort_name, compiled_remedy="", library_remedy="")
    short_names = [ort_name.removesuffix("ExecutionProvider").lower() for ort_name in compiled]
    raise UsageError(f"the runtime {environment.name!r} has no provider {name!r}. {did_you_mean(name, short_names)}")


def _how_to_add(name: str, cache: Cache) -> str:
    try:
        default_packages(name)
        remedy = f"Add it with: onnxptq runtimes add {name}"
    except UsageError:
        remedy = "Add it with: onnxptq runtimes add NAME --package ... or --python PATH"
    known = [environment.name for environment in environments(cache)]
    return (
        f"{remedy} (it installs into a virtual environment of its own). Runtimes so far: {', '.join(known) or 'none'}."
    )


def _unavailable_there(runtime: Runtime, status: ProviderStatus) -> RuntimeUnavailableError:
    assert runtime.environment is not None
    name = runtime.environment.name
    return RuntimeUnavailableError(
        f"the execution provider {runtime.provider.name!r} does not load in the runtime {name!r} "
        f"({runtime.environment.python}): {status.reason}. "
        f"{status.remedy or f'Replace it with onnxptq runtimes add {name} --force.'}"
    )
