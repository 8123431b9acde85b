"""A reader of short words: `python -m onnxptq.models.recipes.sequence --data words/train [-o words.onnx]`.

The folder holds `words.csv` with the columns `path` and `text`, and the pictures that it names; texts are of letters
a to z. `python -m onnxptq.models.recipes.sequence --render words/` makes two such folders, `train/` and `held/`: words
of random syllables, drawn from a fixed seed in the font that Pillow brings, in several sizes, inks and papers. A net of
convolutions alone writes logits for connectionist temporal classification (Graves et al., 2006): float32 (N, 64, 27),
symbol 0 for nothing. Two minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.models._training import export_onnx, fit, prepared, run, write_file

HEIGHT, WIDTH = 32, 128
ALPHABET = "abcdefghijklmnopqrstuvwxyz"
CONSONANTS, VOWELS = "bcdfghjklmnpqrstvwxyz", "aeiou"
LONGEST = 10  # letters
FOLDERS = {"train": 3000, "held": 800}  # words of each
EPOCHS = 10
BATCH = 64
RATE = 4e-3
RENDER_SEED, TRAIN_SEED = 0, 0


def draw_words(count: int, seed: int) -> list[str]:
    """Words of 2 to LONGEST letters, consonants and vowels in turn, all lengths alike often."""
    generator = np.random.default_rng(seed)
    found = []
    for length in generator.integers(2, LONGEST + 1, count):
        first = int(generator.integers(2))
        kinds = [(CONSONANTS, VOWELS)[(first + place) % 2] for place in range(length)]
        found.append("".join(kind[int(generator.integers(len(kind)))] for kind in kinds))
    return found


def render(word: str, seed: int) -> Any:
    """A PIL image of one word, HEIGHT x WIDTH: dark ink on light paper, size and place by the seed."""
    from PIL import Image, ImageDraw, ImageFont

    generator = np.random.default_rng(seed)
    paper = tuple(int(value) for value in generator.integers(170, 256, 3))
    ink = tuple(int(value) for value in generator.integers(0, 90, 3))
    image = Image.new("RGB", (WIDTH, HEIGHT), paper)
    draw = ImageDraw.Draw(image)
    size = int(generator.integers(15, 23))
    font = ImageFont.load_default(size)
    left, top, right, bottom = draw.textbbox((0, 0), word, font=font)
    while right - left > WIDTH - 4:
        size -= 1
        font = ImageFont.load_default(size)
        left, top, right, bottom = draw.textbbox((0, 0), word, font=font)
    free = int(WIDTH - 2 - (right - left)), int(HEIGHT - 2 - (bottom - top))
    place = [1 + int(generator.integers(max(1, space))) for space in free]
    draw.text((place[0] - left, place[1] - top), word, fill=ink, font=font)
    return image


def write_words(folder: Path) -> int:
    """Writes the folders of FOLDERS below `folder`, with `words.csv` and pictures; returns the number of words.

    No word is in two folders.
    """
    words = list(dict.fromkeys(draw_words(4 * sum(FOLDERS.values()), RENDER_SEED)))
    start = 0
    for name, count in FOLDERS.items():
        (folder / name / "pictures").mkdir(parents=True, exist_ok=True)
        with (folder / name / "words.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.writer(file)
            table.writerow(["path", "text"])
            for position, word in enumerate(words[start : start + count], start):
                path = f"pictures/{position:05d}.png"
                render(word, position).save(folder / name / path)
                table.writerow([path, word])
        start += count
    return start


def load_words(folder: str) -> tuple[npt.NDArray[np.uint8], list[str]]:
    """Pictures, uint8 (N, HEIGHT, WIDTH, 3), and their texts.

    Raises:
        DataError: there is no `words.csv`, it has no rows, or a text is not of the letters a to z.
    """
    from PIL import Image

    table = Path(folder, "words.csv")
    if not table.is_file():
        raise DataError(f"{folder} has no words.csv; expected a table with the columns path and text.")
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    if not rows or not {"path", "text"} <= set(rows[0]):
        raise DataError(f"{table} has no rows with the columns path and text.")
    pictures = []
    for number, row in enumerate(rows, 2):
        if not row["text"] or set(row["text"]) - set(ALPHABET):
            raise DataError(f"{table}, line {number}: the text is {row['text']!r}; expected letters a to z.")
        with Image.open(Path(folder, row["path"])) as image:
            pictures.append(np.asarray(image.convert("RGB").resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)))
    return np.stack(pictures), [row["text"] for row in rows]


def build_network() -> Any:
    """The net, a torch.nn.Module: float32 (N, 3, HEIGHT, WIDTH) in [0, 1] -> logits (N, WIDTH / 2, 1 + letters)."""
    from torch import nn

    def conv(inputs: int, outputs: int, stride: tuple[int, int], size: tuple[int, int] = (3, 3)) -> nn.Sequential:
        padding = (size[0] // 2, size[1] // 2)
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, size, stride, padding, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    class Reader(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.strokes = nn.Sequential(
                conv(3, 24, (2, 2)), conv(24, 48, (2, 1)), conv(48, 64, (2, 1)), conv(64, 96, (2, 1))
            )
            self.letters = nn.Sequential(
                conv(96, 128, (2, 1), (2, 5)), conv(128, 128, (1, 1), (1, 5)), nn.Conv2d(128, 1 + len(ALPHABET), 1)
            )

        def forward(self, images: Any) -> Any:
            return self.letters(self.strokes(images)).mean(2).transpose(1, 2)

    return Reader()


def train_network(pictures: npt.NDArray[np.uint8], texts: Sequence[str], epochs: int = EPOCHS) -> Any:
    """Trains the net (AdamW, one-cycle learning rate, CTC loss; dimmed copies); returns it in evaluation mode."""
    import torch
    from torch.nn import functional

    torch.manual_seed(TRAIN_SEED)
    network = build_network().train()
    images = torch.from_numpy(pictures).permute(0, 3, 1, 2)
    symbols = [torch.tensor([1 + ALPHABET.index(letter) for letter in text]) for text in texts]
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)

    def loss(rows: Any) -> Any:
        batch = (images[rows].float() / 255 * (0.7 + 0.6 * torch.rand(len(rows), 1, 1, 1))).clamp(0, 1)
        chances = functional.log_softmax(network(batch), 2).transpose(0, 1)
        wanted = [symbols[row] for row in rows.tolist()]
        lengths = torch.tensor([len(one) for one in wanted])
        steps_of = torch.full((len(rows),), len(chances))
        return functional.ctc_loss(chances, torch.cat(wanted), steps_of, lengths)

    fit(loss, len(images), epochs=epochs, batch=BATCH, optimizer=optimizer, highest_rate=RATE, clip=5.0)
    return network.eval()


def export_network(network: Any, path: Path) -> None:
    """Writes the trained net with a dynamic batch, and how to use it as metadata."""
    import torch

    export_onnx(
        network,
        (torch.zeros(2, 3, HEIGHT, WIDTH),),
        path,
        inputs=["images"],
        outputs=["logits"],
        dynamic=({0: torch.export.Dim("batch")},),
        task="image-sequence",
        specification={
            "input": "images",
            "output": "logits",
            "layout": "NCHW",
            "size": [HEIGHT, WIDTH],
            "resize": "stretch",
            "color": "RGB",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "decoding": "ctc",
            "vocabulary": ["", *ALPHABET],
            "blank": 0,
        },
    )


def write_model(source: str, path: Path, epochs: int = EPOCHS) -> None:
    """Trains the net on a folder of words and writes it to `path`, replacing an older one.

    Raises:
        UsageError: a package of the extra `train` is missing.
        DataError: the folder cannot be used.
        OutputError: the file cannot be written.
    """
    prepared(path)
    network = train_network(*load_words(source), epochs)
    write_file(path, partial(export_network, network))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--render", type=Path)
    options, _ = parser.parse_known_args(arguments)
    if options.render:
        print(f"wrote {write_words(options.render)} words into {options.render}")
        return 0
    return run("onnxptq.models.recipes.sequence", "words.onnx", __doc__, write_model, arguments)


if __name__ == "__main__":
    sys.exit(main())
