"""Provider options: what a user says in general terms, in the words of the CUDA and the TensorRT provider.

Sources: onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html and TensorRT-ExecutionProvider.html.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxptq.cache import Room, content_key
from onnxptq.errors import UsageError
from onnxptq.runtimes.providers import Provider

_UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class DeviceSettings:
    """What a user says about the device, for every provider that has one.

    Attributes:
        device: number of the GPU.
        memory_bytes: most that CUDA's arena may take; None leaves it open.
        workspace_bytes: most that TensorRT may take for one layer's scratch memory; None leaves it open.
        fp16: TensorRT may run in FP16 what is not quantized. Off, because it changes the numbers.
        options: further options of a provider, by its name: {"openvino": {"device_type": "GPU"}}. They win.
    """

    device: int = 0
    memory_bytes: int | None = None
    workspace_bytes: int | None = None
    fp16: bool = False
    options: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def provider_options(provider: Provider, settings: DeviceSettings) -> dict[str, str]:
    """The options that decide what a provider computes: all but the places of its caches.

    TensorRT takes explicit quantization: INT8 where the graph has Q and DQ, from their scales, without a calibration
    table; layers without Q and DQ stay in float.
    """
    chosen: dict[str, str] = {}
    if provider.ort_name == "CUDAExecutionProvider":
        chosen["device_id"] = str(settings.device)
        if settings.memory_bytes is not None:
            chosen["gpu_mem_limit"] = str(settings.memory_bytes)
            # By default the arena doubles what it asks for, past any limit that is no power of two.
            chosen["arena_extend_strategy"] = "kSameAsRequested"
    if provider.ort_name == "TensorrtExecutionProvider":
        chosen["device_id"] = str(settings.device)
        chosen["trt_int8_enable"] = "1"
        chosen["trt_int8_use_native_calibration_table"] = "0"
        chosen["trt_fp16_enable"] = "1" if settings.fp16 else "0"
        if settings.workspace_bytes is not None:
            chosen["trt_max_workspace_size"] = str(settings.workspace_bytes)
    return {**chosen, **settings.options.get(provider.name, {})}


def thread_options(provider: Provider, threads: int | None) -> dict[str, str]:
    """The number of threads in the words of a provider with a thread pool of its own."""
    if threads is None or provider.ort_name != "OpenVINOExecutionProvider":
        return {}
    return {"num_of_threads": str(threads)}


def cache_options(
    provider: Provider, room: Room, model_digest: str, identity: Mapping[str, str], options: Mapping[str, str]
) -> dict[str, str]:
    """Where TensorRT keeps its engines and timings: in the cache room, by the content that made them.

    An engine holds for one model, GPU, driver and TensorRT only, and TensorRT itself checks little of that; timings
    hold for every model on the same GPU and TensorRT.

    Args:
        provider: others than TensorRT keep nothing.
        room: the cache room.
        model_digest: of the model.
        identity: of the runtime: versions, GPU, driver.
        options: what else the provider was told.
    """
    if provider.ort_name != "TensorrtExecutionProvider":
        return {}
    engine = content_key("tensorrt-engine", model=model_digest, runtime=dict(identity), options=dict(options))
    timing = content_key("tensorrt-timing", runtime=dict(identity))
    folders = {"engine": room.place("tensorrt-engine", engine, ""), "timing": room.place("tensorrt-timing", timing, "")}
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
