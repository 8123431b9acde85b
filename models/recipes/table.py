"""A table net: `python -m onnxptq.models.recipes.table --data compas.csv [-o compas.onnx]`.

Tells whether a defendant was charged again within two years, from the columns of ProPublica's COMPAS analysis, and is
judged by race and sex. It standardizes inside the graph, so its input holds columns in their own units: float32 (N, 7),
which the file reads from a table by itself. One row in three, by a digest of its content, is left out of training and
written beside the net as `compas.held.csv`; the others are `compas.train.csv`. Ten seconds.

The data and the label have known biases (https://www.propublica.org/article/how-we-analyzed-the-compas-recidivism-algorithm);
the net is for studying quantization, and for nothing else.
"""

from __future__ import annotations

import csv
import hashlib
import itertools
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.models._training import export_onnx, fit, prepared, run, write_file

NUMBERS = ("age", "juv_fel_count", "juv_misd_count", "juv_other_count", "priors_count")
FLAGS = {"c_charge_degree": "F", "sex": "Male"}
"""Column and the value that counts as 1."""

COLUMNS = (*NUMBERS, *FLAGS)
LABEL = "two_year_recid"
CLASSES = ("no", "yes")
EPOCHS = 60
BATCH = 64
RATE = 3e-3
TRAIN_SEED = 0
HELD_OUT = 3


def is_held_out(row: Mapping[str, str]) -> bool:
    """Whether a row is kept for judging, by its content, so that equal rows stay on one side."""
    content = "\x1f".join(f"{name}={row[name]}" for name in sorted(row))
    return hashlib.sha256(content.encode()).digest()[0] % HELD_OUT == 0


def read_table(source: str) -> list[dict[str, str]]:
    """All rows of a CSV file.

    Raises:
        DataError: the file is missing, or lacks a column.
    """
    try:
        with Path(source).open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror}.") from error
    missing = {*COLUMNS, LABEL} - set(rows[0] if rows else ())
    if missing:
        raise DataError(f"{source} lacks the columns {', '.join(sorted(missing))}; expected ProPublica's COMPAS table.")
    return rows


def numbers_of(rows: Sequence[Mapping[str, str]]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Rows as the net takes them: float32 (N, 7) in the units of the columns, and labels, int64 (N,).

    Raises:
        DataError: a value is no number.
    """
    try:
        return np.asarray([features(row) for row in rows], np.float32), np.asarray([int(row[LABEL]) for row in rows])
    except ValueError as error:
        raise DataError(f"the table holds a value that is no number: {error}.") from error


def write_table(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Rows as CSV, the label under a name that is found by itself."""
    with path.open("w", newline="", encoding="utf-8") as file:
        names = [name for name in rows[0] if name != LABEL]
        table = csv.writer(file)
        table.writerow([*names, "label"])
        table.writerows([*(row[name] for name in names), CLASSES[int(row[LABEL])]] for row in rows)


def features(row: Mapping[str, str]) -> list[float]:
    """The values of `COLUMNS`."""
    return [*(float(row[name]) for name in NUMBERS), *(float(row[name] == value) for name, value in FLAGS.items())]


def build_network(mean: Any, deviation: Any) -> Any:
    """The net, a torch.nn.Module: float32 (N, 7) -> logits (N, 2). Standardizes first."""
    import torch
    from torch import nn

    class TableNet(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("mean", torch.as_tensor(mean))
            self.register_buffer("deviation", torch.as_tensor(deviation))
            widths = (len(COLUMNS), 64, 64, 32)
            layers = [
                part for ends in itertools.pairwise(widths) for part in (nn.Linear(*ends), nn.ReLU(), nn.Dropout(0.1))
            ]
            self.layers = nn.Sequential(*layers, nn.Linear(widths[-1], len(CLASSES)))

        def forward(self, x: Any) -> Any:
            return self.layers((x - self.mean) / self.deviation)

    return TableNet()


def train_network(values: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], epochs: int = EPOCHS) -> Any:
    """Trains the net (AdamW) and returns it in evaluation mode."""
    import torch
    from torch.nn import functional

    torch.manual_seed(TRAIN_SEED)
    network = build_network(values.mean(axis=0), np.maximum(values.std(axis=0), 1e-3)).train()
    inputs, truth = torch.from_numpy(values), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)

    def loss(rows: Any) -> Any:
        return functional.cross_entropy(network(inputs[rows]), truth[rows])

    fit(loss, len(inputs), epochs=epochs, batch=BATCH, optimizer=optimizer)
    return network.eval()


def export_network(network: Any, path: Path) -> None:
    """Writes the trained net with a dynamic batch, and how to use it as metadata."""
    import torch

    export_onnx(
        network,
        (torch.zeros(2, len(COLUMNS)),),
        path,
        inputs=["x"],
        outputs=["logits"],
        dynamic=({0: torch.export.Dim("batch")},),
        task="table-classification",
        specification={"output": "logits", "classes": list(CLASSES), "columns": [*NUMBERS, *map(_flag, FLAGS)]},
    )


def _flag(name: str) -> dict[str, Any]:
    return {"name": name, "values": {FLAGS[name]: 1}, "unknown": "zero"}


def write_model(source: str, path: Path, epochs: int = EPOCHS) -> None:
    """Trains the net on the table and writes it to `path`, and both sides of the table beside it.

    Raises:
        UsageError: a package of the extra `train` is missing.
        DataError: the table cannot be used.
        OutputError: the file cannot be written.
    """
    prepared(path)
    rows = read_table(source)
    train, held = ([row for row in rows if is_held_out(row) == side] for side in (False, True))
    network = train_network(*numbers_of(train), epochs)
    write_file(path, partial(export_network, network))
    for name, part in (("train", train), ("held", held)):
        write_file(path.with_suffix(f".{name}.csv"), partial(write_table, part))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run("onnxptq.models.recipes.table", "compas.onnx", __doc__, write_model, arguments)


if __name__ == "__main__":
    sys.exit(main())
