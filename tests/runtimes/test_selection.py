from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from onnxptq.cache import Cache
from onnxptq.errors import OnnxptqError, UsageError
from onnxptq.graphs import load_model
from onnxptq.models import builtin
from onnxptq.runtimes.environments import add_interpreter
from onnxptq.runtimes.provider_options import Batches, DeviceSettings
from onnxptq.runtimes.providers import runtime_identity
from onnxptq.runtimes.selection import ready, resolve_runtime, saturates


@pytest.fixture(scope="session")
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """With two runtimes, both of this interpreter."""
    made = Cache(tmp_path_factory.mktemp("room"))
    for name in ("production", "cpu@1.20"):
        add_interpreter(made, name, Path(sys.executable))
    return made


@pytest.mark.parametrize(
    ("text", "provider", "environment", "level"),
    [
        ("cpu", "cpu", None, "all"),
        ("CPUExecutionProvider", "cpu", None, "all"),
        ("cpu:none", "cpu", None, "none"),
        ("production", "cpu", "production", "all"),
        ("production:basic", "cpu", "production", "basic"),
        ("cpu@production", "cpu", "production", "all"),
        ("cpu@1.20", "cpu", "cpu@1.20", "all"),
        ("cpu@1.20:extended", "cpu", "cpu@1.20", "extended"),
    ],
)
def test_a_runtime_is_a_provider_or_an_environment_and_a_level(
    empty_cache: Cache, text: str, provider: str, environment: str | None, level: str
) -> None:
    runtime = resolve_runtime(text, empty_cache)
    found = runtime.environment.name if runtime.environment else None
    assert (runtime.provider.name, found, runtime.optimization, runtime.name) == (provider, environment, level, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu:most", "unknown optimization level 'most'"),
        ("cpu:1", "'cpu' has no devices with numbers"),
        ("cuda:1:2", "names two devices"),
        ("cuda:1:none:basic", "names two devices or two levels"),
        ("gpu", "unknown execution provider 'gpu'"),
        ("cpu@1.19", "onnxptq runtimes add cpu@1.19"),
        ("npu@production", "the runtime 'production' has no provider 'npu'"),
    ],
)
def test_what_there_is_not_is_an_error_with_the_way_out(empty_cache: Cache, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_runtime(text, empty_cache)


def test_openvino_that_is_not_here_is_an_error_that_says_how_to_add_it(empty_cache: Cache) -> None:
    import onnxruntime

    if "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is here")
    with pytest.raises(OnnxptqError, match="onnxptq runtimes add openvino"):
        resolve_runtime("openvino", empty_cache)


def test_the_identity_of_a_plain_runtime_is_the_one_that_evaluate_uses(empty_cache: Cache) -> None:
    assert resolve_runtime("cpu", empty_cache).identity() == runtime_identity("cpu")


def test_the_identity_tells_levels_and_options_apart(empty_cache: Cache) -> None:
    identities = [resolve_runtime(text, empty_cache).identity() for text in ("cpu", "cpu:none", "cpu:basic")]
    options = DeviceSettings(options={"cpu": {"arena": "1"}})
    identities.append(resolve_runtime("cpu", empty_cache, options).identity())
    assert len({tuple(sorted(identity.items())) for identity in identities}) == 4


@pytest.mark.parametrize(
    ("identity", "clips"),
    [
        ({"provider": "cpu"}, True),
        ({"provider": "cpu", "optimization": "extended"}, True),
        ({"provider": "cpu", "optimization": "basic"}, False),
        ({"provider": "cpu", "optimization": "exact"}, False),
        ({"provider": "openvino"}, True),
        ({"provider": "openvino", "optimization": "exact"}, True),
        ({"provider": "openvino", "option.device_type": "CPU"}, True),
        ({"provider": "openvino", "option.device_type": "GPU"}, False),
        ({"provider": "cuda"}, False),
    ],
)
def test_without_vnni_the_cpu_provider_and_openvino_can_clip(identity: dict[str, str], clips: bool) -> None:
    assert saturates({**identity, "cpu_features": "avx2 avx512f"}) == clips
    assert not saturates({**identity, "cpu_features": "avx2 avx512f avx512_vnni"})
    assert not saturates({**identity, "cpu_features": ""})


@pytest.mark.parametrize("text", ["cuda:1", "cuda:1:basic", "cuda:basic:1", "tensorrt:1"])
def test_a_number_after_the_name_is_a_gpu(empty_cache: Cache, text: str) -> None:
    runtime = resolve_runtime(text, empty_cache)
    assert (runtime.device, runtime.name) == (1, text)
    assert runtime.optimization == ("basic" if "basic" in text else "all")
    assert runtime.companion.get("device_id", "1") == "1"


def test_a_session_of_a_float_model_on_tensorrt_asks_for_no_int8(empty_cache: Cache, tmp_path: Path) -> None:
    runtime = resolve_runtime("tensorrt:1", empty_cache)
    if "TensorrtExecutionProvider" not in runtime.compiled:
        pytest.skip("this ONNX Runtime has no TensorRT provider")
    float_model = load_model(builtin().model)
    for quantized, expected in ((False, "0"), (True, "1")):
        model = replace(float_model, quantized=quantized)
        (name, options), (companion, beside) = runtime.session_providers(empty_cache, model, batches=Batches(64))
        assert (name, companion) == ("TensorrtExecutionProvider", "CUDAExecutionProvider")
        assert options["trt_int8_enable"] == expected
        assert options["trt_profile_max_shapes"].partition(":")[2].startswith("64x")
        assert (options["device_id"], beside["device_id"], beside["use_tf32"]) == ("1", "1", "0")


def test_the_process_of_a_gpu_runtime_forbids_tf32_and_the_runtime_says_where_it_is_on(empty_cache: Cache) -> None:
    off = resolve_runtime("tensorrt", empty_cache)
    on = resolve_runtime("tensorrt", empty_cache, DeviceSettings(tf32=True))
    assert (off.tf32, off.variables) == (False, {"NVIDIA_TF32_OVERRIDE": "0"})
    assert (on.tf32, on.variables) == (True, {})
    assert off.identity() != on.identity()
    assert resolve_runtime("cuda", empty_cache, DeviceSettings(options={"cuda": {"use_tf32": "1"}})).tf32


def test_a_runtime_in_another_environment_is_tried_there(empty_cache: Cache) -> None:
    assert ready(resolve_runtime("production", empty_cache)).environment is not None
