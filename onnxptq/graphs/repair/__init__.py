"""What is changed in a graph while it is folded, so that the quantizer makes what the model computes.

Each repair is a function of a model that says whether it changed anything; a model that needs none is left byte for
byte as it was. docs/repairs.md is this list in words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.order import sort_model
from onnxptq.graphs.parts import NO_OPSET, STANDARD_DOMAINS
from onnxptq.graphs.passed_through import drop_passed_through
from onnxptq.graphs.repair import constants, gemm, half, names, operators, types
from onnxptq.graphs.repair.editing import Editing
from onnxptq.graphs.skeleton import skeleton


@dataclass(frozen=True)
class Repair:
    """One change of a graph.

    Attributes:
        what: what it changes, as docs/repairs.md says it.
        source: the report that shows why, or "measured".
        apply: changes a model in place; whether it changed anything.
    """

    what: str
    source: str
    apply: Callable[[Editing], bool]


def _sorted(editing: Editing) -> bool:
    return sort_model(editing.proto)


def _with_default_opset(editing: Editing) -> bool:
    """Imports the standard operators into a model that uses none: the quantizer asks for their version."""
    import onnx

    if any(entry.domain in STANDARD_DOMAINS for entry in editing.proto.opset_import):
        return False
    editing.proto.opset_import.append(onnx.helper.make_opsetid("", NO_OPSET))
    return True


def _inlined(editing: Editing) -> bool:
    """Puts the nodes of local functions in the place of their calls, whatever the function is called."""
    import onnx.inliner

    if not editing.proto.functions:
        return False
    editing.replace(onnx.inliner.inline_local_functions(editing.proto))
    return True


def _without_passed_through(editing: Editing) -> bool:
    return drop_passed_through(editing.graph)


BEFORE_FOLDING: tuple[Repair, ...] = (
    Repair(
        "Standard operators are imported where a model imports `ai.onnx.ml` alone.", "measured", _with_default_opset
    ),
    Repair("Local functions are inlined.", "microsoft/onnxruntime#28716", _inlined),
    Repair("Nodes are sorted.", "measured", _sorted),
    Repair("Nodes of one name get names of their own.", "measured", names.one_name_each),
    Repair("Of constants of one name the last stays.", "measured", constants.one_name_each),
    Repair("Sparse constants are written out.", "measured", constants.densify),
    Repair("Float16 becomes float32, with casts at inputs and outputs.", "measured", half.half_to_float),
)
"""What the model needs for ONNX Runtime's own preparation to understand it."""

AFTER_FOLDING: tuple[Repair, ...] = (
    Repair(
        "An output that is an input is left out; the INT8 file has it again.",
        "microsoft/onnxruntime#21922",
        _without_passed_through,
    ),
    Repair("Constant nodes become initializers.", "measured", constants.constants_out_of_nodes),
    Repair("Gemm: alpha is multiplied into the weight.", "measured", gemm.fold_alpha),
    Repair("Gemm: beta is multiplied into the bias.", "measured", gemm.fold_beta),
    Repair("Gemm: a bias has one number a column.", "microsoft/onnxruntime#24815", gemm.flatten_bias),
    Repair(
        "ConvTranspose with groups: the bias stays in float.",
        "microsoft/onnxruntime#19694",
        operators.free_grouped_bias,
    ),
    Repair("A Pad of the lowest float moves into the MaxPool behind it.", "measured", operators.pad_inside_max_pool),
    Repair(
        "A constant that is read in several ways gets a copy for each.",
        "microsoft/onnxruntime#21277",
        constants.separate_readers,
    ),
    Repair("Nodes that share a bias have names.", "microsoft/onnxruntime#24705", names.named_where_bias_is_shared),
    Repair("Nodes that must stay in float have names.", "measured", names.named_where_kept_in_float),
    Repair("The first nodes behind an input have names.", "measured", names.named_behind_inputs),
    Repair(
        "Names are clear of those that the quantizer makes up.",
        "microsoft/onnxruntime#24705",
        names.clear_of_the_quantizers,
    ),
)
"""What the quantizer needs; folding itself makes some of it (MatMul and Add become a Gemm with a bias of two axes)."""


def repaired_source(source: Path, folder: Path) -> Path:
    """The model as ONNX Runtime's preparation takes it, written to `folder`; `source` where there is nothing to do."""
    import onnx

    # Tried without the weights, of which none is changed: most models need nothing.
    trial = onnx.ModelProto()
    trial.CopyFrom(skeleton(source))
    if not _apply(Editing(trial, source.parent), BEFORE_FOLDING):
        return source
    editing = Editing(onnx.load(str(source), load_external_data=False), source.parent)
    _apply(editing, BEFORE_FOLDING)
    target = folder / f"repaired-{source.name}"
    save_with_links(editing.proto, source, target)
    return target


def repair_folded(folded: Path, named: Path) -> None:
    """Repairs a folded model in place.

    Args:
        folded: the file; its external data lie beside it and stay as they are.
        named: the file that the user gave, for messages.

    Raises:
        ModelError: a weight is not finite, or a tensor has no type that anybody knows.
    """
    import onnx

    editing = Editing(onnx.load(str(folded), load_external_data=False), folded.parent)
    constants.check_finite(editing, str(named))
    changed = _apply(editing, AFTER_FOLDING)
    changed |= types.infer_types(editing, folded)
    if changed:
        editing.drop_unread()
        onnx.save(editing.proto, str(folded))


def _apply(editing: Editing, repairs: tuple[Repair, ...]) -> bool:
    changed = False
    for repair in repairs:
        changed |= repair.apply(editing)
    return changed
