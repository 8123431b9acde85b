from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxptq.cache import Cache
from onnxptq.errors import RuntimeUnavailableError, UsageError
from onnxptq.runtimes import environments as module
from onnxptq.runtimes.environments import (
    add_interpreter,
    add_packages,
    default_packages,
    environments,
    find_environment,
    remove_environment,
)

HERE = Path(sys.executable)


@pytest.fixture
def empty_cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "room")


@pytest.fixture
def fake_pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Nothing is built: a script that starts this interpreter takes its place. What was to be installed is kept."""
    if sys.platform == "win32":
        pytest.skip("links need rights on Windows")
    asked: list[list[str]] = []

    def create(folder: Path) -> None:
        (folder / "bin").mkdir(parents=True)
        script = folder / "bin" / "python"
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)

    def install(python: Path, packages: list[str], say: Callable[[str], None]) -> None:
        asked.append(list(packages))

    monkeypatch.setattr(module, "_create_venv", create)
    monkeypatch.setattr(module, "_pip_install", install)
    return asked


@pytest.mark.parametrize(
    ("name", "packages"),
    [
        ("openvino", ("onnxruntime-openvino",)),
        ("cpu@1.20", ("onnxruntime==1.20.*",)),
        ("cpu@1.20.1", ("onnxruntime==1.20.1",)),
        ("cuda@1.31", ("onnxruntime-gpu[cuda,cudnn]==1.31.*",)),
    ],
)
def test_a_name_says_what_is_installed(name: str, packages: tuple[str, ...]) -> None:
    assert default_packages(name) == packages


@pytest.mark.parametrize("name", ["production", "cpu@latest", "npu@1.0"])
def test_a_name_that_does_not_say_asks_for_a_package(name: str) -> None:
    with pytest.raises(UsageError, match="--package"):
        default_packages(name)


def test_a_registered_interpreter_is_found_with_what_it_has(empty_cache: Cache) -> None:
    added = add_interpreter(empty_cache, "production", HERE)
    assert find_environment(empty_cache, "production") == added
    assert environments(empty_cache) == [added]
    assert (added.python, added.managed, added.provider) == (HERE.absolute(), False, "cpu")
    assert "CPUExecutionProvider" in added.description.providers


def test_removing_a_registered_interpreter_leaves_it_alone(empty_cache: Cache) -> None:
    add_interpreter(empty_cache, "production", HERE)
    remove_environment(empty_cache, "production")
    assert HERE.exists()
    assert environments(empty_cache) == []
    with pytest.raises(UsageError, match="no runtime 'production'"):
        remove_environment(empty_cache, "production")


def test_a_managed_environment_is_built_once(empty_cache: Cache, fake_pip: list[list[str]]) -> None:
    first = add_packages(empty_cache, "cpu@1.20", ("onnxruntime==1.20.*",), say=str)
    second = add_packages(empty_cache, "cpu@1.20", ("onnxruntime==1.20.*",), say=str)
    assert (first[0], first[1], second[1]) == (second[0], False, True)
    assert first[0].managed
    assert fake_pip == [["onnxruntime==1.20.*"]]


def test_other_packages_under_the_same_name_need_force(empty_cache: Cache, fake_pip: list[list[str]]) -> None:
    add_packages(empty_cache, "mine", ("onnxruntime==1.20.1",), say=str)
    with pytest.raises(UsageError, match=r"with onnxruntime==1\.20\.1.*--force"):
        add_packages(empty_cache, "mine", ("onnxruntime==1.21.0",), say=str)
    replaced, existed = add_packages(empty_cache, "mine", ("onnxruntime==1.21.0",), force=True, say=str)
    assert (replaced.packages, existed) == (("onnxruntime==1.21.0",), False)


def test_an_environment_whose_interpreter_is_gone_is_built_anew(empty_cache: Cache, fake_pip: list[list[str]]) -> None:
    environment, _ = add_packages(empty_cache, "mine", ("onnxruntime",), say=str)
    environment.python.unlink()
    assert add_packages(empty_cache, "mine", ("onnxruntime",), say=str)[1] is False


def test_a_failed_installation_leaves_nothing(
    empty_cache: Cache, fake_pip: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise RuntimeUnavailableError("no such version")

    monkeypatch.setattr(module, "_pip_install", fail)
    with pytest.raises(RuntimeUnavailableError, match="no such version"):
        add_packages(empty_cache, "mine", ("onnxruntime==0",), say=str)
    assert list((empty_cache.root / "v1" / "runtimes").iterdir()) == []


def test_removing_a_managed_environment_deletes_it(empty_cache: Cache, fake_pip: list[list[str]]) -> None:
    environment, _ = add_packages(empty_cache, "mine", ("onnxruntime",), say=str)
    remove_environment(empty_cache, "mine")
    assert not environment.python.exists()


def interpreter(folder: Path, script: str) -> Path:
    """A Python that does what a shell script says."""
    if sys.platform == "win32":
        pytest.skip("the interpreter is a shell script")
    python = folder / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return python


def test_what_pip_says_is_the_reason(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "echo Collecting things\necho 'ERROR: No matching distribution'\nexit 1")
    said: list[str] = []
    with pytest.raises(RuntimeUnavailableError, match=r"nothing==9: No matching distribution\..*--python"):
        module._pip_install(python, ["nothing==9"], said.append)
    assert said == ["  Collecting things"]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["ERROR: one", "ERROR: No distribution found.", "hint: See above."], "No distribution found"),
        (["wheel_stub.error.InstallFailedError:", "****", "", "The installation of it failed.", "hint: See above."],
         "The installation of it failed"),
        (["urllib.error.URLError: <no host>", "note: from a build", "hint: See above for details."],
         "urllib.error.URLError: <no host>"),
        (["some words."], "some words"),
        ([], "it said nothing"),
    ],
)  # fmt: skip
def test_the_reason_is_the_error_and_not_the_line_that_came_last(lines: list[str], reason: str) -> None:
    assert module._reason(lines) == reason


def test_tensorrt_says_where_its_libraries_come_from(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "echo 'wheel_stub.error.InstallFailedError: no index'\nexit 1")
    with pytest.raises(RuntimeUnavailableError, match=r"InstallFailedError: no index\..*pypi\.nvidia\.com"):
        module._pip_install(python, ["tensorrt-cu13>=10,<11"], str)


def test_an_interpreter_without_onnxruntime_is_refused(empty_cache: Cache, tmp_path: Path) -> None:
    # -S: without site-packages.
    python = interpreter(tmp_path, f'exec "{os.path.realpath(sys.executable)}" -S "$@"')
    with pytest.raises(RuntimeUnavailableError, match="lacks what it needs"):
        add_interpreter(empty_cache, "bare", python)
    assert environments(empty_cache) == []


@pytest.mark.parametrize("name", ["", "../up", ".hidden", "a b", "x" * 65])
def test_a_name_that_is_no_name_is_an_error(empty_cache: Cache, name: str) -> None:
    with pytest.raises(UsageError, match="name is made of"):
        add_interpreter(empty_cache, name, HERE)


def test_the_name_of_a_provider_of_this_environment_is_taken(empty_cache: Cache) -> None:
    with pytest.raises(UsageError, match="'cpu' is the execution provider of this environment"):
        add_interpreter(empty_cache, "cpu", HERE)


def test_a_provider_that_the_environment_lacks_is_an_error(empty_cache: Cache) -> None:
    with pytest.raises(UsageError, match=r"was built without .npu.; it has .*cpu"):
        add_interpreter(empty_cache, "mine", HERE, provider="npu")


def test_a_damaged_record_is_named(empty_cache: Cache) -> None:
    add_interpreter(empty_cache, "mine", HERE)
    (empty_cache.root / "v1" / "runtimes" / "mine" / "runtime.json").write_text('{"format": 99}')
    with pytest.raises(UsageError, match=r"runtime\.json is damaged or of another version"):
        environments(empty_cache)


def test_a_runtime_for_tensorrt_gets_its_libraries_beside_onnx_runtime() -> None:
    assert default_packages("tensorrt") == ("onnxruntime-gpu[cuda,cudnn]", "tensorrt-cu13>=10,<11")
    assert default_packages("tensorrt@1.31") == ("onnxruntime-gpu[cuda,cudnn]==1.31.*", "tensorrt-cu13>=10,<11")
