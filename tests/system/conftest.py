"""The command in a folder, a home and a temporary folder of its own, and small inputs, good and bad."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

Done = subprocess.CompletedProcess[str]


def _as_in_a_terminal() -> None:
    """Whoever runs the tests in the background has SIGINT ignored, and a child would inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass(frozen=True)
class Place:
    """Where one command runs: nothing but what it is asked for may appear in any of these folders.

    Attributes:
        work: the current folder.
        home, temporary: $HOME and $TMPDIR.
        run_here: the fixture; None runs every command as a process of its own.
        before: a command that starts ours, in a process of its own.
    """

    work: Path
    home: Path
    temporary: Path
    run_here: Callable[..., Done] | None
    before: tuple[str, ...] = ()

    @classmethod
    def make(cls, folder: Path, run_here: Callable[..., Done]) -> Place:
        folders = [folder / part for part in ("work", "home", "temporary")]
        for one in folders:
            one.mkdir(parents=True)
        return cls(*folders, run_here)

    @property
    def with_processes(self) -> Place:
        """The same place, where every command is the installed one in a process of its own."""
        return replace(self, run_here=None)

    def environment(self, changes: Mapping[str, str | Path]) -> dict[str, str]:
        """Variables of a command."""
        given = {**os.environ, "HOME": self.home, "TMPDIR": self.temporary, **changes}
        return {name: str(value) for name, value in given.items()}

    @staticmethod
    def command() -> str:
        beside = Path(sys.executable).with_name("onnxptq")
        return str(beside) if beside.is_file() else str(shutil.which("onnxptq"))

    def run(self, *arguments: str | Path, **environment: str | Path) -> Done:
        """Runs the command and looks for litter."""
        if self.run_here is None:
            process = self.start(*arguments, **environment)
            stdout, stderr = process.communicate(timeout=300)
            done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
        else:
            done = self.run_here(arguments, self.work, self.environment(environment))
        self.check_tidy()
        return done

    def start(self, *arguments: str | Path, **environment: str | Path) -> subprocess.Popen[str]:
        """Starts the command in a process group of its own, as a terminal does."""
        return subprocess.Popen(
            [*self.before, self.command(), *map(str, arguments)],
            cwd=self.work,
            env=self.environment(environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=_as_in_a_terminal,
        )

    def refused(self, *arguments: str | Path, **environment: str | Path) -> str:
        """Runs a command that must refuse its input; what it says on stderr."""
        before = self.files()
        done = self.run(*arguments, **environment)
        assert done.returncode == 2, done
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert self.files() == before, "a refused command wrote something"
        return done.stderr

    def succeeded(self, *arguments: str | Path, **environment: str | Path) -> Done:
        done = self.run(*arguments, **environment)
        assert done.returncode == 0, done.stderr
        return done

    def json(self, *arguments: str | Path) -> Any:
        return json.loads(self.succeeded(*arguments, "--json", "-").stdout)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.work.iterdir())

    def check_tidy(self) -> None:
        for folder in (self.temporary, self.home):
            assert not list(folder.rglob("*")), f"left behind: {list(folder.rglob('*'))}"
        assert not [name for name in self.files() if name.endswith(".part")]


@pytest.fixture(scope="session")
def new_place(tmp_path_factory: pytest.TempPathFactory, run_here: Callable[..., Done]) -> Callable[[], Place]:
    return lambda: Place.make(tmp_path_factory.mktemp("place"), run_here)


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of small models and data. Nothing in it is ever changed."""
    folder = tmp_path_factory.mktemp("inputs")
    _write_models(folder)
    _write_arrays(folder)
    _write_images(folder)
    return folder


def tensor_model(path: Path, *, dtype: int = TensorProto.FLOAT) -> None:
    """Flatten and Gemm: x (N, 3, 16) -> y (N, 4)."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    weights = np.random.default_rng(0).standard_normal((48, 4)).astype(kind) / np.asarray(4, kind)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["y"], name="gemm"),
    ]
    constants = {"weights": weights, "bias": np.zeros(4, kind)}
    _save(path, nodes, constants, ("x", dtype, ["N", 3, 16]), ("y", dtype, ["N", 4]))


def image_model(path: Path, height: int | str = 8, width: int | str = 8) -> None:
    """Conv, mean over the image: x (N, 3, H, W) -> y (N, 4)."""
    weights = np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "weights"], ["conv"], name="conv", pads=[1] * 4),
        helper.make_node("GlobalAveragePool", ["conv"], ["mean"], name="mean"),
        helper.make_node("Flatten", ["mean"], ["y"], name="flatten"),
    ]
    size = ("x", TensorProto.FLOAT, ["N", 3, height, width])
    _save(path, nodes, {"weights": weights}, size, ("y", TensorProto.FLOAT, ["N", 4]))


def _save(path: Path, nodes: list, constants: dict, source: tuple, result: tuple) -> None:
    weights = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    infos = [[helper.make_tensor_value_info(*value)] for value in (source, result)]
    graph = helper.make_graph(nodes, "test", *infos, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


def _write_models(folder: Path) -> None:
    tensor_model(folder / "tensor.onnx")
    tensor_model(folder / "half.onnx", dtype=TensorProto.FLOAT16)
    tensor_model(folder / "double.onnx", dtype=TensorProto.DOUBLE)
    image_model(folder / "image.onnx")
    image_model(folder / "any-size.onnx", "height", "width")
    whole = (folder / "tensor.onnx").read_bytes()
    (folder / "empty.onnx").write_bytes(b"")
    (folder / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (folder / "truncated-by-one.onnx").write_bytes(whole[:-1])
    (folder / "picture.onnx").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(200)))
    _write_external(folder, whole)


def _write_external(folder: Path, whole: bytes) -> None:
    os.mkfifo(folder / "outside.data")
    below = folder / "external"
    below.mkdir()
    good = below / "good.onnx"
    model = onnx.load_from_string(whole)
    onnx.save(model, good, save_as_external_data=True, location="good.data", size_threshold=0)
    outside = str(folder / "outside.data")
    for name, location in (("missing", "gone.data"), ("above", "../outside.data"), ("absolute", outside)):
        model = onnx.load(good, load_external_data=False)
        for tensor in model.graph.initializer:
            next(entry for entry in tensor.external_data if entry.key == "location").value = location
        onnx.save(model, below / f"{name}.onnx")


def _write_arrays(folder: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((60, 3, 16)).astype(np.float32)
    y = rng.integers(0, 4, 60)
    np.savez(folder / "good.npz", x=x, y=y)
    np.savez(folder / "wide.npz", x=rng.standard_normal((60, 3, 20)).astype(np.float32), y=y)
    np.savez(folder / "no-row.npz", x=x[:0], y=y[:0])
    for name, value in (("nan", np.nan), ("infinity", np.inf)):
        bad = x.copy()
        bad[37, 1, 2] = value
        np.savez(folder / f"{name}.npz", x=bad, y=y)
    (folder / "header.csv").write_text("path,label\n")
    (folder / "not.json").write_text("{size: 8")
    (folder / "list.json").write_text("[8, 8]")


def _write_images(folder: Path) -> None:
    for seed, name in enumerate(("images", "corrupt", "gap")):
        rng = np.random.default_rng(seed)
        for label in ("cat", "dog", "fox", "owl"):
            (folder / name / label).mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / label / f"{number}.png")
    for number in (3, 5):
        picture = folder / "corrupt" / "dog" / f"{number}.png"
        picture.write_bytes(picture.read_bytes()[:60])
    (folder / "gap" / "yak").mkdir()
    (folder / "nothing").mkdir()
