"""NVIDIA's libraries are found wherever pip put them. The loader is a fake: nothing here needs a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from onnxptq.runtimes import _libraries
from onnxptq.runtimes._libraries import available_providers, register_plugins, supply

posix = pytest.mark.skipif(sys.platform == "win32", reason="the names and places of Linux")


class Loader:
    """Knows which library needs which; what is loaded stays so."""

    def __init__(self, needs: dict[str, list[str]]) -> None:
        self.needs = needs
        self.loaded: list[str] = []

    def __call__(self, library: str, mode: int = 0) -> str | None:
        name = Path(library).name
        if library == name and name not in self.loaded:
            return f"{name}: cannot open shared object file: No such file or directory"
        for needed in self.needs.get(name, []):
            if needed not in self.loaded:
                return f"{needed}: cannot open shared object file: No such file or directory"
        if name not in self.loaded:
            self.loaded.append(name)
        return None


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two folders of `sys.path`: CUDA's wheels in the one, cuDNN's and TensorRT's in the other."""
    files = {
        "first/nvidia/cu13/lib": ["libcublas.so.13", "libcublasLt.so.13"],
        "second/nvidia/cudnn/lib": ["libcudnn.so.9"],
        "second/tensorrt_libs": ["libnvinfer.so.10"],
    }
    for folder, names in files.items():
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "first"), str(tmp_path / "second")])
    return tmp_path


@posix
def test_what_a_library_misses_is_found_in_any_folder_of_sys_path(
    wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Loader({"provider.so": ["libcublas.so.13", "libnvinfer.so.10"], "libcublas.so.13": ["libcublasLt.so.13"]})
    monkeypatch.setattr(_libraries, "load_error", loader)
    assert supply(str(wheels / "provider.so")) is None
    assert loader.loaded == ["libcublasLt.so.13", "libcublas.so.13", "libnvinfer.so.10", "provider.so"]


@posix
def test_what_no_wheel_has_is_named(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_libraries, "load_error", Loader({"provider.so": ["libcublas.so.13", "libcuda.so.1"]}))
    assert _libraries.missing_library(supply(str(wheels / "provider.so"))) == "libcuda.so.1"


class Module:
    """Stands for onnxruntime, in a folder with its providers."""

    def __init__(self, folder: Path) -> None:
        self.__file__ = str(folder / "onnxruntime" / "__init__.py")
        (folder / "onnxruntime" / "capi").mkdir(parents=True)
        (folder / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so").touch()
        self.registered: list[tuple[str, str]] = []

    def get_available_providers(self) -> list[str]:
        return ["CPUExecutionProvider"]

    def get_ep_devices(self) -> list[object]:
        return [type("Device", (), {"ep_name": name}) for name, _ in self.registered]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if (name, path) in self.registered:
            raise RuntimeError(f"library {name} is already registered")
        if not Path(path).exists():
            raise RuntimeError(f"{path}: cannot open shared object file")
        self.registered.append((name, path))


@posix
def test_cudnn_is_loaded_too_which_the_provider_looks_for_late(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader({})
    monkeypatch.setattr(_libraries, "load_error", loader)
    _libraries.preload_libraries(Module(wheels), ["CUDAExecutionProvider"])
    assert "libcudnn.so.9" in loader.loaded


@posix
def test_nothing_is_loaded_for_a_provider_that_needs_none_of_it(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Loader({})
    monkeypatch.setattr(_libraries, "load_error", loader)
    _libraries.preload_libraries(Module(wheels), ["CPUExecutionProvider"])
    assert loader.loaded == []


def test_a_plugin_is_registered_once_and_its_provider_can_be_asked_for(tmp_path: Path) -> None:
    module = Module(tmp_path)
    library = tmp_path / "libnpu.so"
    library.touch()
    for _ in range(2):
        assert register_plugins(module, {"NpuExecutionProvider": str(library)}) == {}
    assert available_providers(module) == ["CPUExecutionProvider", "NpuExecutionProvider"]


def test_a_plugin_that_does_not_load_says_why(tmp_path: Path) -> None:
    failed = register_plugins(Module(tmp_path), {"NpuExecutionProvider": str(tmp_path / "nowhere.so")})
    assert "cannot open shared object file" in failed["NpuExecutionProvider"]
