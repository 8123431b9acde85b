"""What goes wrong inside one provider is a row; the others finish."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from onnxptq.cache import user_cache
from onnxptq.comparison import CompareSettings, Comparison
from onnxptq.comparison.named import compare_models
from onnxptq.errors import ModelError, RuntimeUnavailableError
from onnxptq.inputs import DataOptions
from onnxptq.reports.comparison import print_comparison
from onnxptq.runtimes import probe
from onnxptq.runtimes.environments import add_interpreter, find_environment

from .conftest import Misbehaving, interpreter

Run = Callable[..., Comparison]


@pytest.fixture
def run(int8: Path, small: DataOptions) -> Run:
    """Compares the built-in model in FP32 and INT8 on runtimes."""

    def compare(*runtimes: str, timeout_s: float = 60, allow_fallback: bool = False) -> Comparison:
        settings = CompareSettings(groups=("label",), runs=3, timeout_s=timeout_s)
        comparison, _ = compare_models(
            [int8], runtimes, corruptions=["clean"], options=small, settings=settings, allow_fallback=allow_fallback
        )
        return comparison

    return compare


def statuses(comparison: Comparison) -> dict[tuple[str, str], str]:
    return {("INT8" if row.quantized else "FP32", row.runtime): row.status for row in comparison.rows}


def missing_provider() -> str:
    for name in ("cuda", "tensorrt"):
        if not probe(name).loads:
            return name
    pytest.skip("every provider loads here")


def test_a_missing_provider_is_an_error_with_its_reason_before_anything_runs(run: Run) -> None:
    name = missing_provider()
    with pytest.raises(RuntimeUnavailableError) as caught:
        run("cpu", name)
    assert probe(name).reason in str(caught.value)


def test_an_allowed_fallback_runs_on_the_cpu_and_says_so(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    name = missing_provider()
    comparison = run("cpu", name, allow_fallback=True)
    row = comparison.rows[-1]
    assert (row.runtime, row.status) == (name, "done")
    assert row.between is not None
    assert row.between.equal
    assert any(name in warning and probe(name).reason in warning for warning in comparison.warnings)
    print_comparison(comparison, [], wide=True)
    said = capsys.readouterr().out
    assert f"{name}: does not load, instead of it CPUExecutionProvider" in said
    assert "0 of 49" in said


def test_a_worker_that_is_killed_is_a_row_and_the_others_finish(run: Run, misbehaving: Misbehaving) -> None:
    misbehaving("killed", "import os, signal\nSession.run = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)")
    comparison = run("cpu", "killed", "cpu:none")
    assert statuses(comparison) == {
        ("FP32", "cpu"): "done", ("FP32", "killed"): "crashed", ("FP32", "cpu:none"): "done",
        ("INT8", "cpu"): "done", ("INT8", "killed"): "crashed", ("INT8", "cpu:none"): "done",
    }  # fmt: skip
    assert all("SIGKILL" in row.reason for row in comparison.failed)
    assert all(row.report is None and row.speed == () for row in comparison.failed)
    assert all(row.report is not None and row.speed for row in comparison.rows if row.status == "done")


def test_a_worker_that_aborts_shows_what_it_said_last(run: Run, misbehaving: Misbehaving) -> None:
    code = (
        "import os, sys\nSession.run = lambda *a: (print('engine is broken', file=sys.stderr, flush=True), os.abort())"
    )
    misbehaving("aborts", code)
    (row, _) = run("cpu", "aborts").failed
    assert row.status == "crashed"
    assert "SIGABRT" in row.reason
    assert row.log[-1] == "engine is broken"


def test_a_worker_that_hangs_is_a_row_after_its_time_limit(run: Run, misbehaving: Misbehaving) -> None:
    code = (
        "import time\n"
        "before = Session.__init__\n"
        "def load(self, model, *a, **k):\n"
        "    time.sleep(600 if 'int8' in str(model) else 0)\n"
        "    before(self, model, *a, **k)\n"
        "Session.__init__ = load\n"
    )
    misbehaving("hangs", code)
    comparison = run("cpu", "hangs", timeout_s=6)
    assert statuses(comparison) == {
        ("FP32", "cpu"): "done", ("FP32", "hangs"): "done", ("INT8", "cpu"): "done", ("INT8", "hangs"): "hung",
    }  # fmt: skip
    assert "within 6 seconds" in comparison.failed[0].reason


def test_a_model_that_one_provider_does_not_support_is_refused_there_only(run: Run, misbehaving: Misbehaving) -> None:
    code = (
        "before = Session.__init__\n"
        "def refuse(self, model, *a, **k):\n"
        "    if 'int8' in str(model):\n"
        "        raise RuntimeError('[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : no kernel for QuantizeLinear(19)')\n"
        "    before(self, model, *a, **k)\n"
        "Session.__init__ = refuse\n"
    )
    misbehaving("old", code)
    comparison = run("cpu", "old")
    assert statuses(comparison) == {
        ("FP32", "cpu"): "done", ("FP32", "old"): "done", ("INT8", "cpu"): "done", ("INT8", "old"): "refused",
    }  # fmt: skip
    assert comparison.failed[0].reason == "no kernel for QuantizeLinear(19)"


def test_a_worker_that_dies_halfway_through_the_samples_leaves_the_others_whole(
    run: Run, misbehaving: Misbehaving
) -> None:
    code = (
        "import os\n"
        "runs, before = [], Session.run\n"
        "def run(self, names, feeds):\n"
        "    runs.append(1)\n"
        "    return before(self, names, feeds) if len(runs) < 4 else os._exit(7)\n"
        "Session.run = run\n"
    )
    misbehaving("tired", code)
    comparison = run("cpu", "tired")
    assert statuses(comparison)["INT8", "tired"] == "crashed"
    assert "exit code 7" in comparison.failed[0].reason
    done = next(row for row in comparison.rows if row.quantized and row.status == "done")
    assert done.report is not None
    assert done.report.n > 64  # more than one batch


def test_outputs_that_are_not_finite_fail_one_row(run: Run, misbehaving: Misbehaving) -> None:
    misbehaving("nan", "before = Session.run\nSession.run = lambda *a: [o * float('nan') for o in before(*a)]")
    comparison = run("cpu", "nan")
    assert statuses(comparison)["INT8", "nan"] == "failed"
    assert "NaN" in comparison.failed[0].reason


def test_a_reference_that_does_not_run_on_the_first_runtime_is_an_error(run: Run, misbehaving: Misbehaving) -> None:
    misbehaving("killed", "import os, signal\nSession.run = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(ModelError, match=r"reference runtime 'killed'.*SIGKILL"):
        run("killed", "cpu")


def test_onnx_runtimes_installed_over_each_other_are_refused_as_a_runtime(
    tmp_path: Path, misbehaving: Misbehaving
) -> None:
    import onnxruntime

    folder = tmp_path / "site-packages"
    folder.mkdir()
    (folder / "onnxruntime").symlink_to(Path(onnxruntime.__file__).parent)
    for name, version in (("onnxruntime", "1.31.1"), ("onnxruntime_openvino", "1.24.1")):
        metadata = folder / f"{name}-{version}.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Name: {name.replace('_', '-')}\nVersion: {version}\n")
        (metadata / "RECORD").write_text("onnxruntime/__init__.py,,\n")
    script = interpreter(tmp_path / "python-both", "pass")
    setup = script.with_suffix(".setup.py")
    setup.write_text(f"import sys\nsys.path.insert(0, {str(folder)!r})\n" + setup.read_text())
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime and onnxruntime-openvino are installed over"):
        add_interpreter(user_cache(), "both", script)
    assert find_environment(user_cache(), "both") is None


def test_onnx_runtimes_installed_over_each_other_here_are_a_warning(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxptq.comparison.named.installation_problems", lambda: ["a and b are installed over"])
    assert "a and b are installed over" in run("cpu").warnings
