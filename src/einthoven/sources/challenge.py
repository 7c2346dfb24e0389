"""PhysioNet Challenges 2020, 2021, 2025, and what is published in their form -> recordings, events, codes, waveforms.

A recording is a WFDB header with its `.mat` or `.dat` file, in any folder; the header's comments hold age, sex and
diagnoses. Codes become events `DX//SNOMED//<code>`, a positive Chagas label `DX//CHAGAS`; what a source states to be
absent becomes `DX_ABSENT//…`, which belongs to no kind of code. No recording has a time, so its events are static, and
tied to it by `recording_id`. `docs/sources/challenge.md` says the rest.
"""

import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pyarrow as pa

from einthoven import config as configuration
from einthoven import schema
from einthoven.sources.archive import (
    RATE,
    Entry,
    listed,
    recording_counts,
    refuse_none,
    refuse_two_splits,
    store_recordings,
)
from einthoven.sources.cells import exclusion
from einthoven.sources.challenge_records import PREFIX, Found, identified, read_all, subjects, walk
from einthoven.sources.codes import code_row
from einthoven.sources.tabular import Tables, checked, write_events, write_excluded, write_list
from einthoven.study import write_table
from einthoven.waveforms.loading import wfdb_reader

CODES_FILE: Final = "challenge_codes.tsv"
BRUGADA: Final = ("patient_id", "basal_pattern", "sudden_death", "brugada")
LABELS: Final = {
    "CHAGAS": "Chagas disease (Chagas label of the header)",
    "BRUGADA": "Brugada syndrome (column brugada; 2 as published, its meaning is not)",
    "BRUGADA_PATTERN": "pathological baseline ECG (column basal_pattern)",
    "SUDDEN_DEATH": "history of sudden death (column sudden_death)",
}

Label = tuple[str, float]
"""A code without its prefix, and its value; 0: stated to be absent."""


def ingest(
    config: configuration.Source,
    source: Path,
    study: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write RECORDINGS, EVENTS, CODES, NOTES (empty), EXCLUDED and the waveform store; return counts.

    `config.sampling_rate` is the study's, in hertz; None takes the rate most recordings have. `config.recordings` names
    a table (sources/archive.py) that says whose recordings are, where the headers do not. EinthovenError if that is
    missing or malformed, or if no recording can be used.
    """
    tree = walk(source)
    half = _halves(progress, len(tree.headers))
    found, excluded = read_all(source, tree, lambda done: half(done, 2 * len(tree.headers)))
    recordings, copies = identified(found)
    stated, unusable = _stated(config, study, recordings)
    labels, unknown = _labels(source, study, tree.tables, recordings)
    rate = config.sampling_rate or _rate(found)
    entries = list(_entries(recordings, stated))
    refuse_two_splits(entries, config.recordings or "")  # again: equal signals have made subjects one
    rows, failed = store_recordings(
        entries, wfdb_reader(source), study, rate, lambda done, whole: half(whole + done, 2 * whole)
    )
    excluded += copies + unusable + unknown + failed
    refuse_none(len(rows), source, excluded, "Expected .hea with .mat or .dat files.")
    return _write(study, rows, recordings, labels, excluded) | {"sampling_rate": rate}


def _halves(progress: Callable[[int, int], None] | None, count: int) -> Callable[[int, int], None]:
    """Every recording is read twice, for its identity and for its signal: a bar that runs once."""

    def report(done: int, whole: int) -> None:
        if progress is not None and count:
            progress(min(done, whole) * count // whole, count)

    return report


def _rate(found: list[Found]) -> int:
    rates = Counter(round(one.rate) for one in found if 1 <= one.rate <= configuration.MAX_RATE)
    return max(rates, key=lambda rate: (rates[rate], rate), default=RATE)


def _stated(
    config: configuration.Source, study: Path, recordings: Mapping[str, Found]
) -> tuple[dict[str, Entry], list[dict[str, Any]]]:
    """What the table of `config.recordings` says, by recording_id."""
    if config.recordings is None:
        return {}, []
    file = Path(config.recordings)
    with Tables.of(file.parent, study) as tables:
        entries, excluded = listed(tables, file)
    stated = {PREFIX + entry.recording_id.removeprefix(PREFIX): entry for entry in entries}
    absent = [entry for name, entry in stated.items() if name not in recordings]
    for entry in absent:
        detail = "column recording_id: no such recording in the source"
        excluded.append(exclusion("missing-file", detail, file.name, entry.source_row))
    return {name: entry for name, entry in stated.items() if name in recordings}, excluded


def _entries(recordings: Mapping[str, Found], stated: Mapping[str, Entry]) -> Iterator[Entry]:
    owner = subjects(recordings, {name: entry.subject_id for name, entry in stated.items()})
    for name, one in recordings.items():
        table, comments = stated.get(name), one.comments
        yield Entry(
            recording_id=name,
            subject_id=owner[name],
            time=table.time if table else None,
            signal=one.name,
            split=table.split if table else None,
            age=table.age if table and table.age is not None else comments.age,
            sex=table.sex if table and table.sex is not None else comments.sex,
            device=table.device if table else None,
            site=table.site if table and table.site is not None else comments.site,
            source_file=one.name,
            source_row=table.source_row if table else None,
        )


def _labels(
    source: Path, study: Path, tables: Iterable[str], recordings: Mapping[str, Found]
) -> tuple[dict[str, list[Label]], list[dict[str, Any]]]:
    """Labels by recording_id: those of headers, and of the tables that have the columns of Brugada-HUCA."""
    labels: dict[str, list[Label]] = {
        name: [("CHAGAS", float(one.comments.chagas))] if one.comments.chagas is not None else []
        for name, one in recordings.items()
    }
    excluded: list[dict[str, Any]] = []
    for place in tables:
        folder = PurePosixPath(place).parent
        rows, refused = _brugada(source / place, study)
        excluded += [row | {"source_file": place} for row in refused]
        below = {one.stem: name for name, one in recordings.items() if PurePosixPath(one.name).is_relative_to(folder)}
        for row in rows:
            name = below.get(row["patient_id"])
            if name is None:
                detail = "column patient_id: no such recording in the source"
                excluded.append(exclusion("missing-file", detail, place, row["source_row"]))
                continue
            labels[name] += [
                ("BRUGADA", float(row["brugada"])),
                ("BRUGADA_PATTERN", float(row["basal_pattern"])),
                ("SUDDEN_DEATH", float(row["sudden_death"])),
            ]
    return labels, excluded


def _brugada(file: Path, study: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The rows of a table of Brugada-HUCA's, and EXCLUDED rows; nothing if it has other columns."""
    with file.open("rb") as opened:
        heading = opened.readline(1 << 12).decode("utf-8-sig", errors="replace").strip().split(",")
    if not set(BRUGADA) <= set(heading):
        return [], []
    with Tables.of(file.parent, study) as tables:
        table, refused = tables.read_file(file, BRUGADA)
        types = {column: "string" if column == "patient_id" else "int64" for column in BRUGADA}
        found = checked(table, types, BRUGADA)
        rows = found.kept.order_by("source_row").to_pyarrow().to_pylist()
        return rows, refused + found.refused.to_pyarrow().to_pylist()


def _write(
    study: Path,
    rows: pa.Table,
    recordings: Mapping[str, Found],
    labels: Mapping[str, list[Label]],
    excluded: list[dict[str, Any]],
) -> dict[str, Any]:
    events = [
        event
        for row in rows.select(["recording_id", "subject_id", "time"]).to_pylist()
        for event in _events(row, recordings[row["recording_id"]], labels[row["recording_id"]])
    ]
    codes = _codes()
    unknown = {event["code"] for event in events} - set(codes)
    codes |= {code: code_row(code, _label_name(code)) for code in unknown}
    write_table(schema.RECORDINGS, study, rows)
    write_events(study, events)
    write_list(schema.CODES, study, (codes[code] for code in sorted(codes)))
    write_list(schema.NOTES, study, [])
    return recording_counts(rows) | {
        "data_kind": schema.REAL,
        "events": len(events),
        "notes": 0,
        "excluded": write_excluded(study, [], excluded),
        "unknown_codes": sum(code.startswith("DX//SNOMED//") for code in unknown),
    }


def _events(row: dict[str, Any], one: Found, labels: Iterable[Label]) -> Iterator[dict[str, Any]]:
    """The findings of one recording: its codes, then its labels."""
    for code in one.comments.codes:
        yield row | {"code": f"DX//SNOMED//{code}", "numeric_value": None}
    for label, value in labels:
        yield row | {"code": f"{'DX' if value else 'DX_ABSENT'}//{label}", "numeric_value": value}


def _codes() -> dict[str, dict[str, Any]]:
    """CODES rows by code: the 133 diagnoses of the 2021 Challenge and, as parents of those scored, its 26 classes."""
    text = files("einthoven.sources").joinpath(CODES_FILE).read_text(encoding="utf-8")
    codes: dict[str, dict[str, Any]] = {}
    names: dict[str, list[str]] = {}
    for row in csv.DictReader(text.splitlines(), delimiter="\t"):
        parents = [f"DX_CLASS//{row['class']}"] if row["class"] else []
        code = f"DX//SNOMED//{row['snomed']}"
        codes[code] = code_row(code, row["name"], parents)
        for parent in parents:
            names.setdefault(parent, []).append(row["name"])
    return codes | {parent: code_row(parent, " or ".join(name)) for parent, name in names.items()}


def _label_name(code: str) -> str | None:
    prefix, _, label = code.partition("//")
    name = LABELS.get(label)
    return f"not: {name}" if name is not None and prefix == "DX_ABSENT" else name
