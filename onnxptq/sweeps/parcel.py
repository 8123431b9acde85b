"""Files that travel to machines that do not share our disk: packed once, unpacked once on each machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxptq.cache import Cache, content_key
from onnxptq.calibrators import CalibrationSet
from onnxptq.files import digest_file, replacing
from onnxptq.graphs.external import external_locations
from onnxptq.sweeps.plan import BUILTIN, Plan, compose

_KIND = "sweep-inputs"


@dataclass(frozen=True)
class Parcel:
    """What a model of a plan reads.

    Attributes:
        sources: path as the plan names it -> where it begins in `files`.
        files: (path below the parcel, reference to the bytes in the object store), of all files.
        digest: of their names and contents.
    """

    sources: Mapping[str, str]
    files: tuple[tuple[str, Any], ...]
    digest: str

    def places(self, cache: Cache, fetch: Callable[[Any], bytes]) -> dict[str, str]:
        """Where the sources lie on this machine. What is not there yet is fetched.

        Args:
            cache: of this machine.
            fetch: the bytes behind a reference.
        """
        folder = cache.place(_KIND, self.digest, "")
        for name, reference in self.files:
            path = folder / name
            if not path.exists():
                unpack(path, fetch(reference))
        return {source: str(folder / beginning) for source, beginning in self.sources.items()}


def pack(plan: Plan, model: str, put: Callable[[bytes], Any]) -> Parcel:
    """The files that a model of a plan and its data are made of.

    Args:
        plan: names them, relative to the current folder.
        model: as the plan names it; the built-in one is on every machine.
        put: keeps bytes and gives a reference to them.
    """
    sources: dict[str, str] = {}
    files: dict[str, Path] = {}
    for number, named in enumerate(dict.fromkeys(_named(plan, model))):
        path = Path(named)
        if not path.exists():
            continue  # "hub:NAME", or a name of another kind; whatever it is, it is opened by name there too.
        sources[named] = f"{number}/{path.name}"
        beside = path.parent if path.is_file() else path.parent.resolve()
        files.update({f"{number}/{file.relative_to(beside).as_posix()}": file for file in _files(path)})
    described = {name: digest_file(file) for name, file in files.items()}
    packed = tuple((name, put(file.read_bytes())) for name, file in files.items())
    return Parcel(sources, packed, content_key(_KIND, files=described))


def unpack(path: Path, data: bytes) -> None:
    """Writes a file that arrived, by way of a temporary name: two workers of one machine may do so at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def _named(plan: Plan, model: str) -> Iterator[str]:
    if model != BUILTIN:
        yield model
    yield from filter(None, (plan.data, plan.calib_data, plan.eval_data, plan.reading.preprocessing))
    for calibration in plan.calibrations:
        for strategy in plan.strategies:
            foreign = CalibrationSet.parse(compose(calibration, strategy)).foreign
            if foreign:
                yield foreign


def _files(path: Path) -> Iterator[Path]:
    """A file with what belongs to it, or all files of a folder."""
    if path.is_dir():
        yield from (file for file in sorted(path.resolve().rglob("*")) if file.is_file())
        return
    yield path
    if path.suffix == ".onnx":
        import onnx

        # Preprocessing may lie beside a model, and its weights too.
        beside = [path.with_suffix(".json"), path.parent / "preprocessor_config.json", path.parent / "config.json"]
        proto = onnx.load(str(path), load_external_data=False)
        beside += [path.parent / location for location in external_locations(proto)]
        yield from (file for file in beside if file.is_file())
