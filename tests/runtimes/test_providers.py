from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxptq.errors import RuntimeUnavailableError, UsageError
from onnxptq.runtimes import ProviderStatus, cpu_features, find_provider, probe, probe_all, providers, runtime_identity
from onnxptq.runtimes._libraries import library_name


def status_or_skip(name: str, *, loads: bool) -> ProviderStatus:
    status = probe(name)
    if not status.compiled:
        pytest.skip(f"{name} is not compiled in: {status.reason}")
    if status.loads != loads:
        pytest.skip(f"{name} loads here" if status.loads else f"{name} does not load here: {status.reason}")
    return status


def test_the_cpu_provider_loads() -> None:
    assert probe("cpu") == ProviderStatus("cpu", "CPUExecutionProvider", compiled=True, loads=True)


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_a_provider_that_is_compiled_in_but_does_not_load_names_the_missing_library(name: str) -> None:
    status = status_or_skip(name, loads=False)
    assert "missing lib" in status.reason
    assert ".so" in status.reason
    assert status.remedy


def test_the_remedy_for_cuda_is_the_extra_that_brings_its_libraries() -> None:
    status = status_or_skip("cuda", loads=False)
    if "libcublas" not in status.reason:
        pytest.skip(f"the CUDA libraries are here: {status.reason}")
    assert "pip install 'onnxptq[cuda]'" in status.remedy


def test_the_remedy_for_tensorrt_names_the_version_that_this_onnx_runtime_needs() -> None:
    status = status_or_skip("tensorrt", loads=False)
    if "libnvinfer" not in status.reason:
        pytest.skip(f"the TensorRT libraries are here: {status.reason}")
    major = status.reason.partition("libnvinfer.so.")[2].partition(",")[0].split()[0]
    assert f"TensorRT {major}.x" in status.remedy


def test_a_provider_that_is_not_compiled_in_says_so() -> None:
    status = probe("openvino")
    if status.compiled:
        pytest.skip("this ONNX Runtime has OpenVINO")
    assert not status.loads
    assert "was built without it" in status.reason
    assert "environment of its own" in status.remedy


@pytest.mark.gpu
def test_cuda_runs_on_a_gpu_with_a_name_and_a_driver() -> None:
    status = status_or_skip("cuda", loads=True)
    assert status.gpu
    assert status.driver
    assert runtime_identity("cuda")["gpu"] == status.gpu


def test_an_unknown_provider_is_an_error_with_the_closest_name() -> None:
    with pytest.raises(UsageError, match="'tensorrt'"):
        probe("tensort")


def test_onnx_runtimes_own_names_are_understood() -> None:
    assert find_provider("CUDAExecutionProvider") is find_provider("cuda")


def test_every_target_is_listed_and_each_provider_once() -> None:
    names = [status.name for status in probe_all()]
    assert names[:4] == ["cpu", "cuda", "tensorrt", "openvino"]
    assert len(set(names)) == len(names)


def test_the_identity_of_a_cpu_runtime_is_what_decides_its_numbers() -> None:
    import onnxruntime

    identity = runtime_identity("cpu")
    assert set(identity) == {"provider", "onnxruntime", "distribution", "machine", "cpu_features"}
    assert identity["provider"] == "cpu"
    assert identity["onnxruntime"] == onnxruntime.__version__
    assert identity["cpu_features"] == " ".join(cpu_features())


@pytest.fixture
def interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file that stands for the interpreter that runs the probe; a test writes into it how that ends."""
    file = tmp_path / "python"
    file.write_text("#!/bin/sh\n")
    file.chmod(0o755)
    monkeypatch.setattr(providers.sys, "executable", str(file))
    providers._probe.cache_clear()
    yield file
    providers._probe.cache_clear()


posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for the interpreter")


@posix
def test_a_provider_that_crashes_is_a_reason_and_not_our_crash(interpreter: Path) -> None:
    interpreter.write_text("#!/bin/sh\ncat >/dev/null\necho 'CUDA exploded' >&2\nkill -SEGV $$\n")
    status = probe("cpu")
    assert not status.loads
    assert "exit code -11 (CUDA exploded)" in status.reason


@posix
def test_a_provider_that_hangs_is_a_reason_after_the_time_limit(
    interpreter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(providers, "PROBE_SECONDS", 0.2)
    interpreter.write_text("#!/bin/sh\nexec sleep 60\n")
    assert "within 0.2 seconds" in probe("cpu").reason


@posix
def test_a_session_that_onnx_runtime_put_elsewhere_does_not_count_as_loaded(interpreter: Path) -> None:
    interpreter.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        "echo '2026-11-23 09:31:52.9 [E:onnxruntime:Default, x.cc:1 f] CUDA failure 35: driver too old' >&2\n"
        """echo '{"missing": [], "library_error": null, "providers": ["CPUExecutionProvider"], "nodes": null, """
        """"error": null}'\n"""
    )
    status = probe("cuda")
    if not status.compiled:
        pytest.skip("this ONNX Runtime has no CUDA provider")
    assert (status.loads, status.reason) == (False, "CUDA failure 35: driver too old")
    assert "driver" in status.remedy


@posix
def test_a_provider_that_is_accepted_and_takes_no_node_does_not_count_as_loaded(interpreter: Path) -> None:
    # So behaves AzureExecutionProvider, which every plain onnxruntime lists.
    interpreter.write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        """echo '{"missing": [], "library_error": null, "providers": ["CPUExecutionProvider"], "error": null, """
        """"nodes": {"OtherExecutionProvider": 2}}'\n"""
    )
    status = probe("cpu")
    assert (status.loads, status.reason) == (False, "it took no node of a product: OtherExecutionProvider did")


PRINTING_RUNTIME = """
import os

class SessionOptions:
    def add_session_config_entry(self, key, value):
        pass

class InferenceSession:
    def __init__(self, *args, **kwargs):
        print("noise")
        os.write(1, b"noise")
        raise RuntimeError("no engine")
"""


def test_the_probe_answers_on_stdout_even_when_the_provider_prints_there(tmp_path: Path) -> None:
    # TensorRT prints while it loads; a module that prints at both levels stands for it.
    (tmp_path / "onnxruntime.py").write_text(PRINTING_RUNTIME)
    script = Path(providers.__file__).with_name("_probe.py")
    asked = {"provider": "CPUExecutionProvider", "options": {}, "companions": [], "plugins": {}, "sizes": [0]}
    command = [sys.executable, "-P", str(script), json.dumps(asked)]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, input=b"", capture_output=True, check=False, env=environment)
    answer = json.loads(done.stdout)
    assert (answer["providers"], answer["error"]) == ([], "no engine")
    assert done.stderr.count(b"noise") == 2


RECORDING_RUNTIME = """
import json, os

class SessionOptions:
    def add_session_config_entry(self, key, value):
        pass

class Node:
    name, shape = "x", [1]

class InferenceSession:
    def __init__(self, model, options, providers, enable_fallback):
        with open(os.environ["RECORD"], "a") as file:
            file.write(json.dumps(providers) + "\\n")
        if model == b"second":
            raise RuntimeError(os.environ["SECOND"])
    def get_providers(self):
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]
    def get_inputs(self):
        return [Node]
    def run(self, outputs, feeds):
        return []

def get_available_providers():
    return ["CUDAExecutionProvider", "CPUExecutionProvider"]
"""


def probed(folder: Path, second: str, options: dict[str, str]) -> tuple[dict[str, Any], list[Any]]:
    """The probe's answer from a module that stands for ONNX Runtime on a GPU, and the providers it was asked for."""
    (folder / "onnxruntime.py").write_text(RECORDING_RUNTIME)
    asked = {
        "provider": "CUDAExecutionProvider",
        "options": options,
        "companions": [["OtherExecutionProvider", {"device_id": "1"}]],
        "plugins": {},
        "sizes": [5, 6],
    }
    command = [sys.executable, "-P", str(Path(providers.__file__).with_name("_probe.py")), json.dumps(asked)]
    environment = {**os.environ, "PYTHONPATH": str(folder), "RECORD": str(folder / "record"), "SECOND": second}
    done = subprocess.run(command, input=b"firstsecond", capture_output=True, check=True, env=environment)
    return json.loads(done.stdout), [json.loads(line) for line in (folder / "record").read_text().splitlines()]


def test_a_provider_is_tried_with_the_options_of_the_runs_and_its_companion_on_the_same_gpu(tmp_path: Path) -> None:
    _, record = probed(tmp_path, "", {"device_id": "1", "use_tf32": "0"})
    expected = [
        ["CUDAExecutionProvider", {"device_id": "1", "use_tf32": "0"}],
        ["OtherExecutionProvider", {"device_id": "1"}],
    ]
    assert record == [expected, expected]


NO_CUDNN = "cuDNN is not available. Install cuDNN, update the system library search path, or set enable_cudnn=0"


def test_a_provider_that_runs_no_convolution_loads_and_says_what_it_lacks(tmp_path: Path) -> None:
    answer, _ = probed(tmp_path, NO_CUDNN, {})
    assert (answer["error"], answer["limit"]) == (None, NO_CUDNN)


def answering(monkeypatch: pytest.MonkeyPatch, log: str = "", **answer: Any) -> None:
    """Makes the probe's process answer so."""
    base = {"missing": [], "library_error": None, "providers": [], "nodes": None, "error": None, "limit": None}
    made = {**base, "gpu": "", "driver": "", "libraries": {}, **answer}
    done = subprocess.CompletedProcess([], 0, json.dumps(made).encode(), log.encode())
    monkeypatch.setattr(providers.subprocess, "run", lambda *args, **keywords: done)
    providers._probe.cache_clear()


CUDA = ["CUDAExecutionProvider", "CPUExecutionProvider"]
FULL = (
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=box ; file=/onnxruntime_src/onnxruntime/core/cuda_allocator.cc ; "
    "line=39 ; expr=cudaMalloc((void**)&p, size);"
)


@pytest.mark.parametrize(
    ("answer", "loads", "reason", "remedy"),
    [
        ({"providers": CUDA, "limit": NO_CUDNN}, True, "", "pip install 'onnxptq[cuda]' brings cuDNN 9"),
        ({"providers": CUDA, "error": FULL}, False, "CUDA failure 2: out of memory", "The GPU's memory is full"),
        (
            {"error": "CUDA failure 101: invalid device ordinal ; GPU=7"},
            False,
            "CUDA failure 101: invalid",
            "nvidia-smi -L",
        ),
        (
            {"error": "CUDA failure 35: CUDA driver version is insufficient"},
            False,
            "CUDA failure 35",
            "newer NVIDIA driver",
        ),
        ({"missing": ["libcuda.so.1"]}, False, "missing libcuda.so.1 (the NVIDIA driver)", "It needs an NVIDIA GPU"),
        (
            {"missing": ["libcublasLt.so.13"], "library_error": "libcublasLt.so.13: cannot open shared object file"},
            False,
            "missing libcublasLt.so.13",
            "pip install 'onnxptq[cuda]' brings CUDA",
        ),
    ],
    ids=["no cuDNN", "full", "no such GPU", "old driver", "no driver", "no CUDA"],
)
def test_each_way_to_fail_has_its_own_remedy(
    monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any], loads: bool, reason: str, remedy: str
) -> None:
    if not probe("cuda").compiled:
        pytest.skip("this ONNX Runtime has no CUDA provider")
    answering(monkeypatch, **answer)
    status = probe("cuda")
    providers._probe.cache_clear()
    assert status.loads == loads
    assert status.reason.startswith(reason)
    assert "hostname" not in status.reason
    assert remedy in status.remedy
    # A driver is no remedy where it is not what is missing.
    assert ("It needs an NVIDIA GPU" in status.remedy) == (remedy == "It needs an NVIDIA GPU")


def test_an_option_that_the_provider_does_not_know_is_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    if not probe("cuda").compiled:
        pytest.skip("this ONNX Runtime has no CUDA provider")
    answering(monkeypatch, error='Unknown provider option: "speed".')
    status = probe("cuda", {"speed": "1"})
    providers._probe.cache_clear()
    assert "Unknown provider option" in status.reason
    assert status.remedy.startswith("Expected options that ONNX Runtime documents")


def test_the_identity_on_a_gpu_holds_its_libraries_and_the_gpu_of_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    if not probe("cuda").compiled:
        pytest.skip("this ONNX Runtime has no CUDA provider")
    answering(monkeypatch, providers=CUDA, gpu="L4", driver="590", libraries={"cudnn": "91200", "cublas": "130002"})
    identity = runtime_identity("cuda", {"device_id": "1"})
    providers._probe.cache_clear()
    expected = {"gpu": "L4", "driver": "590", "cudnn": "91200", "cublas": "130002", "option.device_id": "1"}
    assert expected.items() <= identity.items()


@pytest.mark.skipif(sys.platform != "linux", reason="the names of Linux")
def test_the_library_of_a_provider_is_named_as_onnx_runtime_ships_it() -> None:
    assert library_name("CUDAExecutionProvider") == "libonnxruntime_providers_cuda.so"
    assert library_name("TensorrtExecutionProvider") == "libonnxruntime_providers_tensorrt.so"


PLUGIN = providers.Provider(
    "npu", "NpuExecutionProvider", "pip install npu.", "Install its driver.", plugin="fake_npu_ep"
)


def test_the_library_of_a_plugin_is_where_its_package_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert providers.plugin_libraries((PLUGIN,)) == {}
    (tmp_path / "fake_npu_ep.py").write_text("def get_library_path():\n    return '/nowhere/libnpu.so'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert providers.plugin_libraries((PLUGIN,)) == {"NpuExecutionProvider": "/nowhere/libnpu.so"}
    status = providers._probe(PLUGIN, ())
    assert not status.loads
    assert "cannot load the plug-in /nowhere/libnpu.so" in status.reason
    assert status.remedy == "Install its driver."


def test_a_plugin_that_does_not_say_where_its_library_lies_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "silent_ep.py").write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match="get_library_path"):
        providers.plugin_libraries((replace(PLUGIN, plugin="silent_ep"),))
