"""One sound rule an operator: the bounds of its inputs in, the bounds of its output out.

Operators are those of the ONNX standard (https://onnx.ai/onnx/operators). LayerNormalization has no rule on purpose:
ONNX Runtime computes the variance as a difference of float32 sums, which can cancel, so its exact bound does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Interval = tuple[float, float]

EVERYTHING: Interval = (-math.inf, math.inf)

ROUNDING = 2.0**-23
"""Twice what one float32 operation may be off, relative to its result."""

FUNCTION_ERROR = 2e-6
"""What ONNX Runtime's exponential, error function and their like may be off, absolute below 1 and relative above."""

UNKNOWN_COUNT = 1 << 16
"""Values in a mean whose number the graph does not say."""


@dataclass(frozen=True)
class Operator:
    """One node as its rule sees it.

    Attributes:
        node: the `NodeProto`.
        inputs: bounds, in the order of the node's inputs; of a constant its smallest and largest value.
        constant: position of an input -> its values, or None where it is not a constant.
        shape: of the first input, None for what is not known.
    """

    node: Any
    inputs: tuple[Interval, ...]
    constant: Callable[[int], npt.NDArray[Any] | None]
    shape: tuple[int | None, ...] | None

    def attribute(self, name: str, default: Any) -> Any:
        """The value of an attribute, or the default of the operator."""
        import onnx

        found = next((attribute for attribute in self.node.attribute if attribute.name == name), None)
        return default if found is None else onnx.helper.get_attribute_value(found)


Rule = Callable[[Operator], Interval]


def outward(low: float, high: float, error: float = 0.0) -> Interval:
    """The interval, wider by `error` and by the rounding of its ends; beyond float32 it is infinite."""
    largest = float(np.finfo(np.float32).max)
    low -= error + ROUNDING * abs(low) if math.isfinite(low) else 0.0
    high += error + ROUNDING * abs(high) if math.isfinite(high) else 0.0
    return (low if low >= -largest else -math.inf, high if high <= largest else math.inf)


def times(first: Interval, second: Interval) -> Interval:
    """Bounds of a product. A finite value times 0 is 0, also where there is no bound on how large it is."""
    products = [0.0 if 0 in (a, b) else a * b for a in first for b in second]
    return min(products), max(products)


def hull(*intervals: Interval) -> Interval:
    """The smallest interval that holds all of them."""
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _same(operator: Operator) -> Interval:
    return operator.inputs[0]


def _relu(operator: Operator) -> Interval:
    low, high = operator.inputs[0]
    return max(low, 0.0), max(high, 0.0)


def _clip(operator: Operator) -> Interval:
    low, high = operator.inputs[0]
    limits = []
    for position, (name, open_end) in enumerate((("min", -math.inf), ("max", math.inf)), start=1):
        given = position < len(operator.inputs) and operator.node.input[position]
        default = operator.attribute(name, open_end)
        limits.append(operator.inputs[position] if given else (default, default))
    # min(max(x, least), most): both may be computed by the graph, and then have bounds of their own.
    (least_low, least_high), (most_low, most_high) = limits
    return min(max(low, least_low), most_low), min(max(high, least_high), most_high)


def _function(compute: Callable[[float], float], *turns: float, error: float = FUNCTION_ERROR) -> Rule:
    """A rule for a function of one variable that is monotone between its turning points."""

    def rule(operator: Operator) -> Interval:
        low, high = operator.inputs[0]
        values = [compute(x) for x in (low, high, *(turn for turn in turns if low < turn < high))]
        least, most = min(values), max(values)
        largest = max((abs(value) for value in (least, most) if math.isfinite(value)), default=0.0)
        return outward(least, most, error * max(1.0, largest))

    return rule


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _exponential(x: float) -> float:
    return math.exp(x) if x < 100 else math.inf


def _square_root(x: float) -> float:
    return math.sqrt(max(x, 0.0)) if math.isfinite(x) else max(x, 0.0)


def _hard_swish(x: float) -> float:
    return 0.0 if x <= -3 else x if x >= 3 else x * (x + 3) / 6


def _gelu(x: float) -> float:
    return 0.0 if x == -math.inf else x if x == math.inf else x * (1 + math.erf(x / math.sqrt(2))) / 2


_GELU_TURN = -0.7517915246935645
_TANH_GELU_ERROR = 1e-3
"""Gelu's approximation by tanh is this close to Gelu."""


def _gelu_rule(operator: Operator) -> Interval:
    approximate = operator.attribute("approximate", b"none") == b"tanh"
    return _function(_gelu, _GELU_TURN, error=_TANH_GELU_ERROR if approximate else FUNCTION_ERROR)(operator)


def _leaky_relu(operator: Operator) -> Interval:
    slope = operator.attribute("alpha", 0.01)
    return _function(lambda x: x if x >= 0 else slope * x if slope else 0.0, 0.0)(operator)


def _elu(operator: Operator) -> Interval:
    alpha = operator.attribute("alpha", 1.0)
    return _function(lambda x: x if x >= 0 else alpha * math.expm1(x), 0.0, error=FUNCTION_ERROR * (1 + abs(alpha)))(
        operator
    )


def _hard_sigmoid(operator: Operator) -> Interval:
    slope, offset = operator.attribute("alpha", 0.2), operator.attribute("beta", 0.5)
    low, high = times(operator.inputs[0], (slope, slope))
    low, high = outward(
        low + offset, high + offset, ROUNDING * max(abs(low), abs(offset)) if math.isfinite(low) else 0.0
    )
    return min(max(low, 0.0), 1.0), min(max(high, 0.0), 1.0)


def _absolute(operator: Operator) -> Interval:
    low, high = operator.inputs[0]
    return (0.0 if low <= 0 <= high else min(abs(low), abs(high))), max(abs(low), abs(high))


def _negative(operator: Operator) -> Interval:
    low, high = operator.inputs[0]
    return -high, -low


def _add(operator: Operator) -> Interval:
    # One after the other, since the rounding of a sum of several depends on the order.
    low, high = operator.inputs[0]
    size = _size(operator.inputs[0])
    for term in operator.inputs[1:]:
        low, high, size = low + term[0], high + term[1], size + _size(term)
    return outward(low, high, len(operator.inputs) * ROUNDING * size)


def _subtract(operator: Operator) -> Interval:
    (low, high), (least, most) = operator.inputs
    return outward(low - most, high - least)


def _multiply(operator: Operator) -> Interval:
    return outward(*times(*operator.inputs))


def _divide(operator: Operator) -> Interval:
    least, most = operator.inputs[1]
    if least <= 0 <= most:
        return EVERYTHING
    return outward(
        *times(operator.inputs[0], (1 / most, 1 / least)),
        _size(operator.inputs[0]) * ROUNDING / min(abs(least), abs(most)),
    )


def _size(interval: Interval) -> float:
    """The largest magnitude, or 0 where there is none and the end is infinite anyway."""
    size = max(map(abs, interval))
    return size if math.isfinite(size) else 0.0


def _hull_of_inputs(operator: Operator) -> Interval:
    return hull(*operator.inputs)


def _where(operator: Operator) -> Interval:
    return hull(*operator.inputs[1:])


def _minimum(operator: Operator) -> Interval:
    return min(low for low, _ in operator.inputs), min(high for _, high in operator.inputs)


def _maximum(operator: Operator) -> Interval:
    return max(low for low, _ in operator.inputs), max(high for _, high in operator.inputs)


def _pad(operator: Operator) -> Interval:
    if operator.attribute("mode", b"constant") != b"constant":
        return operator.inputs[0]
    given = len(operator.inputs) > 2 and operator.node.input[2]
    value = operator.attribute("value", 0.0)  # of opset 10 and older
    return hull(operator.inputs[0], operator.inputs[2] if given else (value, value))


def _cast(operator: Operator) -> Interval:
    import onnx

    to = operator.attribute("to", onnx.TensorProto.FLOAT)
    low, high = operator.inputs[0]
    if to == onnx.TensorProto.BOOL:
        return 0.0, 1.0
    if to in (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE):
        return outward(low, high) if max(_size((low, high)), 0) > 1 << 24 else (low, high)
    if to in (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16):
        return outward(low, high, _size((low, high)) * 2.0**-7)
    return EVERYTHING  # Integers wrap round.


def _resize(operator: Operator) -> Interval:
    if operator.attribute("mode", b"nearest") not in (b"nearest", b"linear"):
        return EVERYTHING  # Cubic overshoots.
    if operator.attribute("coordinate_transformation_mode", b"half_pixel") == b"tf_crop_and_resize":
        return EVERYTHING
    low, high = operator.inputs[0]
    return outward(low, high, 16 * ROUNDING * _size((low, high)))


def _mean(interval: Interval, count: int) -> Interval:
    """Bounds of a mean of `count` values, whose sum is rounded at every step."""
    return outward(*interval, (count + 2) * ROUNDING * _size(interval))


def _average_pool(operator: Operator) -> Interval:
    kernel = operator.attribute("kernel_shape", [])
    padded = operator.attribute("count_include_pad", 0) and _is_padded(operator)
    interval = hull(operator.inputs[0], (0.0, 0.0)) if padded else operator.inputs[0]
    return _mean(interval, math.prod(kernel))


def _global_average_pool(operator: Operator) -> Interval:
    return _mean(operator.inputs[0], _product((operator.shape or (None, None, None))[2:]))


def _reduce_mean(operator: Operator) -> Interval:
    axes = operator.attribute("axes", None)
    if axes is None and len(operator.inputs) > 1:
        values = operator.constant(1)
        axes = None if values is None else values.ravel().tolist()
        if axes is None and operator.node.input[1]:
            return _mean(operator.inputs[0], UNKNOWN_COUNT)
    if operator.shape is None:
        return _mean(operator.inputs[0], UNKNOWN_COUNT)
    sizes = operator.shape if axes is None else [operator.shape[axis] for axis in axes]
    return _mean(operator.inputs[0], _product(sizes))


def _product(sizes: Any) -> int:
    return UNKNOWN_COUNT if None in sizes else math.prod(sizes)


def _is_padded(operator: Operator) -> bool:
    return any(operator.attribute("pads", ())) or operator.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID")


def _weighted_sum(
    interval: Interval, weights: npt.NDArray[Any], bias: npt.NDArray[Any] | None, bias_bound: Interval = (0.0, 0.0)
) -> Interval:
    """Bounds of `sum(weights * x) + bias` over all outputs.

    Args:
        interval: of each x.
        weights: (outputs, terms).
        bias: (outputs,), or None; where it is no constant, `bias_bound` holds it.
        bias_bound: bounds of what else is added.
    """
    terms = weights.shape[1]
    positive = np.maximum(weights, 0).sum(axis=1, dtype=np.float64)
    negative = np.minimum(weights, 0).sum(axis=1, dtype=np.float64)
    added = np.zeros(len(weights)) if bias is None else np.asarray(bias, np.float64).reshape(-1)
    low, high = interval
    lows = _scaled(positive, low) + _scaled(negative, high) + added + bias_bound[0]
    highs = _scaled(positive, high) + _scaled(negative, low) + added + bias_bound[1]
    errors = (
        (terms + 2) * ROUNDING * (_scaled(positive - negative, _size(interval)) + np.abs(added) + _size(bias_bound))
    )
    return outward(float((lows - errors).min()), float((highs + errors).max()))


def _scaled(sums: npt.NDArray[np.float64], end: float) -> npt.NDArray[np.float64]:
    # Infinity times a sum of no weights is 0, not NaN.
    return np.where(sums == 0, 0.0, sums * end) if math.isfinite(end) else np.where(sums == 0, 0.0, np.sign(sums) * end)


def _conv(operator: Operator) -> Interval:
    weights = operator.constant(1)
    if weights is None:
        return EVERYTHING
    interval = hull(operator.inputs[0], (0.0, 0.0)) if _is_padded(operator) else operator.inputs[0]
    return _weighted_sum(interval, weights.reshape(len(weights), -1), *_bias(operator, 2))


def _conv_transpose(operator: Operator) -> Interval:
    weights = operator.constant(1)
    if weights is None:
        return EVERYTHING
    # (C, M / groups, ...) -> (M, terms). An output sees some of the kernel's positions: the others add 0.
    groups = operator.attribute("group", 1)
    split = weights.reshape(groups, weights.shape[0] // groups, weights.shape[1], -1)
    rows = split.transpose(0, 2, 1, 3).reshape(groups * weights.shape[1], -1)
    return _weighted_sum(hull(operator.inputs[0], (0.0, 0.0)), rows, *_bias(operator, 2))


def _bias(operator: Operator, position: int) -> tuple[npt.NDArray[Any] | None, Interval]:
    values = operator.constant(position)
    if values is not None:
        return values, (0.0, 0.0)
    given = position < len(operator.inputs) and operator.node.input[position]
    return None, operator.inputs[position] if given else (0.0, 0.0)


def _gemm(operator: Operator) -> Interval:
    weights = operator.constant(1)
    if weights is None:
        return EVERYTHING
    rows = weights if operator.attribute("transB", 0) else weights.T
    scale, share = operator.attribute("alpha", 1.0), operator.attribute("beta", 1.0)
    # C may be broadcast in any way, so its bounds stand for it where it is not one value an output.
    values = operator.constant(2)
    if values is not None and values.size == len(rows) and values.shape[-1] == len(rows):
        return _weighted_sum(operator.inputs[0], rows * np.float64(scale), values * np.float64(share))
    bound = (
        times(operator.inputs[2], (share, share)) if len(operator.inputs) > 2 and operator.node.input[2] else (0.0, 0.0)
    )
    return _weighted_sum(operator.inputs[0], rows * np.float64(scale), None, bound)


def _matmul(operator: Operator) -> Interval:
    left, right = operator.constant(0), operator.constant(1)
    if right is not None:
        columns = right[:, None] if right.ndim == 1 else right
        return _weighted_sum(operator.inputs[0], np.moveaxis(columns, -2, -1).reshape(-1, columns.shape[-2]), None)
    if left is not None:
        return _weighted_sum(operator.inputs[1], left.reshape(-1, left.shape[-1]), None)
    return EVERYTHING


def _batch_normalization(operator: Operator) -> Interval:
    parameters = [operator.constant(position) for position in range(1, 5)]
    if any(values is None for values in parameters) or operator.attribute("training_mode", 0):
        return EVERYTHING
    scale, bias, mean, variance = (np.asarray(values, np.float64) for values in parameters)
    factor = scale / np.sqrt(variance + operator.attribute("epsilon", 1e-5))
    # x * factor + (bias - mean * factor), as ONNX Runtime may compute it: both terms are rounded.
    rows = factor[:, None]
    low, high = _weighted_sum(operator.inputs[0], rows, bias - mean * factor)
    return outward(low, high, 8 * ROUNDING * float((np.abs(mean * factor) + np.abs(bias)).max()))


RULES: dict[str, Rule] = {
    **dict.fromkeys(
        (
            *("Identity", "Dropout", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Split"),
            *("Gather", "GatherElements", "GatherND", "Expand", "Tile", "DepthToSpace", "SpaceToDepth", "MaxPool"),
            *("GlobalMaxPool", "ReduceMax", "ReduceMin"),
        ),
        _same,
    ),
    "Relu": _relu,
    "Clip": _clip,
    "Sigmoid": _function(_sigmoid),
    "Tanh": _function(math.tanh),
    "Erf": _function(math.erf),
    "Exp": _function(_exponential),
    "Sqrt": _function(_square_root),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _function(_hard_swish, -1.5),
    "Gelu": _gelu_rule,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Softmax": lambda operator: (0.0, 1.0),
    "Abs": _absolute,
    "Neg": _negative,
    "Add": _add,
    "Sum": _add,
    "Sub": _subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Concat": _hull_of_inputs,
    "Where": _where,
    "Min": _minimum,
    "Max": _maximum,
    "Pad": _pad,
    "Cast": _cast,
    "Resize": _resize,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global_average_pool,
    "ReduceMean": _reduce_mean,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _batch_normalization,
}


def shared_by_all_outputs(operator: str) -> bool:
    """Whether a rule's bound holds for every output; else it is of the first alone."""
    return operator == "Split"
