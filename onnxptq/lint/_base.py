"""What a lint rule is: a small function with its reason, its source and its remedy, and where it plugs in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from onnxptq.graphs.view import GraphView
from onnxptq.registry import Registry

Level = Literal["error", "warning", "note"]
LEVELS: tuple[Level, ...] = ("error", "warning", "note")
"""Worst first. error: the provider rejects the graph, or computes something else than it says. warning: part of it
runs in float, elsewhere, or unfused. note: worth knowing, and it may be meant."""


@dataclass(frozen=True)
class Place:
    """Where a rule is violated.

    Attributes:
        where: the node as a reader finds it, "" for the whole graph (`GraphView.label`).
        message: what is there, one sentence without the reason.
    """

    where: str
    message: str


@dataclass(frozen=True)
class Rule:
    """One thing that a provider rejects, runs in float or fails to fuse.

    Attributes:
        name: the id, for example "QDQ101". A plug-in takes letters of its own.
        title: a few words.
        levels: target -> how bad it is there; it is not looked for on other targets.
        why: what the provider does.
        source: address of the documentation, the source or the issue that says so; where it was measured, with what.
        remedy: what to do.
        check: `(graph, target) -> places`. Called for the main graph, and for each subgraph and function of it.
    """

    name: str
    title: str
    levels: Mapping[str, Level] = field(hash=False)
    why: str
    source: str
    remedy: str
    check: Callable[[GraphView, str], Iterator[Place]]


LINT_RULES: Registry[Rule] = Registry(
    "lint rule",
    "onnxptq.lint_rules",
    (
        "onnxptq.lint._types",
        "onnxptq.lint._parameters",
        "onnxptq.lint._placement",
        "onnxptq.lint._fusion",
        "onnxptq.lint._operators",
        "onnxptq.lint._numerics",
    ),
)

Check = Callable[[GraphView, str], Iterator[Place]]


_SAME_AS = {"tensorrt11": "tensorrt"}
"""Targets that take the rules of another one, at its level, where a rule does not name them itself."""


def rule(
    name: str, title: str, levels: Mapping[str, Level], *, why: str, source: str, remedy: str
) -> Callable[[Check], Check]:
    """Registers the decorated function as the check of a rule."""
    shared = {target: levels[other] for target, other in _SAME_AS.items() if other in levels}

    def register(check: Check) -> Check:
        LINT_RULES.register(Rule(name, title, {**shared, **levels}, why, source, remedy, check))
        return check

    return register


def everywhere(level: Level) -> dict[str, Level]:
    """The same level on every built-in target."""
    return dict.fromkeys(("cpu", "cuda", "tensorrt", "openvino"), level)
