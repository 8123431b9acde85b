from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from onnxptq.errors import RuntimeUnavailableError
from onnxptq.runtimes import installation_problems
from onnxptq.runtimes.installation import distribution_name, import_onnxruntime


def install(site: Path, name: str, version: str, file: str = "onnxruntime/__init__.py") -> None:
    """What pip leaves behind: the metadata of a distribution and the list of its files."""
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{file},,\n{info.name}/METADATA,,\n")


def test_two_distributions_in_one_folder_are_a_problem_that_names_both_and_the_remedy(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    install(tmp_path, "onnxruntime", "1.29.0")
    (problem,) = installation_problems([str(tmp_path)])
    assert "onnxruntime 1.29.0 and onnxruntime-gpu 1.31.1 are installed over each other" in problem
    assert str(tmp_path) in problem
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in problem


def test_one_distribution_and_packages_with_modules_of_their_own_are_no_problem(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.31.1")
    install(tmp_path, "onnxruntime-extensions", "0.15.2", "onnxruntime_extensions/__init__.py")
    assert installation_problems([str(tmp_path)]) == []


def test_a_distribution_that_shadows_another_from_a_different_folder_is_no_problem(tmp_path: Path) -> None:
    install(tmp_path / "venv", "onnxruntime-gpu", "1.31.1")
    install(tmp_path / "system", "onnxruntime", "1.29.0")
    assert installation_problems([str(tmp_path / "venv"), str(tmp_path / "system")]) == []


def test_a_folder_that_pip_left_half_empty_is_unavailable_and_not_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").write_text("")
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(RuntimeUnavailableError, match=r"ONNX Runtime cannot be imported.*[Uu]ninstall"):
        import_onnxruntime()


def test_the_distribution_is_found_where_the_module_does_not_name_it(tmp_path: Path) -> None:
    install(tmp_path, "onnxruntime-gpu", "1.20.1")
    module = ModuleType("onnxruntime")
    module.__file__ = str(tmp_path / "onnxruntime" / "__init__.py")
    assert distribution_name(module) == "onnxruntime-gpu"
    module.package_name = "onnxruntime-openvino"  # type: ignore[attr-defined]
    assert distribution_name(module) == "onnxruntime-openvino"
