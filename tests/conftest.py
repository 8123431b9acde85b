"""Fixtures that all tests share. No test touches the user's cache."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import chdir, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from hypothesis import settings

# How long an example takes is no claim of these tests: a busy machine with coverage on exceeds any limit.
settings.register_profile("onnxptq", deadline=None)
settings.load_profile("onnxptq")


@pytest.fixture(scope="session", autouse=True)
def user_cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache for the whole run: what one test prepared, the next one finds, in every worker, as a user does."""
    base = tmp_path_factory.getbasetemp()
    cache_folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache-room"
    cache_folder.mkdir(exist_ok=True)
    before = os.environ.get("ONNXPTQ_CACHE")
    os.environ["ONNXPTQ_CACHE"] = str(cache_folder)
    os.environ.pop("COLUMNS", None)  # Tables are as wide in a test as in a pipe, whoever runs the tests.
    yield cache_folder
    if before is None:
        del os.environ["ONNXPTQ_CACHE"]
    else:
        os.environ["ONNXPTQ_CACHE"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the CIFAR-10 models and data, for tests on something real."""
    folder = os.environ.get("ONNXPTQ_SHARED")
    if not folder or not (Path(folder) / "models").is_dir():
        pytest.skip("set ONNXPTQ_SHARED to the folder with models/ and data/ to run this test on CIFAR-10")
    return Path(folder)


@pytest.fixture(scope="session", autouse=True)
def what_commands_write_has_its_schema() -> Iterator[None]:
    """Holds all JSON that a command writes in this process against its schema (`onnxptq schema`), whatever the test."""
    from onnxptq.commands import _output

    plain = _output.json_text

    def checked(value: Any) -> str:
        text = plain(value)
        name = click.get_current_context().command_path.removeprefix("onnxptq ")
        if not (isinstance(value, dict) and "$schema" in value):  # SARIF has a schema of its own.
            closed_schema(name).validate(json.loads(text))
        return text

    _output.json_text = checked
    yield
    _output.json_text = plain


@cache
def closed_schema(name: str) -> Any:
    """A validator of a command's schema that also refuses keys which the schema does not name."""
    from jsonschema import Draft202012Validator

    from onnxptq.commands._schemas import schema_for

    return Draft202012Validator(_closed(schema_for(name)))


def _closed(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: _closed(one) for key, one in schema.items()}
    if closed.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


@pytest.fixture(scope="session")
def check_sarif() -> Callable[[Any], None]:
    """Asserts that a log is SARIF 2.1.0: its structure, and that results and rules name each other."""
    from jsonschema import Draft202012Validator

    text = Path(__file__).with_name("sarif_structure.json").read_text(encoding="utf-8")
    validator = Draft202012Validator(json.loads(text))

    def check(log: Any) -> None:
        validator.validate(log)
        for run in log["runs"]:
            ids = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
            assert len(set(ids)) == len(ids)
            assert all(ids[result["ruleIndex"]] == result["ruleId"] for result in run["results"])

    return check


Done = subprocess.CompletedProcess[str]
Run = Callable[..., Done]


@pytest.fixture(scope="session")
def run_here() -> Run:
    """`run(arguments, cwd, environment)`: all that the command `onnxptq` does, without the start of a process.

    It runs `onnxptq.cli.main` in the process of the tests, with the current folder, the variables and both outputs (as
    Python and as native code know them) of a process of its own: it spares the imports, a second for each command.
    What a process is (signals, pipes that close, what is imported) is tested with processes.
    """
    from onnxptq.cli import main

    def run(arguments: Sequence[str | Path], cwd: Path, environment: Mapping[str, str]) -> Done:
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with _outputs_to(out.fileno(), err.fileno()), _in_folder(cwd, environment):
                # The command ends with a garbage collection where it failed: not of all that the tests hold.
                gc.freeze()
                try:
                    main([str(argument) for argument in arguments])
                except SystemExit as ended:
                    code = ended.code
                finally:
                    gc.unfreeze()
            texts = [(stream.seek(0), stream.read().decode())[1] for stream in (out, err)]
        return subprocess.CompletedProcess(["onnxptq", *map(str, arguments)], code, *texts)

    return run


@contextmanager
def _outputs_to(*descriptors: int) -> Iterator[None]:
    streams = sys.stdout, sys.stderr
    for stream in streams:
        stream.flush()
    saved = os.dup(1), os.dup(2)
    try:
        for standard, descriptor in zip((1, 2), descriptors, strict=True):
            os.dup2(descriptor, standard)
        with open(1, "w", closefd=False) as sys.stdout, open(2, "w", closefd=False, buffering=1) as sys.stderr:
            yield
    finally:
        sys.stdout, sys.stderr = streams
        for standard, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, standard)
            os.close(descriptor)


@contextmanager
def _in_folder(cwd: Path, environment: Mapping[str, str]) -> Iterator[None]:
    before = os.environ.copy()
    temporary, tempfile.tempdir = tempfile.tempdir, None  # Asked for again, from the variables.
    try:
        os.environ.clear()
        os.environ.update(environment)
        with chdir(cwd):
            yield
    finally:
        tempfile.tempdir = temporary
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture
def onnxptq(tmp_path: Path, run_here: Run) -> Run:
    """Runs the `onnxptq` command in an empty folder (`tmp_path`), as a user does."""
    return lambda *arguments: run_here(arguments, tmp_path, dict(os.environ))


@pytest.fixture
def save_classifier(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny net of seeded weights: x, float32 (batch, 6) -> logits, float32 (batch, 4)."""

    def save(
        name: str = "net.onnx", *, batch: int | str = "N", seed: int = 0, metadata: Mapping[str, str] | None = None
    ) -> Path:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        rng = np.random.default_rng(seed)
        shapes = {"w1": (6, 8), "b1": (8,), "w2": (8, 4), "b2": (4,)}
        weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"], "body"),
            helper.make_node("Relu", ["hidden"], ["positive"], "relu"),
            helper.make_node("Gemm", ["positive", "w2", "b2"], ["logits"], "head"),
        ]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, k]) for n, k in (("x", 6), ("logits", 4))]
        graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, dict(metadata or {}))
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def make_dataset() -> Callable[..., Any]:
    """Makes an `onnxptq.data.Dataset` in memory: column "x" of seeded float32 rows (or the `values` given), labels."""

    def make(
        count: int = 40,
        *,
        seed: int = 0,
        classes: int | None = 4,
        labels: Sequence[int] | None = None,
        values: Any = None,
        attributes: Mapping[str, Sequence[str]] | None = None,
        source: str = "data",
    ) -> Any:
        from onnxptq.data import Dataset, fingerprint

        rng = np.random.default_rng(seed)
        if values is None:
            values = rng.standard_normal((count, 6)).astype(np.float32)
        names = () if classes is None else tuple(f"class{c}" for c in range(classes))
        codes = None if classes is None else np.asarray(np.arange(len(values)) % classes if labels is None else labels)
        columns = {name: np.asarray(column, np.str_) for name, column in (attributes or {}).items()}
        if codes is not None:
            columns["label"] = np.asarray(names, np.str_)[codes]
        return Dataset(
            source=source,
            split=None,
            rows=lambda indices: [{"x": values[i], "_name": f"row {i}"} for i in indices.tolist()],
            indices=np.arange(len(values)),
            labels=codes,
            label_names=names,
            attributes=columns,
            fingerprints=np.array([fingerprint({"x": value}) for value in values], np.str_),
        )

    return make
