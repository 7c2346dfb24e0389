"""What an evaluation measured of each recording: what subgroups, calibration and a comparison of models rest on.

Names are places in `metrics.json`: ranks and average precisions "retrieval/ecg_to_text/distinct", scores "zeroshot/MI"
and "probe/0.1/3/MI", the class MI by the probe of subset 3 of a tenth of the training patients.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.retrieval import Ranked
from einthoven.study import read_table, write_table

Bools = NDArray[np.bool_]
NONE = -1
"""The number of a text or a record that is not there."""
BY_TEXT = "text_to_ecg/distinct"
"""Where a distinct text, or record, is the query."""
MAPS = ("labels", "ranks", "precisions", "scores")


@dataclass(frozen=True)
class Scores:
    """Of one series of encoders. Row i of all is recording i; NaN where something was not measured."""

    recording_ids: tuple[str, ...]
    subjects: Integers  # [n], numbers of patients from 0
    texts: Integers  # [n], equal numbers: equal texts; NONE
    records: Integers  # [n], equal numbers: equal sets of codes; NONE
    labels: dict[str, Floats] = field(default_factory=dict)  # class -> 0 or 1 [n]
    ranks: dict[str, Floats] = field(default_factory=dict)  # place -> from 1 [n]
    precisions: dict[str, Floats] = field(default_factory=dict)  # place -> average precision [n]
    scores: dict[str, Floats] = field(default_factory=dict)  # place and class -> [n]

    @classmethod
    def of(
        cls, ids: Sequence[str], subjects: Integers, classes: Sequence[str], labels: Bools, known: Bools
    ) -> "Scores":
        """Without ranks and scores yet: labels [n, classes], which count where `known` [n]."""
        number = np.unique(subjects, return_inverse=True)[1].astype(np.int64)
        empty = np.full(len(ids), NONE, np.int64)
        truth = np.where(known[:, None], labels, np.nan)
        return cls(tuple(ids), number, empty, empty.copy(), dict(zip(classes, truth.T, strict=True)))

    def add_ranks(self, part: str, where: Bools, found: Mapping[str, Mapping[str, Ranked]], groups: Integers) -> None:
        """What `all_ranked` found of the recordings `where` [n], whose texts or records are `groups` [m].

        What a distinct text found is kept with each of its recordings.
        """
        (self.records if part.endswith("codes") else self.texts)[where] = groups
        text_of = np.unique(groups, return_inverse=True)[1]
        for direction, galleries in found.items():
            for gallery, one in galleries.items():
                place = f"{part}/{direction}/{gallery}"
                each = one.take(text_of) if place.endswith(BY_TEXT) else one
                self.ranks[place] = _spread(where, each.best)
                self.precisions[place] = _spread(where, each.precision.astype(np.float32))

    def add_scores(self, part: str, where: Bools, classes: Sequence[str], scores: Floats) -> None:
        """Scores [m, classes] of the recordings `where` [n]."""
        for name, column in zip(classes, scores.T, strict=True):
            self.scores[f"{part}/{name}"] = _spread(where, column.astype(np.float32))

    def matrix(self, part: str) -> tuple[tuple[str, ...], Bools, Bools, Floats] | None:
        """Of "zeroshot" or "probe/1/0": its classes, which recordings have scores [n], their labels and scores [m, c].

        None where there are none.
        """
        classes = tuple(name for name in self.labels if f"{part}/{name}" in self.scores)
        if not classes:
            return None
        scores = np.stack([self.scores[f"{part}/{name}"] for name in classes], axis=1)
        there = ~np.isnan(scores[:, 0])
        labels = np.stack([self.labels[name] for name in classes], axis=1)[there] > 0.5
        return classes, there, labels, scores[there]

    def probes(self) -> dict[str, list[str]]:
        """The label fractions, smallest first, with the parts of `matrix` that hold the scores of their subsets."""
        parts = dict.fromkeys("/".join(name.split("/", 3)[:3]) for name in self.scores if name.startswith("probe/"))
        fractions = sorted({part.split("/")[1] for part in parts}, key=float)
        return {fraction: [part for part in parts if part.split("/")[1] == fraction] for fraction in fractions}

    def whole_probe(self) -> tuple[str, str] | None:
        """The fraction of the probe of all training patients, or of most of them, and its part; None: no probe."""
        return next(((fraction, parts[0]) for fraction, parts in reversed(self.probes().items())), None)

    def queries(self, place: str) -> tuple[Bools, Ranked, Integers]:
        """Which recordings have ranks [n], what the queries [q] found, and the query of each of those recordings.

        Where distinct texts are the queries, all recordings of a text share one.
        """
        there = ~np.isnan(self.ranks[place])
        found = Ranked(self.ranks[place][there].astype(np.int64), self.precisions[place][there])
        if not place.endswith(BY_TEXT):
            return there, found, np.arange(len(found.best))
        _, first, query_of = np.unique(self.groups(place)[there], return_index=True, return_inverse=True)
        return there, found.take(first), query_of

    def groups(self, place: str) -> Integers:
        """What is equal among recordings [n] at this place: their texts, or their records."""
        return self.records if place.startswith("retrieval_codes") else self.texts


def _spread(where: Bools, values: NDArray[Any]) -> Floats:
    spread = np.full(len(where), np.nan)
    spread[where] = values
    return spread


def write_scores(out: Path, series: Mapping[str, Scores]) -> None:
    """Write the scores of each series to `out`, atomically."""
    kinds = {name: schema.SCORES.columns.field(name).type for name in MAPS}
    parts = []
    for name, of in series.items():
        columns = {
            "series": pa.array([name] * len(of.recording_ids), pa.string()),
            "recording_id": pa.array(of.recording_ids, pa.string()),
            "subject": pa.array(of.subjects),
            "text": pa.array(of.texts, mask=of.texts == NONE),
            "record": pa.array(of.records, mask=of.records == NONE),
        }
        columns |= {key: _maps(getattr(of, key), len(of.recording_ids), kind) for key, kind in kinds.items()}
        parts.append(pa.table(columns))
    write_table(schema.SCORES, out, pa.concat_tables(parts))


def read_scores(report: Path) -> dict[str, Scores]:
    """The scores in a directory of an evaluation, by series."""
    table = read_table(schema.SCORES, report)
    result = {}
    for name in table["series"].unique().to_pylist():
        rows = table.filter(pc.equal(table["series"], name)).combine_chunks()
        texts, records = (rows[key].fill_null(NONE).to_numpy() for key in ("text", "record"))
        maps = [_columns(rows[key].combine_chunks()) for key in MAPS]
        ids = tuple(rows["recording_id"].to_pylist())
        result[name] = Scores(ids, rows["subject"].to_numpy(), texts, records, *maps)
    if not result:
        raise EinthovenError(f"{schema.SCORES.at(report)} has no rows: evaluate that model again.")
    return result


def _maps(columns: Mapping[str, Floats], rows: int, kind: pa.MapType) -> pa.Array:
    """Columns by name [rows] -> one map a row, of what is not NaN; null where that is nothing."""
    values = np.stack(list(columns.values()), axis=1) if columns else np.empty((rows, 0))
    there = ~np.isnan(values)
    sizes = there.sum(axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32))
    keys = pa.array(list(columns), pa.string()).take(pa.array(np.nonzero(there)[1]))
    filled = pa.MapArray.from_arrays(offsets, keys, pa.array(values[there]).cast(kind.item_type, safe=False))
    return pc.if_else(pa.array(sizes > 0), filled, pa.scalar(None, kind))


def _columns(maps: pa.MapArray) -> dict[str, Floats]:
    """The inverse of `_maps`."""
    sizes = pc.fill_null(pc.list_value_length(maps.cast(pa.list_(maps.type.field(0).type))), 0).to_numpy()
    keys = maps.keys.dictionary_encode()
    where = np.repeat(np.arange(len(maps)), sizes)
    items = maps.items.cast(pa.float64()).to_numpy(zero_copy_only=False)
    columns = {}
    for number, name in enumerate(keys.dictionary.to_pylist()):
        mine = keys.indices.to_numpy() == number
        columns[name] = np.full(len(maps), np.nan)
        columns[name][where[mine]] = items[mine]
    return columns
