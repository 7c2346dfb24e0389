"""An ECG archive that lies beside a record: a table of recordings, each with or without a signal -> RECORDINGS.

The table (CSV, gzipped CSV or Parquet) has the columns `recording_id` and `subject_id` and, where known, `time`, `file`
(below the table's folder: a WFDB record, with or without suffix, or a file of any of `waveforms.formats.FORMATS`),
`split`, `age` (years), `sex` ("female", "male"), `device` and `site`. A recording without a file, or whose file is not
there, is kept without a signal: it can be paired.
One whose file is damaged is excluded with its reason, as is a row that cannot be understood. A split that is given for
one recording of a subject holds for all of them.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.sources.cells import exclusion
from einthoven.sources.tabular import Tables, checked
from einthoven.study import remove
from einthoven.waveforms.formats import WFDB_FILE
from einthoven.waveforms.loading import Loaded, Reader, load_records
from einthoven.waveforms.wfdb_format import RecordingError

SECONDS: Final = 10.0
RATE: Final = 500
"""Hertz of a study whose recipe names none."""

MAX_AGE: Final = 130  # years

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One recording as its source describes it. `signal` is what the reader takes; None: no signal is there."""

    recording_id: str
    subject_id: int
    time: datetime | None
    signal: Any = None
    split: str | None = None  # None: by hash of the subject
    age: float | None = None
    sex: str | None = None
    device: str | None = None
    site: str | None = None
    source_file: str | None = None
    source_row: int | None = None

    def excluded(self, reason: str, detail: str) -> dict[str, Any]:
        """Its row of EXCLUDED."""
        return exclusion(reason, detail, self.source_file, self.source_row, self.recording_id)


_TYPES: Final = {
    "recording_id": "string",
    "subject_id": "int64",
    "time": "timestamp(6)",
    "file": "string",
    "split": "string",
    "age": "float32",
    "sex": "string",
    "device": "string",
    "site": "string",
}


def listed(tables: Tables, file: Path) -> tuple[list[Entry], list[dict[str, Any]]]:
    """The recordings of an archive's table, by subject and time, and EXCLUDED rows for those that cannot be used.

    Reasons: bad-row, duplicate-id (the first is kept). Their signals are read by `ecg_reader(file.parent)`.
    """
    if not file.is_file():
        raise EinthovenError(f"{file}: no such table of recordings; [source] recordings names it.")
    table, excluded = tables.read_file(file, ("recording_id", "subject_id"), list(_TYPES)[2:])
    found = checked(table, _TYPES, ("recording_id", "subject_id"))
    excluded += found.refused.to_pyarrow().to_pylist()
    entries: dict[str, Entry] = {}
    for row in found.kept.order_by("source_row").to_pyarrow().to_pylist():
        signal = row.pop("file")
        entry = Entry(signal=signal, source_file=WFDB_FILE.sub("", signal or "") or table.file, **row)
        bad = _fault(entry)
        if bad:
            excluded.append(entry.excluded("bad-row", bad))
        elif entry.recording_id in entries:
            excluded.append(entry.excluded("duplicate-id", "column recording_id: the same as in a row before"))
        else:
            entries[entry.recording_id] = entry
    refuse_two_splits(entries.values(), table.file)
    return in_order(entries.values()), excluded


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """By subject and time, those without one first."""
    return sorted(entries, key=lambda entry: (entry.subject_id, str(entry.time or ""), entry.recording_id))


def _fault(entry: Entry) -> str | None:
    """What is wrong with the values of a row."""
    for name, value, known in (("split", entry.split, schema.SPLITS), ("sex", entry.sex, ("female", "male"))):
        if value is not None and value not in known:
            return f"column {name}: expected one of {', '.join(known)}"
    if entry.age is not None and (entry.age < 0 or math.isinf(entry.age)):
        return "column age: expected years, zero or more"
    return None


def refuse_two_splits(entries: Iterable[Entry], file: str) -> None:
    """EinthovenError naming the row of `file` that gives a subject a second split."""
    given: dict[int, str] = {}
    for entry in entries:
        if entry.split is not None and given.setdefault(entry.subject_id, entry.split) != entry.split:
            raise EinthovenError(
                f"{file}, row {entry.source_row}, column split: the same subject is in another split in another row; "
                "a patient belongs to one. Correct the column."
            )


def store_recordings(
    entries: Sequence[Entry],
    read: Reader[Any],
    study: Path,
    sampling_rate: int | None,
    progress: Progress | None = None,
    unread: bool = True,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Write the waveform store; RECORDINGS rows, and EXCLUDED rows for the signals that cannot be used.

    A reader's RecordingError("missing-file") leaves the recording without a signal, if `unread` ones are wanted; every
    other keeps it out. No store is written where no recording has a signal. A split given for one recording of a
    subject holds for all.
    """
    rate = RATE if sampling_rate is None else sampling_rate
    with_signal = [entry for entry in entries if entry.signal is not None]
    results: Iterable[Loaded | RecordingError] = ()
    if with_signal:
        results = load_records(study, read, [entry.signal for entry in with_signal], rate, SECONDS, progress)
    found = dict(zip((entry.recording_id for entry in with_signal), results, strict=True))
    if not any(isinstance(result, Loaded) for result in found.values()):
        remove(study / schema.WAVEFORMS)  # also one of an earlier ingest
    splits = {entry.subject_id: entry.split for entry in entries if entry.split is not None}
    rows, excluded = [], []
    for entry in entries:
        result = found.get(entry.recording_id)
        if isinstance(result, RecordingError) and not (unread and result.reason == "missing-file"):
            excluded.append(entry.excluded(result.reason, result.detail))
        else:
            split = splits.get(entry.subject_id) or split_of(entry.subject_id)
            rows.append(_row(entry, split, result if isinstance(result, Loaded) else None))
    return pa.Table.from_pylist(rows, schema=schema.RECORDINGS.columns), excluded


def reasons(excluded: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """Rows of EXCLUDED by reason."""
    return dict(sorted(Counter(row["reason"] for row in excluded).items()))


def refuse_none(kept: int, where: Path, excluded: Iterable[Mapping[str, Any]], hint: str) -> None:
    """EinthovenError, with the reasons, where no recording is kept."""
    if not kept:
        told = ", ".join(f"{count} {reason}" for reason, count in reasons(excluded).items()) or "there is none"
        raise EinthovenError(f"{where}: no recording can be used ({told}). {hint}")


def recording_counts(recordings: pa.Table) -> dict[str, Any]:
    """What an ingest says of RECORDINGS: how many per split, their subjects, and how many raise each kind of flag."""
    splits = Counter(recordings["split"].to_pylist())
    flags = Counter(
        kind for raised in recordings["quality"].to_pylist() for kind in {f.partition(":")[0] for f in raised}
    )
    return {
        "recordings": {split: splits[split] for split in schema.SPLITS},
        "subjects": pc.count_distinct(recordings["subject_id"]).as_py(),
        "without_signal": recordings["row"].null_count,
        "flags": dict(sorted(flags.items())),
    }


_SEXES: Final = {"f": "female", "female": "female", "m": "male", "male": "male"}


def sex_of(word: str | None) -> str | None:
    """RECORDINGS' word for F, female, M or male; None for all else. Sources disagree on what 0 and 1 are."""
    return _SEXES.get((word or "").casefold())


def plausible(years: float) -> float | None:
    """An age, if somebody can have it."""
    return years if 0 <= years <= MAX_AGE else None  # NaN fails both


def patients_of(entries: Iterable[Entry], people: Any) -> dict[int, dict[str, Any]]:
    """The rows (subject_id, birth, gender) that an ibis.Table of a source's people has of the recordings' subjects."""
    subjects = pa.array(sorted({entry.subject_id for entry in entries}), pa.int64())
    known = people.semi_join(ibis.memtable(pa.table({"subject_id": subjects})), "subject_id")
    return {row["subject_id"]: row for row in known.select("subject_id", "birth", "gender").to_pyarrow().to_pylist()}


def completed(entry: Entry, person: Mapping[str, Any]) -> Entry:
    """The recording with the age and sex that its patient has, where it has none itself."""
    age, birth = entry.age, person["birth"]
    if age is None and birth is not None and entry.time is not None:
        age = plausible((entry.time - birth).total_seconds() / _YEAR)
    return replace(entry, age=age, sex=entry.sex or sex_of(person["gender"]))


_YEAR: Final = 365.25 * 86_400  # seconds


def _row(entry: Entry, split: str, loaded: Loaded | None) -> dict[str, Any]:
    age = None if entry.age is None or math.isnan(entry.age) else entry.age
    return {
        "recording_id": entry.recording_id,
        "subject_id": entry.subject_id,
        "time": entry.time,
        "split": split,
        "row": None if loaded is None else loaded.row,
        "leads": None if loaded is None else loaded.leads,
        "source_rate": None if loaded is None else loaded.source_rate,
        "quality": [] if loaded is None else loaded.quality,
        "age": None if age is None else min(age, 90.0),
        "age_over_89": None if age is None else age > 89,
        "sex": entry.sex,
        "device": entry.device,
        "site": entry.site,
        "source_file": entry.source_file,
    }


def signal_mark(file: Path) -> str:
    """What the signals that an archive's table lists look like from outside: a digest of their sizes and times."""
    digest = hashlib.sha256()
    quoted = "'" + str(file).replace("'", "''") + "'"
    reader = "read_parquet" if file.suffix == ".parquet" else "read_csv"
    options = "" if file.suffix == ".parquet" else ", all_varchar = true"
    try:
        names = duckdb.sql(f"SELECT file FROM {reader}({quoted}{options}) WHERE file IS NOT NULL").fetchall()
    except duckdb.Error:  # no such column, or a table that `listed` will refuse
        return ""
    for (name,) in names:
        record = WFDB_FILE.sub("", name)
        for part in dict.fromkeys((name, *(f"{record}{suffix}" for suffix in (".hea", ".dat", ".mat")))):
            try:
                status = (file.parent / part).stat()
            except (OSError, ValueError):
                continue
            digest.update(f"{part} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
