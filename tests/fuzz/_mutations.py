"""Mutations that know the structure: values of JSON and TOML, columns of tables, headers of arrays, entries of archives.

Seeded, so that an input that fails can be had again by its number.
"""

from __future__ import annotations

import copy
import io
import struct
import zipfile
from typing import Any

import numpy as np

EXTREMES = (b"\x00", b"\xff", b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\x7f\xff\xff\xff", b"\x00" * 16, b"\xff" * 16)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four small damages: bits, bytes, slices cut, doubled, moved, or replaced by extreme numbers."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        at = int(rng.integers(len(out)))
        length = int(min(len(out) - at, rng.geometric(0.1)))
        kind = rng.integers(8)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            piece = bytes(out[at : at + length])
            to = int(rng.integers(len(out)))
            out[to : to + length] = piece
        elif kind == 5:
            extreme = EXTREMES[rng.integers(len(EXTREMES))]
            out[at : at + len(extreme)] = extreme
        elif kind == 6:
            out[at:at] = rng.bytes(length)
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


ODD = (
    None, True, False, -1, 0, 1, 2**31, 2**63, -(2**70), 0.5, -0.0, 1e308, -1e-320, "", " ", "a", "a/b", "../../x", "/dev/zero",
    "a\0b", "a\n::error::x", "\x1b[31m", "\u202eabc", "x" * 3000, [], {}, [[]], [None], {"": None}, [1, "a"], {"name": 5},
    [[[[[[[[[[[[]]]]]]]]]]]], "nan", "1e999", "1/0", "=1+1",
)  # fmt: skip
"""Values that some reader takes for something else."""


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all values in JSON."""
    found = [path]
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


def mutate_json(value: Any, rng: np.random.Generator) -> Any:
    """One to three values are replaced, removed, doubled, renamed, wrapped or swapped with others."""
    value = copy.deepcopy(value)
    for _ in range(rng.integers(1, 4)):
        known = [path for path in places(value) if path]
        if not known:
            break
        path = known[rng.integers(len(known))]
        holder = value
        for key in path[:-1]:
            holder = holder[key]
        key, kind = path[-1], rng.integers(8)
        if kind < 3:
            holder[key] = copy.deepcopy(ODD[rng.integers(len(ODD))])
        elif kind == 3:
            del holder[key]
        elif kind == 4:
            holder[key] = [holder[key]] * int(rng.integers(1, 4))
        elif kind == 5 and isinstance(holder, dict):
            holder[str(ODD[rng.integers(len(ODD))])[:50]] = holder.pop(key)
        elif kind == 6:
            holder[key] = {str(key): holder[key]}
        else:
            other = value
            for step in known[rng.integers(len(known))]:
                other = other[step]
            holder[key] = copy.deepcopy(other)
    return value


def deep(kind: str, depth: int = 3000) -> str:
    """Lists or tables in each other, as text."""
    return "[" * depth + "]" * depth if kind == "[" else '{"a":' * depth + "1" + "}" * depth


DTYPES = (
    "<f4",
    ">f4",
    "<f8",
    "<i8",
    "|u1",
    "|b1",
    "<U3",
    "|S3",
    "<M8[s]",
    "<c8",
    "|O",
    "<f2",
    "<U0",
    "|V8",
    "[('a','<i4')]",
)


def npz(rng: np.random.Generator) -> bytes:
    """An `.npz` whose arrays have headers that may not fit what is behind them."""
    buffer, together = io.BytesIO(), int(rng.integers(1, 6))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("x", "y", *(["x_train", "é", "a/b", "x.npy"][: rng.integers(0, 3)])):
            rows = together if rng.random() < 0.9 else int(rng.integers(0, 6))
            data = (rng.standard_normal((rows, 4)) if name != "y" else rng.integers(0, 3, rows)).astype("<f4")
            shape = list(data.shape)
            dtype = "<f4"
            if rng.random() < 0.3:
                dtype = DTYPES[rng.integers(len(DTYPES))]
            if rng.random() < 0.3 and shape:
                shape[rng.integers(len(shape))] = int(rng.choice([-1, 0, 1, 7, 2**20, 2**40]))
            text = f"{{'descr': '{dtype}', 'fortran_order': {'False' if rng.random() < 0.8 else '5'}, 'shape': {tuple(shape)}, }}"
            if dtype.startswith("["):
                text = text.replace(f"'{dtype}'", dtype)
            header = text.encode() + b"\n"
            content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data.tobytes()
            if rng.random() < 0.1:
                content = content[: rng.integers(len(content))]
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def cells(rng: np.random.Generator, rows: int) -> list[Any]:
    """A column of some kind, with holes and odd values."""
    kind = rng.integers(9)
    make = {
        0: lambda: float(rng.standard_normal()),
        1: lambda: int(rng.integers(-(2**62), 2**62)),
        2: lambda: str(ODD[rng.integers(len(ODD))])[:200],
        3: lambda: [float(v) for v in rng.standard_normal(rng.integers(0, 4))],
        4: lambda: bool(rng.integers(2)),
        5: lambda: {"bytes": bytes(rng.bytes(9)), "path": str(ODD[rng.integers(len(ODD))])[:99]},
        6: lambda: bytes(rng.bytes(rng.integers(0, 30))),
        7: lambda: float(rng.choice([np.nan, np.inf, 1e300, 0])),
        8: lambda: [[1.0, 2.0], [3.0]][: rng.integers(0, 3)],
    }[int(kind)]
    return [None if rng.random() < 0.1 else make() for _ in range(rows)]


NAMES = (
    "image",
    "text",
    "label",
    "x",
    "path",
    "group",
    "",
    "::error::",
    "a\nb",
    "label",
    "Label",
    "features",
    "é" * 40,
)


def columns(rng: np.random.Generator) -> dict[str, list[Any]]:
    """A table: one to four columns of equal length under names that mean something to us."""
    rows = int(rng.integers(0, 8))
    return {NAMES[rng.integers(len(NAMES))]: cells(rng, rows) for _ in range(rng.integers(1, 5))}
