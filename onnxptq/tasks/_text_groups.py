"""Groups that a sentence itself says it belongs to: its length, and whether it negates something."""

from __future__ import annotations

import re

SHORT, MEDIUM = 10, 20
"""Most words of a short and of a medium sentence. Of SST-2's sentences 22 % are short, 39 % medium and 39 % long."""

NEGATIONS = frozenset(
    ["no", "not", "never", "nothing", "nobody", "none", "nor", "neither", "nowhere", "cannot", "without"]
)
"""English negation cues that are words of their own (those of the *SEM 2012 shared task, Morante and Blanco, without
the rare ones); affixes such as un- or -less do not count. Words that end in n't count too."""

_WORD = re.compile(r"[\w'’]+")


def length_of(text: str) -> str:
    """ "short" (at most 10 words), "medium" (at most 20) or "long"; words are what stands between spaces."""
    count = len(text.split())
    return "short" if count <= SHORT else "medium" if count <= MEDIUM else "long"


def negation_of(text: str) -> str:
    """ "yes" where one of `NEGATIONS` or a word in n't occurs, in any case, else "no"."""
    words = (word.replace("’", "'") for word in _WORD.findall(text.lower()))
    return "yes" if any(word in NEGATIONS or word.endswith("n't") for word in words) else "no"
