"""The pass over a calibration set where the values stay in the memory of a GPU: the graph itself counts them.

Behind each observed tensor the graph gets operators that keep its extremes and count its values in the bins of
`onnxptq.calibrators.histogram`: the same extremes and counts, to the last value, as if it had been copied to the host
and counted there (of subnormal numbers, which a GPU may flush to zero, only that they are zero to any quantizer). The
state is bound to the device's memory and never leaves it before the end, so a sample costs no copy but its own.

Without bit operations on CUDA, a bin is found by arithmetic that is exact: the exponent from a logarithm, corrected by
comparison with powers of two, the mantissa by multiplications with powers of two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.histogram_bins import PAGE, PAGES
from onnxptq.calibrators.statistics import CalibrationStatistics, TensorStatistics
from onnxptq.errors import DataError
from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.parts import opset_of
from onnxptq.quantization._inference import batched, load_graph, open_native
from onnxptq.quantization.collect import CalibrationPass
from onnxptq.signature import Feeds

LEAST_OPSET = 16
"""From which ScatterElements can add: it is what counts."""

_PREFIX = "onnxptq/"
_BINS = PAGE * PAGES
_SMALLEST_NORMAL = np.float32(2.0**-126)


def calibration_pass(
    model_path: str | Path, tensors: Sequence[str], *, provider: str, optimized: bool, histograms: bool
) -> CalibrationPass | DevicePass:
    """The pass for a provider: on CUDA the one that counts there, where the model's opset has the operators for it."""
    kind = (
        DevicePass if provider == "cuda" and opset_of(load_graph(Path(model_path))) >= LEAST_OPSET else CalibrationPass
    )
    return kind(model_path, tensors, provider=provider, optimized=optimized, histograms=histograms)


class DevicePass:
    """A float model, opened once, over any number of calibration sets; a sample is run alone.

    Args:
        model_path: the float model, as the quantizer will get it; opset `LEAST_OPSET` or newer.
        tensors: what to observe, float32 or float16, from `plan_calibration`.
        provider: where to run: "cuda", or "cpu", which does the same in the host's memory.
        optimized: let ONNX Runtime optimise the graph.
        histograms: False keeps extremes only, which is all that MinMax needs.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or a tensor is not in it.
        RuntimeUnavailableError: the provider does not load here.
    """

    def __init__(
        self,
        model_path: str | Path,
        tensors: Sequence[str],
        *,
        provider: str = "cuda",
        optimized: bool = False,
        histograms: bool = True,
    ) -> None:
        self._tensors = tuple(tensors)
        self._histograms = histograms
        self._device = provider
        self._names = {name: f"{_PREFIX}{number}" for number, name in enumerate(tensors)}
        path = Path(model_path)
        with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
            model = load_graph(path)
            add_counters(model.graph, self._names, histograms)
            counting = Path(folder) / path.name
            save_with_links(model, path, counting)
            self._session, shapes = open_native(counting, path, provider, optimized=optimized)
        self._inputs = {name: shape for name, shape in shapes.items() if not name.startswith(_PREFIX)}

    def collect(
        self,
        samples: Iterable[tuple[str, Feeds]],
        *,
        environment: str = "",
        provenance: Mapping[str, str] | None = None,
    ) -> CalibrationStatistics:
        """Runs every sample once; as `CalibrationPass.collect`, with the same errors.

        NaN and infinity are found at the end, and so named without their sample.
        """
        from onnxruntime import OrtValue

        state = {
            f"{name}/{part}": OrtValue.ortvalue_from_numpy(array, self._device, 0)
            for name in self._names.values()
            for part, array in _nothing(self._histograms).items()
        }
        spare = {key: OrtValue.ortvalue_from_numpy(value.numpy(), self._device, 0) for key, value in state.items()}
        counts, seen = dict.fromkeys(self._tensors, 0), 0
        for sample_id, feeds in samples:
            sizes = self._run(feeds, sample_id, state, spare)
            for name, size in zip(self._tensors, sizes, strict=True):
                counts[name] += size
            state, spare = spare, state
            seen += 1
        if not seen:
            raise DataError("the calibration set is empty; give at least one sample")
        found = {name: self._read(name, counts[name], state) for name in self._tensors}
        return CalibrationStatistics({environment: found}, {environment: seen}, dict(provenance or {}))

    def _run(self, feeds: Feeds, sample_id: str, state: Mapping[str, Any], spare: Mapping[str, Any]) -> list[int]:
        """One sample, whose counts are added from `state` into `spare`; how many values each tensor had."""
        binding = self._session.io_binding()
        for name, shape in self._inputs.items():
            if name not in feeds:
                raise DataError(f"the sample {sample_id!r} has no value for the model's input {name!r}")
            binding.bind_cpu_input(name, np.ascontiguousarray(batched(feeds[name], shape)))
        for key, value in state.items():
            binding.bind_ortvalue_input(f"{key}/before", value)
            binding.bind_ortvalue_output(f"{key}/after", spare[key])
        sizes = [f"{self._names[name]}/size" for name in self._tensors]
        for name in sizes:
            binding.bind_output(name, "cpu")
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # ONNX Runtime's exceptions have no base of their own
            given = ", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in feeds.items())
            raise DataError(f"the sample {sample_id!r} does not fit the model: it has {given} ({error})") from error
        # The sizes were bound last.
        return [int(value.numpy()) for value in binding.get_outputs()[-len(sizes) :]]

    def _read(self, name: str, count: int, state: Mapping[str, Any]) -> TensorStatistics:
        """The statistics of one tensor, from the device."""
        parts = {part: state[f"{self._names[name]}/{part}"].numpy() for part in _nothing(self._histograms)}
        if not np.isfinite(parts["finite"]):
            raise DataError(
                f"the tensor {name!r} is NaN or infinite for a sample: no range can hold it. Calibrate on the CPU "
                "(leave --engine out) to learn for which."
            )
        bins, counts = np.zeros(0, np.uint32), np.zeros(0, np.int64)
        if self._histograms:
            bins = np.flatnonzero(parts["counts"]).astype(np.uint32)
            counts = parts["counts"][bins]
        if not count:
            return TensorStatistics(np.float32(0), np.float32(0), 0, bins, counts)
        # Adding positive zero turns -0.0 into 0.0 and changes nothing else.
        low, high = (np.float32(parts[part]) + np.float32(0) for part in ("low", "high"))
        return TensorStatistics(low, high, count, bins, counts)


def _nothing(histograms: bool) -> dict[str, npt.NDArray[Any]]:
    """The state of a tensor before any value, by its part."""
    state: dict[str, npt.NDArray[Any]] = {
        "low": np.array(np.finfo(np.float32).max, np.float32),
        "high": np.array(np.finfo(np.float32).min, np.float32),
        "finite": np.array(0, np.float32),  # becomes NaN with the first value that is not finite
    }
    if histograms:
        state["counts"] = np.zeros(_BINS, np.int64)
    return state


def add_counters(graph: Any, names: Mapping[str, str], histograms: bool) -> None:
    """Gives a graph, for each tensor, inputs of its state before a sample and outputs of that after it.

    Args:
        graph: ONNX `GraphProto`; its outputs are replaced.
        names: tensor -> prefix of what is added for it: PREFIX/PART/before, PREFIX/PART/after, PREFIX/size.
        histograms: count values, beside extremes.
    """
    from onnx import TensorProto, helper

    del graph.output[:]
    builder = _Builder(graph)
    for tensor, prefix in names.items():
        builder.prefix = prefix
        for part, array in _nothing(histograms).items():
            kind = TensorProto.INT64 if part == "counts" else TensorProto.FLOAT
            for moment, values in (("before", graph.input), ("after", graph.output)):
                values.append(helper.make_tensor_value_info(f"{prefix}/{part}/{moment}", kind, array.shape))
        graph.output.append(helper.make_tensor_value_info(f"{prefix}/size", TensorProto.INT64, []))
        values = builder("Cast", tensor, to=TensorProto.FLOAT)
        builder("Size", tensor, output="size")
        for part, reduce, join in (("low", "ReduceMin", "Min"), ("high", "ReduceMax", "Max")):
            builder(join, f"{prefix}/{part}/before", builder(reduce, values, keepdims=0), output=f"{part}/after")
        # Zero times a value that is not finite is NaN, and so is any sum with it.
        spoiled = builder("ReduceSum", builder("Mul", values, builder.constant("zero", np.float32(0))), keepdims=0)
        builder("Add", f"{prefix}/finite/before", spoiled, output="finite/after")
        if histograms:
            builder("Add", f"{prefix}/counts/before", _counts(builder, values), output="counts/after")


def _counts(builder: _Builder, values: str) -> str:
    """How many of `values` lie in each bin: int64, (_BINS,)."""
    from onnx import TensorProto

    exponents = np.arange(256)
    # 2 ** (127 - exponent) has no float32 of its own at both ends: two factors.
    half = (127 - exponents) // 2
    powers = {
        "lows": np.ldexp(np.float32(1), np.clip(exponents, 1, 254) - 127).astype(np.float32),
        "first": np.ldexp(np.float32(1), half).astype(np.float32),
        "second": np.ldexp(np.float32(1), 127 - exponents - half).astype(np.float32),
    }
    powers["lows"][255] = np.inf
    tables = {name: builder.constant(name, table) for name, table in powers.items()}
    one = builder.constant("one", np.int32(1))

    size = builder("Abs", values)
    tiny = builder.constant("tiny", _SMALLEST_NORMAL)
    # What is not finite is found elsewhere, and must not become an index that is none.
    finite = builder("Less", size, builder.constant("infinity", np.float32(np.inf)))
    normal = builder("Where", finite, builder("Max", size, tiny), tiny)
    logarithm = builder("Mul", builder("Log", normal), builder.constant("octaves", np.float32(1 / np.log(2))))
    guess = builder("Floor", builder("Add", logarithm, builder.constant("bias", np.float32(127))))
    limits = builder.constant("least", np.float32(1)), builder.constant("most", np.float32(254))
    exponent = builder("Cast", builder("Clip", guess, *limits), to=TensorProto.INT32)
    below = builder("Less", normal, builder("Gather", tables["lows"], exponent))
    next_low = builder("Gather", tables["lows"], builder("Add", exponent, one))
    above = builder("Not", builder("Less", normal, next_low))
    exponent = builder("Sub", exponent, builder("Cast", below, to=TensorProto.INT32))
    exponent = builder("Add", exponent, builder("Cast", above, to=TensorProto.INT32))
    mantissa = builder("Mul", normal, builder("Gather", tables["first"], exponent))
    mantissa = builder("Mul", mantissa, builder("Gather", tables["second"], exponent))
    fraction = builder("Sub", mantissa, builder.constant("unit", np.float32(1)))
    position = builder("Mul", fraction, builder.constant("page", np.float32(PAGE)))
    page = builder("Mul", exponent, builder.constant("bins_a_page", np.int32(PAGE)))
    bin_of = builder("Add", page, builder("Cast", position, to=TensorProto.INT32))
    negative = builder("Less", values, builder.constant("zero", np.float32(0)))
    sign = builder(
        "Mul", builder("Cast", negative, to=TensorProto.INT32), builder.constant("sign", np.int32(_BINS // 2))
    )
    bin_of = builder(
        "Where", builder("Less", size, tiny), builder.constant("first_bin", np.int32(0)), builder("Add", bin_of, sign)
    )
    flat = builder("Reshape", bin_of, builder.constant("flat", np.array([-1], np.int64)))
    ones = builder("Expand", builder.constant("unit", np.float32(1)), builder("Shape", flat))
    empty = builder.constant("empty", np.zeros(_BINS, np.float32))
    # One sample's counts are far below 2 ** 24, up to which float32 adds ones exactly.
    return builder("Cast", builder("ScatterElements", empty, flat, ones, axis=0, reduction="add"), to=TensorProto.INT64)


class _Builder:
    """Adds nodes and shared constants to a graph, under names of ours."""

    def __init__(self, graph: Any) -> None:
        self.prefix = ""
        self._graph = graph
        self._constants: set[str] = set()
        self._nodes = 0

    def __call__(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node; the name of its output."""
        from onnx import helper

        self._nodes += 1
        name = f"{self.prefix}/{output or self._nodes}"
        self._graph.node.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def constant(self, name: str, value: npt.NDArray[Any] | np.generic) -> str:
        """The name of a constant, which is added once."""
        from onnx import numpy_helper

        full = f"{_PREFIX}constant/{name}"
        if full not in self._constants:
            self._constants.add(full)
            self._graph.initializer.append(numpy_helper.from_array(np.asarray(value), full))
        return full
