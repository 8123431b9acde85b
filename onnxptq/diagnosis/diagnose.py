"""`onnxptq diagnose`: which tensors and nodes of an INT8 file harm the worst group, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.cache import Cache, user_cache
from onnxptq.diagnosis.effects import effect_of
from onnxptq.diagnosis.float_nodes import Wishes, read_wishes
from onnxptq.diagnosis.measure import Tensors, VariantRunner
from onnxptq.diagnosis.mixed import find_budget
from onnxptq.diagnosis.pairs import Pair, PairedFile, node_key, read_pairs
from onnxptq.diagnosis.result import Budget, Diagnosis, Effect, NodeEffect, TensorEffect
from onnxptq.diagnosis.samples import Halves, Part, halve
from onnxptq.errors import ModelError, UsageError
from onnxptq.evaluation import EvaluationSamples, ModelUnderTest, Predictions, predict
from onnxptq.evaluation.groups import default_groupings
from onnxptq.evaluation.measures import Measure, measure_of
from onnxptq.evaluation.paired import share_changed
from onnxptq.evaluation.sanity import reference_notes
from onnxptq.files import check_writable
from onnxptq.graphs import Model, fold, load_model, read_provenance
from onnxptq.graphs.load import check_quantizable
from onnxptq.graphs.modernize import in_opset
from onnxptq.graphs.parts import opset_of
from onnxptq.inputs import DataOptions
from onnxptq.judging import JudgingOptions, check_same_outputs, samples_to_judge_on
from onnxptq.progress import Progress, counted, silent
from onnxptq.quantization.static import quantizer_settings

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class DiagnoseSettings:
    """How much is looked at, and what is to be found.

    Attributes:
        groups: groupings; none is `label*corruption`, or `corruption` without labels.
        screened: original samples of each group (corruptions aside) that every variant sees.
        per_group: those that the finalists see, and the search for a budget.
        finalists: how many tensors, and how many nodes, are measured again on `per_group`.
        cumulative: also quantize from the inputs up to each tensor.
        budget: limit of the worst group's cross-fitted drop, a fraction; None searches nothing.
        output: where the file with nodes in float goes; None writes none.
        force: replace an existing file.
        speed: measure the latency of the file with nodes in float.
    """

    groups: tuple[str, ...] = ()
    screened: int = 12
    per_group: int = 40
    finalists: int = 10
    cumulative: bool = True
    budget: float | None = None
    output: Path | None = None
    force: bool = False
    speed: bool = True


def diagnose(
    reference: str | Path,
    model: str | Path,
    *,
    data: str | None = None,
    corruptions: Sequence[str] | None = None,
    options: DataOptions | None = None,
    settings: DiagnoseSettings | None = None,
    progress: Progress = silent,
) -> Diagnosis:
    """Ranks the tensors and nodes of an INT8 file by what they do to the worst group.

    Args:
        reference: the FP32 model that it was made from.
        model: the INT8 file, in QDQ form; `onnxptq` or any other tool may have made it.
        data: what to judge on; None is the built-in data, for its models.
        corruptions: to judge under, beside clean; None is the task's default list.
        options: the data and how to read it.
        settings: how much is looked at; None is the default.
        progress: called as work goes on.

    Raises:
        OnnxptqError: the input is wrong; nothing was written.
    """
    settings = settings or DiagnoseSettings()
    judging = JudgingOptions.of(data=data, options=options, groups=settings.groups, corruptions=corruptions)
    _check(settings)
    cache = user_cache()
    float_model, int8 = load_model(Path(reference)), load_model(Path(model))
    check_quantizable(float_model)
    check_same_outputs(float_model, [int8])
    samples, warnings = samples_to_judge_on([int8, float_model], judging, cache)
    found = diagnose_on(float_model, int8, samples, settings, judging, cache, progress)
    return replace(found, warnings=(*found.warnings, *warnings))


def diagnose_on(
    float_model: Model,
    int8: Model,
    samples: EvaluationSamples,
    settings: DiagnoseSettings,
    judging: JudgingOptions,
    cache: Cache,
    progress: Progress,
) -> Diagnosis:
    """Ranks tensors and nodes as `diagnose` does, on samples that somebody chose; arguments and errors as there."""
    halves = halve(samples, settings.groups)
    runner = _variant_runner(float_model, int8, cache)
    if settings.budget is not None:
        _check_explained(int8, runner.paired, 0.0)
    wishes = _wishes(runner, int8)
    session = _Session(runner, wishes, halves, settings, progress)
    tensors, nodes = session.rank()
    whole, explained, unexplained, measure = session.whole(int8)
    budget: Budget | None = None
    if settings.budget is not None:
        _check_explained(int8, runner.paired, unexplained)
        budget = find_budget(runner, wishes, halves, settings, [*tensors, *nodes], int8, judging.data, progress)
    return Diagnosis(
        reference=float_model.path.name,
        model=int8.path.name,
        measure=measure.name,
        groupings=tuple(settings.groups or default_groupings(samples.groups)),
        screened=min(settings.screened, settings.per_group),
        per_group=settings.per_group,
        int8=whole,
        explained=explained,
        unexplained=unexplained,
        tensors=tensors,
        nodes=nodes,
        unpaired=runner.paired.unpaired,
        budget=budget,
        warnings=session.reference_notes(),
    )


def _check(settings: DiagnoseSettings) -> None:
    if settings.screened < 4 or settings.per_group < 4:
        raise UsageError(
            f"at least 4 samples a group are needed to choose and to score, got {settings.per_group} "
            f"(screened: {settings.screened}). Usual: 40."
        )
    if settings.finalists < 1:
        raise UsageError(f"at least one tensor must be ranked, got {settings.finalists}. Usual: 10.")
    if settings.budget is not None and not 0 <= settings.budget < 1:
        raise UsageError(f"--budget must be from 0 to 100 points, got {100 * settings.budget:g}. Usual: 2.")
    if settings.output is not None:
        if settings.budget is None:
            raise UsageError("-o writes the file that --budget finds; give --budget POINTS, or leave out -o.")
        check_writable(settings.output)


_EXPLAINED = 0.05
"""Share of samples on which the file may predict otherwise than its pairs do, for a file to be made of the pairs."""


def _check_explained(int8: Model, paired: PairedFile, unexplained: float) -> None:
    """Raises ModelError where a file made of the pairs would not be the INT8 file with some nodes in float."""
    if paired.unpaired:
        raise ModelError(
            f"--budget makes a file of the tensors that {int8.path} quantizes, but {len(paired.unpaired)} of them have "
            f"no partner in the FP32 model ({paired.unpaired[0]}). Give the FP32 model that it was made from, or rank "
            "without --budget."
        )
    if unexplained > _EXPLAINED:
        raise ModelError(
            f"{int8.path} predicts otherwise on {100 * unexplained:.0f} % of the samples than the tensors that it "
            "quantizes explain, so something else was changed in it too. Give the FP32 model that it was made from, or "
            "rank without --budget."
        )


def _variant_runner(reference: Model, int8: Model, cache: Cache) -> VariantRunner:
    """The folded float model, or the model itself where the file has more in common with that.

    Raises:
        ModelError: the two files have no tensor in common, or the INT8 file is not in QDQ form.
    """
    import onnx

    quantized = onnx.load(str(int8.path))
    best: tuple[int, onnx.ModelProto, PairedFile] | None = None
    # Ours are made from the folded model; `quantize_static` is often called without folding.
    for path in (fold(reference, cache), reference.path):
        base = onnx.load(str(path))
        if opset_of(base) < opset_of(quantized):
            opset = opset_of(quantized)
            remedy = f"The INT8 model is of opset {opset}: export the FP32 model in that, or quantize it again."
            base = in_opset(base, opset, reference.path, remedy)
        paired = read_pairs(base, quantized)
        if best is None or len(paired.pairs) > best[0]:
            best = (len(paired.pairs), base, paired)
        if not paired.unpaired:
            break
    assert best is not None
    if not best[2].pairs:
        raise ModelError(
            f"no quantized tensor of {int8.path} has a partner in {reference.path}: {best[2].unpaired[0]}. Expected "
            "tensors of the same names. Give the FP32 model that the INT8 file was made from."
        )
    return VariantRunner(reference, best[1], quantized, best[2], cache)


def _wishes(runner: VariantRunner, int8: Model) -> Wishes:
    """Who wants which tensor quantized; an INT8 file of ours says what its recipe and target left in float."""
    provenance = read_provenance(int8.metadata)
    in_float: Iterable[str] = ()
    without_output: Iterable[str] = ()
    if provenance is not None:
        settings = quantizer_settings(provenance.recipe, fold(runner.reference, runner.cache))
        in_float = settings.nodes_to_exclude
        without_output = settings.extra_options.get("OpTypesToExcludeOutputQuantization") or ()
    return read_wishes(runner.base, runner.paired.pairs, frozenset(in_float), frozenset(without_output))


@dataclass
class _Session:
    """One ranking: variants, the samples that they run on, and the bar."""

    runner: VariantRunner
    wishes: Wishes
    halves: Halves
    settings: DiagnoseSettings
    progress: Progress
    _reference: dict[int, tuple[Part, Predictions]] = field(default_factory=dict)

    def rank(self) -> tuple[tuple[TensorEffect, ...], tuple[NodeEffect, ...]]:
        """All tensors and nodes, the most harmful first: screened on few samples, the finalists on more."""
        pairs = self.runner.paired.pairs
        up_to = _prefixes(pairs)
        at_node = {node: _at(node, self.runner.base, pairs) for node in self.wishes.nodes}
        at_node = {node: tensors for node, tensors in at_node.items() if tensors}
        alone = [Tensors([pair.tensor]) for pair in pairs]
        sums = [up_to[p.tensor] for p in pairs if p.kind == "activation"] if self.settings.cumulative else []
        few = min(self.settings.screened, self.settings.per_group)
        found = self._effects([*alone, *at_node.values(), *sums], few, "screening")
        # Again on more samples; both rankings are of the whole list, so that the finalists come first in it.
        finalists = [*_first(alone, found, self.settings.finalists)]
        finalists += _first(list(at_node.values()), found, self.settings.finalists)
        if self.settings.per_group > few:
            found = {**found, **self._effects(finalists, self.settings.per_group, "measuring finalists")}
        chosen = set(finalists)
        tensors = [self._tensor(pair, found, up_to) for pair in pairs]
        nodes = [self._node(node, tensors_, found, up_to) for node, tensors_ in at_node.items()]
        return (
            tuple(sorted(tensors, key=lambda t: _order(t.isolated, Tensors([t.tensor]) in chosen))),
            tuple(sorted(nodes, key=lambda n: _order(n.isolated, at_node[n.node] in chosen))),
        )

    def whole(self, int8: Model) -> tuple[Effect, Effect, float, Measure]:
        """The INT8 file, the float model with every pair put back, where the two disagree; and the measure."""
        part, reference = self._on(self.settings.per_group)
        samples = part.samples
        (back,) = self.runner.run([Tensors(pair.tensor for pair in self.runner.paired.pairs)], samples)
        run = predict([ModelUnderTest(self.runner.reference), ModelUnderTest(int8)], samples, self.runner.cache)[1]
        unexplained = share_changed(back, run)
        groups = self.settings.groups
        whole, explained = (effect_of(reference, one, part.weights, groups) for one in (run, back))
        return whole, explained, unexplained, measure_of(run)

    def reference_notes(self) -> tuple[str, ...]:
        """One line where the float model itself knows nothing of the samples."""
        return reference_notes(self._on(self.settings.per_group)[1])

    def _effects(self, variants: Sequence[Tensors], per_group: int, stage: str) -> dict[Tensors, Effect]:
        part, reference = self._on(per_group)
        count = counted(self.progress, stage, len(variants))
        runs = self.runner.run(variants, part.samples, count)
        effects = (effect_of(reference, run, part.weights, self.settings.groups) for run in runs)
        return dict(zip(variants, effects, strict=True))

    def _on(self, per_group: int) -> tuple[Part, Predictions]:
        if per_group not in self._reference:
            part = self.halves.few(per_group)
            self._reference[per_group] = (part, self.runner.float_run(part.samples))
        return self._reference[per_group]

    def _tensor(self, pair: Pair, found: dict[Tensors, Effect], up_to: dict[str, Tensors]) -> TensorEffect:
        low, high = pair.range or (None, None)
        wanted = self.wishes.wanted_by[pair.tensor]
        return TensorEffect(
            tensor=pair.tensor,
            kind=pair.kind,
            made_by=_made_by(pair, self.runner.base),
            low=low,
            high=high,
            isolated=found[Tensors([pair.tensor])],
            cumulative=found.get(up_to[pair.tensor]) if pair.kind == "activation" else None,
            wanted_by=tuple(node for node in self.wishes.nodes if node in wanted),
        )

    def _node(self, node: str, tensors: Tensors, found: dict[Tensors, Effect], up_to: dict[str, Tensors]) -> NodeEffect:
        ordered = [pair for pair in self.runner.paired.pairs if pair.tensor in tensors]
        last = next((pair for pair in reversed(ordered) if pair.kind == "activation"), None)
        return NodeEffect(
            node=node,
            operator=next(n.op_type for n in self.runner.base.graph.node if node_key(n) == node),
            isolated=found[tensors],
            cumulative=None if last is None else found.get(up_to[last.tensor]),
            tensors=tuple(pair.tensor for pair in ordered),
        )


def _order(effect: Effect, is_finalist: bool) -> tuple[bool, float, float, float]:
    """Finalists first, then by harm; where that is equal, the noisier output in the worst group first."""
    noise = float("inf") if effect.group_sqnr_db is None else effect.group_sqnr_db
    return not is_finalist, -effect.harm, -effect.mean_harm, noise


def _first(variants: Sequence[Tensors], found: dict[Tensors, Effect], count: int) -> list[Tensors]:
    return sorted(variants, key=lambda variant: _order(found[variant], True))[:count]


def _prefixes(pairs: Sequence[Pair]) -> dict[str, Tensors]:
    """For each tensor all that is quantized from the inputs up to it."""
    return {pair.tensor: Tensors(p.tensor for p in pairs[: number + 1]) for number, pair in enumerate(pairs)}


def _at(node: str, base: onnx.ModelProto, pairs: Sequence[Pair]) -> Tensors:
    """What is quantized at a node: what it reads and gives, its output after a Relu or Clip where that is the one."""
    paired = {pair.tensor: pair for pair in pairs}
    found = next(n for n in base.graph.node if node_key(n) == node)
    read = [name for name in found.input if name in paired and node not in paired[name].float_readers]
    given = [name for name in found.output if name in paired]
    if not given:
        after = [n for n in base.graph.node if n.op_type in ("Relu", "Clip") and n.input[0] in found.output]
        given = [name for n in after for name in n.output if name in paired]
    return Tensors([*read, *given])


def _made_by(pair: Pair, base: onnx.ModelProto) -> str:
    for node in base.graph.node:
        if pair.tensor in (node.output if pair.kind == "activation" else node.input):
            return f"{node.op_type} {node_key(node)}"
    return "input"
