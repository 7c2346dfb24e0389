"""One split of a study as arrays: what every evaluation rests on, whoever made the embeddings."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Integers
from einthoven.evaluation.labels import own_findings, super_classes
from einthoven.study import read_table

Bools = NDArray[np.bool_]

CODED: Final = ("codes", "code_kinds", "code_days")


@dataclass(frozen=True)
class Split:
    """One split of a study as arrays; row i of all is recording i."""

    ids: list[str]
    rows: Integers
    subjects: Integers
    texts: list[str | None]
    labelled: Bools
    labels: Bools  # [n, classes], all False where not labelled
    classes: tuple[str, ...]
    coded: pa.Table  # columns codes, code_kinds, code_days and age
    codes_of: Mapping[str, tuple[str, ...]]  # the codes of each class
    findings: list[frozenset[str]]  # the codes of each recording's own findings; empty: none is known

    @property
    def told(self) -> Bools:
        """Which recordings have a text: bool [n]."""
        return np.array([text is not None for text in self.texts], bool)

    def text_groups(self) -> Integers:
        """Of the recordings with a text: equal texts have equal numbers."""
        return numbers_of([text for text in self.texts if text is not None])

    def finding_groups(self) -> Integers:
        """Equal sets of findings have equal numbers; -1: none is known. Int64 [n]."""
        return np.where([bool(of) for of in self.findings], numbers_of(self.findings), -1)

    def having(self, codes: Sequence[str]) -> Bools:
        """Which recordings have each of these findings: bool [n, codes]."""
        return np.array([[code in of for code in codes] for of in self.findings], bool).reshape(
            len(self.ids), len(codes)
        )


def read_pairs(study: Path, split: str, concatenation: str) -> pa.Table:
    """The pairs of a split that have a signal, by recording. `text`: that concatenation of notes; `age`: at it."""
    column = schema.CONCATENATIONS[concatenation]
    plain = ["recording_id", "subject_id", "split", "row", *CODED]
    inside = (pc.field("split") == split) & pc.field("row").is_valid()
    table = read_table(schema.PAIRS, study, [*plain, column], inside).rename_columns([*plain, "text"])
    ages = read_table(schema.RECORDINGS, study, ["recording_id", "age"])
    places = pc.index_in(table["recording_id"], value_set=ages["recording_id"].combine_chunks())
    return table.append_column("age", ages["age"].take(places)).sort_by("recording_id")


def read_split(study: Path, split: str, concatenation: str = "report") -> Split:
    """The recordings of a split that have a signal, by recording; their texts are that concatenation of notes."""
    pairs = read_pairs(study, split, concatenation)
    if not len(pairs):
        raise EinthovenError(f"{study}: the {split} split has no recording with a signal. Choose another --split.")
    found = super_classes(study)
    place = {name: i for i, name in enumerate(found.recording_ids)}
    ids = pairs["recording_id"].to_pylist()
    labels = np.zeros((len(ids), len(found.classes)), bool)
    labelled = np.array([name in place for name in ids])
    labels[labelled] = found.labels[[place[name] for name in ids if name in place]]
    return Split(
        ids,
        pairs["row"].to_numpy(),
        pairs["subject_id"].to_numpy(),
        pairs["text"].to_pylist(),
        labelled,
        labels,
        found.classes,
        pairs.select([*CODED, "age"]),
        found.codes_of,
        own_findings(study, ids),
    )


def counts(data: Split, study: Path) -> dict[str, int]:
    """How many recordings each part of the evaluation rests on."""
    return {
        "recordings": len(data.ids),
        "patients": len(np.unique(data.subjects)),
        "with_text": sum(text is not None for text in data.texts),
        "distinct_texts": len({text for text in data.texts if text is not None}),
        "with_class": int(data.labelled.sum()),
        "with_finding": sum(map(bool, data.findings)),
        "excluded_from_study": len(read_table(schema.EXCLUDED, study, ["reason"])),
    }


def numbers_of(values: Iterable[Hashable]) -> NDArray[np.int64]:
    """Equal values get equal numbers, from 0 in the order of their first: int64 [n]."""
    number: dict[Hashable, int] = {}
    return np.array([number.setdefault(value, len(number)) for value in values], np.int64)
