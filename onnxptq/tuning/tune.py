"""`onnxptq tune`: which method makes a file that passes, what must stay in float where none does, and the proof.

Choosing among many flatters the one that is chosen, so the samples to judge on are halved by source once: every choice
is made on one half, and the winner alone is judged on the other, which no choice has seen.

1. FP32 itself must pass the policy, or nothing can.
2. One calibration pass serves every method; each writes its file into a temporary folder.
3. Where there are enough samples, all candidates run on a quarter of the first half, and the best two on all of it
   (successive halving: Jamieson and Talwalkar, 2016, arXiv 1502.07943).
4. Where every candidate fails, the fewest nodes are searched that must stay in float for the best one to keep the
   policy's limit (`onnxptq.diagnosis`).
5. The best candidate is judged on the second half, and handed over unless it fails there.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from onnxptq.cache import Cache, user_cache
from onnxptq.calibration import draw_from, resolve_calibration
from onnxptq.calibrators import CalibrationSamples, CalibrationSet
from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.comparison.multiply_adds import multiply_adds, share_of
from onnxptq.diagnosis import DiagnoseSettings, diagnose_on
from onnxptq.diagnosis.samples import Halves, halve
from onnxptq.errors import ModelError, UsageError, WrittenFileError
from onnxptq.evaluation import EvaluationSamples, Predictions, Report
from onnxptq.evaluation.paired import measure_named, paired
from onnxptq.evaluation.totals import totals_by_name
from onnxptq.files import check_free
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.named_policies import find_policy
from onnxptq.gates.policy import Policy, policy_to_dict, settle
from onnxptq.gates.rules import judge as judge_rules
from onnxptq.gates.rules import rules_on
from onnxptq.gates.verdict import RuleResult, Verdict, overall
from onnxptq.graphs import Model, fold
from onnxptq.graphs.external import install
from onnxptq.heads import RAW
from onnxptq.inputs import DataOptions, Inputs
from onnxptq.int8_file import default_name, make_int8, open_written, provenance_of
from onnxptq.judging import JudgingOptions, evaluation_samples, judge
from onnxptq.methods import apply_method, fitted, method_label
from onnxptq.progress import Progress, silent
from onnxptq.quantization.canonical import canonical
from onnxptq.quantization.static import quantizer_settings
from onnxptq.quantization.verify import verify_int8
from onnxptq.recipe import Recipe
from onnxptq.runtimes.selection import CPU
from onnxptq.tuning.result import Candidate, Tuned

METHODS = ("minmax", "percentile", "mse", "entropy", "robust")
"""What is tried where nobody says: methods that need one calibration pass and no training."""

_RACED = 400
"""Original samples in the first half from which a quarter of them tells good candidates from bad ones."""

_FINALISTS = 2

_ORDER = {Verdict.PASSED: 0, Verdict.UNDECIDED: 1, Verdict.FAILED: 2}


def tune(
    model: str | Path | None = None,
    *,
    data: str | None = None,
    calib: str = "clean",
    calib_size: int | None = None,
    seed: int = 0,
    methods: Sequence[str] = METHODS,
    target: str = "cpu",
    policy: str | Path | Policy | None = None,
    groups: Sequence[str] = (),
    corruptions: Sequence[str] | None = None,
    options: DataOptions | None = None,
    output: str | Path | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Tuned:
    """Finds an INT8 file that passes a policy, and judges it on samples that no choice has seen.

    Args:
        model: path of the FP32 model; None is the built-in one with its data.
        data: one source for calibration and judging; see `options` for more.
        calib, calib_size, seed: the calibration set, its size, and the seed of the draw.
        methods: what is tried, each by name.
        target: what the deployment needs of the graph.
        policy: the rules; None is the default of `check`.
        groups: groupings, instead of the policy's.
        corruptions: to judge under, beside clean; None is the task's default list.
        options: sources of the two sides, columns, preprocessing.
        output: the file to write; None is a name made of model, calibration set and method.
        force: replace an existing file.
        progress: called as work goes on.

    Raises:
        UsageError: FP32 itself fails the policy, or a rule is not one of predictions, file or graph.
        OnnxptqError: the input is wrong; nothing was written.
    """
    if not methods:
        raise UsageError("give at least one method to try.")
    cache = user_cache()
    judging = JudgingOptions.of(data=data, options=options, groups=groups, corruptions=corruptions)
    rules = policy if isinstance(policy, Policy) or policy is None else find_policy(policy)
    asked = [(name, _recipe(name, calib, calib_size, seed, target)) for name in dict.fromkeys(methods)]
    inputs = resolve_calibration(model, CalibrationSet.parse(calib), judging.data, cache, evaluate=True)
    recipes = [(name, fitted(recipe, inputs.task, calib)) for name, recipe in asked]
    calibration_set = CalibrationSet.parse(recipes[0][1].calibration)
    samples = evaluation_samples(inputs, calibration_set, judging)
    raw = samples.task.head.name == RAW
    rules = settle(rules, judging.groups, labelled=samples.labelled, flips=samples.flips, raw=raw)
    _check_rules(rules)
    if output is not None:
        check_free(Path(output), force, [inputs.model.path])
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        search = _Search(
            inputs=inputs,
            folded=fold(inputs.model, cache),
            drawn=draw_from(inputs, calibration_set, calib_size, seed),
            rules=rules,
            halves=halve(samples, rules.group_by),
            judging=replace(judging, groups=tuple(rules.group_by)),
            folder=Path(folder),
            cache=cache,
            progress=progress,
        )
        search.check_reference()
        found = search.run(recipes)
        winner = found[0] if found[0].verdict is not None else None
        proof, report = ((), None) if winner is None else search.prove(winner)
        verdict = Verdict.FAILED if winner is None else overall(proof)
        path = None
        if winner is not None and verdict is not Verdict.FAILED:
            recipe = search.recipes[winner.name]
            path = Path(output) if output else Path(default_name(inputs, recipe, method_label(winner.method)))
            check_free(path, force, [inputs.model.path])
            install(search.models[winner.name].path, path)
        return Tuned(
            verdict=verdict,
            winner=winner,
            proof=proof,
            proof_drop=math.nan if report is None else report.crossfit_drop,
            proof_low=math.nan if report is None else report.crossfit_drop_low,
            proof_high=math.nan if report is None else report.crossfit_drop_high,
            candidates=tuple(found),
            choice_sources=len(search.choice.dataset),
            proof_sources=len(search.halves.held_out.dataset),
            evaluations=search.rows / len(samples),
            output=path,
            command=None,
            policy=policy_to_dict(rules),
            warnings=tuple(dict.fromkeys((*inputs.warnings, *search.notes))),
        )


@dataclass
class _Search:
    """One tuning: what candidates are made of and judged on, and what was made.

    Attributes:
        models, recipes: of the candidates, by name.
        rows: samples that INT8 models ran on.
    """

    inputs: Inputs
    folded: Path
    drawn: CalibrationSamples
    rules: Policy
    halves: Halves
    judging: JudgingOptions
    folder: Path
    cache: Cache
    progress: Progress
    models: dict[str, Model] = field(default_factory=dict)
    recipes: dict[str, Recipe] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    rows: int = 0

    @cached_property
    def counts(self) -> dict[str, int]:
        """Multiply-adds of each node of the float graph."""
        return multiply_adds(self.folded)

    @cached_property
    def choice(self) -> EvaluationSamples:
        """The half that choices are made on."""
        return replace(self.halves.samples, dataset=self.halves.samples.dataset.select(self.halves.searching))

    def check_reference(self) -> None:
        """Raises UsageError where FP32 itself fails the policy."""
        found = judge(self.inputs.model, [], CPU, self.choice, self.judging, self.cache, self.progress)
        (run,) = found.predictions
        self.notes += found.notes
        for rule in self._ruled(None, run, run):
            if rule.verdict is Verdict.FAILED:
                raise UsageError(
                    f"FP32 itself fails the policy's rule {rule.rule} ({rule.explanation}), so no INT8 file can pass. "
                    "Change the rule, or look at the data and the preprocessing (onnxptq evaluate)."
                )

    def run(self, recipes: Sequence[tuple[str, Recipe]]) -> list[Candidate]:
        """All candidates, the best first."""
        failed: list[Candidate] = []
        # First what counts values: a pass that does serves those that need the extremes alone.
        for name, recipe in sorted(recipes, key=lambda one: not RANGE_METHODS.get(one[1].ranges.name).needs_histogram):
            try:
                self._make(name, recipe)
            except (ModelError, UsageError, WrittenFileError) as error:
                failed.append(Candidate(name, name, reason=str(error)))
        names = [name for name, _ in recipes if name in self.models]
        left: list[Candidate] = []
        if len(names) > _FINALISTS and len(self.choice.dataset) >= _RACED:
            ranked = self._judged(names, self._quarter())
            names, left = [one.name for one in ranked[:_FINALISTS]], ranked[_FINALISTS:]
        found = self._judged(names, self.choice) if names else []
        if found and all(one.verdict is Verdict.FAILED for one in found):
            found = sorted([*found, *self._with_nodes_in_float(found[0])], key=_rank)
        return [*found, *left, *failed]

    def prove(self, winner: Candidate) -> tuple[tuple[RuleResult, ...], Report]:
        """The policy's rules, and the groups, of the winner on the half that no choice has seen."""
        held_out, model = self.halves.held_out, self.models[winner.name]
        found = judge(self.inputs.model, [model], CPU, held_out, self.judging, self.cache, self.progress)
        self.rows += len(held_out)
        return self._ruled(model, *found.predictions), found.reports[0]

    def _make(self, name: str, recipe: Recipe) -> None:
        path = self.folder / f"{len(self.models)}.onnx"
        provenance = provenance_of(self.inputs, recipe, self.drawn)
        notes = make_int8(self.inputs, self.folded, self.drawn, provenance, path, None, self.cache, self.progress)
        made = open_written(path)
        verify_int8(
            self.inputs.model, made, self.folded, self.drawn, recipe.target, same_tensors=not recipe.weight_transforms
        )
        self.models[name], self.recipes[name] = made, recipe
        self.notes += notes

    def _quarter(self) -> EvaluationSamples:
        """A quarter of the half that choices are made on, by content."""
        dataset = self.choice.dataset
        chosen = np.argsort(dataset.fingerprints, kind="stable")[: len(dataset) // 4]
        return replace(self.halves.samples, dataset=dataset.select(np.sort(chosen)))

    def _judged(self, names: Sequence[str], part: EvaluationSamples) -> list[Candidate]:
        models = [self.models[name] for name in names]
        found = judge(self.inputs.model, models, CPU, part, self.judging, self.cache, self.progress)
        self.rows += len(models) * len(part)
        self.notes += found.notes
        base, runs = found.predictions[0], found.predictions[1:]
        return sorted((self._candidate(*one, base) for one in zip(names, runs, found.reports, strict=True)), key=_rank)

    def _candidate(self, name: str, run: Predictions, report: Report, base: Predictions) -> Candidate:
        model, recipe = self.models[name], self.recipes[name]
        return Candidate(
            name=name,
            method=name.partition(" + ")[0],
            float_nodes=recipe.float_nodes,
            int8_share=self._int8_share(recipe),
            bytes=model.size,
            samples=len(run),
            verdict=overall(self._ruled(model, base, run)),
            drop=report.crossfit_drop,
            drop_low=report.crossfit_drop_low,
            drop_high=report.crossfit_drop_high,
            possible=report.possible_drop,
            group=report.largest_drop_group or "",
            average_drop=report.average_drop,
        )

    def _int8_share(self, recipe: Recipe) -> float:
        return 1 - share_of(self.counts, quantizer_settings(recipe, self.folded).nodes_to_exclude)

    def _ruled(self, model: Model | None, base: Predictions, run: Predictions) -> tuple[RuleResult, ...]:
        evidence = Evidence(
            model=model,
            reference=self.inputs.model,
            predictions=run,
            reference_predictions=base,
            pairing=paired(base, run, measure_named(run, self.rules.score), self.rules.group_by),
            totals=totals_by_name(base, run) if self.rules.total_drop else {},
        )
        return judge_rules(self.rules, evidence)

    def _with_nodes_in_float(self, best: Candidate) -> list[Candidate]:
        """The best candidate with the fewest nodes in float that keep the worst group under the policy's limit."""
        rule = self.rules.worst_group_drop
        if rule is None:
            self.notes.append("the policy limits no drop of the worst group, so no nodes were searched for.")
            return []
        settings = DiagnoseSettings(groups=tuple(self.rules.group_by), budget=rule.limit, speed=False, cumulative=False)
        model = self.models[best.name]
        try:
            found = diagnose_on(
                self.inputs.model, model, self.choice, settings, self.judging, self.cache, self.progress
            )
        except ModelError as error:
            self.notes.append(f"nodes to keep in float could not be searched for: {error}")
            return []
        nodes = found.budget.float_nodes if found.budget is not None else ()
        if not nodes:
            return []
        name = f"{best.name} + {len(nodes)} nodes in float"
        recipe = self.recipes[best.name]
        self._make(name, recipe.changed(float_nodes=tuple(dict.fromkeys((*recipe.float_nodes, *nodes)))))
        return self._judged([name], self.choice)


def _rank(one: Candidate) -> tuple[int, float, float]:
    """By verdict, then by how much is quantized, then by what the worst group may lose."""
    verdict = _ORDER[one.verdict] if one.verdict is not None else len(_ORDER)
    share = 0.0 if math.isnan(one.int8_share) else round(one.int8_share, 2)
    lost = next((drop for drop in (one.possible, one.drop, one.average_drop) if not math.isnan(drop)), math.inf)
    return verdict, -share if verdict == 0 else 0.0, lost


def _recipe(method: str, calib: str, size: int | None, seed: int, target: str) -> Recipe:
    return canonical(apply_method(method, Recipe(calibration=calib, size=size, seed=seed, target=target)))


_UNSEARCHED = {"latency", "placement", "provider_agreement", "regression"}


def _check_rules(rules: Policy) -> None:
    """Raises UsageError for rules that need more than predictions and the file."""
    if found := [rule.name for rule, _ in rules_on(rules) if rule.name in _UNSEARCHED]:
        raise UsageError(
            f"the policy has the rule {' and '.join(found)}, which tune does not look at. Leave it out here, and judge "
            "the file that is written with onnxptq check."
        )
