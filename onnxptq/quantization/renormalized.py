"""Calibration on re-normalised activations: every former BatchNormalization sees the calibration set as training would.

A shifted calibration set (dark, of low contrast) shrinks activations layer after layer, and the ranges with them. Here
each output z of a former BatchNormalization becomes (z - mean) / sqrt(variance + 1e-5) * |gamma| + beta, with mean and
variance over the whole calibration set, all environments of it together; later layers see the re-normalised ones. The
ranges so found go to the ordinary model. Recipe R2 of our reliability measurements; related to Nagel et al., Data-free
quantization (ICCV 2019), which takes the ranges from gamma and beta alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.errors import ModelError
from onnxptq.graphs.batch_norms import BatchNorm, remembered_batch_norms
from onnxptq.graphs.external import save_with_links
from onnxptq.methods import METHODS, Method
from onnxptq.quantization.level_by_level import Samples, rewrite_level_by_level
from onnxptq.quantization.moments import TensorMoments
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS, WeightTransform
from onnxptq.recipe import Recipe, Step

EPSILON = 1e-5

NAME = "renormalize"


def renormalize(model: Path, samples: Samples, output: Path, where_known: bool = False) -> None:
    """Writes the float model in which every former BatchNormalization is normalised by the samples.

    Args:
        model: the folded FP32 model, as `graphs.fold` leaves it.
        samples: (id, feeds), the same at each iteration; all environments together.
        output: the file to write.
        where_known: leave a model that came without BatchNormalization as it is, instead of refusing it.

    Raises:
        ModelError: the model came without BatchNormalization, or they were folded before it came to us.
        DataError: as `collect_moments`.
    """
    norms = remembered_batch_norms(model)
    if not norms and not where_known:
        raise ModelError(
            "the model has no BatchNormalization, so its calibration cannot be re-normalised. Export it without "
            "folding them (torch.onnx.export with training=TrainingMode.PRESERVE), or use --method robust."
        )

    def rewrite(proto: Any, tensor: str, moments: TensorMoments) -> None:
        insert_normalization(proto.graph, tensor, moments, norms[tensor])

    proto, _ = rewrite_level_by_level(model, samples, dict.fromkeys(norms, 1), rewrite)
    save_with_links(proto, model, output)


def insert_normalization(graph: Any, tensor: str, moments: TensorMoments, norm: BatchNorm) -> None:
    """Lets a BatchNormalization with the moments as constants stand between the tensor and all that read it.

    Args:
        graph: the `GraphProto`, changed in place.
        tensor: keeps its name; what is computed now goes by `<tensor>__raw`.
        moments: of the tensor, the channels on axis 1.
        norm: gamma, of which the magnitude is taken because z carries its sign, and beta.
    """
    from onnx import helper, numpy_helper

    position, producer = next((number, node) for number, node in enumerate(graph.node) if tensor in node.output)
    producer.output[list(producer.output).index(tensor)] = f"{tensor}__raw"
    constants = {
        "gamma": np.abs(norm.scale),
        "beta": norm.bias,
        "mean": moments.mean.astype(np.float32),
        "variance": moments.variance.astype(np.float32),
    }
    names = [f"{tensor}__{name}" for name in constants]
    graph.initializer.extend(
        numpy_helper.from_array(array, name) for name, array in zip(names, constants.values(), strict=True)
    )
    node = helper.make_node(
        "BatchNormalization", [f"{tensor}__raw", *names], [tensor], name=f"{tensor}__normalization", epsilon=EPSILON
    )
    graph.node.insert(position + 1, node)


def _preset(recipe: Recipe) -> Recipe:
    return recipe.changed(weight_transforms=(*recipe.weight_transforms, Step(NAME)), ranges=Step("minmax"))


WEIGHT_TRANSFORMS.register(
    WeightTransform(
        name=NAME,
        summary="Calibrates on re-normalised activations; the weights stay as they are.",
        source="onnxptq; related to Nagel et al., Data-free quantization, ICCV 2019 (arXiv 1906.04721)",
        apply=renormalize,
        parameters={"where_known": False},
        calibration_only=True,
    )
)

METHODS.register(
    Method(
        name="minmax-renormalized",
        summary="MinMax on activations that are re-normalised as BatchNormalization in training would.",
        source="onnxptq; related to Nagel et al., Data-free quantization, ICCV 2019 (arXiv 1906.04721)",
        when="shifted sets, as part of a remedy: the input's range stays as it is. Needs BatchNormalization.",
        apply=_preset,
    )
)
