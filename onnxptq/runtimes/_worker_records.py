"""What a worker tells: records that `onnxptq.runtimes.isolated` makes of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from onnxptq.errors import OnnxptqError
from onnxptq.signature import Signature

Failure = Literal["refused", "crashed", "hung", "out of memory", "missing"]


class WorkerError(OnnxptqError):
    """What went wrong in a worker.

    Attributes:
        failure: "refused" (ONNX Runtime or Python raised an exception; the worker lives on), "crashed" (the process
            ended), "hung" (time limit; the process was killed), "out of memory", or "missing" (the interpreter or its
            onnxruntime cannot be started).
        reason: what happened, in a sentence without a full stop.
        log: the last lines of the worker's stderr.
        remedy: what a user can do about it, a sentence, or "".
    """

    def __init__(self, failure: Failure, reason: str, log: tuple[str, ...] = ()) -> None:
        super().__init__(reason)
        self.failure: Failure = failure
        self.reason = reason
        self.log = log
        self.remedy = ""


@dataclass(frozen=True)
class PlacedNode:
    """A node of the graph as ONNX Runtime assigned it, after basic optimization and before fusion.

    Attributes:
        provider: ONNX Runtime's name of the provider that took it.
        operator: its operator.
        name: its name in the graph.
    """

    provider: str
    operator: str
    name: str


@dataclass(frozen=True)
class Opened:
    """A session in a worker.

    Attributes:
        number: which one of the worker's.
        seconds: how long it took to create.
        providers: ONNX Runtime's names; the first is the one that was accepted.
        signature: inputs and outputs.
        placement: where each node was put, or None where this ONNX Runtime cannot tell.
    """

    number: int
    seconds: float
    providers: tuple[str, ...]
    signature: Signature
    placement: tuple[PlacedNode, ...] | None = field(repr=False)


@dataclass(frozen=True)
class Kernel:
    """A kernel that ran.

    Attributes:
        provider: ONNX Runtime's name of the provider that it belongs to.
        operator: its operator, after fusion.
        node: the name of its node, after fusion.
        runs: how often.
    """

    provider: str
    operator: str
    node: str
    runs: int


@dataclass(frozen=True)
class Description:
    """The ONNX Runtime of an environment.

    Attributes:
        onnxruntime: its version.
        distribution: the distribution that it comes from ("onnxruntime-openvino").
        distributions: all that are installed there and bring the module; more than one overwrite each other's files.
        providers: those that it was built with, ONNX Runtime's names.
        numpy, python: versions.
    """

    onnxruntime: str
    distribution: str
    distributions: tuple[str, ...]
    providers: tuple[str, ...]
    numpy: str
    python: str


def describe(answer: Mapping[str, Any]) -> Description:
    """A description from what a worker said."""
    lists = {name: tuple(answer[name]) for name in ("distributions", "providers")}
    return Description(**{**answer, **lists})
