"""The search for the fewest nodes in float that bring the worst group's drop under a limit.

1. Start from the INT8 file. A move keeps in float all nodes that want one tensor quantized, or one node.
2. Moves are tried in the order of the ranking, a handful at a time; the one that leaves the least harm in the worst
   group is taken, for as long as the cross-fitted drop is above the limit.
3. Then each node is taken out again where the limit holds without it, the least harmful first. So every node that is
   left is needed; that no smaller set of quite other nodes would do is not proven.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from onnxptq.diagnosis.float_nodes import Wishes
from onnxptq.diagnosis.result import BudgetStep, Effect

_TOGETHER = 6
"""Moves that are compared with each other: the ranking is good at the top, and each costs a run over all samples."""

Nodes = frozenset[str]
Measure = Callable[[Sequence[Nodes]], list[Effect]]
"""The effects of the INT8 file with each of these sets of nodes in float."""


@dataclass(frozen=True)
class BudgetSearch:
    """What the search came to.

    Attributes:
        nodes: to keep in float.
        effect: with them in float, on the samples that were searched.
        reached: the limit holds there.
        steps: how it came to it.
    """

    nodes: Nodes
    effect: Effect
    reached: bool
    steps: tuple[BudgetStep, ...]


def search(
    wishes: Wishes, ranking: Sequence[str | Nodes], limit: float, start: Effect, measure: Measure
) -> BudgetSearch:
    """Searches nodes to keep in float.

    Args:
        wishes: who wants which tensor quantized.
        ranking: names of tensors and sets of nodes, the most harmful first.
        limit: of the cross-fitted worst-group drop, a fraction.
        start: the effect of the INT8 file as it is.
        measure: runs sets of nodes.
    """
    nodes, effect = Nodes(), start
    steps: list[BudgetStep] = []
    moves = list(dict.fromkeys(wishes.wanted_by[m] if isinstance(m, str) else m for m in ranking))
    while effect.drop > limit:
        better = _best_move(nodes, effect, moves, measure)
        if better is None:
            return BudgetSearch(nodes, effect, False, tuple(steps))
        chosen, effect = better
        steps.append(BudgetStep(_sorted(chosen - nodes, wishes), (), effect.drop, effect.harm))
        nodes = chosen
    nodes, effect, removed = _without_needless(wishes, nodes, effect, limit, moves, measure)
    return BudgetSearch(nodes, effect, True, (*steps, *removed))


def _best_move(nodes: Nodes, effect: Effect, moves: Sequence[Nodes], measure: Measure) -> tuple[Nodes, Effect] | None:
    """The move of the first handful with one that helps; None where none of all does."""
    candidates = list(dict.fromkeys(nodes | move for move in moves if move - nodes))
    for first in range(0, len(candidates), _TOGETHER):
        some = candidates[first : first + _TOGETHER]
        tried = list(zip(some, measure(some), strict=True))
        chosen, best = min(tried, key=lambda one: (one[1].harm, len(one[0])))
        if best.harm < effect.harm or best.drop < effect.drop:
            return chosen, best
    return None


def _without_needless(
    wishes: Wishes, nodes: Nodes, effect: Effect, limit: float, moves: Sequence[Nodes], measure: Measure
) -> tuple[Nodes, Effect, list[BudgetStep]]:
    """Takes out every node that the limit does not need."""
    removed: list[BudgetStep] = []
    order = {node: rank for rank, move in reversed(list(enumerate(moves))) for node in move}
    for node in sorted(nodes, key=lambda n: (-order.get(n, len(moves)), n)):
        if len(nodes) == 1:
            break  # Without any it is the INT8 file, which is above the limit.
        (without,) = measure([nodes - {node}])
        if without.drop <= limit:
            nodes, effect = nodes - {node}, without
            removed.append(BudgetStep((), (node,), effect.drop, effect.harm))
    return nodes, effect, removed


def _sorted(nodes: Nodes, wishes: Wishes) -> tuple[str, ...]:
    return tuple(node for node in wishes.nodes if node in nodes)
