from __future__ import annotations

from pathlib import Path

import pytest

from onnxptq.cache import Room
from onnxptq.errors import UsageError
from onnxptq.runtimes.provider_options import (
    DeviceSettings,
    cache_options,
    parse_bytes,
    parse_options,
    provider_options,
    thread_options,
)
from onnxptq.runtimes.providers import find_provider

SETTINGS = DeviceSettings(device=1, memory_bytes=2 * 10**9, workspace_bytes=10**9)
IDENTITY = {"gpu": "H100", "driver": "580", "onnxruntime": "1.31.1"}


def test_cuda_gets_its_device_and_a_limit_that_the_arena_keeps() -> None:
    assert provider_options(find_provider("cuda"), SETTINGS) == {
        "device_id": "1",
        "gpu_mem_limit": "2000000000",
        "arena_extend_strategy": "kSameAsRequested",
    }


def test_tensorrt_takes_explicit_quantization_and_no_fp16_unless_asked() -> None:
    options = provider_options(find_provider("tensorrt"), SETTINGS)
    assert (options["trt_int8_enable"], options["trt_int8_use_native_calibration_table"]) == ("1", "0")
    assert (options["trt_fp16_enable"], options["trt_max_workspace_size"]) == ("0", "1000000000")
    assert provider_options(find_provider("tensorrt"), DeviceSettings(fp16=True))["trt_fp16_enable"] == "1"


def test_the_cpu_gets_nothing() -> None:
    assert provider_options(find_provider("cpu"), SETTINGS) == {}


def test_what_the_user_says_wins() -> None:
    settings = DeviceSettings(device=1, options={"cuda": {"device_id": "3", "cudnn_conv_algo_search": "HEURISTIC"}})
    options = provider_options(find_provider("cuda"), settings)
    assert options == {"device_id": "3", "cudnn_conv_algo_search": "HEURISTIC"}


def engine(room: Room, model: str = "m", options: dict[str, str] | None = None, **identity: str) -> tuple[str, str]:
    places = cache_options(find_provider("tensorrt"), room, model, {**IDENTITY, **identity}, options or {})
    assert (places["trt_engine_cache_enable"], places["trt_timing_cache_enable"]) == ("1", "1")
    return places["trt_engine_cache_path"], places["trt_timing_cache_path"]


def test_engines_and_timings_lie_in_the_cache_room_keyed_by_content(tmp_path: Path) -> None:
    room = Room(tmp_path)
    base = engine(room)
    assert all(Path(path).is_dir() and Path(path).is_relative_to(tmp_path) for path in base)
    assert engine(room) == base
    assert engine(room, model="other")[0] != base[0]
    assert engine(room, driver="590")[0] != base[0]
    assert engine(room, options={"trt_fp16_enable": "1"})[0] != base[0]


def test_timings_serve_every_model_on_the_same_gpu_and_no_other(tmp_path: Path) -> None:
    room = Room(tmp_path)
    assert engine(room, model="other")[1] == engine(room)[1]
    assert engine(room, gpu="L4")[1] != engine(room)[1]


def test_other_providers_keep_nothing(tmp_path: Path) -> None:
    assert cache_options(find_provider("cuda"), Room(tmp_path), "m", IDENTITY, {}) == {}


def test_threads_reach_a_provider_with_a_pool_of_its_own() -> None:
    assert thread_options(find_provider("openvino"), 2) == {"num_of_threads": "2"}
    assert thread_options(find_provider("openvino"), None) == {}
    assert thread_options(find_provider("cpu"), 2) == {}


@pytest.mark.parametrize(
    ("text", "expected"), [("2GB", 2 * 10**9), ("512MiB", 2**29), ("1000", 1000), ("1.5 gb", 15 * 10**8)]
)
def test_sizes_are_read_with_their_units(text: str, expected: int) -> None:
    assert parse_bytes("--gpu-memory", text) == expected


@pytest.mark.parametrize("text", ["", "GB", "-1GB", "2 cows"])
def test_what_is_no_size_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="--gpu-memory must be a size"):
        parse_bytes("--gpu-memory", text)


def test_options_are_read_by_provider() -> None:
    texts = ("openvino:device_type=GPU", "openvino:precision=FP32", "cuda:a=b=c")
    assert parse_options(texts) == {"openvino": {"device_type": "GPU", "precision": "FP32"}, "cuda": {"a": "b=c"}}


@pytest.mark.parametrize("text", ["openvino", "openvino:device", ":a=b"])
def test_an_option_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="PROVIDER:KEY=VALUE"):
        parse_options((text,))
