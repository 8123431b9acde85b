"""The search for nodes in float, on effects that are made up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace

import pytest

from onnxptq.diagnosis.budget import BudgetSearch, Nodes, search
from onnxptq.diagnosis.float_nodes import Wishes
from onnxptq.diagnosis.mixed import _verdict
from onnxptq.diagnosis.result import Effect

WISHES = Wishes({"t": frozenset("ab"), "u": frozenset("c"), "v": frozenset("d")}, tuple("abcd"))


def effect(drop: float) -> Effect:
    return Effect(drop, drop, drop, drop, "g", drop, drop, None, drop, 40, 40)


def measuring(drop: Callable[[Nodes], float]) -> Callable[[Sequence[Nodes]], list[Effect]]:
    return lambda sets: [effect(drop(nodes)) for nodes in sets]


def test_the_search_keeps_only_what_the_limit_needs() -> None:
    # The ranking is misled by d, which helps a little; t and u alone are what is needed.
    def drop(nodes: Nodes) -> float:
        return 0.5 - 0.3 * ({"a", "b"} <= nodes) - 0.2 * ("c" in nodes) - 0.01 * ("d" in nodes)

    found = search(WISHES, ["v", "t", "u"], 0.01, effect(0.5), measuring(drop))
    assert found.reached and found.nodes == frozenset("abc")
    needless = search(WISHES, [frozenset("abcd")], 0.01, effect(0.5), measuring(drop))
    assert needless.nodes == frozenset("abc") and needless.steps[-1].removed == ("d",)


def test_a_limit_that_holds_already_needs_no_node() -> None:
    found = search(WISHES, ["t"], 0.02, effect(0.01), measuring(lambda nodes: pytest.fail("nothing is to be measured")))
    assert found.reached and found.nodes == frozenset() and found.steps == ()


def test_a_limit_out_of_reach_says_how_far_the_search_got() -> None:
    found = search(WISHES, ["t", "u"], 0.01, effect(0.5), measuring(lambda nodes: 0.2 if "c" in nodes else 0.5))
    assert not found.reached and found.nodes == frozenset("c") and found.effect.drop == 0.2


@pytest.mark.parametrize(
    ("reached", "possible", "low", "verdict"),
    [
        (True, 0.09, -0.1, True),
        (True, 0.11, -0.1, None),
        (True, 0.09, 0.01, True),
        (True, 0.09, 0.03, False),
        (True, float("nan"), float("nan"), None),
        (False, 0.01, 0.0, False),
    ],
)
def test_the_half_that_was_not_searched_decides(
    reached: bool, possible: float, low: float, verdict: bool | None
) -> None:
    after = SimpleNamespace(possible_drop=possible, crossfit_drop_low=low)
    assert _verdict(BudgetSearch(frozenset("c"), effect(0.0), reached, ()), after, 0.02) is verdict  # type: ignore[arg-type]
