"""Which quantized tensor of an INT8 file is wrong, and why: its range, the kernel that optimization chose, its node."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.skeleton import skeleton
from onnxptq.quantization._inference import batched
from onnxptq.runtimes import open_session
from onnxptq.runtimes.session import Optimization
from onnxptq.signature import Feeds

if TYPE_CHECKING:
    import onnx

WRONG_DB = 10.0
"""A tensor whose error is more than a tenth of its signal's energy is wrong."""

FEW_STEPS = 4.0
"""A tensor whose values lie within so many steps of its scale holds next to nothing."""

_CLIPPED = 0.02
"""A share of a tensor's values outside of its range that shows."""


@dataclass(frozen=True)
class Traced:
    """An INT8 file whose quantized tensors are looked at.

    Attributes:
        int8: the file.
        folded: the FP32 model whose tensors have the same names and should hold the same; None where there is none.
        level: how far the INT8 graph is optimized.
    """

    int8: Path
    folded: Path | None
    level: Optimization


@dataclass(frozen=True)
class _Site:
    """A QuantizeLinear with one scale.

    Attributes:
        tensor: what is quantized, by the name that it has in the FP32 model.
        quantized: name of the integers.
        scale, zero: its parameters.
        least, most: the integers' ends.
        node: the node that computes the tensor, in the INT8 graph; "" for an input.
    """

    tensor: str
    quantized: str
    scale: float
    zero: int
    least: int
    most: int
    node: str

    def floats(self, integers: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
        return (integers.astype(np.float64) - self.zero) * self.scale

    @property
    def range(self) -> tuple[float, float]:
        return (self.least - self.zero) * self.scale, (self.most - self.zero) * self.scale


def explain(traced: Traced, samples: Sequence[Feeds], *, optimization_differs: bool) -> str:
    """One line on the first tensor, in the order of the graph, that is wrong; "" where none is.

    Args:
        traced: the file.
        samples: what to run.
        optimization_differs: the outputs are wrong in the optimized graph only.
    """
    sites = _sites(traced.int8)
    if not sites:
        return ""
    names = [site.quantized for site in sites]
    written = _run(traced.int8, names, samples, "none")
    optimized = _run(traced.int8, names, samples, traced.level) if optimization_differs else written
    if optimization_differs:
        for site in sites:
            right = [site.floats(v) for v in written[site.quantized]]
            if (kept := sqnr_db(right, [site.floats(v) for v in optimized[site.quantized]])) < WRONG_DB:
                return _kernel(site, kept)
        return ""
    if traced.folded is None:
        return ""
    there = {name for node in skeleton(traced.folded).graph.node for name in node.output}
    there |= {value.name for value in skeleton(traced.folded).graph.input}
    known = [site for site in sites if site.tensor in there]
    wanted = _run(traced.folded, [site.tensor for site in known], samples, "none")
    for site in known:
        kept = sqnr_db(wanted[site.tensor], [site.floats(v) for v in written[site.quantized]])
        if kept < WRONG_DB:
            return _cause(site, kept, wanted[site.tensor])
    return ""


def _sites(path: Path) -> list[_Site]:
    from onnx import numpy_helper

    graph = skeleton(path).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    sites = []
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or len(node.input) < 3 or node.input[0] in constants:
            continue
        if node.input[1] not in constants or node.input[2] not in constants:
            continue
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        if scale.size != 1 or not np.issubdtype(zero.dtype, np.integer):
            continue
        made = producers.get(node.input[0])
        ends = np.iinfo(zero.dtype)
        sites.append(
            _Site(
                tensor=node.input[0].removesuffix("_QuantizeLinear_Input"),
                quantized=node.output[0],
                scale=float(scale.item()),
                zero=int(zero.item()),
                least=int(ends.min),
                most=int(ends.max),
                node=f"{made.op_type} {made.name!r}" if made is not None else "",
            )
        )
    return sites


def _run(
    path: Path, names: Sequence[str], samples: Sequence[Feeds], level: Optimization
) -> dict[str, list[npt.NDArray[Any]]]:
    """What tensors of a model hold, for each sample."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        proto = onnx.load(str(path), load_external_data=False)
        inputs = {value.name for value in proto.graph.input}
        computed = [name for name in dict.fromkeys(names) if name not in inputs]
        _ask_for(proto, computed)
        augmented = Path(folder) / path.name
        save_with_links(proto, path, augmented)
        session = open_session(augmented, optimization=level).native
    shapes = {value.name: value.shape for value in session.get_inputs()}
    found: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in names}
    for feeds in samples:
        fed = {name: batched(array, shapes.get(name)) for name, array in feeds.items() if name in shapes}
        values = dict(zip(computed, session.run(computed, fed), strict=True)) if computed else {}
        for name in found:
            found[name].append(values[name] if name in values else fed[name])
    return found


def _ask_for(proto: onnx.ModelProto, names: Sequence[str]) -> None:
    import onnx

    outputs = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)


def sqnr_db(wanted: Iterable[npt.NDArray[Any]], given: Iterable[npt.NDArray[Any]]) -> float:
    """Ratio of the energies of what is wanted and of the error, over several arrays, in dB; inf where all is equal.

    What is not finite in what is wanted, as the fill of a mask, does not count.
    """
    signal = error = 0.0
    for right, got in zip(wanted, given, strict=True):
        right, got = np.asarray(right, np.float64), np.asarray(got, np.float64)
        real = np.isfinite(right) & (np.abs(right) < 1e9)
        signal += float((right[real] ** 2).sum())
        error += float(((right[real] - got[real]) ** 2).sum())
    if error == 0.0 or signal == 0.0:
        return np.inf
    return float(10 * np.log10(signal / error))


def _kernel(site: _Site, kept: float) -> str:
    return (
        f"the optimized graph computes the tensor {site.tensor!r} ({site.node or 'an input'}) otherwise than the graph "
        f"as it is written: {kept:.0f} dB are the same. ONNX Runtime fuses its node with the Q and DQ around it into a "
        f"kernel that computes something else. Leave it in float: --exclude {_name(site)}."
    )


def _cause(site: _Site, kept: float, wanted: Sequence[npt.NDArray[Any]]) -> str:
    values = np.concatenate([np.asarray(v, np.float64).ravel() for v in wanted])
    values = values[np.isfinite(values)]
    low, high = site.range
    what = f"the tensor {site.tensor!r} ({site.node or 'an input'}) keeps {kept:.0f} dB of its signal in INT8"
    if (beyond := float(np.mean((values < low - site.scale) | (values > high + site.scale)))) > _CLIPPED:
        return (
            f"{what}: {beyond:.0%} of its values lie outside of its range [{low:.4g}, {high:.4g}]. --method minmax or "
            "robust gives a wider one."
        )
    spread = float(np.quantile(values, 0.99) - np.quantile(values, 0.01)) if values.size else 0.0
    if spread < FEW_STEPS * site.scale:
        return (
            f"{what}: its range [{low:.4g}, {high:.4g}] leaves {spread / site.scale:.2g} steps to 98 % of its values. "
            f"Leave its node in float (--exclude {_name(site)}), or take a range without the few large values "
            "(--method percentile)."
        )
    return (
        f"{what}, and its own scale of {site.scale:.3g} does not explain it: the node adds up errors of its inputs and "
        f"weights. Leave it in float: --exclude {_name(site)}."
    )


def _name(site: _Site) -> str:
    return site.node.partition(" ")[2] or f"NODE (the one that reads {site.tensor!r})"
