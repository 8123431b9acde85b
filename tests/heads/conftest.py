"""Models with outputs of every kind, built in a few lines."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

Build = Callable[..., Path]


@pytest.fixture
def save(tmp_path: Path) -> Build:
    """Writes a model: `save(nodes, inputs, outputs, weights, name)`; inputs and outputs as (name, shape[, type])."""

    def make(
        nodes: Sequence[Any],
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        weights: dict[str, Any] | None = None,
        name: str = "m.onnx",
    ) -> Path:
        def value(said: Any) -> Any:
            if not isinstance(said, tuple):
                return said
            return helper.make_tensor_value_info(said[0], said[2] if len(said) > 2 else TensorProto.FLOAT, said[1])

        graph = helper.make_graph(
            [helper.make_node(op, i, o, name=f"{op}_{o[0]}", **{"domain": "", **k}) for op, i, o, k in nodes],
            "g",
            list(map(value, inputs)),
            list(map(value, outputs)),
            [numpy_helper.from_array(np.asarray(array), key) for key, array in (weights or {}).items()],
        )
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return make
