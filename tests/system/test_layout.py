"""What is installed: the packages on disk and nothing else, with nothing of ours at the top level but `onnxptq`."""

from __future__ import annotations

import configparser
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
FOLDERS = {"onnxptq": "onnxptq", "calibrators": "onnxptq/calibrators", "models": "onnxptq/models"}
"""Folders of the checkout, and where they are installed."""


@pytest.fixture(scope="module")
def setup_cfg() -> configparser.ConfigParser:
    if not (CHECKOUT / "setup.cfg").is_file():
        pytest.skip("these tests look at a checkout")
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(CHECKOUT / "setup.cfg")
    return parser


def files() -> dict[str, Path]:
    """Installed name of every module and data file on disk, for example onnxptq/calibrators/sets.py."""
    found = {
        (Path(installed) / path.relative_to(CHECKOUT / folder)).as_posix(): path
        for folder, installed in FOLDERS.items()
        for path in (CHECKOUT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    return {**found, "onnxptq/cli.py": CHECKOUT / "cli.py"}


def modules() -> dict[str, Path]:
    return {name: path for name, path in files().items() if path.suffix == ".py"}


def test_setup_cfg_lists_exactly_the_packages_on_disk(setup_cfg: configparser.ConfigParser) -> None:
    listed = setup_cfg["options"]["packages"].split()
    assert len(listed) == len(set(listed))
    on_disk = {str(Path(name).parent).replace("/", ".") for name in modules() if name.endswith("/__init__.py")}
    assert set(listed) == on_disk


def test_every_folder_with_modules_is_a_package(setup_cfg: configparser.ConfigParser) -> None:
    packages = {path.parent for path in modules().values() if path.name == "__init__.py"}
    loose = {path for path in modules().values() if path.parent not in packages and path.name != "cli.py"}
    assert not loose


@pytest.fixture(scope="module")
def wheel(setup_cfg: configparser.ConfigParser, tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel of this checkout, built from a copy so that no build folder is left in it."""
    if importlib.util.find_spec("setuptools") is None or importlib.util.find_spec("pip") is None:
        pytest.skip("building a wheel without the network needs pip and setuptools here")
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "checkout"
    wanted = [*FOLDERS, "cli.py", "setup.cfg", "setup.py", "pyproject.toml", "README.md", "LICENSE"]
    copy.mkdir()
    for name in wanted:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            shutil.copyfile(source, copy / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        folder,
        copy,
    ]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return zipfile.ZipFile(next(folder.glob("onnxptq-*.whl")))


def test_the_wheel_has_exactly_the_modules_and_the_data(wheel: zipfile.ZipFile) -> None:
    inside = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert inside == set(files())
    data = {f"onnxptq/models/digits/{name}" for name in ("digits.onnx", "train.parquet", "test.parquet", "README.md")}
    assert {*data, "onnxptq/py.typed"} <= inside


def test_nothing_but_onnxptq_lands_at_the_top_of_site_packages(wheel: zipfile.ZipFile) -> None:
    tops = {name.split("/")[0] for name in wheel.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"onnxptq"}
    information = next(top for top in tops if top.endswith(".dist-info"))
    assert "onnxptq = onnxptq.cli:main" in wheel.read(f"{information}/entry_points.txt").decode()
    assert f"{information}/licenses/LICENSE" in wheel.namelist()


def test_the_wheel_works_outside_of_the_checkout(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    script = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "sys.meta_path = [finder for finder in sys.meta_path if 'editable' not in str(finder)]\n"
        "import onnxptq.calibrators, onnxptq.cli, onnxptq.models\n"
        "assert all(module.__file__.startswith(sys.argv[1]) for name, module in sys.modules.items()\n"
        "           if name.partition('.')[0] == 'onnxptq'), sys.modules['onnxptq'].__file__\n"
        "print(onnxptq.models.builtin().model.is_file(), onnxptq.__version__)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "site")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("True 0."), done.stderr


def test_a_user_s_own_modules_of_our_names_break_nothing(tmp_path: Path) -> None:
    names = ("models", "cli", "calibrators", "commands", "data", "errors", "tests")
    for name in names:
        (tmp_path / f"{name}.py").write_text(f"MINE = {name!r}\n")
    (tmp_path / "script.py").write_text(
        "import onnxptq.models, onnxptq.cli, onnxptq.calibrators, onnxptq.api\n"
        f"import {', '.join(names)}\n"
        f"assert [{', '.join(f'{name}.MINE' for name in names)}] == {list(names)}\n"
        "print(onnxptq.models.builtin().name, onnxptq.CalibrationSet.parse('shifted'))\n"
    )
    for command in (["script.py"], ["-m", "onnxptq", "calibs"]):
        done = subprocess.run([sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert ("digits dark@3" in done.stdout) or ("Calibration sets" in done.stdout)
