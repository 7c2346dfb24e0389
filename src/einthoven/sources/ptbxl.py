"""PTB-XL (PhysioNet, CC BY 4.0), whole or in part, at 100 or 500 Hz -> recordings, events, codes, notes, waveforms.

SCP statements become events `SCP//<code>` at the time of their recording, with the likelihood (percent; 0 where the
annotators gave none) as numeric value. Folds 1-8 are train, 9 validation, 10 test, as published.

A recording is kept out, and listed in `excluded.parquet`, for one of these reasons: bad-row, bad-fold, duplicate-id
(the first is kept), missing-file, outside-folder, unreadable, bad-header, truncated, wrong-size, checksum,
wrong-leads, no-signal, flat. Its statements and report are kept out with it.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from einthoven import config as configuration
from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.archive import Entry, recording_counts, refuse_none, refuse_two_splits, store_recordings
from einthoven.sources.cells import exclusion
from einthoven.sources.codes import code_row
from einthoven.sources.ptbxl_reports import clean_report, parse_report
from einthoven.sources.ptbxl_rows import COLUMNS, DATABASE, Row, RowError, parse_row, read_csv
from einthoven.sources.tabular import write_events, write_excluded, write_list
from einthoven.study import write_table
from einthoven.waveforms.loading import wfdb_reader
from einthoven.waveforms.wfdb_format import is_there

__all__ = ["clean_report", "ingest"]

STATEMENTS: Final = "scp_statements.csv"
RATES: Final = {"filename_lr": 100, "filename_hr": 500}
CLASSES: Final = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
"""PTB-XL's diagnostic superclasses, as its article describes them."""


def ingest(
    config: configuration.Source,
    source: Path,
    study: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write RECORDINGS, EVENTS, CODES, NOTES, EXCLUDED and the waveform store; return counts.

    `config.sampling_rate` is the study's, in hertz; None takes 500 if most recordings have their 500 Hz file, else
    100. EinthovenError if the tables of the source are missing or malformed, or if no recording can be used.
    """
    codes = _read_codes(source / STATEMENTS)
    rows, excluded = _read_rows(source / DATABASE)
    column, rate = _choose(config.sampling_rate, source, [row for _, row in rows])
    entries = [_entry(number, row, column) for number, row in rows]
    refuse_two_splits(entries, DATABASE)
    named = [entry for entry in entries if entry.signal]
    excluded += [e.excluded("missing-file", f"column {column} is empty") for e in entries if not e.signal]
    recordings, failed = store_recordings(named, wfdb_reader(source), study, rate, progress, unread=False)
    excluded += failed
    refuse_none(len(recordings), source, excluded, _HINT)
    names = set(recordings["recording_id"].to_pylist())
    kept = [row for _, row in rows if row.recording_id in names]
    return _write(study, recordings, kept, codes, excluded) | {"sampling_rate": rate}


_HINT: Final = "Expected a copy of PTB-XL. Records lie in records100/ or records500/ beside ptbxl_database.csv."


def _read_rows(file: Path) -> tuple[list[tuple[int, Row]], list[dict[str, Any]]]:
    rows: list[tuple[int, Row]] = []
    excluded: list[dict[str, Any]] = []
    seen: dict[int, int] = {}
    for number, values in read_csv(file, COLUMNS):
        row = None
        try:
            if values is None:
                raise RowError("bad-row", "another number of fields than the heading has")
            row = parse_row(values)
            first = seen.setdefault(row.ecg_id, number)
            if first != number:
                raise RowError("duplicate-id", f"column ecg_id: the same as in row {first}")
        except RowError as error:
            name = None if row is None else row.recording_id
            detail = f"{file.name} row {number}, {error.detail}"
            excluded.append(exclusion(error.reason, detail, row=number, recording_id=name))
        else:
            rows.append((number, row))
    return rows, excluded


def _choose(wanted: int | None, source: Path, rows: list[Row]) -> tuple[str, int]:
    """The file column to read and the study's rate: the files nearest to what is wanted, if most are there."""
    there = {c: sum(bool(r.files[c]) and is_there(source / f"{r.files[c]}.hea") for r in rows) for c in RATES}
    low, high = RATES
    best, other = (low, high) if wanted == RATES[low] else (high, low)
    column = best if 2 * there[best] > len(rows) or there[best] >= there[other] else other
    return column, wanted or RATES[column]


def _read_codes(file: Path) -> dict[str, dict[str, Any]]:
    """CODES rows by code: the statements and, as their parents, classes, subclasses and categories."""
    columns = ("", "description", "diagnostic", "form", "rhythm", "diagnostic_class", "diagnostic_subclass")
    codes: dict[str, dict[str, Any]] = {}
    families: dict[str, tuple[str | None, list[str]]] = {}
    descriptions = {}
    for number, values in read_csv(file, columns):
        if values is None or not values[""].strip():
            raise EinthovenError(f"{file}, row {number}: expected a statement code and as many fields as the heading.")
        code, description = values[""].strip(), values["description"].strip() or None
        descriptions[code] = description
        parents = _parents(values, families)
        codes[f"SCP//{code}"] = code_row(f"SCP//{code}", description, parents)
    for family, (description, parents) in families.items():
        prefix, _, name = family.partition("//")
        if prefix == "SCP_SUBCLASS":
            description = descriptions.get(name)
        codes[family] = code_row(family, description, parents)
    return codes


def _parents(values: dict[str, str], families: dict[str, tuple[str | None, list[str]]]) -> list[str]:
    """The parents of a statement, which are entered into `families` (description, parents)."""
    parents = []
    name, below = values["diagnostic_class"].strip(), values["diagnostic_subclass"].strip()
    if _is_set(values["diagnostic"]) and name:
        parents.append(f"SCP_CLASS//{name}")
        families[parents[-1]] = (CLASSES.get(name), [])
        if below:
            parents.append(f"SCP_SUBCLASS//{below}")
            families[parents[-1]] = (None, [f"SCP_CLASS//{name}"])
    for column in ("form", "rhythm"):
        if _is_set(values[column]):
            parents.append(f"SCP_{column.upper()}")
            families[parents[-1]] = (f"SCP-ECG {column} statement", [])
    return parents


def _is_set(cell: str) -> bool:
    return cell.strip() in ("1", "1.0")


def _write(
    study: Path,
    recordings: pa.Table,
    rows: list[Row],
    codes: dict[str, dict[str, Any]],
    excluded: list[dict[str, Any]],
) -> dict[str, Any]:
    events = [event for row in rows for event in _events(row)]
    unknown = {event["code"] for event in events} - set(codes)
    codes = codes | {code: code_row(code, None) for code in unknown}
    notes, counts = _notes(rows)
    write_table(schema.RECORDINGS, study, recordings)
    write_events(study, events)
    write_list(schema.CODES, study, (codes[code] for code in sorted(codes)))
    write_list(schema.NOTES, study, notes)
    counts |= {"excluded": write_excluded(study, [], excluded), "events": len(events), "unknown_codes": len(unknown)}
    return recording_counts(recordings) | counts | {"data_kind": schema.REAL}


def _entry(number: int, row: Row, column: str) -> Entry:
    return Entry(
        recording_id=row.recording_id,
        subject_id=row.subject_id,
        time=row.time,
        signal=row.files[column],
        split=row.split,
        age=row.age,
        sex=row.sex,
        device=row.device,
        site=row.site,
        source_file=row.files[column] or None,
        source_row=number,
    )


def _events(row: Row) -> Iterable[dict[str, Any]]:
    for code, likelihood in row.statements.items():
        yield {
            "subject_id": row.subject_id,
            "time": row.time,
            "code": f"SCP//{code}",
            "numeric_value": likelihood,
            "recording_id": row.recording_id,
        }


def _notes(rows: list[Row]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    counts = {"notes": 0, "footers_removed": 0, "edits_removed": 0, "non_reports": 0, "missing_reports": 0}
    for row in rows:
        if not row.report.strip():
            counts["missing_reports"] += 1
            continue
        report = parse_report(row.report)
        counts["footers_removed"] += report.footer
        counts["edits_removed"] += report.edit
        if report.text is None:
            counts["non_reports"] += 1
            continue
        note = {"note_id": f"{row.recording_id}-report", "subject_id": row.subject_id, "time": row.time}
        notes.append(note | {"kind": "ecg", "text": report.text, "recording_id": row.recording_id})
    notes.sort(key=lambda note: (note["subject_id"], str(note["time"] or "")))
    return notes, counts | {"notes": len(notes)}
