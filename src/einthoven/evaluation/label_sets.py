"""Sets of labels to classify without training: which recordings, which classes, in which words."""

import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.evaluation.labels import codes_of
from einthoven.study import read_table

Bools = NDArray[np.bool_]
Prompts = Mapping[str, tuple[str, ...]]
"""Class -> its prompts."""

OWN: Final = "own prompts"
AS_FOUND: Final = "as recorded"


@dataclass(frozen=True)
class Place:
    """A recording of one of the studies."""

    study: Path
    recording_id: str


@dataclass(frozen=True)
class LabelSet:
    """Recordings, and for each rule by which they are labelled, which of the classes they have."""

    name: str
    classes: tuple[str, ...]
    places: tuple[Place, ...]
    labels: Mapping[str, Bools]  # rule -> [n, classes]
    prompts: Mapping[str, Prompts]  # whose -> class -> prompts
    counts: Mapping[str, Any] = field(default_factory=dict)


SCP_SETS: Final = {
    "PTB-XL super": "SCP_CLASS//",
    "PTB-XL sub": "SCP_SUBCLASS//",
    "PTB-XL form": "SCP_FORM",
    "PTB-XL rhythm": "SCP_RHYTHM",
}
"""Set -> what the codes of its classes lie below; where that ends in "//", a class is what follows, else a code."""

DIAGNOSES: Final = ("{}.", "sinus rhythm. {}.", "consistent with {}.")
RHYTHMS: Final = ("{}.", "ecg shows {}.", "rhythm: {}.")


def scp_sets(study: Path, split: str) -> list[LabelSet]:
    """The four sets of PTB-XL from a study's own SCP statements: their classes (Strodthoff 2020), our prompts.

    A recording is in a set if it has a statement of it, whatever its likelihood, and a signal; so are MERL's, and the
    names, which lose the underscores that some statements have. A set of which the split has nothing is left out.
    """
    recordings = read_table(schema.RECORDINGS, study, ["recording_id", "split", "row"])
    recordings = recordings.filter(pc.and_(pc.equal(recordings["split"], split), pc.is_valid(recordings["row"])))
    everyone = recordings["recording_id"].to_pylist()
    had = {name: set(of) for name, of in codes_of(study, everyone).items()}
    codes = read_table(schema.CODES, study, ["code", "description", "parent_codes"]).to_pylist()
    ids = [name for name in everyone if name in had]
    found = [_scp_set(name, above, codes, study, ids, had) for name, above in SCP_SETS.items()]
    return [one for one in found if one.places]


def _scp_set(
    name: str, above: str, codes: list[dict[str, Any]], study: Path, ids: list[str], had: Mapping[str, set[str]]
) -> LabelSet:
    below: dict[str, set[str]] = defaultdict(set)
    said: dict[str, list[str]] = defaultdict(list)
    for row in codes:
        for parent in row["parent_codes"] or ():
            whole = above.endswith("//")
            if row["code"].startswith("SCP//") and (parent.startswith(above) if whole else parent == above):
                label = (parent.removeprefix(above) if whole else row["code"].removeprefix("SCP//")).strip("_")
                below[label].add(row["code"])
                said[label] += worded(row["description"] or "")
    classes = tuple(sorted(below))
    labels = np.array([[bool(below[c] & had[r]) for c in classes] for r in ids], bool).reshape(len(ids), len(classes))
    seen: Bools = np.asarray(labels.any(axis=1))
    templates = RHYTHMS if name.endswith("rhythm") else DIAGNOSES
    prompts = {c: tuple(t.format(words) for words in dict.fromkeys(said[c]) for t in templates) for c in classes}
    kept = tuple(Place(study, r) for r, some in zip(ids, seen, strict=True) if some)
    return LabelSet(name, classes, kept, {AS_FOUND: labels[seen]}, {OWN: prompts})


def worded(description: str) -> list[str]:
    """A statement's description as a report would say it, in one or several wordings; nothing for an empty one.

    "left atrial overload/enlargement" gives two; "premature complex(es)" its plural; what else is in brackets goes.
    """
    plain = re.sub(r"(?<=\w)\((\w+)\)", r"\1", description.casefold())
    plain = " ".join(re.sub(r"\([^)]*\)", " ", plain).split())
    either = re.search(r"\b([a-z]{4,})/([a-z]{4,})\b", plain)
    if either is None:
        return [plain] if plain else []
    return [plain.replace(either[0], word) for word in either.groups()]


def recordings_by_file(studies: list[Path]) -> dict[str, Place]:
    """Recordings with a signal by the name of the file they were read from, without folders and suffix.

    EinthovenError where a name is there twice: labels of one recording would be given to another.
    """
    found: dict[str, Place] = {}
    for study in studies:
        rows = read_table(schema.RECORDINGS, study, ["recording_id", "source_file", "row"])
        rows = rows.filter(pc.and_(pc.is_valid(rows["row"]), pc.is_valid(rows["source_file"])))
        for name, file in zip(rows["recording_id"].to_pylist(), rows["source_file"].to_pylist(), strict=True):
            place = found.setdefault(file_key(file), Place(study, name))
            if place != Place(study, name):
                raise EinthovenError(
                    f"{place.study} and {study} both have a recording that was read from {file_key(file)}: give one "
                    "study of each data set."
                )
    return found


def file_key(file: str) -> str:
    """ "/chapman/WFDBRecords/44/448/JS44279.mat" -> "JS44279"."""
    return re.sub(r"\.(mat|hea|dat)$", "", re.split(r"[/\\]", file)[-1], flags=re.IGNORECASE)
