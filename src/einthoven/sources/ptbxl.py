"""PTB-XL (PhysioNet, CC BY 4.0), whole or in part, at 100 or 500 Hz -> recordings, events, codes, notes, waveforms.

SCP statements become events `SCP//<code>` at the time of their recording, with the likelihood (percent; 0 where the
annotators gave none) as numeric value. Folds 1-8 are train, 9 validation, 10 test, as published.

A recording is kept out, and listed in `excluded.parquet`, for one of these reasons: bad-row, bad-fold, duplicate-id
(the first is kept), missing-file, outside-folder, unreadable, bad-header, truncated, wrong-size, checksum,
wrong-leads, no-signal, flat. Its statements and report are kept out with it.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from einthoven import config as configuration
from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.ptbxl_reports import clean_report, parse_report
from einthoven.sources.ptbxl_rows import COLUMNS, DATABASE, Row, RowError, parse_row, read_csv
from einthoven.study import write_table
from einthoven.waveforms.loading import Loaded, load_records, wfdb_reader
from einthoven.waveforms.wfdb_format import RecordingError

__all__ = ["clean_report", "ingest"]

STATEMENTS: Final = "scp_statements.csv"
SECONDS: Final = 10.0
RATES: Final = {"filename_lr": 100, "filename_hr": 500}
MAX_RATE: Final = 5000
CLASSES: Final = {
    "NORM": "normal ECG",
    "MI": "myocardial infarction",
    "STTC": "ST/T change",
    "CD": "conduction disturbance",
    "HYP": "hypertrophy",
}
"""PTB-XL's diagnostic superclasses, as its article describes them."""


@dataclass(frozen=True)
class _Kept:
    row: Row
    loaded: Loaded
    file: str


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
    if config.sampling_rate is not None and not 1 <= config.sampling_rate <= MAX_RATE:
        raise EinthovenError(f"sampling_rate {config.sampling_rate}: expected 1 to {MAX_RATE} Hz.")
    codes = _read_codes(source / STATEMENTS)
    rows, excluded = _read_rows(source / DATABASE)
    column, rate = _choose(config.sampling_rate, source, [row for _, row in rows])
    named = [(number, row, row.files[column]) for number, row in rows if row.files[column]]
    excluded += [
        _excluded(number, "missing-file", f"column {column} is empty", row)
        for number, row in rows
        if not row.files[column]
    ]
    results = load_records(study, wfdb_reader(source), [file for _, _, file in named], rate, SECONDS, progress)
    kept = []
    for (number, row, file), result in zip(named, results, strict=True):
        if isinstance(result, RecordingError):
            excluded.append(_excluded(number, result.reason, result.detail, row, file))
        else:
            kept.append(_Kept(row, result, file))
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in _reasons(excluded).items()) or "the table is empty"
        raise EinthovenError(f"{source}: no recording can be used ({reasons}). Expected a copy of PTB-XL. {_HINT}")
    return _write(study, kept, codes, excluded) | {"sampling_rate": rate}


_HINT: Final = "Records lie in records100/ or records500/ beside ptbxl_database.csv."


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
            excluded.append(_excluded(number, error.reason, f"{file.name} row {number}, {error.detail}", row))
        else:
            rows.append((number, row))
    return rows, excluded


def _excluded(number: int, reason: str, detail: str, row: Row | None = None, file: str | None = None) -> dict[str, Any]:
    identity = None if row is None else row.recording_id
    return {"recording_id": identity, "source_file": file, "source_row": number, "reason": reason, "detail": detail}


def _reasons(excluded: list[dict[str, Any]]) -> dict[str, int]:
    return dict(sorted(Counter(entry["reason"] for entry in excluded).items()))


def _choose(wanted: int | None, source: Path, rows: list[Row]) -> tuple[str, int]:
    """The file column to read and the study's rate: the files nearest to what is wanted, if most are there."""
    there = {c: sum(bool(r.files[c]) and (source / f"{r.files[c]}.hea").exists() for r in rows) for c in RATES}
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
        codes[f"SCP//{code}"] = _code(f"SCP//{code}", description, parents)
    for family, (description, parents) in families.items():
        prefix, _, name = family.partition("//")
        if prefix == "SCP_SUBCLASS":
            description = descriptions.get(name)
        codes[family] = _code(family, description, parents)
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


def _code(code: str, description: str | None, parents: list[str]) -> dict[str, Any]:
    return {"code": code, "description": description, "parent_codes": parents}


def _write(
    study: Path, kept: list[_Kept], codes: dict[str, dict[str, Any]], excluded: list[dict[str, Any]]
) -> dict[str, Any]:
    events = [event for one in kept for event in _events(one.row)]
    unknown = sorted({event["code"] for event in events} - set(codes))
    codes = codes | {code: _code(code, None, []) for code in unknown}
    notes, counts = _notes(kept)
    excluded.sort(key=lambda entry: entry["source_row"])
    _table(schema.RECORDINGS, study, map(_recording, kept))
    _table(schema.EVENTS, study, sorted(events, key=_chronological))
    _table(schema.CODES, study, (codes[code] for code in sorted(codes)))
    _table(schema.NOTES, study, notes)
    _table(schema.EXCLUDED, study, excluded)
    splits = Counter(one.row.split for one in kept)
    flags = Counter(kind for one in kept for kind in {flag.partition(":")[0] for flag in one.loaded.quality})
    return counts | {
        "data_kind": schema.REAL,
        "recordings": {split: splits[split] for split in schema.SPLITS},
        "subjects": len({one.row.subject_id for one in kept}),
        "excluded": _reasons(excluded),
        "events": len(events),
        "unknown_codes": len(unknown),
        "flags": dict(sorted(flags.items())),
    }


def _table(table: schema.Table, study: Path, rows: Iterable[dict[str, Any]]) -> None:
    write_table(table, study, pa.Table.from_pylist(list(rows), schema=table.columns))


def _chronological(event: dict[str, Any]) -> tuple[int, str, str]:
    """MEDS order: by subject and time, events without a time first; then by code."""
    time = event["time"]
    return event["subject_id"], "" if time is None else time.isoformat(), event["code"]


def _recording(one: _Kept) -> dict[str, Any]:
    row, loaded = one.row, one.loaded
    return {
        "recording_id": row.recording_id,
        "subject_id": row.subject_id,
        "time": row.time,
        "split": row.split,
        "row": loaded.row,
        "leads": loaded.leads,
        "source_rate": loaded.source_rate,
        "quality": loaded.quality,
        "age": row.age,
        "age_over_89": row.over_89,
        "sex": row.sex,
        "device": row.device,
        "site": row.site,
        "source_file": one.file,
    }


def _events(row: Row) -> Iterable[dict[str, Any]]:
    for code, likelihood in row.statements.items():
        yield {
            "subject_id": row.subject_id,
            "time": row.time,
            "code": f"SCP//{code}",
            "numeric_value": likelihood,
            "text_value": None,
            "recording_id": row.recording_id,
        }


def _notes(kept: list[_Kept]) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    notes: list[dict[str, Any]] = []
    counts = {"notes": 0, "footers_removed": 0, "edits_removed": 0, "non_reports": 0, "missing_reports": 0}
    for row in (one.row for one in kept):
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
