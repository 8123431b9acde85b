"""The robust methods: presets that keep a shifted calibration set from ruining the group that it treats worst.

What breaks is ranges that a shifted set makes too narrow, those of the input and of the logits first. So the input gets
its exact range; ranges come from the set and from augmented copies of it that undo some of its shift; no range leaves
what its operator can give; and a normalizer inside the graph and the outputs are not quantized at all. A step that
makes the calibration samples themselves worse is left out again (`harm`). Measured in docs/methods.md.
"""

from __future__ import annotations

from onnxptq.calibrators.sets import SYNTHETIC
from onnxptq.errors import UsageError
from onnxptq.methods import METHODS, Method
from onnxptq.quantization.masked_scores import MASKED_SCORES
from onnxptq.quantization.range_bounds import INPUT_RANGE, OPERATOR_BOUNDS
from onnxptq.quantization.renormalized import NAME as RENORMALIZE
from onnxptq.recipe import AUGMENTATIONS, CLEANED, Environment, Recipe, Step

AUGMENTED_SIZE = 64
"""Samples of the calibration set that each augmentation copies."""

SWITCHES = {
    "input_range": 1,
    "operator_bounds": 1,
    "masked_scores": 1,
    "augmentation": 1,
    "float_normalizer": 1,
    "float_outputs": 1,
    "guard": 1,
}
"""Parameters of the robust methods: 0 leaves the step out."""


def robust(
    recipe: Recipe,
    *,
    input_range: int = 1,
    operator_bounds: int = 1,
    masked_scores: int = 1,
    augmentation: int = 1,
    float_normalizer: int = 1,
    float_outputs: int = 1,
    guard: int = 1,
) -> Recipe:
    """MinMax over the set and its augmented copies, exact input range, operator bounds, both ends in float.

    Raises:
        UsageError: a switch that is neither 0 nor 1.
    """
    switches = {
        "input_range": input_range,
        "operator_bounds": operator_bounds,
        "masked_scores": masked_scores,
        "augmentation": augmentation,
        "float_normalizer": float_normalizer,
        "float_outputs": float_outputs,
        "guard": guard,
    }
    for name, value in switches.items():
        if value not in (0, 1):
            raise UsageError(f"{name} of a robust method is 1 (with this step) or 0 (without it), got {value}.")
    bounds = [INPUT_RANGE] * input_range + [OPERATOR_BOUNDS] * operator_bounds + [MASKED_SCORES] * masked_scores
    copies = (Environment(AUGMENTATIONS, AUGMENTED_SIZE),) if augmentation else ()
    return recipe.changed(
        environments=(Environment(CLEANED if augmentation else ""), *copies),
        ranges=Step("minmax"),
        bounds=tuple(Step(name) for name in bounds),
        float_outputs=bool(float_outputs),
        float_normalizers=bool(float_normalizer),
        guarded=bool(guard),
    )


def robust_bn(recipe: Recipe, **switches: int) -> Recipe:
    """`robust` on re-normalised activations."""
    return robust(recipe, **switches).changed(weight_transforms=(*recipe.weight_transforms, Step(RENORMALIZE)))


def robust_synthetic(recipe: Recipe, *, augmentation: int = 0, **switches: int) -> Recipe:
    """`robust` on synthetic samples, MSE ranges, re-normalised where the model has BatchNormalization."""
    # Nothing tells how a model answers on samples that nobody takes for real ones.
    made = robust(recipe, augmentation=augmentation, guard=0, **switches)
    return made.changed(
        calibration=SYNTHETIC,
        weight_transforms=(*recipe.weight_transforms, Step.of(RENORMALIZE, where_known=True)),
        ranges=Step("mse"),
    )


METHODS.register(
    Method(
        name="robust",
        summary="Exact input range, ranges over augmented copies of the set, operator bounds, outputs in float.",
        source="onnxptq (docs/methods.md, docs/robustness.md)",
        when="you cannot be sure that the calibration data is like what comes later.",
        apply=robust,
        parameters=SWITCHES,
    )
)
METHODS.register(
    Method(
        name="robust-bn",
        summary="robust, calibrated on activations re-normalised as BatchNormalization in training would.",
        source="onnxptq (docs/methods.md, docs/robustness.md)",
        when="as robust, where the model has BatchNormalization and no augmentation undoes the shift of the data.",
        apply=robust_bn,
        parameters=SWITCHES,
    )
)
METHODS.register(
    Method(
        name="robust-synthetic",
        summary="robust on synthetic images, MSE ranges, re-normalised where BatchNormalization is known.",
        source="onnxptq (docs/methods.md, docs/robustness.md)",
        when="there is no calibration data at all.",
        apply=robust_synthetic,
        parameters={name: value for name, value in SWITCHES.items() if name not in ("augmentation", "guard")},
    )
)
