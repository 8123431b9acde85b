"""Which head a model gets: the one that somebody named, the one that is beyond doubt, else "raw"."""

from __future__ import annotations

from dataclasses import dataclass

from onnxptq.heads._base import HEADS, Head, Hints, Specification
from onnxptq.signature import Signature

RAW = "raw"


@dataclass(frozen=True)
class HeadChoice:
    """A head and why it is this one.

    Attributes:
        head: the head.
        why: in a few words.
        named: somebody said so: the user, a specification, the model's metadata.
    """

    head: Head
    why: str
    named: bool


def choose_head(
    name: str | None, specification: Specification, signature: Signature, hints: Hints, input_name: str = ""
) -> HeadChoice:
    """The head of a model.

    Args:
        name: the head that somebody named, or None.
        specification: of the task.
        signature: the model's.
        hints: what the data tells.
        input_name: of the task's input; heads that do not go with it are not recognized.

    Raises:
        UsageError: an unknown head, or one whose specification is wrong.
        ModelError: the head that was named cannot read the model's outputs.
    """
    if name is not None:
        return HeadChoice(HEADS.get(name).build(specification, signature), "it was named", named=True)
    for kind in HEADS:
        if kind.inputs and input_name and input_name not in kind.inputs:
            continue
        reason = kind.recognize(specification, signature, hints)
        if reason is not None:
            return HeadChoice(kind.build(specification, signature), reason, named=False)
    head = HEADS.get(RAW).build(specification, signature)
    return HeadChoice(head, "nothing says what the outputs mean", named=False)
