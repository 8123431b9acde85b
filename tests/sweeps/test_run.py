"""Sweeps: what is shared is made once, what is stored is not made again, and what dies costs one cell."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import onnxptq
from onnxptq.cache import Cache
from onnxptq.calibrators.statistics import CalibrationStatistics
from onnxptq.errors import DataError, OutputError, UsageError
from onnxptq.quantization.collect import CalibrationPass
from onnxptq.quantization.passes import observe
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS, WeightTransform
from onnxptq.recipe import Step
from onnxptq.sweeps.ahead import look_ahead
from onnxptq.sweeps.costs import Costs, is_learned
from onnxptq.sweeps.job import SweepJob
from onnxptq.sweeps.kept_samples import KEPT_BYTES
from onnxptq.sweeps.local import LocalEngine
from onnxptq.sweeps.model_context import open_context
from onnxptq.sweeps.plan import Plan, recipe_of
from onnxptq.sweeps.run import estimate, open_grid, sweep
from onnxptq.sweeps.store import Store, load_study
from onnxptq.sweeps.study import DONE, FAILED, Study

from .inline import SMALL, InlineEngine

RunPlan = Callable[..., tuple[Study, InlineEngine]]


@pytest.fixture
def begun(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished store, in which two of the four cells are missing."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    with sqlite3.connect(tmp_path / "v1/sweeps/sweeps.sqlite") as store:
        store.execute("DELETE FROM cells WHERE rowid > 2")
        store.execute("UPDATE runs SET finished = NULL")
    return tmp_path


def test_a_cell_is_what_quantize_makes_of_it(finished: Path, tmp_path: Path) -> None:
    study = load_study("last", finished)
    assert [cell.status for cell in study.cells] == [DONE] * 4
    alone = onnxptq.quantize(calib="dark@3", calib_size=16, method="percentile:percentile=99.0", output=tmp_path / "m")
    assert study.cells[-1].recipe_digest == alone.recipe.digest
    assert study.cells[-1].report["groups"] and study.cells[-1].ranges
    assert load_study("last", finished).plan == SMALL.to_dict()
    run = onnxptq.evaluate([tmp_path / "m"], corruptions=["clean"])
    assert run.reports[0].sources == 900, "quantize judges on all samples, this plan on 200"
    assert study.cells[-1].report["sources"] == 200


def test_a_method_that_augments_has_the_recipe_that_quantize_uses(run_plan: RunPlan, tmp_path: Path) -> None:
    study, _ = run_plan(replace(SMALL, calibrations=("dark@3",), methods=("robust",)))
    alone = onnxptq.quantize(calib="dark@3", calib_size=16, method="robust", output=tmp_path / "m", evaluate=False)
    assert [(cell.status, cell.recipe_digest) for cell in study.cells] == [(DONE, alone.recipe.digest)]


def test_predictions_are_parquet_files_in_the_store(finished: Path) -> None:
    from onnxptq.evaluation import load_predictions

    for cell in load_study("last", finished).cells:
        (run,) = load_predictions(finished / cell.predictions)
        assert (run.code == run.label).mean() == pytest.approx(cell.report["int8_average"])


def test_what_is_stored_is_not_made_again(begun: Path, run_plan: RunPlan, finished: Path) -> None:
    study, engine = run_plan()
    assert len(engine.cells) == 2
    assert study == replace(load_study("last", finished), cells=study.cells)
    for again, before in zip(study.cells, load_study("last", finished).cells, strict=True):
        assert replace(again, seconds={}) == replace(before, seconds={}), "resumed or not, the result is the same"
    assert run_plan()[1].done == [], "and a third time nothing at all"


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:300])


def _overwrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished store, to be damaged."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_a_damaged_row_is_missing_for_everybody_and_made_again(copied: Path, run_plan: RunPlan) -> None:
    before = load_study("last", copied).cells[0]
    with sqlite3.connect(copied / "v1/sweeps/sweeps.sqlite") as store:
        store.execute("UPDATE cells SET report = '{}' WHERE model_digest = ?", (before.model_digest,))
    with Store(Cache(copied)) as opened:
        assert [(run.done, run.finished) for run in opened.runs()] == [(3, None)]
        assert opened.unfinished(None) == SMALL and len(opened.study("last").cells) == 3
    study, engine = run_plan()
    assert engine.cells == [before.key] and study.cells[0].report == before.report
    with Store(Cache(copied)) as opened:
        assert opened.runs()[0].finished
        with pytest.raises(UsageError, match=r"every run in .* is finished: onnxptq report"):
            opened.unfinished(None)
        with pytest.raises(UsageError, match=r"the run .* of this plan in .* is finished"):
            opened.unfinished(SMALL)


@pytest.mark.parametrize("damage", [Path.unlink, _truncate])
def test_a_cell_whose_predictions_are_gone_or_cut_off_is_made_again(
    copied: Path, run_plan: RunPlan, damage: Callable[[Path], object]
) -> None:
    before = load_study("last", copied).cells[0]
    whole = (copied / before.predictions).read_bytes()
    damage(copied / before.predictions)
    study, engine = run_plan()
    assert engine.cells == [before.key]
    assert (copied / before.predictions).read_bytes() == whole
    assert replace(study.cells[0], seconds={}) == replace(before, seconds={})
    assert run_plan()[1].done == []


@pytest.mark.parametrize("damage", [_truncate, _overwrite])
def test_damaged_statistics_are_observed_again(
    copied: Path, run_plan: RunPlan, damage: Callable[[Path], object]
) -> None:
    kept = {path: path.read_bytes() for path in copied.rglob("*.stats")}
    for path in kept:
        damage(path)
    study, engine = run_plan(replace(SMALL, methods=(*SMALL.methods, "percentile:percentile=98.0")))
    assert [cell.status for cell in study.cells] == [DONE] * 6 and len(engine.cells) == 2
    assert {path: path.read_bytes() for path in copied.rglob("*.stats")} == kept


@pytest.mark.parametrize("damage", [_truncate, _overwrite, lambda path: Path(f"{path}.sha256").unlink()])
def test_a_damaged_folded_model_is_folded_again(
    copied: Path, run_plan: RunPlan, damage: Callable[[Path], object]
) -> None:
    (folded,) = copied.glob("v1/folded-model/*/*.onnx")
    before, whole = load_study("last", copied), folded.read_bytes()
    with sqlite3.connect(copied / "v1/sweeps/sweeps.sqlite") as store:
        store.execute("DELETE FROM cells")
    damage(folded)
    study, _ = run_plan()
    assert folded.read_bytes() == whole
    assert [cell.model_digest for cell in study.cells] == [cell.model_digest for cell in before.cells]


def test_one_pass_serves_every_method_and_target(run_plan: RunPlan, monkeypatch: pytest.MonkeyPatch) -> None:
    passes_made = []
    collect = CalibrationPass.collect
    monkeypatch.setattr(CalibrationPass, "collect", lambda *a, **k: passes_made.append(1) or collect(*a, **k))
    methods = ("minmax", "percentile", "entropy", "mse")
    plan = replace(SMALL, calibrations=("clean",), methods=methods, targets=("cpu", "tensorrt"), eval_size=50)
    study, _ = run_plan(plan)
    assert [cell.status for cell in study.cells] == [DONE] * 8
    assert len(passes_made) == 1
    by_method = {cell.key.method: cell for cell in study.cells if cell.key.target == "cpu"}
    assert by_method["entropy"].model_digest == by_method["minmax"].model_digest, "128 bins: a search of one candidate"
    assert by_method["entropy"].seconds["evaluate"] == 0.0, "equal models are judged once"


def test_every_method_that_quantize_knows_can_stand_in_a_plan(run_plan: RunPlan) -> None:
    from onnxptq.methods import all_methods

    methods = tuple(method.name for method in all_methods())
    assert "robust" in methods
    study, _ = run_plan(replace(SMALL, calibrations=("dark@3",), methods=methods, eval_size=50))
    failed = {cell.key.method: cell.error for cell in study.cells if cell.status == FAILED}
    # Learned rounding needs what is not installed everywhere.
    assert "pip install 'onnxptq[reconstruct]'" in failed.pop("adaround", "pip install 'onnxptq[reconstruct]'")
    # The built-in net's BatchNormalizations were folded before it came to us.
    assert all("BatchNormalization" in error for error in failed.values()), failed


def test_cells_of_equal_content_are_made_once(run_plan: RunPlan) -> None:
    plan = replace(SMALL, calibrations=("clean", "imbalanced"), strategies=("easy",), methods=("minmax",), eval_size=50)
    study, engine = run_plan(plan)
    assert len(engine.cells) == 1, "the strategy's sampler takes the place of both sets' own"
    assert study.cells[0].report == study.cells[1].report
    assert [cell.key.calibration for cell in study.cells] == ["clean", "imbalanced"]


def test_what_is_wrong_with_one_set_fails_its_cells_alone(run_plan: RunPlan) -> None:
    plan = replace(SMALL, calibrations=("clean", "single-class:10"), methods=("minmax",), eval_size=50)
    study, _ = run_plan(plan)
    assert [cell.status for cell in study.cells] == [DONE, FAILED]
    assert "has no class '10'" in study.cells[1].error


def test_a_cell_that_kills_its_worker_costs_itself_and_no_other(run_plan: RunPlan, tmp_path: Path) -> None:
    deadly = SMALL.grid[1]
    study, engine = run_plan(replace(SMALL, eval_size=50), InlineEngine(deadly=frozenset([deadly])))
    failed = [cell for cell in study.cells if cell.status == FAILED]
    assert [cell.key for cell in failed] == [deadly]
    assert failed[0].error == "its worker was killed by SIGSEGV, 2 times"
    with Store(Cache(tmp_path)) as store:
        assert store.runs()[0].finished is None, "a run with a failed cell is not finished"
        assert store.unfinished(None) == replace(SMALL, eval_size=50)
    study, engine = run_plan(replace(SMALL, eval_size=50))
    assert engine.cells == [deadly], "a failed cell is tried again"
    assert all(cell.status == DONE for cell in study.cells)


def test_a_changed_input_is_another_run(run_plan: RunPlan, save_classifier: Any, tmp_path: Path) -> None:
    import numpy as np

    rng = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=rng.standard_normal((200, 6)).astype(np.float32), y=np.arange(200) % 4)
    model = str(save_classifier())
    plan = Plan(models=(model,), data=str(tmp_path / "data.npz"), corruptions=("clean",), calib_size=16)
    first, engine = run_plan(plan)
    assert len(engine.cells) == 1
    save_classifier(seed=1)  # Another model under the same name.
    second, engine = run_plan(plan)
    assert len(engine.cells) == 1 and second.run != first.run


def test_a_set_in_parts_has_the_statistics_of_one_pass_byte_for_byte(tmp_path: Path, run_plan: RunPlan) -> None:
    plan = replace(SMALL, calibrations=("dark@3",), methods=("percentile",), calib_size=300, eval_size=50)
    _, engine = run_plan(plan)
    parts = [job.part for job in engine.done if job.part is not None]
    assert parts == [(0, 2), (1, 2)]
    context = open_context(plan, "builtin", Cache(tmp_path))
    recipe = context.recipe(plan.grid[0])
    samples = context.draw(recipe)
    merged, _ = context.statistics(recipe, samples)
    assert merged is not None
    whole = observe(context.folded, {"": samples}, context.tensors, histograms=True)
    for name, statistics in {"merged": merged, "whole": whole}.items():
        CalibrationStatistics(statistics.environments, statistics.samples).save(tmp_path / name)
    assert (tmp_path / "merged").read_bytes() == (tmp_path / "whole").read_bytes()


def test_a_dry_run_makes_no_cell_and_its_counts_add_up(begun: Path) -> None:
    with Store(Cache(begun)) as store:
        engine = InlineEngine()
        before = store.study("last").cells
        ahead = look_ahead(open_grid(SMALL, store, engine), store, engine)
        assert (ahead.cells, ahead.distinct, ahead.known, ahead.todo) == (4, 4, 2, 2)
        assert ahead.seconds and ahead.seconds > 0 and ahead.measured_seconds > 0
        assert store.study("last").cells == before and engine.cells == list(SMALL.grid[2:])


def test_a_dry_run_of_what_is_known_measures_nothing(copied: Path) -> None:
    with Store(Cache(copied)) as store:
        engine = InlineEngine()
        ahead = look_ahead(open_grid(SMALL, store, engine), store, engine)
    assert (ahead.known, ahead.todo, ahead.seconds, engine.done) == (4, 0, None, [])


PARTS = {
    part: 10.0**place
    for place, part in enumerate(
        ("start", "opened", "warm", "draw", "pass", "minmax", "dearest", "row", "reference", "judge"), start=1
    )
}
"""Seconds of each part of a sweep; rows and samples in a pass taken together. A digit of a sum counts one part."""

COSTS = Costs(
    opened=PARTS["opened"],
    warm=PARTS["warm"],
    draws={"clean": PARTS["draw"]},
    sample=PARTS["pass"] / 16,
    quantize={("minmax", "cpu"): PARTS["minmax"], ("entropy", "cpu"): PARTS["dearest"]},
    row=PARTS["row"] / 200,
    row_bytes=1.0,
    reference=PARTS["reference"] / 200,
    judge={"cpu": PARTS["judge"] / 200},
    count=16,
    spent=5.0,
)

ONE_SET = {"draw": 1, "pass": 1, "minmax": 1, "dearest": 2, "judge": 3}
"""Three methods share a draw and a pass; the one that was not measured is as dear as the dearest."""

TWO_SETS = {part: 2 * times for part, times in ONE_SET.items()}


@pytest.mark.parametrize(
    ("known", "workers", "row_bytes", "times"),
    [
        pytest.param(True, 2, 1.0, {"start": 2, "opened": 2, "warm": 1, "row": 1, **ONE_SET}, id="FP32 is known"),
        pytest.param(
            False,
            2,
            1.0,
            {"start": 2, "opened": 2, "reference": 1, "warm": 1, "row": 2, **ONE_SET},
            id="FP32 first, then a set on the other worker",
        ),
        pytest.param(
            True,
            1,
            1.0,
            {"start": 1, "opened": 1, "warm": 1, "row": 1, **TWO_SETS},
            id="to find FP32 warms nothing up and reads no row",
        ),
        pytest.param(
            False,
            1,
            1.0,
            {"start": 1, "opened": 1, "reference": 1, "warm": 1, "row": 1, **TWO_SETS},
            id="rows that FP32 was judged on are kept",
        ),
        pytest.param(
            False,
            1,
            float(KEPT_BYTES),
            {"start": 1, "opened": 1, "reference": 1, "warm": 1, "row": 3, **TWO_SETS},
            id="rows that are too large to keep are read by each job",
        ),
    ],
)
def test_an_estimate_adds_up_what_the_jobs_of_a_sweep_would_cost(
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    known: bool,
    workers: int,
    row_bytes: float,
    times: dict[str, int],
) -> None:
    plan = replace(SMALL, calibrations=("noisy",), methods=("minmax", "entropy", "mse"), seeds=(1, 2))
    monkeypatch.setattr("onnxptq.sweeps.job.measure", lambda *given: replace(COSTS, row_bytes=row_bytes))
    ticks = itertools.count(step=15.0)
    monkeypatch.setattr("onnxptq.sweeps.ahead.time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    if not known:
        shutil.rmtree(copied / "v1/predictions")
    with Store(Cache(copied)) as store:
        engine = InlineEngine(workers=workers)
        seconds = look_ahead(open_grid(plan, store, engine), store, engine).seconds
    assert seconds == sum(PARTS[part] * count for part, count in times.items())


@pytest.mark.parametrize("torch", ["", "2.0"])
def test_what_takes_long_is_not_measured_whatever_is_installed(torch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxptq.quantization.plugins._version", lambda name: torch)
    quick = WeightTransform("test-quick", "x", "x", lambda *given: None, libraries=("scipy",))
    monkeypatch.setitem(WEIGHT_TRANSFORMS._entries, quick.name, quick)
    recipe = recipe_of(SMALL, SMALL.grid[0])
    steps = {"adaround": True, "bias-correction": False, "test-quick": False}
    assert {name: is_learned(replace(recipe, weight_transforms=(Step.of(name),))) for name in steps} == steps
    assert not is_learned(recipe)


def test_a_dry_run_survives_sets_that_cannot_be_drawn(copied: Path) -> None:
    with Store(Cache(copied)) as store:
        engine = InlineEngine()
        plan = replace(SMALL, calibrations=("single-class:10",), methods=("minmax",))
        ahead = look_ahead(open_grid(plan, store, engine), store, engine)
        assert (ahead.todo, ahead.seconds) == (1, None)
        assert "has no class '10'" in ahead.not_measured["builtin"]


def test_a_dry_run_names_the_models_that_are_not_in_its_estimate(
    tmp_path: Path, save_classifier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np

    def measured(context: Any, cells: Any, opened: float) -> Costs:
        if context.name == refused:
            raise DataError("nothing fits")
        return COSTS

    monkeypatch.setattr("onnxptq.sweeps.job.measure", measured)
    rows = np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=rows, y=np.arange(200) % 4)
    models = [str(save_classifier(f"{name}.onnx", seed=seed)) for seed, name in enumerate(("good", "bad", "deadly"))]
    _, refused, deadly = models
    plan = Plan(models=tuple(models), data=str(tmp_path / "data.npz"), corruptions=("clean",), calib_size=16)
    with Store(Cache(tmp_path / "store")) as store:
        engine = InlineEngine(deadly=frozenset(key for key in plan.grid if key.model == deadly))
        ahead = look_ahead(open_grid(plan, store, engine), store, engine)
    assert ahead.seconds and ahead.todo == 3
    assert ahead.not_measured == {refused: "nothing fits", deadly: "its worker was killed by SIGSEGV"}
    assert ahead.to_dict()["not_measured"] == ahead.not_measured


def test_progress_is_estimated_for_each_method_by_its_own_cells(finished: Path) -> None:
    cheap, dear, *_ = load_study("last", finished).cells
    measured = [replace(cheap, seconds={"quantize": 1.0}), replace(dear, seconds={"quantize": 9.0})]
    assert estimate([dear.key] * 4, measured, workers=2) == 18.0
    assert estimate([cheap.key, dear.key], measured, workers=1) == 10.0
    assert estimate([cheap.key], [], workers=1) is None


def test_only_cells_that_pytorch_rounds_are_keyed_by_its_version(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(SMALL, calibrations=("clean",), methods=("minmax", "adaround:iterations=0"))
    keys = []
    for version in ("", "2.0", "2.1"):
        monkeypatch.setattr("onnxptq.quantization.plugins._version", lambda name, version=version: version)
        with Store(Cache(begun)) as store:
            keys.append(list(open_grid(plan, store, InlineEngine()).keys.values()))
    plain, rounded = zip(*keys, strict=True)
    assert len(set(plain)) == 1 and len(set(rounded)) == 3


def test_resume_finds_the_run_that_did_not_finish(begun: Path) -> None:
    with Store(Cache(begun)) as store:
        assert store.unfinished(None) == SMALL
        with pytest.raises(UsageError, match="no run of this plan"):
            store.unfinished(replace(SMALL, calib_size=17))


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """No file of this process grows beyond `size` bytes: as on a full disk."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_stops_the_sweep_and_it_goes_on_when_there_is_space(begun: Path, run_plan: RunPlan) -> None:
    stored = {begun / cell.predictions for cell in load_study("last", begun).cells}
    for path in {*begun.glob("v1/predictions/*/*")} - stored:
        path.unlink()
    with largest_file(4096), pytest.raises(OutputError):
        run_plan()
    assert len(load_study("last", begun).cells) == 2, "what was stored stays"
    assert not list(begun.rglob("*.part")), "and nothing half written does"
    study, engine = run_plan()
    assert len(engine.cells) == 2 and all(cell.status == DONE for cell in study.cells)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_that_is_killed_is_replaced(begun: Path) -> None:
    with LocalEngine(1) as engine:
        engine.submit(SweepJob(SMALL, "builtin", (), begun, 1))
        os.kill(engine._pool[0].process.pid or 0, signal.SIGKILL)
        outcome = engine.wait()
        assert outcome.died == "was killed by SIGKILL" and outcome.error is None
        with Store(Cache(begun)) as store:
            sweep(open_grid(SMALL, store, engine), store, engine)
    assert [cell.status for cell in load_study("last", begun).cells] == [DONE] * 4


_SWEEP = """
import sys
from pathlib import Path

from onnxptq.cache import Cache
from onnxptq.sweeps.kept_samples import KEPT_BYTES
from onnxptq.sweeps.local import LocalEngine
from onnxptq.sweeps.run import open_grid, sweep
from onnxptq.sweeps.store import Store


class Loud(LocalEngine):
    def submit(self, job):
        super().submit(job)
        print(self._pool[0].process.pid, flush=True)


if __name__ == "__main__":
    store, engine = Store(Cache(Path(sys.argv[1]))), Loud(1)
    sweep(open_grid(store.unfinished(None), store, engine), store, engine)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_sweep_that_was_killed_goes_on_and_leaves_no_worker_behind(begun: Path, run_plan: RunPlan) -> None:
    (begun / "sweep.py").write_text(_SWEEP)
    command = [sys.executable, begun / "sweep.py", begun]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        worker = int(killed.stdout.readline())
        killed.kill()
    assert _ends(worker)
    study, engine = run_plan()
    assert len(engine.cells) == 2 and [cell.status for cell in study.cells] == [DONE] * 4


def _ends(process: int) -> bool:
    for _ in range(600):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        state = Path(f"/proc/{process}/stat")
        if state.exists() and state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False
