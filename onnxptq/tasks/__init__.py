"""Tasks: how samples of one kind are read, fed to a model and scored."""

from __future__ import annotations

from onnxptq.tasks._base import TASKS, Feeds, Row, Scores, Signature, Task, TaskKind, TensorSpec
from onnxptq.tasks._groups import add_groups
from onnxptq.tasks.preprocessing import Preprocessing, find_specification

__all__ = [
    "TASKS",
    "Feeds",
    "Preprocessing",
    "Row",
    "Scores",
    "Signature",
    "Task",
    "TaskKind",
    "TensorSpec",
    "add_groups",
    "find_specification",
]
