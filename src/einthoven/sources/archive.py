"""An ECG archive that lies beside a record: a table of recordings, each with or without a signal -> RECORDINGS.

The table (CSV, gzipped CSV or Parquet) has the columns `recording_id` and `subject_id` and, where known, `time`, `file`
(a WFDB record without suffix, below the table's folder), `split`, `age` (years), `sex` ("female", "male"), `device`
and `site`. A recording without a file, or whose file is not there, is kept without a signal: it can be paired. One
whose file is damaged is excluded with its reason, as is a row that cannot be understood. A split that is given for one
recording of a subject holds for all of them.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.sources.tabular import Tables, checked
from einthoven.study import remove
from einthoven.waveforms.loading import Loaded, Reader, load_records
from einthoven.waveforms.wfdb_format import RecordingError

SECONDS: Final = 10.0
RATE: Final = 500
"""Hertz of a study whose recipe names none."""

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

    Reasons: bad-row, duplicate-id (the first is kept). Their signals are read by `wfdb_reader(file.parent)`.
    """
    if not file.is_file():
        raise EinthovenError(f"{file}: no such table of recordings; [source] recordings names it.")
    table, excluded = tables.read_file(file, ("recording_id", "subject_id"), list(_TYPES)[2:])
    found = checked(table, _TYPES, ("recording_id", "subject_id"))
    excluded += found.refused.to_pyarrow().to_pylist()
    entries: dict[str, Entry] = {}
    for row in found.kept.order_by("source_row").to_pyarrow().to_pylist():
        signal = row.pop("file")
        entry = Entry(signal=signal, source_file=signal or table.file, **row)
        bad = _fault(entry)
        if bad:
            excluded.append(exclusion(entry, "bad-row", bad))
        elif entry.recording_id in entries:
            excluded.append(exclusion(entry, "duplicate-id", "column recording_id: the same as in a row before"))
        else:
            entries[entry.recording_id] = entry
    _refuse_two_splits(entries.values(), table.file)
    return sorted(entries.values(), key=lambda e: (e.subject_id, str(e.time or ""), e.recording_id)), excluded


def _fault(entry: Entry) -> str | None:
    """What is wrong with the values of a row."""
    for name, value, known in (("split", entry.split, schema.SPLITS), ("sex", entry.sex, ("female", "male"))):
        if value is not None and value not in known:
            return f"column {name}: expected one of {', '.join(known)}"
    if entry.age is not None and (entry.age < 0 or math.isinf(entry.age)):
        return "column age: expected years, zero or more"
    return None


def _refuse_two_splits(entries: Iterable[Entry], file: str) -> None:
    given: dict[int, str] = {}
    for entry in entries:
        if entry.split is not None and given.setdefault(entry.subject_id, entry.split) != entry.split:
            raise EinthovenError(
                f"{file}, row {entry.source_row}, column split: another row has the same subject in another split; "
                "a patient belongs to one. Correct the column."
            )


def store_recordings(
    entries: Sequence[Entry],
    read: Reader[Any],
    study: Path,
    sampling_rate: int | None,
    progress: Progress | None = None,
    seconds: float = SECONDS,
) -> tuple[pa.Table, list[dict[str, Any]]]:
    """Write the waveform store; RECORDINGS rows, and EXCLUDED rows for the signals that cannot be used.

    A reader's RecordingError("missing-file") leaves the recording without a signal; every other keeps it out. No
    store is written where no recording has a signal. A split given for one recording of a subject holds for all.
    """
    rate = RATE if sampling_rate is None else sampling_rate
    with_signal = [entry for entry in entries if entry.signal is not None]
    results: Iterable[Loaded | RecordingError] = ()
    if with_signal:
        results = load_records(study, read, [entry.signal for entry in with_signal], rate, seconds, progress)
    found = dict(zip((entry.recording_id for entry in with_signal), results, strict=True))
    if not any(isinstance(result, Loaded) for result in found.values()):
        remove(study / schema.WAVEFORMS)  # also one of an earlier ingest
    splits = {entry.subject_id: entry.split for entry in entries if entry.split is not None}
    rows, excluded = [], []
    for entry in entries:
        result = found.get(entry.recording_id)
        if isinstance(result, RecordingError) and result.reason != "missing-file":
            excluded.append(exclusion(entry, result.reason, result.detail))
        else:
            split = splits.get(entry.subject_id) or split_of(entry.subject_id)
            rows.append(_row(entry, split, result if isinstance(result, Loaded) else None))
    return pa.Table.from_pylist(rows, schema=schema.RECORDINGS.columns), excluded


def exclusion(entry: Entry, reason: str, detail: str) -> dict[str, Any]:
    """The EXCLUDED row of a recording."""
    return {
        "recording_id": entry.recording_id,
        "source_file": entry.source_file,
        "source_row": entry.source_row,
        "reason": reason,
        "detail": detail,
    }


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
        for suffix in (".hea", ".dat", ".mat"):
            try:
                status = (file.parent / f"{name}{suffix}").stat()
            except (OSError, ValueError):
                continue
            digest.update(f"{name}{suffix} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()
