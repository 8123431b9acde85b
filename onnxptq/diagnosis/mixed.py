"""The INT8 file with some nodes in float: searched, written, judged on samples that the search has not seen, timed."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.diagnosis.budget import BudgetSearch, Nodes, search
from onnxptq.diagnosis.cost import measure_cost
from onnxptq.diagnosis.effects import effect_of
from onnxptq.diagnosis.float_nodes import Wishes
from onnxptq.diagnosis.measure import VariantRunner
from onnxptq.diagnosis.result import Budget, Effect, NodeEffect, TensorEffect
from onnxptq.diagnosis.samples import Halves
from onnxptq.evaluation import ModelUnderTest, Report, compare, predict
from onnxptq.files import check_free, replacing
from onnxptq.gates.policy import GROUP_MARGIN
from onnxptq.graphs import Model, Provenance, fold, load_model, read_provenance, write_with_provenance
from onnxptq.graphs.external import install
from onnxptq.inputs import DataOptions
from onnxptq.models import builtin
from onnxptq.progress import Progress

if TYPE_CHECKING:
    from onnxptq.diagnosis.diagnose import DiagnoseSettings

RECIPE_SUFFIX = ".recipe.toml"

_SEARCHED = 2
"""Times the finalists' samples that the search sees: it stops at a drop in accuracy, which is coarser than harm."""


def find_budget(
    runner: VariantRunner,
    wishes: Wishes,
    halves: Halves,
    settings: DiagnoseSettings,
    ranked: Sequence[TensorEffect | NodeEffect],
    int8: Model,
    options: DataOptions,
    progress: Progress,
) -> Budget:
    """Searches on one half, judges on the other; writes the file where it was asked for and the limit holds.

    Args:
        runner: what variants are made of.
        wishes: who wants which tensor quantized.
        halves: the samples.
        settings: limit, output.
        ranked: tensors and nodes with their effects.
        int8: the INT8 file.
        options: the data, for the command that repeats it.
        progress: called as work goes on.

    Raises:
        OutputError: a file is in the way.
    """
    assert settings.budget is not None
    _check_free(settings, int8, runner.reference)
    found = _search(runner, wishes, halves, settings, ranked, progress)
    nodes = tuple(node for node in wishes.nodes if node in found.nodes)
    kept = wishes.kept(found.nodes)
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        path = Path(folder) / (settings.output.name if settings.output else "mixed.onnx")
        provenance = _provenance(int8, nodes)
        _write(runner, kept, provenance, path)
        progress("verifying", 0, 1)
        before, after = _verify(runner, halves, settings, int8, load_model(path))
        progress("verifying", 1, 1)
        reached = _verdict(found, after, settings.budget)
        budget = Budget(
            limit=settings.budget,
            reached=reached,
            found=found.reached,
            float_nodes=nodes,
            float_tensors=tuple(p.tensor for p in runner.paired.pairs if p.tensor not in kept),
            predicted_drop=found.effect.drop,
            measured_drop=after.crossfit_drop,
            measured_low=after.crossfit_drop_low,
            measured_high=after.crossfit_drop_high,
            measured_possible=after.possible_drop,
            before_drop=before.crossfit_drop,
            steps=found.steps,
            int8_bytes=int8.size,
            mixed_bytes=path.stat().st_size,
        )
        if not nodes:
            return budget
        if settings.speed:
            base = fold(runner.reference, runner.cache)
            speed = measure_cost(runner.reference.path, int8.path, path, base, nodes, halves.held_out)
            budget = replace(budget, speed=speed)
        if settings.output is None or reached is False:
            return budget
        install(path, settings.output)
    recipe = _write_recipe(settings.output, provenance)
    command = None if recipe is None or provenance is None else _command(recipe, provenance, runner.reference, options)
    return replace(budget, output=str(settings.output), recipe=None if recipe is None else str(recipe), command=command)


def _verdict(found: BudgetSearch, after: Report, limit: float) -> bool | None:
    """Whether the limit holds on the samples that the search has not seen; None where they are too few to tell.

    The same three answers as those of `onnxptq check`: its margin for groups is what may stay possible.
    """
    if not found.reached or after.crossfit_drop_low > limit:
        return False
    return True if after.possible_drop <= limit + GROUP_MARGIN else None


def _check_free(settings: DiagnoseSettings, int8: Model, reference: Model) -> None:
    if settings.output is None:
        return
    recipe = settings.output.with_name(settings.output.name + RECIPE_SUFFIX)
    for path in (settings.output, recipe):
        check_free(path, settings.force, [int8.path, reference.path])


def _search(
    runner: VariantRunner,
    wishes: Wishes,
    halves: Halves,
    settings: DiagnoseSettings,
    ranked: Sequence[TensorEffect | NodeEffect],
    progress: Progress,
) -> BudgetSearch:
    assert settings.budget is not None
    part = halves.few(_SEARCHED * settings.per_group)
    reference = runner.float_run(part.samples)
    done = 0

    def measure(sets: Sequence[Nodes]) -> list[Effect]:
        nonlocal done
        runs = runner.run([wishes.kept(nodes) for nodes in sets], part.samples)
        done += len(sets)
        progress("searching", done, done)
        return [effect_of(reference, run, part.weights, settings.groups) for run in runs]

    (start,) = measure([Nodes()])
    order = sorted(ranked, key=lambda one: -one.isolated.harm)
    moves: list[str | Nodes] = [one.tensor if isinstance(one, TensorEffect) else Nodes([one.node]) for one in order]
    return search(wishes, moves, settings.budget, start, measure)


def _provenance(int8: Model, nodes: Sequence[str]) -> Provenance | None:
    """The INT8 file's own, with the nodes in its recipe; None where it has none."""
    provenance = read_provenance(int8.metadata)
    if provenance is None:
        return None
    recipe = provenance.recipe
    names = dict.fromkeys((*recipe.float_nodes, *nodes))
    return replace(provenance, recipe=recipe.changed(float_nodes=tuple(names)))


def _write(runner: VariantRunner, kept: frozenset[str], provenance: Provenance | None, path: Path) -> None:
    if provenance is None:
        runner.write(kept, path)
        return
    plain = path.with_name("without-provenance.onnx")
    runner.write(kept, plain)
    write_with_provenance(plain, provenance, path)
    plain.unlink()


def _verify(
    runner: VariantRunner, halves: Halves, settings: DiagnoseSettings, int8: Model, mixed: Model
) -> tuple[Report, Report]:
    """The INT8 file before and after, on the half that the search has not seen."""
    runs = predict(
        [ModelUnderTest(runner.reference), ModelUnderTest(int8), ModelUnderTest(mixed)], halves.held_out, runner.cache
    )
    before, after = (compare(runs[0], run, settings.groups) for run in runs[1:])
    return before, after


def _write_recipe(output: Path, provenance: Provenance | None) -> Path | None:
    """The recipe beside the file; None where it is not known."""
    if provenance is None:
        return None
    recipe = output.with_name(output.name + RECIPE_SUFFIX)
    with replacing(recipe) as temporary:
        temporary.write_text(provenance.recipe.to_toml(), encoding="utf-8")
    return recipe


def _command(recipe: Path, provenance: Provenance, reference: Model, options: DataOptions) -> str:
    """What makes the same model from the float one."""
    words = ["onnxptq", "quantize"]
    if load_model(builtin().model).digest != reference.digest:  # Whose data need not be named.
        words += [str(reference.path), *_data(provenance, options)]
    return shlex.join(
        [
            *words,
            "--recipe",
            str(recipe),
            "-o",
            str(recipe.with_name(f"again.{recipe.name.removesuffix(RECIPE_SUFFIX)}")),
        ]
    )


def _data(provenance: Provenance, options: DataOptions) -> list[str]:
    """The data that calibrated the file, by the name that it has there: its place is not in the file."""
    calibrated, given = str(provenance.data.get("source", "")), str(options.data or "")
    if not calibrated:
        return ["--no-evaluate"]
    here = given if Path(given).name == calibrated else calibrated
    kind = provenance.data.get("split", {}).get("kind")
    if kind == "sources":
        return ["--calib-data", calibrated, "--eval-data", given]
    return ["--calib-data", here, "--no-evaluate"] if kind == "all" else ["--data", here]
