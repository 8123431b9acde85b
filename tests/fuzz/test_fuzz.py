"""Whatever the bytes are, the gate ends in a verdict or in a clean error: never a traceback, a crash, or a hang.

A few hundred mutated files by default, thousands under the marker `fuzz`. A failure names the seed and the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from _counts import COUNTS
from onnx import TensorProto, helper

from onnxptq.cache import Cache
from onnxptq.errors import OnnxptqError
from onnxptq.evaluation import save_predictions
from onnxptq.gates import Policy, check
from onnxptq.gates.baseline import check_comparable, load_baseline, make_baseline, save_baseline
from onnxptq.gates.policy import AverageDrop
from onnxptq.gates.policy_file import parse_policy
from onnxptq.gates.starter import starter_policy
from onnxptq.graphs import Model, load_model
from onnxptq.judging import JudgingOptions, samples_to_judge_on
from onnxptq.runtimes.isolated import Worker, WorkerError

Mutants = Callable[[bytes, int, int], Iterator[bytes]]

SECONDS = 20.0
"""For one call of the worker: thousands of times what these models need."""


def cases(few: int, many: int) -> Callable[[Any], Any]:
    """How many cases a test runs, by default and under the marker `fuzz`."""

    def mark(function: Any) -> Any:
        function.cases = (few, many)
        return function

    return mark


@contextmanager
def clean(outcomes: Counter[str], kept: Path, number: int) -> Iterator[None]:
    """Counts what happened. Anything but an error of ours fails the test, with the number of the case and its file."""
    try:
        yield
        outcomes["accepted"] += 1
        COUNTS["accepted"] += 1
    except OnnxptqError as error:
        assert str(error).strip(), f"case {number} ({kept}) is refused without a word"
        outcomes["refused"] += 1
        COUNTS["refused"] += 1
    except Exception as error:
        raise AssertionError(f"case {number} ({kept}): {type(error).__name__}: {error}") from error


class Lab:
    """A worker that outlives many models, and is replaced when one of them ends it."""

    def __init__(self) -> None:
        self._worker: Worker | None = None

    def run(self, model: Model) -> None:
        """Loads a model and runs it once. Raises WorkerError where that fails, however it does."""
        if self._worker is None:
            self._worker = Worker(memory_bytes=2 * 2**30, timeout_s=SECONDS)
        try:
            opened = self._worker.open(model.path, threads=1)
            feeds = {s.name: np.zeros([d or 2 for d in s.shape], np.float32) for s in opened.signature.inputs}
            self._worker.run(opened, feeds)
            self._worker.close_session(opened)
        except WorkerError as error:
            if error.failure != "refused":
                self.close()
            raise

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


@pytest.fixture
def lab() -> Iterator[Lab]:
    lab = Lab()
    yield lab
    lab.close()


@cases(60, 1000)
def test_models_of_damaged_bytes(
    lab: Lab, save_classifier: Callable[..., Path], int8: Path, mutants: Mutants, tmp_path: Path, cases: int
) -> None:
    path, outcomes = tmp_path / "case.onnx", Counter()
    for seed, whole in enumerate((save_classifier().read_bytes(), int8.read_bytes())):
        for number, data in enumerate(mutants(whole, seed, cases // 2)):
            path.write_bytes(data)
            with clean(outcomes, path, number):
                lab.run(load_model(path, domains=()))
    assert set(outcomes) == {"accepted", "refused"}


@cases(60, 1000)
def test_models_of_damaged_structure(lab: Lab, int8: Path, tmp_path: Path, cases: int) -> None:
    path, outcomes = tmp_path / "case.onnx", Counter()
    whole = onnx.load(int8)
    for number in range(cases):
        rng = np.random.default_rng([2, number])
        damaged = onnx.ModelProto()
        damaged.CopyFrom(whole)
        for _ in range(rng.integers(1, 4)):
            DAMAGES[rng.integers(len(DAMAGES))](damaged, rng)
        path.write_bytes(damaged.SerializeToString())
        with clean(outcomes, path, number):
            lab.run(load_model(path, domains=()))
    assert set(outcomes) == {"accepted", "refused"}


def _pick(items: Any, rng: np.random.Generator) -> Any:
    return items[int(rng.integers(len(items)))]


def _shape(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _pick(proto.graph.initializer, rng)
    tensor.dims.append(_pick((-1, 0, 2, 2**20, 2**40, 2**63 - 1), rng))


def _kind(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    _pick(proto.graph.initializer, rng).data_type = int(rng.integers(0, 30))


def _input(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    dim = _pick(proto.graph.input[0].type.tensor_type.shape.dim, rng)
    dim.dim_value = _pick((-5, 0, 1, 7, 2**31, 2**62), rng)


def _operator(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    names = ("Loop", "If", "Scan", "Conv", "Reshape", "Resize", "QuantizeLinear", "Nothing", "")
    _pick(proto.graph.node, rng).op_type = _pick(names, rng)


def _wires(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    node, other = _pick(proto.graph.node, rng), _pick(proto.graph.node, rng)
    if node.input:
        node.input[int(rng.integers(len(node.input)))] = _pick([*other.output, "", "nowhere"], rng)


def _attribute(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    node = _pick(proto.graph.node, rng)
    name = _pick(["axis", "pads", "strides", "group", "kernel_shape", "dilations"], rng)
    value = _pick([0, -1, 2**31, -(2**63), [2**40, 1], [-1] * 4, 1.5, "text"], rng)
    node.attribute.append(helper.make_attribute(name, value))


def _drop(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    items = _pick([proto.graph.node, proto.graph.initializer, proto.opset_import, proto.graph.output], rng)
    if items:
        del items[int(rng.integers(len(items)))]


def _opset(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    proto.opset_import.append(helper.make_opsetid(_pick(["", "com.microsoft", "mine"], rng), int(rng.integers(0, 99))))


def _elsewhere(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    tensor = _pick(proto.graph.initializer, rng)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=_pick(["/etc/passwd", "../x", "gone", "case.onnx", "", "."], rng))
    tensor.external_data.add(key="offset", value=_pick(["0", "-1", "99999999999999999999", "x"], rng))


def _metadata(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    entry = _pick(proto.metadata_props, rng)
    entry.value = _pick(["", "{", "[]", "9", entry.value[: len(entry.value) // 2]], rng)


def _nest(proto: onnx.ModelProto, rng: np.random.Generator) -> None:
    inner = helper.make_graph([_pick(proto.graph.node, rng)], "inner", [], [])
    proto.graph.node.append(helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner))


DAMAGES = (_shape, _kind, _input, _operator, _wires, _attribute, _drop, _opset, _elsewhere, _metadata, _nest)


@cases(4, 40)
def test_whole_checks_of_damaged_models(int8: Path, mutants: Mutants, tmp_path: Path, cases: int) -> None:
    path, outcomes = tmp_path / "case.onnx", Counter()
    for number, data in enumerate(mutants(int8.read_bytes(), 3, cases)):
        path.write_bytes(data)
        with clean(outcomes, path, number):
            check(path, policy=Policy(average_drop=AverageDrop()), corruptions=["clean"])


@cases(100, 1000)
def test_policies(int8: Path, mutants: Mutants, tmp_path: Path, cases: int) -> None:
    outcomes: Counter[str] = Counter()
    text = starter_policy(int8).replace("# [", "[").replace("\n# limit", "\nlimit")
    for number, data in enumerate(mutants(text.encode(), 4, cases)):
        with clean(outcomes, tmp_path, number):
            parse_policy(data.decode(errors="replace"))
    assert set(outcomes) == {"accepted", "refused"}


@cases(20, 300)
def test_baselines(make_predictions: Any, mutants: Mutants, tmp_path: Path, cases: int) -> None:
    path, outcomes = tmp_path / "baseline.json", Counter()
    reference, model = make_predictions()
    save_baseline(path, make_baseline(reference, model))
    for number, data in enumerate(mutants(path.read_bytes(), 5, cases)):
        path.write_bytes(data)
        with clean(outcomes, path, number):
            check_comparable(load_baseline(path), model, path)


@cases(20, 300)
def test_predictions(make_predictions: Any, mutants: Mutants, tmp_path: Path, cases: int) -> None:
    path, outcomes = tmp_path / "p.parquet", Counter()
    save_predictions(path, make_predictions())
    for number, data in enumerate(mutants(path.read_bytes(), 6, cases)):
        path.write_bytes(data)
        with clean(outcomes, path, number):
            check(predictions=path)
    assert outcomes["refused"]


@cases(3, 60)
@pytest.mark.parametrize("name", ["data.parquet", "data.csv", "data.jsonl", "data.npz", "images"])
def test_data(
    name: str, save_classifier: Callable[..., Path], int8: Path, mutants: Mutants, tmp_path: Path, cases: int
) -> None:
    outcomes: Counter[str] = Counter()
    model = load_model(int8 if name in ("images", "data.parquet") else save_classifier())
    whole = write_data(tmp_path / "whole", name)
    for number, data in enumerate(mutants(whole.read_bytes(), 7, cases)):
        folder = tmp_path / f"case{number}"
        case = write_data(folder, name)
        case.write_bytes(data)
        with clean(outcomes, case, number):
            source = folder / name
            empty_cache = Cache(tmp_path / "room")
            samples, _ = samples_to_judge_on(
                [model], JudgingOptions.of(data=str(source), corruptions=["clean"]), empty_cache
            )
            for _ in samples.batches(8):
                pass


def write_data(folder: Path, name: str) -> Path:
    """A small source called `name` in a folder; the file of it that is damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    from onnxptq.models import builtin

    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((12, 6)).astype(np.float32), np.arange(12) % 4
    if name == "data.parquet":
        pq.write_table(pq.read_table(builtin().test).slice(0, 12), folder / name)
    elif name == "data.npz":
        np.savez(folder / name, x=x, y=y)
    elif name == "data.csv":
        rows = [",".join([*(f"{v:.3f}" for v in row), str(label)]) for row, label in zip(x, y, strict=True)]
        (folder / name).write_text("\n".join(["a,b,c,d,e,f,label", *rows]))
    elif name == "data.jsonl":
        table = pa.table({"x": x.tolist(), "label": y})
        (folder / name).write_text("\n".join(str(row).replace("'", '"') for row in table.to_pylist()))
    else:
        for label in range(4):
            (folder / name / str(label)).mkdir(parents=True, exist_ok=True)
            for number in range(2):
                picture = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
                picture.save(folder / name / str(label) / f"{number}.png")
        return folder / name / "2" / "1.png"
    return folder / name
