"""Sounds: which bytes and files are recordings, and decoding them in the decoder's process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.isolated import DecodeError, ask

SOUND_SUFFIXES = frozenset({".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".au"})

_BEGINNINGS = (b"fLaC", b"OggS", b"ID3", b"FORM", b".snd", b"RIFF", b"RIFX", b"RF64")
"""Of files that libsndfile reads. RIFF may also be a WebP image."""


@dataclass(frozen=True)
class Sound:
    """A decoded recording.

    Attributes:
        samples: float32, (T,), all channels averaged; a full-scale sine reaches from -1 to 1.
        rate: samples a second of the file, before it was resampled.
    """

    samples: npt.NDArray[np.float32]
    rate: int


def is_sound(path: Path) -> bool:
    """Whether the file's name says that it is a recording."""
    return path.suffix.lower() in SOUND_SUFFIXES and not path.name.startswith(".") and path.is_file()


def looks_like_sound(data: bytes) -> bool:
    """Whether bytes begin as a recording does."""
    if data[:2] in (b"\xff\xfb", b"\xff\xf3", b"\xff\xf2"):  # MP3 without a tag.
        return True
    return data.startswith(_BEGINNINGS) and data[8:12] != b"WEBP"


def decode_sound(encoded: bytes, rate: int) -> Sound:
    """Decodes a recording, mixes its channels down to one and resamples it.

    Args:
        encoded: the file.
        rate: samples a second that are wanted.

    Raises:
        DecodeError: it is no recording that libsndfile knows, is damaged, holds no sample or NaN or infinity, needs
            too much memory, or the extra `audio` is not installed.
    """
    answer, (data,) = ask("sound", [encoded], rate=rate)
    return Sound(np.frombuffer(bytearray(data), np.float32), int(answer["rate"]))


def sound_defects(sounds: Sequence[bytes], whole: bool) -> list[str | None]:
    """For each recording what is wrong with it, or None; see the decoder's operation of this name."""
    if not sounds:
        return []
    try:
        found: Any = ask("sound_defects", sounds, whole=whole)[0]
    except DecodeError as error:
        if len(sounds) == 1:
            return [error.reason]
        return [reason for sound in sounds for reason in sound_defects([sound], whole)]
    return list(found)
