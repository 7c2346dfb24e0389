"""The model's results by sex, age, device and site: does it work for everyone?

A group of fewer than `RECORDINGS` recordings or 11 patients has no row of its own: what would be measured on it says
little, and much about its patients. Such groups are one row without results. Counts are hidden as the data card hides
them (disclosure.py).

Both macro means of AUROC are given (discrimination.py); which classes have few positives is a matter of the group.
Groups differ in what their patients have: a lower AUROC in a group is not by itself a worse model for it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.disclosure import SMALL_CELL, hide
from einthoven.evaluation.discrimination import AUROC, MACRO, MACRO_FREQUENT, class_statistics
from einthoven.evaluation.intervals import bootstrap, weighted_mean
from einthoven.evaluation.scores import Scores
from einthoven.study import read_table

RECORDINGS: Final = 50
AGES: Final = ((40, "under 40"), (65, "40–64"), (80, "65–79"), (np.inf, "80 and over"))
"""Upper ends of the bands, in years. Who is "over 89" is in the last."""
UNKNOWN: Final = "unknown"
SMALLER: Final = "smaller groups"

Bools = NDArray[np.bool_]


def attributes(study: Path, ids: Sequence[str]) -> dict[str, list[str]]:
    """The groups of recordings `ids`, by attribute; an attribute that the study does not know is left out."""
    columns = ["recording_id", "sex", "age", "device", "site"]
    recordings = read_table(schema.RECORDINGS, study, columns)
    rows = recordings.take(pc.index_in(pa.array(ids, pa.string()), recordings["recording_id"].combine_chunks()))
    found = {name: [value or UNKNOWN for value in rows[name].to_pylist()] for name in ("sex", "device", "site")}
    ages = {"age": [UNKNOWN if age is None else band(age) for age in rows["age"].to_pylist()]}
    return {
        name: groups for name, groups in {"sex": found.pop("sex"), **ages, **found}.items() if set(groups) - {UNKNOWN}
    }


def band(age: float) -> str:
    """The band of an age in years."""
    return next(name for end, name in AGES if age < end)


def subgroups(
    scores: Scores, groups: Mapping[str, Sequence[str]], *, resamples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """One row for each group of each attribute; `groups` are those of the recordings, by attribute.

    A row is {"attribute", "group", "recordings": cell, "patients": cell, "recall@10", "probe", "zeroshot"}: of ECG to
    distinct text (or, without text, to record), of the probe of all training patients or of most of them, and of
    zero-shot. Recall is {"value", "low", "high"}; the others are of AUROC {"macro": the same, "macro_frequent": the
    same or null, "few": [classes]}. What was not measured is null, as all is of the row of smaller groups.
    """
    rows = []
    for attribute, of in groups.items():
        names = np.array(of)
        masks = {name: names == name for name in _order(attribute, set(of))}
        large = {name: mask for name, mask in masks.items() if _large(scores, mask)}
        shown = dict(large)
        if len(large) < len(masks):
            shown[SMALLER] = ~np.logical_or.reduce([*large.values(), np.zeros(len(names), bool)])
        recordings = hide([int(mask.sum()) for mask in shown.values()])
        patients = hide([len(np.unique(scores.subjects[mask])) for mask in shown.values()])
        for (name, mask), *cells in zip(shown.items(), recordings, patients, strict=True):
            measured = _measured(scores, mask, resamples, seed) if name in large else _NOTHING
            row = {"attribute": attribute, "group": name, "recordings": cells[0], "patients": cells[1]}
            rows.append({**row, **measured})
    return rows


_NOTHING: Final = {"recall@10": None, "probe": None, "zeroshot": None}


def _order(attribute: str, names: set[str]) -> list[str]:
    """Bands by age, others by name; what is unknown last."""
    bands = [name for _, name in AGES] if attribute == "age" else []
    return sorted(names, key=lambda name: (name == UNKNOWN, bands.index(name) if name in bands else 0, name))


def _large(scores: Scores, mask: Bools) -> bool:
    return int(mask.sum()) >= RECORDINGS and len(np.unique(scores.subjects[mask])) >= SMALL_CELL


def _measured(scores: Scores, mask: Bools, resamples: int, seed: int) -> dict[str, Any]:
    """The results of the recordings `mask` [n]."""
    found: dict[str, Any] = dict(_NOTHING)
    place = next((f"{part}/ecg_to_text/distinct" for part in ("retrieval", "retrieval_codes")
                  if f"{part}/ecg_to_text/distinct" in scores.ranks), None)  # fmt: skip
    if place is not None and (asked := mask & ~np.isnan(scores.ranks[place])).any():
        hits = (scores.ranks[place][asked] <= 10).astype(np.float64)
        of = bootstrap(scores.subjects[asked], lambda w: {"recall": weighted_mean(hits, w)}, resamples, seed)
        found["recall@10"] = of["recall"]
    probe = scores.whole_probe()
    for name, part in [("zeroshot", "zeroshot"), *([("probe", probe[1])] if probe else [])]:
        found[name] = _aurocs(scores, part, mask, resamples, seed)
    return found


def _aurocs(scores: Scores, part: str, mask: Bools, resamples: int, seed: int) -> dict[str, Any] | None:
    whole = scores.matrix(part)
    if whole is None:
        return None
    classes, there, labels, values = whole
    chosen = mask[there]
    labels, values, subjects = labels[chosen], values[chosen], scores.subjects[there][chosen]
    positives = labels.sum(axis=0)
    if not ((positives > 0) & (positives < len(labels))).any():
        return None
    statistics, _, few = class_statistics(labels, values, classes)
    found = bootstrap(subjects, statistics, resamples, seed)
    return {**{name: found.get(AUROC + name) for name in (MACRO, MACRO_FREQUENT)}, "few": list(few)}
