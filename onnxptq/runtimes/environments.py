"""Runtimes in other Python environments: builds of ONNX Runtime that exclude each other, and other versions.

An environment is either managed (a virtual environment that `add_packages` builds in the cache) or registered
(`add_interpreter`: somebody else's, which we never change). It needs onnxruntime and numpy, nothing of ours. Each has a
folder `<cache>/v1/runtimes/<name>` with a `runtime.json` and, where it is managed, a `venv`.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onnxptq.cache import LAYOUT, Cache
from onnxptq.errors import OutputError, RuntimeUnavailableError, UsageError, did_you_mean
from onnxptq.files import replacing
from onnxptq.runtimes._worker_records import Description, describe
from onnxptq.runtimes.isolated import Worker, WorkerError
from onnxptq.runtimes.providers import PROVIDERS, providers_here

FORMAT = 1
_FILE = "runtime.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_PACKAGES = {
    "cpu": "onnxruntime",
    "cuda": "onnxruntime-gpu[cuda,cudnn]",
    "tensorrt": "onnxruntime-gpu[cuda,cudnn]",
    "openvino": "onnxruntime-openvino",
}
"""What `runtimes add NAME` installs where nothing else is said; the version in the name is that of this package."""

_BESIDE = {"tensorrt": ("tensorrt-cu13>=10,<11",)}
"""What a name installs beside it. On PyPI this is a small package that fetches TensorRT's libraries from NVIDIA's own
index as it is installed: without a way there pip fails, and says so."""

_SHOWN_LINES = ("Collecting ", "Downloading ", "Installing ", "Successfully ")
_START_SECONDS = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class PythonEnvironment:
    """A Python environment with an ONNX Runtime.

    Attributes:
        name: as the user calls it, "openvino" or "cpu@1.20".
        python: its interpreter.
        provider: the execution provider that `--ep NAME` means, by our name or ONNX Runtime's in short.
        packages: what was installed; () where it is not managed by us.
        description: the ONNX Runtime in it.
    """

    name: str
    python: Path
    provider: str
    packages: tuple[str, ...]
    description: Description

    @property
    def managed(self) -> bool:
        """Whether we built it."""
        return bool(self.packages)


def default_packages(name: str) -> tuple[str, ...]:
    """What an environment of that name gets: "openvino" the newest, "cpu@1.20" any 1.20 of plain onnxruntime.

    Raises UsageError where the name does not say.
    """
    provider, _, version = name.partition("@")
    if provider not in _PACKAGES or (version and not re.fullmatch(r"\d+(\.\d+)*", version)):
        raise UsageError(
            f"the name {name!r} does not say what to install. Give --package, for example "
            f"--package onnxruntime==1.20.1, or --python PATH, or a name such as {', '.join(_PACKAGES)} or cpu@1.20."
        )
    if not version:
        return (_PACKAGES[provider], *_BESIDE.get(provider, ()))
    exact = version if version.count(".") >= 2 else f"{version}.*"
    return (f"{_PACKAGES[provider]}=={exact}", *_BESIDE.get(provider, ()))


def add_packages(
    cache: Cache, name: str, packages: Sequence[str], *, provider: str | None = None, force: bool = False, say: Say
) -> tuple[PythonEnvironment, bool]:
    """Builds a virtual environment with pip, or finds the one that was built from the same packages.

    Args:
        cache: where it is kept.
        name: what it is called.
        packages: requirements as pip takes them; numpy is added.
        provider: what `--ep NAME` means; None is what the name or the distribution says.
        force: build it anew.
        say: called with lines of progress.

    Returns:
        The environment, and whether it was there already.

    Raises:
        UsageError: the name is not one, or is taken by another environment.
        RuntimeUnavailableError: pip fails, or what it installed does not work.
    """
    folder = _check_name(cache, name)
    existing = _read(folder)
    # One whose interpreter is gone (Python was updated) is built anew.
    if existing is not None and existing.python.exists() and not force:
        if existing.packages != tuple(packages):
            made = f"with {' '.join(existing.packages)}" if existing.managed else f"as {existing.python}"
            raise UsageError(f"there is a runtime {name!r} already, {made}. Replace it with --force, or name another.")
        return existing, True
    with _building(folder) as temporary:
        say(f"creating a virtual environment for {name} ...")
        _create_venv(temporary / "venv")
        _pip_install(_interpreter(temporary / "venv"), packages, say)
        found = _describe(_interpreter(temporary / "venv"))
        environment = PythonEnvironment(
            name=name,
            python=_interpreter(folder / "venv"),
            provider=_default_provider(name, provider, found),
            packages=tuple(packages),
            description=found,
        )
        _write(temporary, environment)
    return environment, False


def add_interpreter(
    cache: Cache, name: str, python: Path, *, provider: str | None = None, force: bool = False
) -> PythonEnvironment:
    """Registers an interpreter that has onnxruntime and numpy. It is never changed.

    Raises:
        UsageError: the name is not one, or is taken.
        RuntimeUnavailableError: the interpreter does not start, or lacks onnxruntime or numpy.
    """
    folder = _check_name(cache, name)
    # Not resolved: a virtual environment's interpreter is a link to another one.
    python = Path(python).absolute()
    existing = _read(folder)
    if existing is not None and not force and (existing.managed or existing.python != python):
        raise UsageError(f"there is a runtime {name!r} already, {existing.python}. Replace it with --force.")
    found = _describe(python)
    environment = PythonEnvironment(name, python, _default_provider(name, provider, found), (), found)
    with _building(folder) as temporary:
        _write(temporary, environment)
    return environment


def environments(cache: Cache) -> list[PythonEnvironment]:
    """All of them, by name."""
    found = [_read(folder) for folder in sorted(_home(cache).glob("*"))]
    return [environment for environment in found if environment is not None]


def find_environment(cache: Cache, name: str) -> PythonEnvironment | None:
    """The environment called `name`, or None."""
    return _read(_home(cache) / name) if _NAME.fullmatch(name) else None


def remove_environment(cache: Cache, name: str) -> PythonEnvironment:
    """Forgets an environment and deletes its folder; an interpreter that was registered stays as it is.

    Raises UsageError where there is none of that name.
    """
    found = find_environment(cache, name)
    if found is None:
        known = [environment.name for environment in environments(cache)]
        raise UsageError(f"there is no runtime {name!r}. {did_you_mean(name, known)}")
    shutil.rmtree(_home(cache) / name)
    return found


def _home(cache: Cache) -> Path:
    return cache.root / LAYOUT / "runtimes"


def _check_name(cache: Cache, name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"a runtime's name is made of letters, digits and . _ @ + -, at most 64 of them; got {name!r}. "
            "For example openvino or cpu@1.20."
        )
    provider = next((p for p in PROVIDERS if name in (p.name, p.ort_name)), None)
    if provider is not None and provider.ort_name in providers_here():
        import onnxruntime

        version = ".".join(onnxruntime.__version__.split(".")[:2])
        raise UsageError(
            f"{name!r} is the execution provider of this environment. Give the runtime a version too, for example "
            f"{provider.name}@{version}, or another name with --package or --python."
        )
    return _home(cache) / name


def _default_provider(name: str, named: str | None, found: Description) -> str:
    """What `--ep NAME` means. Raises UsageError where the environment's ONNX Runtime was built without it."""
    compiled = {_short(ort_name): ort_name for ort_name in found.providers}
    prefix = name.partition("@")[0]
    guess = "openvino" if "openvino" in found.distribution else "cpu"
    chosen = named or (prefix if prefix in compiled or prefix in _PACKAGES else guess)
    if chosen not in compiled:
        raise UsageError(
            f"{found.distribution} {found.onnxruntime} was built without {chosen!r}; it has {', '.join(compiled)}. "
            "Choose of these with --provider, or another package."
        )
    return chosen


def _short(ort_name: str) -> str:
    registered = next((provider.name for provider in PROVIDERS if provider.ort_name == ort_name), None)
    return registered or ort_name.removesuffix("ExecutionProvider").lower()


def _interpreter(venv: Path) -> Path:
    return venv / "Scripts" / "python.exe" if sys.platform == "win32" else venv / "bin" / "python"


@contextlib.contextmanager
def _building(folder: Path) -> Iterator[Path]:
    """A folder beside `folder` that takes its place when the block ends without an error, and is gone otherwise."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise OutputError(
            f"the cache folder {folder.parent} cannot be written: {error.strerror or error}. "
            "Set ONNXPTQ_CACHE to a folder that can."
        ) from error
    try:
        yield temporary
        if folder.is_dir():
            shutil.rmtree(folder)
        temporary.rename(folder)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)


def _create_venv(folder: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "venv", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        last = (done.stdout + done.stderr).strip().splitlines()[-1:] or ["it said nothing"]
        raise RuntimeUnavailableError(
            f"{sys.executable} cannot create a virtual environment: {last[0]}. Install its venv module (Debian: "
            "apt install python3-venv), or register an interpreter with --python PATH."
        )


def _pip_install(python: Path, packages: Sequence[str], say: Say) -> None:
    # -I: a file of the folder where the user stands must not shadow a module of pip.
    command = [str(python), "-I", "-m", "pip", "install", "--no-input", "--progress-bar", "off", *packages, "numpy"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8") as pip:
        lines = []
        assert pip.stdout is not None
        for line in pip.stdout:
            lines.append(line.strip())
            if lines[-1].startswith(_SHOWN_LINES):
                say(f"  {lines[-1]}")
    if pip.returncode:
        index = " TensorRT's libraries come from NVIDIA's own index, pypi.nvidia.com, which must be reached."
        raise RuntimeUnavailableError(
            f"pip cannot install {' '.join(packages)}: {_reason(lines)}. Check the name and "
            f"version, whether there is a wheel for Python {'.'.join(map(str, sys.version_info[:2]))}, and the "
            "network; or register an interpreter that has it with --python PATH."
            + (index if any(name.startswith("tensorrt") for name in packages) else "")
        )


def _reason(lines: Sequence[str]) -> str:
    """What pip failed of: its own last error, else that of the build that it ran, else its last line."""
    own = [line for line in lines if line.startswith("ERROR")]
    builds = [
        # Some say what it was some lines below.
        line if not line.endswith(":") else next((one for one in lines[number + 1 :] if one[:1].isalpha()), line)
        for number, line in enumerate(lines)
        if re.match(r"(\w+\.)*\w*Error:", line)
    ]
    said = (own or builds or list(lines[-1:]) or ["it said nothing"])[-1]
    return said.removeprefix("ERROR: ").rstrip(".")


def _describe(python: Path) -> Description:
    try:
        with Worker(python, timeout_s=_START_SECONDS) as worker:
            found = worker.describe()
    except WorkerError as error:
        raise RuntimeUnavailableError(
            f"{python} cannot serve as a runtime: {error.reason}. Expected a Python with onnxruntime and numpy; "
            "onnxruntime before 1.19 also needs numpy<2."
        ) from error
    if len(found.distributions) > 1:
        raise RuntimeUnavailableError(
            f"{' and '.join(found.distributions)} are installed over each other in the environment of {python}: they "
            f"overwrite each other's files. Uninstall them there and install one of them again."
        )
    return found


def _write(folder: Path, environment: PythonEnvironment) -> None:
    values = {"format": FORMAT, **asdict(environment), "python": str(environment.python)}
    with replacing(folder / _FILE) as temporary:
        temporary.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _read(folder: Path) -> PythonEnvironment | None:
    file = folder / _FILE
    if folder.name.startswith(".") or not file.is_file():
        return None
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}")
        return PythonEnvironment(
            name=values["name"],
            python=Path(values["python"]),
            provider=values["provider"],
            packages=tuple(values["packages"]),
            description=describe(values["description"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(
            f"{file} is damaged or of another version ({error}). Delete {folder}, and add the runtime again."
        ) from error
