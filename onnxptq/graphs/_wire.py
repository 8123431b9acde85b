"""A look at an ONNX file's bytes before a parser sees them: how many messages, and how deep they lie.

Protobuf turns two bytes into a message of a hundred: a small file can fill the memory. Nothing is allocated here but
a stack, and nothing of a weight is read: its bytes are skipped by their length.
https://protobuf.dev/programming-guides/encoding/ and onnx.proto3 of ONNX 1.23.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# Message -> field number -> message of that field. Fields that are not messages are skipped.
_TENSOR_FIELDS: Mapping[int, str] = {13: "Entry"}
_MESSAGES: Mapping[str, Mapping[int, str]] = {
    "Model": {7: "Graph", 8: "Entry", 14: "Entry", 20: "Training", 25: "Function"},
    "Training": {1: "Graph", 2: "Graph", 3: "Entry", 4: "Entry"},
    "Graph": {
        1: "Node",
        5: "Tensor",
        11: "Value",
        12: "Value",
        13: "Value",
        14: "Annotation",
        15: "Sparse",
        16: "Entry",
    },
    "Function": {7: "Node", 9: "Entry", 11: "Attribute", 12: "Value", 14: "Entry"},
    "Node": {5: "Attribute", 9: "Entry"},
    "Attribute": {
        5: "Tensor",
        6: "Graph",
        10: "Tensor",
        11: "Graph",
        14: "Type",
        15: "Type",
        22: "Sparse",
        23: "Sparse",
    },
    "Tensor": _TENSOR_FIELDS,
    "Sparse": {1: "Tensor", 2: "Tensor"},
    "Annotation": {2: "Entry"},
    "Value": {2: "Type", 4: "Entry"},
    "Type": {1: "Shaped", 4: "Wrapped", 5: "Map", 8: "Shaped", 9: "Wrapped"},
    "Wrapped": {1: "Type"},
    "Map": {2: "Type"},
    "Shaped": {2: "Shape"},
    "Shape": {1: "Entry"},
    "Entry": {},
}


@dataclass(frozen=True)
class Outline:
    """What the bytes hold.

    Attributes:
        fields: number of fields in all messages that were looked into.
        depth: how many messages lie inside each other.
    """

    fields: int
    depth: int


def outline(path: Path, *, max_fields: int, max_depth: int) -> Outline:
    """Walks through the messages of an ONNX file, until it ends, makes no sense, or exceeds a limit.

    Bytes that make no sense end the walk without a word: the parser has better ones.
    """
    if not path.stat().st_size:
        return Outline(0, 0)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return _walk(data, max_fields, max_depth)


def _walk(data: mmap.mmap, max_fields: int, max_depth: int) -> Outline:
    position, end, kind = 0, len(data), "Model"
    outer: list[tuple[int, str]] = []
    fields = depth = 0
    try:
        while fields <= max_fields and depth <= max_depth:
            if position >= end:
                if not outer:
                    break
                end, kind = outer.pop()
                continue
            tag, position = _varint(data, position)
            fields += 1
            wire_type = tag & 7
            if wire_type == _VARINT:
                _, position = _varint(data, position)
            elif wire_type == _BYTES:
                length, position = _varint(data, position)
                inner = _MESSAGES[kind].get(tag >> 3)
                if position + length > end:
                    break
                if inner is None:
                    position += length
                else:
                    outer.append((end, kind))
                    end, kind = position + length, inner
                    depth = max(depth, len(outer))
            elif wire_type in (_FIXED64, _FIXED32):
                position += 8 if wire_type == _FIXED64 else 4
            else:
                break
    except IndexError:
        pass  # It is cut in the middle of a number.
    return Outline(fields, depth)


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    byte = data[position]
    position += 1
    if byte < 0x80:
        return byte, position
    value, shift = byte & 0x7F, 7
    while shift < 64:
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise IndexError
