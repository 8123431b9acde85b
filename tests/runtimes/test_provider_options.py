from __future__ import annotations

from pathlib import Path

import pytest

from onnxptq.cache import Cache
from onnxptq.errors import UsageError
from onnxptq.runtimes.provider_options import (
    Batches,
    DeviceSettings,
    cache_options,
    calibration_identity,
    companion_options,
    environment_variables,
    model_options,
    parse_bytes,
    parse_options,
    profile_options,
    provider_options,
    tf32_identity,
    thread_options,
)
from onnxptq.runtimes.providers import find_provider, runtime_identity
from onnxptq.tasks import Signature, TensorSpec

SETTINGS = DeviceSettings(device=1, memory_bytes=2 * 10**9, workspace_bytes=10**9)
IDENTITY = {"gpu": "H100", "driver": "580", "onnxruntime": "1.31.1"}


def test_cuda_gets_its_device_and_a_limit_that_the_arena_keeps() -> None:
    assert provider_options(find_provider("cuda"), SETTINGS) == {
        "device_id": "1",
        "use_tf32": "0",
        "gpu_mem_limit": "2000000000",
        "arena_extend_strategy": "kSameAsRequested",
    }


def test_tensorrt_takes_int8_from_q_and_dq_and_never_for_a_float_model() -> None:
    tensorrt = find_provider("tensorrt")
    explicit = {"trt_int8_enable": "1", "trt_int8_use_native_calibration_table": "0"}
    assert model_options(tensorrt, quantized=True) == explicit
    assert model_options(tensorrt, quantized=False) == {"trt_int8_enable": "0"}
    assert model_options(find_provider("cuda"), quantized=True) == {}


def test_tensorrt_takes_no_fp16_unless_asked_and_no_more_scratch_memory_than_the_gpu_may_give() -> None:
    options = provider_options(find_provider("tensorrt"), SETTINGS)
    assert (options["trt_fp16_enable"], options["trt_max_workspace_size"]) == ("0", "1000000000")
    assert provider_options(find_provider("tensorrt"), DeviceSettings(fp16=True))["trt_fp16_enable"] == "1"


def test_the_cpu_gets_nothing() -> None:
    assert provider_options(find_provider("cpu"), SETTINGS) == {}


def test_what_the_user_says_wins() -> None:
    settings = DeviceSettings(device=1, options={"cuda": {"device_id": "3", "cudnn_conv_algo_search": "HEURISTIC"}})
    options = provider_options(find_provider("cuda"), settings)
    assert options == {"device_id": "3", "cudnn_conv_algo_search": "HEURISTIC", "use_tf32": "0"}


@pytest.mark.parametrize("device", ["one", "-1", "0.5", ""])
def test_a_device_that_is_no_number_is_an_error(device: str) -> None:
    with pytest.raises(UsageError, match="device_id must be the number of a GPU"):
        provider_options(find_provider("cuda"), DeviceSettings(options={"cuda": {"device_id": device}}))


def test_without_a_workspace_the_limit_of_memory_bounds_that_of_tensorrt() -> None:
    options = provider_options(find_provider("tensorrt"), DeviceSettings(memory_bytes=5))
    assert options["trt_max_workspace_size"] == "5"


def test_the_companion_of_tensorrt_runs_on_the_same_gpu_in_the_same_memory_and_precision() -> None:
    assert companion_options(find_provider("tensorrt"), SETTINGS) == {
        "device_id": "1",
        "use_tf32": "0",
        "gpu_mem_limit": "2000000000",
        "arena_extend_strategy": "kSameAsRequested",
    }
    assert companion_options(find_provider("cuda"), SETTINGS) == {}


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_tf32_is_off_unless_it_is_wished_for(name: str) -> None:
    provider = find_provider(name)
    off, on = environment_variables(provider, tf32=False), environment_variables(provider, tf32=True)
    assert (off, on) == ({"NVIDIA_TF32_OVERRIDE": "0"}, {})
    assert environment_variables(find_provider("cpu"), tf32=False) == {}
    assert provider_options(find_provider("cuda"), DeviceSettings(tf32=True))["use_tf32"] == "1"


def test_the_identity_holds_what_the_environment_says_of_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    provider = find_provider("tensorrt")
    assert tf32_identity(provider, {}) == {"NVIDIA_TF32_OVERRIDE": "1"}
    assert tf32_identity(provider, {"NVIDIA_TF32_OVERRIDE": "0"}) == {"NVIDIA_TF32_OVERRIDE": "0"}
    assert tf32_identity(find_provider("cpu"), {}) == {}


def signature(*shape: int | None) -> Signature:
    return Signature((TensorSpec("x", "float32", shape),), ())


@pytest.mark.parametrize(
    ("shape", "batches", "expected"),
    [
        ((None, 3, 8, 8), Batches(64), ("x:1x3x8x8", "x:64x3x8x8", "x:64x3x8x8")),
        ((None, 3, 8, 8), Batches(4, 4), ("x:4x3x8x8", "x:4x3x8x8", "x:4x3x8x8")),
        ((None, None), Batches(2, 2, feeds={"x": (2, 7)}), ("x:2x7", "x:2x7", "x:2x7")),
    ],
)
def test_tensorrt_builds_one_engine_for_the_sizes_that_will_run(
    shape: tuple[int | None, ...], batches: Batches, expected: tuple[str, str, str]
) -> None:
    names = ("trt_profile_min_shapes", "trt_profile_opt_shapes", "trt_profile_max_shapes")
    assert profile_options(find_provider("tensorrt"), signature(*shape), batches) == dict(
        zip(names, expected, strict=True)
    )


@pytest.mark.parametrize(
    ("name", "shape", "batches"),
    [
        ("tensorrt", (8, 3), Batches(64)),
        ("tensorrt", (None, None), Batches(64)),
        ("tensorrt", (None, 3), None),
        ("cuda", (None, 3), Batches(64)),
    ],
    ids=["fixed", "a length that nobody knows", "nobody knows", "cuda"],
)
def test_no_profile_is_written_where_there_is_nothing_to_say(
    name: str, shape: tuple[int | None, ...], batches: Batches | None
) -> None:
    assert profile_options(find_provider(name), signature(*shape), batches) == {}


def test_calibration_on_a_gpu_is_repeatable_and_its_identity_says_how_it_was_made() -> None:
    identity = calibration_identity("cuda")
    assert identity["option.cudnn_conv_algo_search"] == "DEFAULT"
    assert identity["option.use_tf32"] == "0"
    assert "NVIDIA_TF32_OVERRIDE" in identity
    assert calibration_identity("cpu") == runtime_identity("cpu")


def engine(
    empty_cache: Cache, model: str = "m", options: dict[str, str] | None = None, **identity: str
) -> tuple[str, str]:
    places = cache_options(find_provider("tensorrt"), empty_cache, model, {**IDENTITY, **identity}, options or {})
    assert (places["trt_engine_cache_enable"], places["trt_timing_cache_enable"]) == ("1", "1")
    return places["trt_engine_cache_path"], places["trt_timing_cache_path"]


def test_engines_and_timings_lie_in_the_cache_keyed_by_content(tmp_path: Path) -> None:
    empty_cache = Cache(tmp_path)
    base = engine(empty_cache)
    assert all(Path(path).is_dir() and Path(path).is_relative_to(tmp_path) for path in base)
    assert engine(empty_cache) == base
    assert engine(empty_cache, model="other")[0] != base[0]
    assert engine(empty_cache, driver="590")[0] != base[0]
    assert engine(empty_cache, options={"trt_fp16_enable": "1"})[0] != base[0]


def test_timings_serve_every_model_on_the_same_gpu_and_no_other(tmp_path: Path) -> None:
    empty_cache = Cache(tmp_path)
    assert engine(empty_cache, model="other")[1] == engine(empty_cache)[1]
    assert engine(empty_cache, gpu="L4")[1] != engine(empty_cache)[1]


def test_other_providers_keep_nothing(tmp_path: Path) -> None:
    assert cache_options(find_provider("cuda"), Cache(tmp_path), "m", IDENTITY, {}) == {}


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
