"""What a diagnosis found: plain records, with their JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from onnxptq.runtimes.latency import Latency

DIAGNOSIS_VERSION = 1


@dataclass(frozen=True)
class Effect:
    """What a variant does compared with the float model. Drops, flips and harm are fractions.

    Attributes:
        harm: of the worst group, cross-fitted: smooth drop (`diagnosis.effects`).
        drop: of the worst group, cross-fitted: drop in accuracy.
        mean_harm, average_drop: smooth drop, and drop in accuracy, of all samples, in the proportions of the data.
        group: the group that loses most in accuracy: the one that random halves call worst most often, as in
            `onnxptq check`; harm decides where groups lose alike.
        group_drop, group_flips: of that group, on all samples.
        group_sqnr_db: 10 log10(signal / error) of the outputs in that group; None where they are equal.
        flips: share of all samples whose prediction changed, in the proportions of the data.
        sources, samples: original samples and rows that it was measured on.
        drop_low, drop_high: 95 % interval of `drop`.
    """

    harm: float
    drop: float
    mean_harm: float
    average_drop: float
    group: str
    group_drop: float
    group_flips: float
    group_sqnr_db: float | None
    flips: float
    sources: int
    samples: int
    drop_low: float = math.nan
    drop_high: float = math.nan

    @property
    def surely_loses(self) -> bool:
        """Whether some group loses for sure: the interval of the worst group's drop lies above 0."""
        return self.drop_low > 0


@dataclass(frozen=True)
class TensorEffect:
    """One tensor that the INT8 file quantizes.

    Attributes:
        tensor: its name in the float model.
        kind: "activation" or "constant".
        made_by: operator and name of the node that computes it, or that reads a constant first.
        low, high: the range that its integers hold; None where scales differ by channel.
        isolated: only this tensor quantized.
        cumulative: all tensors quantized from the inputs up to this one; activations only.
        wanted_by: names of the nodes that must be in float for it to be.
    """

    tensor: str
    kind: str
    made_by: str
    low: float | None
    high: float | None
    isolated: Effect
    cumulative: Effect | None
    wanted_by: tuple[str, ...]


@dataclass(frozen=True)
class NodeEffect:
    """One node with all that the INT8 file quantizes at it: inputs, weights, outputs.

    Attributes:
        node: its name, or its first output where it has none.
        operator: its operator.
        isolated: only this node quantized.
        cumulative: all tensors quantized from the inputs up to its last output.
        tensors: what is quantized at it.
    """

    node: str
    operator: str
    isolated: Effect
    cumulative: Effect | None
    tensors: tuple[str, ...]


@dataclass(frozen=True)
class MixedSpeed:
    """Latency of one call at batch 1 (or the batch that the model has fixed), timed in turns in one run.

    Attributes:
        fp32, int8, mixed: of the float model, the INT8 file and the file with nodes in float.
        predicted: seconds at p50 of `mixed`: int8 plus the float nodes' share of the multiply-adds of what FP32 takes
            longer.
    """

    fp32: Latency
    int8: Latency
    mixed: Latency
    predicted: float


@dataclass(frozen=True)
class BudgetStep:
    """One step of the search: these nodes in float, and what was left of the drop on the searching half."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    drop: float
    harm: float


@dataclass(frozen=True)
class Budget:
    """Which nodes to keep in float so that the worst group's drop is under a limit.

    Attributes:
        limit: of the cross-fitted worst-group drop, a fraction.
        reached: on the half that verifies, a loss beyond the limit and `onnxptq check`'s margin for groups is ruled
            out; None where it held on the half that was searched and the other can tell neither that nor that the limit
            is broken, so that more samples have to.
        found: the limit was reached on the half that was searched.
        float_nodes: names, in the order of the graph.
        float_tensors: what is not quantized any more.
        predicted_drop: on the searching half.
        measured_drop, measured_low, measured_high: of the written file on the verifying half, with its 95 % interval.
        measured_possible: what the worst group of that half may lose, the largest upper end of a group's interval.
        before_drop: of the INT8 file as it was, on the verifying half.
        steps: of the search.
        speed: None where it was not asked for or nothing was written.
        int8_bytes, mixed_bytes: size of the files.
        output: the file, or None where nothing was written.
        recipe: the recipe that makes the same file, beside it; None where the INT8 file does not say how it was made.
        command: what repeats it, or None.
    """

    limit: float
    reached: bool | None
    found: bool
    float_nodes: tuple[str, ...]
    float_tensors: tuple[str, ...]
    predicted_drop: float
    measured_drop: float
    measured_low: float
    measured_high: float
    measured_possible: float
    before_drop: float
    steps: tuple[BudgetStep, ...]
    speed: MixedSpeed | None = None
    int8_bytes: int = 0
    mixed_bytes: int | None = None
    output: str | None = None
    recipe: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What the quantized tensors and nodes of one INT8 file do to the worst group.

    Attributes:
        reference, model: names of the files.
        measure: "accuracy", or "agreement" with FP32 where the data has no labels.
        groupings: what the groups are.
        screened, per_group: original samples of each group (corruptions aside) that all variants, and that the
            finalists were measured on.
        int8: the INT8 file itself, on the finalists' samples.
        explained: the float model with every pair put back: what the pairs explain of `int8`.
        unexplained: share of samples on which those two predict differently.
        tensors, nodes: most harmful first.
        unpaired: one line for each quantized tensor without a partner in the float model.
        budget: None where no budget was given.
        warnings: one line each.
    """

    reference: str
    model: str
    measure: str
    groupings: tuple[str, ...]
    screened: int
    per_group: int
    int8: Effect
    explained: Effect
    unexplained: float
    tensors: tuple[TensorEffect, ...]
    nodes: tuple[NodeEffect, ...]
    unpaired: tuple[str, ...]
    budget: Budget | None
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """As JSON types; what is not a finite number becomes None. Keys are stable (docs/diagnose.md)."""
        value: dict[str, Any] = _plain({"diagnosis_version": DIAGNOSIS_VERSION, **asdict(self)})
        return value

    def rows(self) -> list[dict[str, Any]]:
        """One flat row a tensor and a node, for a table: `isolated.harm` is the column `isolated_harm`."""
        tensors = [_flat(rank, one.kind, one.tensor, one) for rank, one in enumerate(self.tensors, 1)]
        return tensors + [_flat(rank, "node", one.node, one) for rank, one in enumerate(self.nodes, 1)]


def _flat(rank: int, kind: str, name: str, one: TensorEffect | NodeEffect) -> dict[str, Any]:
    row: dict[str, Any] = {"rank": rank, "kind": kind, "name": name}
    for which, effect in (("isolated", one.isolated), ("cumulative", one.cumulative)):
        for field in fields(Effect):
            row[f"{which}_{field.name}"] = None if effect is None else getattr(effect, field.name)
    plain: dict[str, Any] = _plain(row)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
