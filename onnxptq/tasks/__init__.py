"""Tasks: how samples of one kind are read, fed to a model and judged."""

from __future__ import annotations

from onnxptq.signature import Feeds, Normalizer, Signature, TensorSpec
from onnxptq.tasks._base import INPUTS, Input, InputKind, Row
from onnxptq.tasks._groups import add_groups
from onnxptq.tasks._task import ENCODED, Task, make_task, split_name, with_head
from onnxptq.tasks._tensor_facts import GUESSED_COPIES
from onnxptq.tasks.preprocessing import AUDIO, IMAGE, SIGNATURE, TABLE, TENSOR, Preprocessing, find_specification

__all__ = [
    "AUDIO",
    "ENCODED",
    "GUESSED_COPIES",
    "IMAGE",
    "INPUTS",
    "SIGNATURE",
    "TABLE",
    "TENSOR",
    "Feeds",
    "Input",
    "InputKind",
    "Normalizer",
    "Preprocessing",
    "Row",
    "Signature",
    "Task",
    "TensorSpec",
    "add_groups",
    "find_specification",
    "make_task",
    "split_name",
    "with_head",
]
