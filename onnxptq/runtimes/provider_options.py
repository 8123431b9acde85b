"""Provider options: what a user says in general terms, in the words of the CUDA and the TensorRT provider.

Sources: onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and TensorRT-ExecutionProvider.html. Which
names the libraries of ONNX Runtime 1.31.1 know was read from their binaries.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from onnxptq.cache import Cache, content_key
from onnxptq.errors import UsageError
from onnxptq.runtimes._libraries import NVIDIA_PROVIDERS
from onnxptq.runtimes.providers import SHARED_OPTIONS, Provider, find_provider, runtime_identity
from onnxptq.signature import Signature

TF32_VARIABLE = "NVIDIA_TF32_OVERRIDE"
"""What NVIDIA's libraries read as they are loaded: "0" forbids TF32 whatever a program asks for. TensorRT under ONNX
Runtime obeys nothing else: the provider has no option for it."""

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class DeviceSettings:
    """What a user says about the device, for every provider that has one.

    Attributes:
        device: number of the GPU.
        memory_bytes: most that CUDA's arena may take; None leaves it open.
        workspace_bytes: most that TensorRT may take for one layer's scratch memory; None leaves it open.
        fp16: TensorRT may run in FP16 what is not quantized. Off, because it changes the numbers.
        tf32: products of float32 may be computed in TF32, which keeps 10 bits of the mantissa. NVIDIA's default, and
            off here: "FP32" would not be FP32, and the error of INT8 against it would hold that of TF32.
        options: further options of a provider, by its name: {"openvino": {"device_type": "GPU"}}. They win.
    """

    device: int = 0
    memory_bytes: int | None = None
    workspace_bytes: int | None = None
    fp16: bool = False
    tf32: bool = False
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def provider_options(provider: Provider, settings: DeviceSettings) -> dict[str, str]:
    """The options that decide what a provider computes: all but the places of its caches, and `model_options`.

    Raises:
        UsageError: the number of a device is none.
    """
    chosen: dict[str, str] = {}
    if provider.ort_name in NVIDIA_PROVIDERS:
        chosen["device_id"] = str(settings.device)
    if provider.ort_name == "CUDAExecutionProvider":
        chosen["use_tf32"] = "1" if settings.tf32 else "0"
        if settings.memory_bytes is not None:
            chosen |= _memory_limit(settings.memory_bytes)
    if provider.ort_name == "TensorrtExecutionProvider":
        chosen["trt_fp16_enable"] = "1" if settings.fp16 else "0"
        # It takes scratch memory up to the whole GPU unless it is told otherwise.
        bounds = [size for size in (settings.workspace_bytes, settings.memory_bytes) if size is not None]
        if bounds:
            chosen["trt_max_workspace_size"] = str(min(bounds))
    chosen |= settings.options.get(provider.name, {})
    if not (device := chosen.get("device_id", "0")).isdigit():
        raise UsageError(f"device_id must be the number of a GPU, from 0, got {device!r}. `nvidia-smi -L` lists them.")
    return chosen


def companion_options(provider: Provider, settings: DeviceSettings) -> dict[str, str]:
    """Options of the CUDA provider that takes what TensorRT leaves: the same GPU, memory and precision."""
    if not provider.companions:
        return {}
    own = {"use_tf32": "1" if settings.tf32 else "0"}
    if settings.memory_bytes is not None:
        own |= _memory_limit(settings.memory_bytes)
    own |= settings.options.get("cuda", {})
    given = provider_options(provider, settings)
    return own | {key: given[key] for key in SHARED_OPTIONS if key in given}


def _memory_limit(memory_bytes: int) -> dict[str, str]:
    # By default the arena doubles what it asks for, past any limit that is no power of two.
    return {"gpu_mem_limit": str(memory_bytes), "arena_extend_strategy": "kSameAsRequested"}


def model_options(provider: Provider, *, quantized: bool) -> dict[str, str]:
    """What TensorRT is told for one model: INT8 where the graph has Q and DQ, from their scales.

    Without Q and DQ INT8 would need a calibration table: TensorRT fails ("no scaling factors"), or takes ranges that
    nobody measured. So a float model, the FP32 reference among them, never asks for it.
    """
    if provider.ort_name != "TensorrtExecutionProvider":
        return {}
    if not quantized:
        return {"trt_int8_enable": "0"}
    return {"trt_int8_enable": "1", "trt_int8_use_native_calibration_table": "0"}


CALIBRATION_OPTIONS: Mapping[str, Mapping[str, str]] = {
    # The default search times cuDNN's algorithms anew in each process, and takes another one now and then: statistics
    # would not be those of the next run, which cached ones and those of shards must be.
    "cuda": {"cudnn_conv_algo_search": "DEFAULT", "use_tf32": "0"},
}
"""Options of the providers that calibrate, by their name."""


def calibration_identity(provider: str) -> dict[str, str]:
    """What decides the numbers of a calibration on a provider, for content keys and metadata."""
    identity = runtime_identity(provider, CALIBRATION_OPTIONS.get(provider))
    return identity | tf32_identity(find_provider(provider), {})


def environment_variables(provider: Provider, tf32: bool) -> dict[str, str]:
    """What a process that runs the provider has in its environment beside its own."""
    return {TF32_VARIABLE: "0"} if provider.ort_name in NVIDIA_PROVIDERS and not tf32 else {}


def tf32_identity(provider: Provider, variables: Mapping[str, str]) -> dict[str, str]:
    """What decides about TF32 outside of a provider's options; "" where the variable is not set."""
    if provider.ort_name not in NVIDIA_PROVIDERS:
        return {}
    return {TF32_VARIABLE: variables.get(TF32_VARIABLE, os.environ.get(TF32_VARIABLE, ""))}


@dataclass(frozen=True)
class Batches:
    """How many samples a session will be given at once, for an engine that is built for sizes.

    Attributes:
        most: at most so many.
        least: at least so many.
        usual: the size to tune for; None is the largest.
        feeds: shapes of one call, by input, for dimensions that the model leaves open beside the batch.
    """

    most: int
    least: int = 1
    usual: int | None = None
    feeds: Mapping[str, Sequence[int]] = field(default_factory=dict)


def profile_options(provider: Provider, signature: Signature, batches: Batches | None) -> dict[str, str]:
    """Shapes that TensorRT builds an engine for, so that it builds one and not another for each new batch size.

    Nothing for other providers, for models of fixed shapes, and where a dimension beside the batch is open whose length
    is not known beforehand (text): there TensorRT widens its engine by what comes.

    Args:
        provider: what runs.
        signature: inputs of the model.
        batches: what will run; None where nobody knows.
    """
    if provider.ort_name != "TensorrtExecutionProvider" or batches is None:
        return {}
    open_inputs = [spec for spec in signature.inputs if None in spec.shape]
    if not open_inputs:
        return {}
    usual = batches.usual or batches.most
    profiles = {"min": batches.least, "opt": usual, "max": batches.most}
    written: dict[str, list[str]] = {name: [] for name in profiles}
    for spec in open_inputs:
        known = batches.feeds.get(spec.name)
        for name, batch in profiles.items():
            sizes = [batch if axis == 0 and size is None else size for axis, size in enumerate(spec.shape)]
            if None in sizes and known is not None and len(known) == len(sizes):
                sizes = [other if size is None else size for size, other in zip(sizes, known, strict=True)]
            if None in sizes:
                return {}
            written[name].append(f"{spec.name}:{'x'.join(map(str, sizes))}")
    return {f"trt_profile_{name}_shapes": ",".join(shapes) for name, shapes in written.items()}


def thread_options(provider: Provider, threads: int | None) -> dict[str, str]:
    """The number of threads in the words of a provider with a thread pool of its own."""
    if threads is None or provider.ort_name != "OpenVINOExecutionProvider":
        return {}
    return {"num_of_threads": str(threads)}


def cache_options(
    provider: Provider, cache: Cache, model_digest: str, identity: Mapping[str, str], options: Mapping[str, str]
) -> dict[str, str]:
    """Where TensorRT keeps its engines and timings: in the cache, by the content that made them.

    An engine holds for one model, GPU, driver and TensorRT only, and TensorRT itself checks little of that; timings
    hold for every model on the same GPU and TensorRT.

    Args:
        provider: others than TensorRT keep nothing.
        cache: the cache.
        model_digest: of the model.
        identity: of the runtime: versions, GPU, driver.
        options: what else the provider was told.
    """
    if provider.ort_name != "TensorrtExecutionProvider":
        return {}
    engine = content_key("tensorrt-engine", model=model_digest, runtime=dict(identity), options=dict(options))
    timing = content_key("tensorrt-timing", runtime=dict(identity))
    folders = {
        "engine": cache.place("tensorrt-engine", engine, ""),
        "timing": cache.place("tensorrt-timing", timing, ""),
    }
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folders["engine"]),
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folders["timing"]),
    }


def parse_bytes(option: str, text: str) -> int:
    """Bytes from "2GB", "512MiB" or "1000". Raises UsageError."""
    digits = text.strip().rstrip("BKMGIbkmgi ")
    unit = text.strip()[len(digits) :].strip().upper()
    try:
        value = float(digits)
    except ValueError:
        value = -1.0
    if value <= 0 or unit not in _UNITS:
        raise UsageError(f"{option} must be a size such as 2GB or 512MiB, got {text!r}.")
    return int(value * _UNITS[unit])


def parse_options(texts: tuple[str, ...]) -> dict[str, dict[str, str]]:
    """Options from ("openvino:device_type=GPU", ...). Raises UsageError."""
    parsed: dict[str, dict[str, str]] = {}
    for text in texts:
        provider, colon, rest = text.partition(":")
        key, equals, value = rest.partition("=")
        if not (provider and colon and key and equals):
            raise UsageError(
                f"--ep-option must be PROVIDER:KEY=VALUE, for example openvino:device_type=GPU; got {text!r}."
            )
        parsed.setdefault(provider, {})[key] = value
    return parsed
