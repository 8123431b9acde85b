"""What a text model needs to know about its input: parsed, checked against the model, and written as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxptq.errors import ModelError, UsageError, did_you_mean
from onnxptq.signature import Signature, TensorSpec, shown
from onnxptq.tasks.tokenizers import Tokenizer, read_tokenizer

MAX_LENGTH = 512
"""Most tokens of a text where nobody says: what BERT and its kin were made for."""

INPUTS = {
    "ids": ("input_ids", "ids", "tokens"),
    "mask": ("attention_mask", "input_mask", "mask"),
    "types": ("token_type_ids", "segment_ids"),
}
"""What a text model reads, and the names under which it is found."""

DTYPES = ("int64", "int32")


@dataclass(frozen=True)
class TextSpecification:
    """Input of a text model.

    Attributes:
        tokenizer: from text to tokens.
        ids: name of the input of tokens.
        mask: name of the input that is 1 for a token and 0 for padding, or None.
        types: name of the input of token types, 0, and 1 for the second text of a pair; or None.
        dtype: of these inputs, "int64" or "int32".
        max_length: most tokens of a text; what is beyond them is cut off.
        length: every text is padded to this many tokens; None: nothing is padded.
        columns: of the data that hold the text, or the two texts of a pair; () where the one column is found.
    """

    tokenizer: Tokenizer
    ids: str
    mask: str | None
    types: str | None
    dtype: str
    max_length: int
    length: int | None
    columns: tuple[str, ...] = ()

    @property
    def pairs(self) -> bool:
        """Whether a sample is two texts."""
        return len(self.columns) == 2

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON; `text_specification` reads it again."""
        inputs = {"ids": self.ids, "mask": self.mask, "types": self.types}
        return {
            "tokenizer": self.tokenizer.specification,
            "inputs": {role: name for role, name in inputs.items() if name is not None},
            "max_length": self.max_length,
            "length": self.length,
            **({"columns": list(self.columns)} if self.columns else {}),
        }


def text_specification(given: Mapping[str, Any], signature: Signature) -> TextSpecification:
    """Reads a specification and completes it from the model's signature. Keys that it does not know are ignored.

    Raises:
        UsageError: a value of the specification is wrong in itself.
        ModelError: the model's inputs are not those of a text model; the message shows them.
    """
    roles = _inputs(given, signature)
    specs = [spec for spec in roles.values() if spec is not None]
    tokenizer = read_tokenizer(given.get("tokenizer"))
    length, most = _lengths(given, roles["ids"], specs)
    return TextSpecification(
        tokenizer=tokenizer,
        ids=roles["ids"].name,
        mask=None if roles["mask"] is None else roles["mask"].name,
        types=None if roles["types"] is None else roles["types"].name,
        dtype=roles["ids"].dtype,
        max_length=most,
        length=length,
        columns=_columns(given.get("columns")),
    )


def _columns(given: Any) -> tuple[str, ...]:
    if given is None:
        return ()
    texts = isinstance(given, Sequence) and not isinstance(given, str) and all(isinstance(one, str) for one in given)
    if not texts or len(given) not in (1, 2) or len(set(given)) < len(given):
        raise UsageError(
            f'preprocessing: columns of a text model are the one of the text, or the two of a pair, as in ["premise", '
            f'"hypothesis"], got {given!r}.'
        )
    return tuple(given)


def _inputs(given: Mapping[str, Any], signature: Signature) -> dict[str, Any]:
    """The model's input for each of "ids", "mask", "types"; None where it has none."""
    named = given.get("inputs") or {}
    if not isinstance(named, Mapping):
        raise UsageError(f'preprocessing: inputs must be as {{"ids": "input_ids"}}, got {named!r}.')
    specs = {spec.name: spec for spec in signature.inputs}
    found: dict[str, TensorSpec | None] = {}
    for role, usual in INPUTS.items():
        name = named.get(role) or next((name for name in usual if name in specs), None)
        if name is not None and name not in specs:
            raise UsageError(f"the model has no input {name!r}. {did_you_mean(str(name), specs)}")
        found[role] = specs.get(str(name))
    if found["ids"] is None and len(specs) == 1:
        found["ids"] = next(iter(specs.values()))
    used = {spec.name for spec in found.values() if spec is not None}
    described = ", ".join(f"{spec.name} {spec.dtype} {shown(spec.shape)}" for spec in signature.inputs) or "none"
    if found["ids"] is None or set(specs) - used:
        raise ModelError(
            f"the model's inputs are {described}; the task text feeds tokens, a mask and token types. Say which "
            'is which in the preprocessing: {"inputs": {"ids": "input_ids", "mask": "attention_mask"}}.'
        )
    dtypes = {spec.dtype for spec in specs.values()}
    if len(dtypes) != 1 or not dtypes <= set(DTYPES) or any(len(spec.shape) != 2 for spec in specs.values()):
        raise ModelError(
            f"the model's inputs are {described}; the task text feeds int64 or int32 (all alike) of shape "
            "(N, L), one number a token. For other inputs use the task tensor."
        )
    return found


def _lengths(given: Mapping[str, Any], ids: TensorSpec, specs: list[TensorSpec]) -> tuple[int | None, int]:
    """The length to which texts are padded (None: they are not), and the most tokens of a text."""
    fixed = {spec.shape[1] for spec in specs} - {None}
    length = _whole(given, "length")
    if len(fixed) > 1 or (length is not None and fixed and fixed != {length}):
        sizes = ", ".join(f"{spec.name} {shown(spec.shape)}" for spec in specs)
        raise ModelError(f"the length of a text differs between the inputs ({sizes}) and the preprocessing ({length}).")
    length = length or next(iter(fixed), None)
    if length is None and ids.shape[0] not in (None, 1):
        raise UsageError(
            f"input {ids.name!r} has shape {shown(ids.shape)}: texts that run in one batch need one length. "
            'Fix it in the preprocessing, for example {"length": 64}.'
        )
    return length, _whole(given, "max_length") or length or MAX_LENGTH


def _whole(given: Mapping[str, Any], key: str) -> int | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UsageError(f"preprocessing: {key} must be a whole number of at least 1, got {value!r}.")
    return value
