"""Which codes enter a sequence, and as what kind: by patterns, each code judged once."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Final

import pyarrow as pa

from einthoven.config import Pairing
from einthoven.errors import EinthovenError

STATIC_KIND: Final = "static"

KEY_BITS: Final = 22
"""A code of a sequence is one integer, seconds since 1970 times 2**22 plus the code's rank: it sorts by time, then by
code, and lists of integers cost an engine a fifth of what lists of structures do. So times count to the second."""

MAX_CODES: Final = 1 << KEY_BITS


@dataclass(frozen=True)
class Kinds:
    """The codes of a study that enter sequences. A code's rank is its place in the order of all codes."""

    codes: pa.StringArray  # by rank
    kinds: pa.StringArray  # by rank; null: of no kind, only static
    static: pa.BooleanArray  # by rank: begins a sequence where it has no time


def kinds_of(codes: Iterable[str], config: Pairing) -> Kinds:
    """Judge codes by the patterns of `config`: shell patterns, `*` for any characters, upper and lower case differ.

    The first kind with a matching pattern counts. EinthovenError for too many codes.
    """
    patterns: Mapping[str, re.Pattern[str]] = {kind: _any(p) for kind, p in config.code_kinds.items()}
    ignored, static = _any(config.ignored_codes), _any(config.static_codes)
    found = []
    for code in sorted(set(codes)):
        kind = next((kind for kind, pattern in patterns.items() if pattern.match(code)), None)
        kind = None if ignored.match(code) else kind
        begins = bool(static.match(code))
        if kind is not None or begins:
            found.append((code, kind, begins))
    if len(found) > MAX_CODES:
        raise EinthovenError(f"pairing: {len(found)} different codes, at most {MAX_CODES}; name fewer in code_kinds.")
    return Kinds(
        pa.array([code for code, _, _ in found], pa.string()),
        pa.array([kind for _, kind, _ in found], pa.string()),
        pa.array([begins for _, _, begins in found], pa.bool_()),
    )


def _any(patterns: Iterable[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, patterns)) or r"(?!)")
