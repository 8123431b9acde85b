"""What the training recipes share: the packages that they need, the export to ONNX, and their command line."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from onnxptq.errors import EXIT_BAD_INPUT, EXIT_DONE, OnnxptqError, OutputError, UsageError
from onnxptq.files import replacing

OPSET = 18
"""What PyTorch's exporter writes without converting."""

TRAINING = {"torch": "torch", "onnxscript": "onnxscript"}
"""Modules that training needs, and the packages that bring them."""


def require(packages: Mapping[str, str] = TRAINING) -> None:
    """Raises UsageError where a module of the extra `train` is missing.

    Args:
        packages: module to package.
    """
    missing = [package for module, package in packages.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise UsageError(
            f"not installed: {', '.join(missing)}. Install the extra `train`: "
            "pip install '.[train]' in a checkout, or pip install 'onnxptq[train]'."
        )


def export_onnx(
    network: Any,
    example: tuple[Any, ...],
    path: Path,
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
    dynamic: tuple[Any, ...],
    task: str,
    specification: Mapping[str, Any],
    fold: bool = True,
) -> None:
    """Writes a trained net as ONNX, with how to use it as metadata.

    Args:
        network: a torch.nn.Module in evaluation mode.
        example: one tensor an input.
        path: the file.
        inputs: names of the inputs.
        outputs: names of the outputs.
        dynamic: what may change of each input, as `torch.onnx.export` takes it (`dynamic_shapes`).
        task: the task that the file says it is for ("image-classification").
        specification: preprocessing and head, as the task reads it.
        fold: whether BatchNormalization is folded into what stands before it.
    """
    import onnx
    import torch
    from onnxscript import optimizer

    program = torch.onnx.export(
        network,
        example,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=dynamic,
        opset_version=OPSET,
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    if fold:
        optimizer.optimize(program.model)
    else:
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
    model = program.model_proto
    _strip_traces(model)
    carried = {"onnxptq.task": task, "onnxptq.preprocessing": json.dumps(specification, ensure_ascii=False)}
    onnx.helper.set_model_props(model, carried)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def fit(
    loss: Callable[[Any], Any],
    count: int,
    *,
    epochs: int,
    batch: int,
    optimizer: Any,
    highest_rate: float | None = None,
    clip: float | None = None,
    after_epoch: Callable[[], None] | None = None,
) -> None:
    """Minimizes a loss over samples in random order.

    Args:
        loss: of the samples in these rows, int64 (M,), as a tensor of one number.
        count: how many samples there are.
        epochs: how often each is seen.
        batch: how many are seen at once.
        optimizer: one of `torch.optim`.
        highest_rate: of a one-cycle schedule (Smith and Topin, 2019, arXiv 1708.07120); None keeps the optimizer's.
        clip: largest norm of a gradient.
        after_epoch: called after each, for other schedules.
    """
    import torch

    parameters = [one for group in optimizer.param_groups for one in group["params"]]
    steps = epochs * -(-count // batch)
    cycle = highest_rate and torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=highest_rate, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(count).split(batch):
            value = loss(rows)
            optimizer.zero_grad()
            value.backward()
            if clip is not None:
                torch.nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()
            if cycle:
                cycle.step()
        if after_epoch is not None:
            after_epoch()


def prepared(path: Path) -> None:
    """Raises UsageError or OutputError where training would be in vain: a package or the file's folder is missing."""
    require()
    if not path.parent.is_dir():
        raise OutputError(f"there is no folder {path.parent} to write {path.name} into. Make it, or choose another.")


def write_file(path: Path, write: Callable[[Path], None]) -> None:
    """Lets `write` make a file that replaces `path` once it is whole."""
    with replacing(path) as partial:
        write(partial)


def run(
    module: str, file: str, text: str | None, write: Callable[[str, Path], None], arguments: Sequence[str] | None
) -> int:
    """The command line of a recipe, `--data SOURCE -o FILE`; returns the exit code.

    Args:
        module: the recipe's module.
        file: name of the file that it writes unless told otherwise.
        text: what --help says of it.
        write: trains on a source and writes a file.
        arguments: of the command line; None is `sys.argv`.
    """
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=text)
    parser.add_argument("--data", required=True, help="what to train on; the recipe's first lines say in which form")
    parser.add_argument("-o", "--output", type=Path, default=Path(file), help=f"file (default: ./{file})")
    options = parser.parse_args(arguments)
    try:
        write(options.data, options.output)
    except OnnxptqError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return EXIT_DONE


def _strip_traces(model: Any) -> None:
    """Removes what the exporter notes about the exporting machine: stack traces with file names, on every part."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
