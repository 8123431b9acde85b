"""A bound for attention: what a mask hides needs to be small, not exact.

A transformer hides padding by adding a large negative number (-10000, or the least float) to its scores before the
softmax. Once such a score is in the range, one step of an 8-bit scale is 39 and more: all real scores round to the same
number, and attention becomes a plain mean. Where calibration sees no padding the reverse happens: what is hidden is cut
off at the least real score and is not hidden any more. Neither shows in the average accuracy as it does in a group.

1. The scores' own range [low, high], before the mask, stays as it is.
2. The range of the masked scores becomes [low - MARGIN, high]: what is hidden is cut off at low - MARGIN, and weighs at
   most exp(-MARGIN) of the least real score.
3. The range of what is added becomes at least -(high - low) - MARGIN: from there on every score is hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.calibrators.methods import Range
from onnxptq.graphs.skeleton import skeleton
from onnxptq.graphs.view import GraphView
from onnxptq.quantization.intervals import propagate
from onnxptq.quantization.plugins import BOUNDS, Bound
from onnxptq.tasks import Task

MASKED_SCORES = "masked-scores"

MARGIN = 8.0
"""exp(-8) is 0.0003: a hundred padded tokens together weigh 3 % of the least real one."""

HIDDEN = -1000.0
"""A number from here down that is added to scores is a mask: exp(-1000) is 0 in every float type, while real biases of
attention are a few dozen at most."""


_MASKING = frozenset(
    {
        *("Cast", "Sub", "Mul", "Add", "Where", "Equal", "Not", "And"),
        *("Unsqueeze", "Expand", "Reshape", "Transpose", "Slice"),
    }
)
"""Operators between the mask that a model is given and what it adds to its scores."""


@dataclass(frozen=True)
class MaskedScores:
    """Where a graph masks its attention: names of the scores, of what hides (or None), and of the masked scores."""

    scores: str
    hiding: str | None
    masked: str


def masked_scores(ranges: Mapping[str, Range], model: Path, task: Task) -> Mapping[str, Range]:
    """The ranges with those of masked scores cut to what a softmax can tell apart; others stay."""
    found = dict(ranges)
    needed: dict[str, float] = {}
    for place in find_masks(model, task, ranges):
        if place.scores not in ranges or place.masked not in ranges:
            continue
        low, high = (float(end) for end in ranges[place.scores])
        found[place.masked] = (np.float32(low - MARGIN), np.float32(high))
        # One mask serves all layers: the widest scores decide.
        if place.hiding is not None and place.hiding in ranges:
            needed[place.hiding] = min(needed.get(place.hiding, 0.0), low - high - MARGIN)
    for name, least in needed.items():
        found[name] = (max(ranges[name][0], np.float32(least)), ranges[name][1])
    return found


def swallowed_scores(ranges: Mapping[str, Range], model: Path) -> tuple[str, ...]:
    """One line where chosen ranges give attention's scores no resolution, because a mask is in them; else nothing."""
    wide = {name for name, (low, _) in ranges.items() if low <= HIDDEN}
    if not wide:
        return ()
    nodes = skeleton(model).graph.node
    hit = [float(ranges[node.input[0]][0]) for node in nodes if node.op_type == "Softmax" and node.input[0] in wide]
    if not hit:
        return ()
    return (
        f"{len(hit)} softmaxes see scores down to {min(hit):g}, which is a mask: in 8 bits all real scores become "
        "equal and attention a plain mean. Use --method robust, or a recipe with bounds = "
        '["masked-scores"] (docs/text.md).',
    )


def find_masks(model: Path, task: Task, ranges: Mapping[str, Range]) -> Iterator[MaskedScores]:
    """The masks in front of a model's softmaxes: an Add of, or a Where with, numbers at or below `HIDDEN`.

    Args:
        model: the folded FP32 model.
        task: knows what the mask's input can hold.
        ranges: observed ranges, for models whose mask the graph does not bound.
    """
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    view = GraphView.of(graph)
    possible = propagate(model, task.input_bounds())
    of_inputs = _made_of(graph, set(task.input_bounds()))

    def hides(name: str) -> bool:
        least = float(ranges[name][0]) if name in ranges else 0.0
        bound = possible.get(name, (-np.inf, np.inf))[0]
        # The least float, rounded outward, is -inf: a bound where it is made of the mask, else nothing is known.
        bound = bound if np.isfinite(bound) or name in of_inputs else 0.0
        return min(least, bound, _least(view.constant(name))) <= HIDDEN

    for softmax in graph.node:
        node = view.producer(softmax.input[0]) if softmax.op_type == "Softmax" else None
        if node is None or node.op_type not in ("Add", "Where"):
            continue
        sides = list(node.input)[-2:]  # Where's first input is its condition.
        hiding = [name for name in sides if hides(name)]
        if len(hiding) == 1:
            (scores,) = (name for name in sides if name != hiding[0])
            yield MaskedScores(scores, hiding[0] if node.op_type == "Add" else None, node.output[0])


def _made_of(graph: Any, inputs: set[str]) -> set[str]:
    """The tensors that follow from `inputs` and constants alone by steps that a mask goes through."""
    made = set(inputs)
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            constants.update(node.output)
        sources = {name for name in node.input if name} - constants
        if node.op_type in _MASKING and sources and sources <= made:
            made.update(node.output)
    return made


def _least(tensor: Any) -> float:
    from onnx import external_data_helper, numpy_helper

    if tensor is None or external_data_helper.uses_external_data(tensor):  # A mask is small and lies in the graph.
        return 0.0
    values = numpy_helper.to_array(tensor)
    return float(values.min()) if values.size and np.issubdtype(values.dtype, np.floating) else 0.0


BOUNDS.register(
    Bound(
        MASKED_SCORES,
        "Cuts what an attention mask hides off just below the least real score.",
        "onnxptq (docs/text.md)",
        masked_scores,
    )
)
