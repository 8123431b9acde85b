"""Hugging Face's `tokenizer.json`, run by their library `tokenizers` (the extra `text`)."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from onnxptq.data.isolated import DecodeError, ask, seconds_for
from onnxptq.errors import DataError, UsageError
from onnxptq.tasks._truncation import longest_first

KIND = "tokenizer.json"


def _refusal(error: BaseException) -> BaseException:
    """The error to raise for one of the library; what a signal raised stays what it is."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        return error
    return DataError(
        "the model's tokenizer.json is not one that the library `tokenizers` reads: "
        f"{type(error).__name__}: {error}. "
        "Save it again with save_pretrained, or update the library."
    )


@functools.lru_cache(maxsize=8)
def _vet(content: str) -> None:
    """Lets the library read it in the decoder's process first. Raises DataError where it crashes or does not end."""
    try:
        ask("tokenizer", [content.encode()], texts=["A word, or 2?", "a" * 1000], seconds=seconds_for(len(content)))
    except DecodeError as error:
        if error.failure != "refused":  # What it refuses, it says better here.
            raise DataError(f"the model's tokenizer.json cannot be used: {error.reason}. Save it again.") from error


@dataclass(frozen=True)
class HuggingFaceTokenizer:
    """A `tokenizer.json` as it was written.

    Attributes:
        content: canonical JSON of the file.
        pad: the token that fills short sentences.
    """

    content: str
    pad: str

    @staticmethod
    def read(given: Mapping[str, Any]) -> HuggingFaceTokenizer:
        """From `{"kind": "tokenizer.json", "content": {...}, "pad": "[PAD]"}`.

        Raises:
            UsageError: the library is not installed, or the padding token is not known.
            DataError: the content is no tokenizer.
        """
        content = given.get("content")
        if not isinstance(content, Mapping):
            raise UsageError('the tokenizer\'s "content" must be the JSON object of a tokenizer.json.')
        padding = content.get("padding")
        padding = padding if isinstance(padding, Mapping) else {}
        made = HuggingFaceTokenizer(
            json.dumps(content, sort_keys=True, ensure_ascii=False, separators=(",", ":")),
            str(given.get("pad") or padding.get("pad_token") or ""),
        )
        made._check()
        return made

    @property
    def specification(self) -> dict[str, Any]:
        """Kind, content and the padding token."""
        return {"kind": KIND, "content": json.loads(self.content), "pad": self.pad}

    @property
    def size(self) -> int:
        """The number of tokens, added ones included."""
        return int(self._asked("get_vocab_size", with_added_tokens=True))

    @property
    def padding(self) -> int:
        """The number of the padding token; 0 without one, as the mask hides what is there."""
        token = self._asked("token_to_id", self.pad) if self.pad else None
        return 0 if token is None else int(token)

    @property
    def lowercase(self) -> bool:
        """Whether a change of case changes nothing."""
        return bool(self._asked("encode", "FILM Film").ids == self._asked("encode", "film film").ids)

    def encode(self, text: str, most: int) -> list[int]:
        """The tokens with the special ones. Truncation is the library's, so that the last special token stays."""
        spare = most - self._asked("num_special_tokens_to_add", is_pair=False)
        plain = self._asked("encode", text, add_special_tokens=False)
        plain.truncate(max(spare, 0))
        return list(self._asked("post_process", plain, add_special_tokens=True).ids)

    def encode_pair(self, first: str, second: str, most: int) -> tuple[list[int], list[int]]:
        """Tokens and types of two texts with the special tokens; the longer one is cut first."""
        spare = most - self._asked("num_special_tokens_to_add", is_pair=True)
        one, other = (self._asked("encode", text, add_special_tokens=False) for text in (first, second))
        here, there = longest_first(len(one), len(other), max(spare, 0))
        one.truncate(here)
        other.truncate(there)
        together = self._asked("post_process", one, other, add_special_tokens=True)
        return list(together.ids), list(together.type_ids)

    def random_text(self, generator: np.random.Generator, count: int) -> str:
        """Tokens drawn uniformly, decoded: read again, they may be joined into other ones."""
        special = {token for token, added in self._asked("get_added_tokens_decoder").items() if added.special}
        plain = [token for token in range(self.size) if token not in special]
        return str(self._asked("decode", [plain[i] for i in generator.integers(0, len(plain), count)]))

    def _asked(self, method: str, *arguments: Any, **options: Any) -> Any:
        """What the library answers. Raises DataError where it fails, a panic included, which is no Exception."""
        library = self._library
        try:
            return getattr(library, method)(*arguments, **options)
        except BaseException as error:
            raise _refusal(error) from error

    @cached_property
    def _library(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise UsageError(
                "the model's tokenizer is a tokenizer.json, and the library that reads it is not installed. "
                "Install the extra `text`: pip install 'onnxptq[text]'."
            ) from error
        try:
            library = Tokenizer.from_str(self.content)
        # The library raises plain Exception for what it does not understand, and panics at what it did not foresee.
        except BaseException as error:
            raise _refusal(error) from error
        # We pad and cut ourselves, where the specification says so.
        library.no_padding()
        library.no_truncation()
        return library

    def _check(self) -> None:
        _vet(self.content)
        # Read and tried now, so that what is wrong with it is said before any work.
        self.encode("A word, or 2?", 8)
        if self.pad and self._asked("token_to_id", self.pad) is None:
            raise UsageError(
                f"the padding token {self.pad!r} is not in the tokenizer's vocabulary. "
                'Give the right one as "pad" of the tokenizer.'
            )
