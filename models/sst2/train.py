"""The recipe of a text model: `python -m onnxptq.models.sst2.train --data train.tsv [-o sst2.onnx]`.

Trains a small transformer on sentences labelled 0 (negative) or 1 (positive) and writes it as ONNX with its tokenizer
inside. Needs the extra `train` (torch, onnxscript) and a few minutes on one core. Everything is seeded; weights repeat
to the bit only with the same torch on the same CPU.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.cache import Cache, user_cache
from onnxptq.data import open_source
from onnxptq.errors import DataError
from onnxptq.models._training import export_onnx, fit, prepared, run, write_file
from onnxptq.tasks.tokenizers import PADDING, UNKNOWN, WordTokenizer

CLASSES = ("negative", "positive")
START = "<cls>"
MAX_LENGTH = 64  # tokens; SST-2's longest sentence has 53 words
LEAST_COUNT = 2  # words seen once become UNKNOWN, so that its embedding is trained
WIDTH, HEADS, LAYERS, INNER = 128, 4, 2, 256
MASKED = -1e4  # added to the scores of padding, as BERT's exports do
DROPOUT = 0.3
WORD_DROPOUT = 0.15  # share of the words that training replaces by UNKNOWN
EPOCHS = 12
BATCH = 64
RATE = 1e-3
TRAIN_SEED = 0


@dataclass(frozen=True)
class Sentences:
    """Texts and their labels, 0 or 1."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]


def load_sentences(source: str, cache: Cache) -> Sentences:
    """All sentences of a source in the form that `onnxptq --data` takes; of named splits the one for training.

    Raises:
        DataError: the source cannot be read, has no labels, or has other labels than 0 and 1.
    """
    opened = open_source(source, cache=cache.folder("datasets"))
    dataset = opened.splits.get("train") or next(iter(opened.splits.values()))
    if dataset.labels is None or dataset.label_names != ("0", "1"):
        raise DataError(
            f"{source} has the labels {', '.join(dataset.label_names) or 'none'}; expected 0 (negative) and "
            "1 (positive), one sentence a row."
        )
    rows = dataset.read(np.arange(len(dataset)))
    texts = tuple(next(str(v) for name, v in row.items() if not name.startswith("_")) for row in rows)
    return Sentences(texts, tuple(dataset.labels.tolist()))


def build_tokenizer(texts: Sequence[str]) -> WordTokenizer:
    """Words seen at least `LEAST_COUNT` times, the most frequent first, in the letters in which they are written."""
    counts = Counter(word for text in texts for word in text.split())
    words = sorted((w for w, count in counts.items() if count >= LEAST_COUNT), key=lambda w: (-counts[w], w))
    return WordTokenizer((PADDING, UNKNOWN, START, *words), start=START)


def build_network(words: int) -> Any:
    """The net, a torch.nn.Module: int64 tokens and mask, (N, L) each -> float32 logits (N, 2).

    A transformer encoder as in Vaswani et al., 2017 (arXiv 1706.03762), normalised before each block; the first token
    is read out. Attention is written out, so that the graph holds the operators that ONNX Runtime fuses and quantizes.
    """
    import torch
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.query, self.key, self.value, self.merge = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
            self.inner, self.outer = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)
            self.dropout = nn.Dropout(DROPOUT)

        def forward(self, hidden: Any, bias: Any) -> Any:
            normed = self.norm1(hidden)
            query, key, value = (
                part(normed).unflatten(-1, (HEADS, WIDTH // HEADS)).transpose(1, 2)
                for part in (self.query, self.key, self.value)
            )
            scores = query @ key.transpose(2, 3) / math.sqrt(WIDTH // HEADS) + bias
            context = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
            hidden = hidden + self.dropout(self.merge(context))
            return hidden + self.dropout(self.outer(torch.relu(self.inner(self.norm2(hidden)))))

    class TextNet(nn.Module):  # type: ignore[misc]  # as above
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(words, WIDTH)
            self.places = nn.Embedding(MAX_LENGTH, WIDTH)
            nn.init.normal_(self.words.weight, std=0.1)
            nn.init.normal_(self.places.weight, std=0.02)
            self.dropout = nn.Dropout(DROPOUT)
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(WIDTH)
            self.head = nn.Linear(WIDTH, len(CLASSES))

        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            places = self.places(torch.arange(input_ids.shape[1], device=input_ids.device))
            hidden = self.dropout(self.words(input_ids) + places)
            bias = (1 - attention_mask.float())[:, None, None, :] * MASKED
            for block in self.blocks:
                hidden = block(hidden, bias)
            return self.head(self.norm(hidden)[:, 0])

    return TextNet()


def train_network(sentences: Sentences, tokenizer: WordTokenizer, epochs: int = EPOCHS) -> Any:
    """Trains the net (AdamW, one-cycle learning rate) and returns it in evaluation mode."""
    import torch
    from torch.nn import functional

    torch.manual_seed(TRAIN_SEED)
    network = build_network(tokenizer.size).train()
    tokens = [torch.tensor(tokenizer.encode(text, MAX_LENGTH)) for text in sentences.texts]
    labels = torch.tensor(sentences.labels)
    unknown = tokenizer.vocabulary.index(UNKNOWN)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)

    def loss(rows: Any) -> Any:
        ids = torch.nn.utils.rnn.pad_sequence(
            [tokens[row] for row in rows], batch_first=True, padding_value=tokenizer.padding
        )
        mask = (ids != tokenizer.padding).long()
        dropped = (torch.rand(ids.shape) < WORD_DROPOUT) & (mask == 1)
        dropped[:, 0] = False  # START
        return functional.cross_entropy(
            network(ids.masked_fill(dropped, unknown), mask), labels[rows], label_smoothing=0.1
        )

    fit(loss, len(tokens), epochs=epochs, batch=BATCH, optimizer=optimizer, highest_rate=RATE, clip=1.0)
    return network.eval()


def export_network(network: Any, tokenizer: WordTokenizer, path: Path) -> None:
    """Writes the trained net with a dynamic batch and length, and its tokenizer and how to use it as metadata."""
    import torch

    free = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=MAX_LENGTH)}
    export_onnx(
        network,
        (torch.full((2, 8), 3), torch.ones(2, 8, dtype=torch.long)),  # one tensor for both would be one input
        path,
        inputs=["input_ids", "attention_mask"],
        outputs=["logits"],
        dynamic=(free, free),
        task="text-classification",
        specification={
            "tokenizer": tokenizer.specification,
            "inputs": {"ids": "input_ids", "mask": "attention_mask"},
            "max_length": MAX_LENGTH,
            "output": "logits",
            "classes": list(CLASSES),
        },
    )


def write_model(source: str, path: Path, epochs: int = EPOCHS, cache: Cache | None = None) -> None:
    """Trains the net on `source` and writes it to `path`, replacing an older one.

    Raises:
        UsageError: a package of the extra `train` is missing.
        DataError: the sentences cannot be used.
        OutputError: the file cannot be written.
    """
    prepared(path)
    sentences = load_sentences(source, cache or user_cache())
    tokenizer = build_tokenizer(sentences.texts)
    network = train_network(sentences, tokenizer, epochs)
    write_file(path, partial(export_network, network, tokenizer))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run("onnxptq.models.sst2.train", "sst2.onnx", __doc__, write_model, arguments)


if __name__ == "__main__":
    sys.exit(main())
