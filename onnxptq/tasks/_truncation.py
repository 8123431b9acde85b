"""How much of two texts is kept where both together are too long."""

from __future__ import annotations


def longest_first(first: int, second: int, most: int) -> tuple[int, int]:
    """How many tokens of two texts are kept, at most `most` of both: as Hugging Face's "longest_first" has it."""
    if first + second <= most:
        return first, second
    shorter, longer = sorted((first, second))
    longer = max(shorter, most - shorter)
    if shorter + longer > most:
        shorter = most // 2
        longer = shorter + most % 2
    return (longer, shorter) if first > second else (shorter, longer)
