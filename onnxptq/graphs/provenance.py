"""What an INT8 model carries in its ONNX metadata: where it came from, and how to use it without flags."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxptq.errors import ModelError
from onnxptq.graphs.batch_norms import forget_batch_norms
from onnxptq.graphs.external import install
from onnxptq.recipe import Recipe
from onnxptq.text_files import json_object

FORMAT = "1"
PREFIX = "onnxptq."

_NOT_VERIFIED = "no (--no-verify)"
"""Nothing is said of a file that was looked at, which is the rule."""


@dataclass(frozen=True)
class Provenance:
    """Where an INT8 model came from.

    Attributes:
        task: the task's name.
        preprocessing: the task's specification, class names included.
        source: {"name", "digest", "bytes"} of the FP32 model.
        data: {"source", "digest", "split"} of the data: its digest, and the rule that kept calibration samples
            apart from evaluation samples.
        recipe: what made the model.
        calibration: {"samples", "digest", "used", "marginals"} of what was drawn; "used" marks the samples of the data.
        versions: onnxptq, onnx and onnxruntime, and libraries that the recipe's weight transforms are made with.
        cpu: the CPU features that calibration ran with.
        dropped: steps of the recipe that were left out since they did harm (`quantization.harm`).
        verified: the file was looked at before it was handed over; False only with `--no-verify`.
    """

    task: str
    preprocessing: Mapping[str, Any]
    source: Mapping[str, Any]
    data: Mapping[str, Any]
    recipe: Recipe
    calibration: Mapping[str, Any]
    versions: Mapping[str, str]
    cpu: str
    dropped: tuple[str, ...] = ()
    verified: bool = True

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata_props entries, sorted by key."""
        entries = {
            "format": FORMAT,
            "task": self.task,
            "preprocessing": _json(self.preprocessing),
            "source": _json(self.source),
            "data": _json(self.data),
            "recipe": _json(self.recipe.to_dict()),
            "recipe_digest": self.recipe.digest,
            "calibration": _json(self.calibration),
            "target": self.recipe.target,
            "versions": _json(self.versions),
            "cpu": self.cpu,
            **({"dropped": ", ".join(self.dropped)} if self.dropped else {}),
            **({} if self.verified else {"verified": _NOT_VERIFIED}),
        }
        return {PREFIX + key: entries[key] for key in sorted(entries)}


def write_with_provenance(quantized: Path, provenance: Provenance, output: Path) -> None:
    """Writes the quantized file with its provenance to `output`, by way of a temporary name.

    External data go with it, as `<output>.data`.

    Raises:
        OutputError: `output` cannot be written.
    """
    import onnx

    model = onnx.load(str(quantized), load_external_data=False)
    forget_batch_norms(model)
    kept = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, **provenance.metadata})
    install(quantized, output, model)


def read_provenance(metadata: Mapping[str, str]) -> Provenance | None:
    """The provenance in a model's metadata, or None for a model that we did not write.

    Raises:
        ModelError: it was written by a newer format, or it cannot be read.
        UsageError: its recipe cannot be read.
    """
    if PREFIX + "recipe" not in metadata:
        return None
    written = metadata.get(PREFIX + "format")
    if written != FORMAT:
        raise ModelError(f"the model's provenance has format {written}; this version reads {FORMAT}. Update onnxptq.")
    try:
        tables = {key: _table(metadata, key) for key in _TABLES}
        texts = {key: metadata[PREFIX + key] for key in ("task", "cpu")}
    except (KeyError, ModelError) as error:
        raise ModelError(f"the model's provenance cannot be read ({error}); quantize it again.") from error
    recipe = Recipe.from_dict(tables.pop("recipe"))
    read = Provenance(
        task=texts["task"],
        cpu=texts["cpu"],
        recipe=recipe,
        dropped=tuple(filter(None, metadata.get(f"{PREFIX}dropped", "").split(", "))),
        verified=metadata.get(f"{PREFIX}verified") != _NOT_VERIFIED,
        **tables,
    )
    rule = read.data.get("split", {"kind": ""})
    named = (read.source.get("name", ""), read.source.get("digest"), isinstance(rule, Mapping) and rule.get("kind"))
    if not all(isinstance(text, str) for text in named):
        raise ModelError("the model's provenance names no source or no split of its data; quantize it again.")
    return read


_TABLES = ("recipe", "preprocessing", "source", "data", "calibration", "versions")


def _table(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    return json_object(metadata[PREFIX + key], f"{PREFIX}{key}", ModelError)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
