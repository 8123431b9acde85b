from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxptq.cache import Room
from onnxptq.errors import OnnxptqError, UsageError
from onnxptq.runtimes.environments import add_interpreter
from onnxptq.runtimes.provider_options import DeviceSettings
from onnxptq.runtimes.providers import runtime_identity
from onnxptq.runtimes.selection import ready, resolve_runtime, saturates


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Room:
    """With two runtimes, both of this interpreter."""
    made = Room(tmp_path_factory.mktemp("room"))
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
    room: Room, text: str, provider: str, environment: str | None, level: str
) -> None:
    runtime = resolve_runtime(text, room)
    found = runtime.environment.name if runtime.environment else None
    assert (runtime.provider.name, found, runtime.optimization, runtime.name) == (provider, environment, level, text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cpu:most", "unknown optimization level 'most'"),
        ("gpu", "unknown execution provider 'gpu'"),
        ("cpu@1.19", "onnxptq runtimes add cpu@1.19"),
        ("npu@production", "the runtime 'production' has no provider 'npu'"),
    ],
)
def test_what_there_is_not_is_an_error_with_the_way_out(room: Room, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_runtime(text, room)


def test_openvino_that_is_not_here_is_an_error_that_says_how_to_add_it(room: Room) -> None:
    import onnxruntime

    if "OpenVINOExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("it is here")
    with pytest.raises(OnnxptqError, match="onnxptq runtimes add openvino"):
        resolve_runtime("openvino", room)


def test_the_identity_of_a_plain_runtime_is_the_one_that_evaluate_uses(room: Room) -> None:
    assert resolve_runtime("cpu", room).identity() == runtime_identity("cpu")


def test_the_identity_tells_levels_and_options_apart(room: Room) -> None:
    identities = [resolve_runtime(text, room).identity() for text in ("cpu", "cpu:none", "cpu:basic")]
    options = DeviceSettings(options={"cpu": {"arena": "1"}})
    identities.append(resolve_runtime("cpu", room, options).identity())
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


def test_a_runtime_in_another_environment_is_tried_there(room: Room) -> None:
    assert ready(resolve_runtime("production", room)).environment is not None
