"""Labels from the record of what comes after an ECG: the first code of a family within so many days of it.

Who had a code of the family before, or has one without a time, cannot get it anew and is left out. Who has none within
the days is negative only if the record goes on for that long: until the last dated code, note or recording of the
patient, whichever is last. What is left out is counted by reason. A death ends a record like anything else.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from fnmatch import translate
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.export.meds import LABELS
from einthoven.study import atomic, read_table

BEFORE: Final = "had_it_before"
UNDATED: Final = "recording_without_time"
SHORT: Final = "record_ends_too_early"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What is to be foretold: a code that one of `patterns` matches, first seen within `within` days of the ECG."""

    name: str
    patterns: tuple[str, ...]  # shell patterns, as in [pairing] code_kinds
    within: float  # days after the recording
    gap: float = 0.0  # a code up to so many days after it was there already, and only noted later

    def __post_init__(self) -> None:
        if not 0 <= self.gap < self.within <= 36500:
            raise EinthovenError(
                f"--within {self.within:g} --gap {self.gap:g}: expected days, up to 36500, and the gap the shorter."
            )
        if not self.patterns or not all(self.patterns):
            raise EinthovenError("--code: expected a pattern of codes, for example 'ICD10CM/I50*'.")
        if not re.fullmatch(r"[A-Za-z0-9][\w .-]{0,63}", self.name):
            raise EinthovenError("--name: expected up to 64 letters, digits, spaces, dots, dashes or underscores.")


@dataclass(frozen=True)
class Labels:
    """The labelled recordings, in the order of recordings.parquet, and how many were left out, by reason."""

    recordings: pa.Table  # recording_id, subject_id, time, split and `positive`
    left_out: dict[str, int]
    codes: tuple[str, ...]  # of the study that are of the family

    def counts(self) -> dict[str, Any]:
        """Positives and negatives of each split, and what was left out."""
        found: dict[str, Any] = {"codes": len(self.codes), "left_out": self.left_out}
        for split in schema.SPLITS:
            part = self.recordings.filter(pc.equal(self.recordings["split"], split))
            positive = pc.sum(pc.cast(part["positive"], pa.int64())).as_py() or 0
            found[split] = {"positive": positive, "negative": len(part) - positive}
        return found


def labels_of(study: Path, outcome: Outcome) -> Labels:
    """Label the recordings of a study. EinthovenError: no code of it is of the family, or no recording has a label."""
    events = read_table(schema.EVENTS, study, ["subject_id", "time", "code"])
    matches = re.compile("|".join(map(translate, outcome.patterns)))
    codes = tuple(sorted(code for code in events["code"].unique().to_pylist() if matches.match(code)))
    if not codes:
        raise EinthovenError(f"{study}: no code matches --code {' '.join(outcome.patterns)}.")
    family = events.filter(pc.is_in(events["code"], pa.array(codes, pa.string())))
    times, last = _times(family), _ends(study, events)
    rows = read_table(schema.RECORDINGS, study, ["recording_id", "subject_id", "time", "split"])
    gap, within = timedelta(days=outcome.gap), timedelta(days=outcome.within)
    said: list[bool | None] = []
    left_out: Counter[str] = Counter()
    for subject, time in zip(rows["subject_id"].to_pylist(), rows["time"].to_pylist(), strict=True):
        found = _label(time, times.get(subject, []), last.get(subject), gap, within)
        left_out.update([found] if isinstance(found, str) else [])
        said.append(None if isinstance(found, str) else found)
    labelled = rows.append_column("positive", pa.array(said, pa.bool_()))
    labelled = labelled.filter(pc.is_valid(labelled["positive"]))
    if not len(labelled):
        why = ", ".join(f"{count} {reason}" for reason, count in sorted(left_out.items()))
        raise EinthovenError(f"{study}: no recording can be labelled ({why}). A shorter --within needs less record.")
    return Labels(labelled, dict(sorted(left_out.items())), codes)


def _label(
    time: datetime | None, codes: Sequence[datetime | None], end: datetime | None, gap: timedelta, within: timedelta
) -> bool | str:
    """Whether the first code comes in time, or why that cannot be said."""
    if time is None:
        return UNDATED
    if any(code is None or code <= time + gap for code in codes):
        return BEFORE
    if any(code is not None and code <= time + within for code in codes):
        return True
    return SHORT if end is None or end < time + within else False


def _times(family: pa.Table) -> dict[int, list[datetime | None]]:
    """The times of the codes of a family by patient; None: without a time."""
    found: dict[int, list[datetime | None]] = {}
    for subject, time in zip(family["subject_id"].to_pylist(), family["time"].to_pylist(), strict=True):
        found.setdefault(subject, []).append(time)
    return found


def _ends(study: Path, events: pa.Table) -> dict[int, datetime]:
    """The last moment of each patient's record."""
    columns = ["subject_id", "time"]
    parts = [events, *(read_table(table, study, columns) for table in (schema.RECORDINGS, schema.NOTES))]
    dated = pa.concat_tables([part.select(columns) for part in parts])
    ends = dated.filter(pc.is_valid(dated["time"])).group_by("subject_id").aggregate([("time", "max")])
    return dict(zip(ends["subject_id"].to_pylist(), ends["time_max"].to_pylist(), strict=True))


def write_labels(labels: Labels, name: str, out: Path) -> None:
    """A file of labels as `einthoven finetune` and `einthoven probe` take it: CSV or Parquet, by its suffix."""
    rows = labels.recordings
    table = pa.table({"recording_id": rows["recording_id"], name: pc.cast(rows["positive"], pa.int8())})
    with atomic(out) as temporary:
        if out.suffix == ".parquet":
            pq.write_table(table, temporary)
        else:
            pa_csv.write_csv(table, temporary)


def write_meds_labels(labels: Labels, out: Path) -> None:
    """The same as MEDS labels, Parquet: the prediction time is the recording's."""
    rows = labels.recordings.sort_by([("subject_id", "ascending"), ("time", "ascending")])
    columns = [rows["subject_id"], rows["time"], rows["positive"]]
    with atomic(out) as temporary:
        pq.write_table(pa.table(columns, schema=LABELS), temporary)
