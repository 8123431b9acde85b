"""The pre-processing that a model brings with it, run by ONNX Runtime: from its graph to what the task calls.

1. The picture is the last uint8 tensor of three dimensions through which all that the body reads must pass.
2. What comes before it decodes (and mostly resizes); what comes after normalises.
3. Its layout, its order of colors and whether its size is fixed are seen on a red image.
"""

from __future__ import annotations

import atexit
import io
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError
from onnxptq.files import digest_file
from onnxptq.graphs import Model
from onnxptq.graphs.load import Parts
from onnxptq.graphs.parts import needed_nodes, part_of, reads
from onnxptq.runtimes import Session, open_session
from onnxptq.runtimes.isolated import Opened, Worker, WorkerError
from onnxptq.tasks import Feeds, TensorSpec
from onnxptq.tasks.encoded_image_input import OwnPreprocessing, Pixels

if TYPE_CHECKING:
    import onnx

_PROBES = ((96, 64), (64, 96))
"""Height and width of two red images: a size that both come out in is the model's."""

_LAYOUTS = {"HWC": (0, 1, 2), "CHW": (1, 2, 0)}


@dataclass(frozen=True)
class _Picture:
    """The tensor in which the picture is.

    Attributes:
        name: of the tensor.
        layout: "HWC" or "CHW".
        bgr: blue comes first.
        size: height and width, or None where they depend on the image.
    """

    name: str
    layout: str
    bgr: bool
    size: tuple[int, int] | None

    def to_rgb(self, values: Pixels) -> Pixels:
        """(H, W, 3), RGB."""
        rows = values.transpose(_LAYOUTS[self.layout])
        return np.ascontiguousarray(rows[..., ::-1] if self.bgr else rows)

    def from_rgb(self, pixels: Pixels) -> Pixels:
        """As the tensor holds it."""
        ordered = pixels[..., ::-1] if self.bgr else pixels
        return np.ascontiguousarray(ordered.transpose(np.argsort(_LAYOUTS[self.layout])))


def own_preprocessing(model: Model) -> OwnPreprocessing:
    """What a model in two halves does with an encoded image.

    Raises:
        ModelError: it does not take one encoded image, or no picture of 8 bits is found in its pre-processing.
    """
    import onnx

    assert model.parts is not None, "take the model apart first"
    source = _encoded_input(model)
    head = onnx.load(str(model.parts.head))
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        picture = _find_picture(head, source.name, model.path, Path(folder))
        kind = onnx.helper.make_tensor_value_info(picture.name, onnx.TensorProto.UINT8, [None] * 3)
        decoder = _Decoder(part_of(head, head.graph.input, [kind]))
        finisher = _open(part_of(head, [kind], head.graph.output), Path(folder) / "finish.onnx")
    return OwnPreprocessing(
        digest=digest_file(model.parts.head),
        size=picture.size,
        decode=_decode_with(decoder, source.name, picture),
        finish=_finish_with(finisher, model.parts, picture),
    )


class _Decoder:
    """Decodes in a worker: libraries of the extension call exit(1) on some files, which would look like a verdict.

    Args:
        proto: encoded bytes -> the picture.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        import onnx

        self._folder = tempfile.TemporaryDirectory(prefix="onnxptq.", ignore_cleanup_errors=True)
        self._path = Path(self._folder.name) / "decode.onnx"
        onnx.save(proto, str(self._path))
        self._opened: tuple[Worker, Opened] | None = None
        atexit.register(self.close)

    def decode(self, source: str, encoded: bytes) -> npt.NDArray[Any]:
        """The picture. Raises ModelError where it is refused, or ends the process."""
        try:
            if self._opened is None:
                worker = Worker()
                self._opened = worker, worker.open(self._path)
            worker, session = self._opened
            (values,) = worker.run(session, {source: np.frombuffer(encoded, np.uint8)})
        except WorkerError as error:
            if error.failure != "refused":
                self.close()
            raise ModelError(f"{error.reason}.") from error
        return values

    def close(self) -> None:
        """Ends the process; the next image starts another."""
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None


def _decode_with(decoder: _Decoder, source: str, picture: _Picture) -> Callable[[bytes], Pixels]:
    def decode(encoded: bytes) -> Pixels:
        values = decoder.decode(source, encoded)
        pixels = picture.to_rgb(values)
        if pixels.shape[2] != 3:  # The extension leaves gray JPEG gray, and what comes behind fails.
            raise ModelError(f"it is decoded to {pixels.shape[2]} color instead of 3.")
        return pixels

    return decode


def _finish_with(session: Session, parts: Parts, picture: _Picture) -> Callable[[Pixels], Feeds]:
    names = [spec.name for spec in session.signature.outputs]

    def finish(pixels: Pixels) -> Feeds:
        feeds = dict(zip(names, session.run({picture.name: picture.from_rgb(pixels)}), strict=True))
        for name, values in feeds.items():
            if not values.ndim or len(values) != 1:
                raise ModelError(
                    f"the pre-processing of {parts.head} makes {name!r} of shape {values.shape}; expected a batch of "
                    "one image. Add the batch to it (Unsqueeze)."
                )
        return feeds

    return finish


def _encoded_input(model: Model) -> TensorSpec:
    """The one input of bytes."""
    inputs = model.signature.inputs
    if len(inputs) == 1 and inputs[0].dtype == "uint8" and len(inputs[0].shape) == 1:
        return inputs[0]
    given = ", ".join(f"{spec.name}: {spec.dtype} of {len(spec.shape)} dimensions" for spec in inputs)
    raise ModelError(
        f"{model.path} has operators of onnxruntime-extensions and takes {given}. Such models are quantized where they "
        "take one encoded image (uint8, one dimension). Export this one without its pre-processing."
    )


def _find_picture(head: onnx.ModelProto, source: str, path: Path, folder: Path) -> _Picture:
    names = _passages(head, source)
    session = _open(_with_outputs(head, names), folder / "probe.onnx")
    eight_bit = [spec.name for spec in session.signature.outputs if spec.dtype == "uint8"]
    seen = [dict(zip(names, session.run({source: _red(*size)}), strict=True)) for size in _PROBES]
    for name in reversed(eight_bit):
        values, other = (one[name] for one in seen)
        layout = _layout(values)
        if layout is not None:
            means = values.transpose(_LAYOUTS[layout]).reshape(-1, 3).mean(axis=0)
            height, width = (values.shape[axis] for axis in _LAYOUTS[layout][:2])
            fixed = values.shape == other.shape
            return _Picture(name, layout, bool(means[2] > means[0]), (height, width) if fixed else None)
    raise ModelError(
        f"the pre-processing of {path} has no picture of three colors and 8 bits through which all passes. Export the "
        "model without its pre-processing."
    )


def _passages(head: onnx.ModelProto, source: str) -> list[str]:
    """Tensors from which the outputs can be computed without the input, in the order of the graph."""
    ends = [value.name for value in head.graph.output]
    found = []
    for name in (name for node in head.graph.node for name in node.output if name):
        behind = needed_nodes(head.graph, ends, {name})
        # From a constant nothing can be computed without the input, so only what depends on the input is found.
        if all(source not in set(reads(node)) for node in behind):
            found.append(name)
    return found


def _with_outputs(head: onnx.ModelProto, names: Sequence[str]) -> onnx.ModelProto:
    import onnx

    changed = onnx.ModelProto()
    changed.CopyFrom(head)
    del changed.graph.output[:]
    # A name is enough: ONNX Runtime infers the type of an output.
    changed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    return changed


def _layout(values: npt.NDArray[Any]) -> str | None:
    if values.ndim != 3 or 3 not in (values.shape[0], values.shape[2]):
        return None
    return "HWC" if values.shape[2] == 3 else "CHW"


def _red(height: int, width: int) -> Pixels:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (255, 0, 0)).save(buffer, "PNG")
    return np.frombuffer(buffer.getvalue(), np.uint8)


def _open(proto: onnx.ModelProto, path: Path) -> Session:
    import onnx

    onnx.save(proto, str(path))
    return open_session(path, threads=1)
