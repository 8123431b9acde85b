"""Pictures with boxes: COCO JSON, YOLO text and Pascal VOC XML as rows with their truth.

Each row holds the encoded picture, and under `TRUTH`: "boxes", float32 (K, 4), corners in pixels of the picture;
"box_classes", K names; "crowd", bool (K,); "area", float32 (K,), of the object in pixels; "width" and "height".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from onnxptq.data._folder import IMAGE_SUFFIXES, read_file
from onnxptq.data._raw import SPLIT_NAMES, RawSplit
from onnxptq.data.dataset import TRUTH, Indices
from onnxptq.data.isolated import DecodeError, ask
from onnxptq.errors import DataError

_OUTSIDE = 1.0
"""Pixels that a box may reach over the picture: annotators and rounding do that; more is a mistake."""

_REPAIR = "Correct it, or leave such pictures out with --skip-bad."

_LARGEST_TEXT = 1 << 20
"""Bytes of one annotation in YOLO text or VOC XML: a thousand boxes need a tenth."""


@dataclass(frozen=True)
class Annotation:
    """One picture and where its truth lies.

    Attributes:
        find: gives the path of the picture; DataError where it is missing.
        name: what messages call it.
        read: `(encoded picture)` gives boxes, classes, crowd flags and areas, (K each), and (height, width).
        file: where the truth is written, for messages.
    """

    find: Callable[[], Path]
    name: str
    read: Callable[[bytes], Truth]
    file: str


@dataclass(frozen=True)
class Truth:
    """The objects of one picture, corners in its pixels."""

    boxes: Sequence[Sequence[float]]
    classes: Sequence[str]
    crowd: Sequence[bool]
    areas: Sequence[float]
    size: tuple[int, int]


@dataclass(frozen=True)
class AnnotatedRows:
    """Reads pictures as rows {"image": encoded bytes, "_name": name, TRUTH: its objects}."""

    annotations: tuple[Annotation, ...]

    def __call__(self, indices: Indices) -> list[dict[str, Any]]:
        """The rows at `indices`. Raises DataError naming a picture or an annotation that cannot be used."""
        return [self._row(self.annotations[i]) for i in indices.tolist()]

    def _row(self, one: Annotation) -> dict[str, Any]:
        encoded = read_file(one.find())
        return {"image": encoded, "_name": one.name, TRUTH: _checked(one.read(encoded), f"{one.file}: {one.name}")}


def _checked(truth: Truth, name: str) -> dict[str, Any]:
    height, width = truth.size
    boxes = np.asarray(truth.boxes, np.float32).reshape(-1, 4)
    for number, box in enumerate(boxes.tolist()):
        left, top, right, bottom = box
        if not np.isfinite(box).all() or right <= left or bottom <= top:
            raise DataError(f"{name}: box {number + 1} is {_shown(box)}, which has no area. {_REPAIR}")
        if left < -_OUTSIDE or top < -_OUTSIDE or right > width + _OUTSIDE or bottom > height + _OUTSIDE:
            raise DataError(
                f"{name}: box {number + 1} is {_shown(box)}, outside of the picture of {width} x {height} pixels. "
                f"{_REPAIR}"
            )
    return {
        "boxes": np.clip(boxes, 0, np.array([width, height, width, height], np.float32)),
        "box_classes": [str(label) for label in truth.classes],
        "crowd": np.asarray(truth.crowd, np.bool_),
        "area": np.asarray(truth.areas, np.float32),
        "width": width,
        "height": height,
    }


def _shown(box: Sequence[float]) -> str:
    return "({})".format(", ".join(f"{side:g}" for side in box))


def open_annotated(path: Path) -> dict[str, RawSplit] | None:
    """The splits of pictures with boxes, {"": only} where it has none; None where the path holds something else.

    Args:
        path: a COCO JSON file; a folder with one and its pictures; a folder with `images/` and `labels/` (YOLO); or one
            with `Annotations/` and `JPEGImages/` (Pascal VOC).

    Raises:
        DataError: an annotation cannot be read, or a picture is missing.
    """
    for find in (_coco, _voc, _yolo):
        if (found := find(path)) is not None:
            return {name: _split(annotations, path) for name, annotations in found.items()}
    return None


def _split(annotations: Sequence[Annotation], path: Path) -> RawSplit:
    if not annotations:
        raise DataError(f"{path} has annotations and not one picture. Give the folder that holds both.")
    return RawSplit(AnnotatedRows(tuple(annotations)), len(annotations), None, None, {})


# COCO JSON.


def _coco(path: Path) -> dict[str, list[Annotation]] | None:
    files = [path] if path.is_file() else _json_files(path)
    found: dict[str, list[Annotation]] = {}
    for file in files:
        content = _coco_content(file)
        if content is None:
            continue
        split = SPLIT_NAMES.get(file.stem.rpartition("_")[2].rstrip("0123456789").lower(), "")
        if split in found:
            raise DataError(f"{path} has two COCO files for one split, the second is {file.name}. Give one of them.")
        found[split] = _coco_annotations(content, file)
    return found or None


def _json_files(folder: Path) -> list[Path]:
    below = folder / "annotations"
    return sorted([*folder.glob("*.json"), *(below.glob("*.json") if below.is_dir() else ())])


def _coco_content(file: Path) -> dict[str, Any] | None:
    """The content of a COCO file; None where it is another JSON."""
    if file.suffix.lower() != ".json":
        return None
    try:
        with file.open("rb") as opened:
            if opened.read(1).strip() not in (b"{", b""):
                return None
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # Whoever reads tables says what is wrong with it.
    keys = ("images", "annotations", "categories")
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        return None
    return content


def _coco_annotations(content: Mapping[str, Any], file: Path) -> list[Annotation]:
    try:
        names = {one["id"]: str(one["name"]) for one in content["categories"]}
        objects: dict[Any, list[Mapping[str, Any]]] = {}
        for one in content["annotations"]:
            objects.setdefault(one["image_id"], []).append(one)
        return [_coco_picture(one, objects.get(one["id"], ()), names, file) for one in content["images"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file} is not in the COCO format ({type(error).__name__}: {error}). Expected images with id, file_name, "
            "width and height, annotations with image_id, category_id and bbox, and categories with id and name."
        ) from error


def _coco_picture(
    image: Mapping[str, Any], objects: Sequence[Mapping[str, Any]], names: Mapping[Any, str], file: Path
) -> Annotation:
    name, size = str(image["file_name"]), (int(image["height"]), int(image["width"]))
    return Annotation(
        lambda: _coco_file(file, name), name, lambda encoded: _coco_truth(objects, names, size, file, name), file.name
    )


def _coco_truth(
    objects: Sequence[Mapping[str, Any]], names: Mapping[Any, str], size: tuple[int, int], file: Path, name: str
) -> Truth:
    """The objects of one picture."""
    boxes, areas = [], []
    for one in objects:
        where = f"{file}: {name}: annotation {one.get('id')}"
        if one.get("category_id") not in names:
            raise DataError(f"{where} has the category {one.get('category_id')}, which the file lacks. {_REPAIR}")
        try:
            left, top, width, height = map(float, one["bbox"])
            areas.append(float(one.get("area", width * height)))
        except (KeyError, TypeError, ValueError) as error:
            box = str(one.get("bbox"))[:80]
            raise DataError(f"{where} has the box {box}; expected [left, top, width, height]. {_REPAIR}") from error
        boxes.append([left, top, left + width, top + height])
    classes = [names[one["category_id"]] for one in objects]
    return Truth(boxes, classes, [bool(one.get("iscrowd", 0)) for one in objects], areas, size)


def _coco_file(file: Path, name: str) -> Path:
    """The picture: beside the JSON, in images/, or in the folder of the split (train2017 for instances_train2017)."""
    split = file.stem.rpartition("_")[2]
    roots = [file.parent, file.parent.parent] if file.parent.name == "annotations" else [file.parent]
    places = [root / below / name for root in roots for below in ("", "images", split, f"images/{split}")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise DataError(
            f"{file} names the picture {name}, which is neither beside it nor in images/. Restore it, or leave such "
            "pictures out with --skip-bad."
        )
    if not found.resolve().is_relative_to(roots[-1].resolve()):
        raise DataError(f"{file} names the picture {name}, which lies outside of {roots[-1]}. Move it there.")
    return found


# Pascal VOC.


def _voc(path: Path) -> dict[str, list[Annotation]] | None:
    folder = path / "Annotations"
    files = sorted(folder.glob("*.xml")) if folder.is_dir() else []
    if not files:
        return None
    return {"": [_voc_annotation(file) for file in files]}


def _voc_annotation(file: Path) -> Annotation:
    return Annotation(lambda: _voc_picture(file), file.stem, lambda encoded: _voc_truth(file), file.name)


def _voc_picture(file: Path) -> Path:
    pictures = file.parent.parent / "JPEGImages"
    return _with_stem(pictures, file.stem, file)


def _voc_truth(file: Path) -> Truth:
    root = _xml(file)
    boxes, classes = [], []
    for number, one in enumerate(root.iter("object")):
        try:
            boxes.append([float(one.findtext(f"bndbox/{end}") or "") for end in ("xmin", "ymin", "xmax", "ymax")])
        except ValueError as error:
            raise DataError(f"{file}: the box of object {number + 1} is no number ({error}). Correct it.") from error
        classes.append(one.findtext("name") or "")
    try:
        size = int(root.findtext("size/height") or 0), int(root.findtext("size/width") or 0)
    except ValueError as error:
        raise DataError(f"{file}: the picture's size is no number ({error}). Correct it.") from error
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    return Truth(boxes, classes, [False] * len(boxes), areas, size)


def _xml(file: Path) -> Any:
    text = _annotation_text(file)
    if "<!DOCTYPE" in text or "<!ENTITY" in text:  # Entities can unfold to gigabytes.
        raise DataError(f"{file} declares a document type, which annotations do not need. Remove it.")
    try:
        return ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise DataError(f"{file} is not XML: {error}. Restore it or leave it out.") from error


# YOLO text.


def _yolo(path: Path) -> dict[str, list[Annotation]] | None:
    images, labels = path / "images", path / "labels"
    if not images.is_dir() or not labels.is_dir():
        return None
    names = _yolo_names(path)
    below = [folder for folder in sorted(images.iterdir()) if folder.is_dir()]
    splits = {SPLIT_NAMES.get(folder.name.rstrip("0123456789").lower(), folder.name): folder for folder in below}
    found = {}
    for split, folder in (splits or {"": images}).items():
        pictures = sorted(one for one in folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES and one.is_file())
        truths = labels / folder.name if splits else labels
        found[split] = [_yolo_picture(one, truths / f"{one.stem}.txt", names) for one in pictures]
    return found


def _yolo_picture(picture: Path, file: Path, names: Sequence[str]) -> Annotation:
    return Annotation(lambda: picture, picture.name, lambda encoded: _yolo_truth(encoded, file, names), file.name)


def _yolo_truth(encoded: bytes, file: Path, names: Sequence[str]) -> Truth:
    """A line an object: class, center and size as shares of the picture. No file: no object."""
    height, width = _picture_size(encoded, file)
    boxes, classes = [], []
    lines = _annotation_text(file).splitlines() if file.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            label, across, down, wide, high = line.split()[:5]
            x, y, w, h = (float(value) for value in (across, down, wide, high))
            index = int(label)
        except ValueError as error:
            raise DataError(
                f"{file}, line {number}: {line[:80]!r} is no object; expected class x_center y_center width height."
            ) from error
        if index < 0 or (names and index >= len(names)):
            raise DataError(f"{file}, line {number}: class {index} is not among the {len(names)} of the data's names.")
        boxes.append([(x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height])
        classes.append(names[index] if names else str(index))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    return Truth(boxes, classes, [False] * len(boxes), areas, (height, width))


def _yolo_names(folder: Path) -> tuple[str, ...]:
    """Class names of `classes.txt`, or of `names` in a YAML file; () where there are none: classes are numbers then."""
    listed = folder / "classes.txt"
    if listed.is_file():
        return tuple(line.strip() for line in _annotation_text(listed).splitlines() if line.strip())
    for file in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")]):
        if names := _names_in_yaml(file):
            return names
    return ()


def _names_in_yaml(file: Path) -> tuple[str, ...]:
    """`names` of a data set's YAML, a list or numbers with names; () where it has none."""
    import yaml

    try:
        content = yaml.safe_load(_annotation_text(file))
    except yaml.YAMLError as error:
        raise DataError(f"{file} is not YAML: {error}. Correct it or remove it.") from error
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, dict):
        numbers = sorted(names)
        if numbers != list(range(len(numbers))):
            raise DataError(f"{file}: names must be numbered from 0 without a gap, got {numbers[:10]}.")
        names = [names[number] for number in numbers]
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _picture_size(encoded: bytes, file: Path) -> tuple[int, int]:
    """Height and width of an encoded picture as it is shown."""
    try:
        ((height, width),), _ = ask("sizes", [encoded])
    except DecodeError as error:
        raise DataError(
            f"the picture of {file.name} cannot be decoded: {error}. Restore it or leave it out."
        ) from error
    return int(height), int(width)


def _with_stem(folder: Path, stem: str, file: Path) -> Path:
    """The picture of an annotation."""
    found = next((one for suffix in sorted(IMAGE_SUFFIXES) if (one := folder / f"{stem}{suffix}").is_file()), None)
    if found is None:
        raise DataError(
            f"{file} has no picture {stem}.jpg (or .png) in {folder}. Restore it, or remove the annotation."
        )
    return found


def _annotation_text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_TEXT:
            raise DataError(f"{file} is larger than 1 MB; one annotation is not. Check what it is.")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the annotation {file} cannot be read: {error}.") from error
