"""A FHIR R4 or R4B bulk export (NDJSON) -> recordings, events, codes, notes and waveforms.

Read are Patient, Condition, Procedure, MedicationRequest, MedicationAdministration, Medication, DocumentReference and
DiagnosticReport with their text inside, and Observation with the samples of an ECG; docs/sources/fhir.md says how. A
patient's integer is the first 63 bits of the SHA-256 of the logical id; the study does not hold the id itself.

Reasons for exclusion: bad-json, bad-resource, no-time, no-code, no-text, unknown-patient, duplicate-id, too-large,
external-attachment, unsupported-attachment, the status (entered-in-error, not-done, refuted, cancelled, draft,
preparation, superseded), and for signals wrong-leads, bad-header, bad-signal, truncated, no-signal, flat.
"""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from einthoven import config as configuration
from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.archive import (
    RATE,
    Entry,
    completed,
    in_order,
    listed,
    patients_of,
    recording_counts,
    refuse_none,
    store_recordings,
)
from einthoven.sources.fhir_ecg import Place, read_ecg
from einthoven.sources.fhir_elements import ResourceError
from einthoven.sources.fhir_files import Spool, Staging, lines_of, ndjson_files, parse_line
from einthoven.sources.fhir_record import Record
from einthoven.sources.fhir_resources import Recording, read_resource
from einthoven.sources.tabular import Tables
from einthoven.study import write_table
from einthoven.waveforms.loading import ecg_reader
from einthoven.waveforms.wfdb_format import Record as Signal

MAX_TYPES: Final = 200  # resource types that are counted by name; FHIR has about 150


class Progress(Protocol):
    """Told how much of all is done; `note` says of what."""

    def __call__(self, done: int, total: int, note: str = ..., /) -> None: ...


def ingest(config: configuration.Source, source: Path, study: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write RECORDINGS, EVENTS, CODES, NOTES, EXCLUDED and the waveform store; return counts.

    EinthovenError if there is no NDJSON, no patient or no recording, or if a file is damaged.
    """
    rate = RATE if config.sampling_rate is None else config.sampling_rate
    files = ndjson_files(source)
    if not files:
        raise EinthovenError(f"{source}: no *.ndjson and no *.ndjson.gz. Expected a FHIR bulk export.")
    with Tables.of(source, study) as tables:
        spool = Spool(study / ".scratch" / "ecg.ndjson")
        export = _read(files, source, config, tables.engine, spool, progress)
        record = Record(tables, source)
        entries, excluded = _entries(config, tables, export, record, source)
        folder = source if config.recordings is None else Path(config.recordings).parent
        rows, unusable = store_recordings(entries, _reader(folder), study, rate, progress)
        excluded += unusable
        refuse_none(rows.num_rows, source, excluded, _HINT)
        write_table(schema.RECORDINGS, study, rows)
        record.exclude(excluded)
        counts = record.write(study, rows)
    return {
        "data_kind": schema.REAL,
        "sampling_rate": rate,
        **recording_counts(rows),
        **counts,
        "unhandled": dict(sorted(export.unhandled.items())),
    }


_HINT: Final = (
    "Expected Observations with valueSampledData, or a table of recordings named by [source] recordings whose "
    "subject_id is the first 63 bits of the SHA-256 of the Patient's id."
)


@dataclass
class _Export:
    """What reading gave beside the rows in the staging tables."""

    entries: list[Entry] = field(default_factory=list)
    unhandled: Counter[str] = field(default_factory=Counter)

    def count(self, kind: str) -> None:
        known = kind in self.unhandled or (len(self.unhandled) < MAX_TYPES and kind.isalpha() and len(kind) <= 40)
        self.unhandled[kind if known else "others"] += 1


def _read(
    files: list[Path],
    source: Path,
    config: configuration.Source,
    engine: Any,
    spool: Spool,
    progress: Progress | None,
) -> _Export:
    """Every line of the export -> the staging tables; the recordings and what was not read."""
    export, before = _Export(), 0
    whole = sum(file.stat().st_size for file in files)

    def told(read: int) -> None:
        if progress is not None:
            progress((before + read) >> 20, whole >> 20, "MB of resources")

    with Staging(engine) as staging:
        for file in files:
            name = str(file.relative_to(source))
            for line in lines_of(file, told):
                try:
                    resource = parse_line(line)
                    row = read_resource(resource, config)
                except ResourceError as error:
                    staging.refuse(name, line.number, error)
                    continue
                if row is None:
                    export.count(resource["resourceType"])
                elif isinstance(row, Recording):
                    export.entries.append(_entry(row, spool.place(file, line), name, line.number))
                else:
                    staging.add(name, line.number, row)
            before += file.stat().st_size
    spool.close()
    return export


def _entry(row: Recording, signal: Place, file: str, line: int) -> Entry:
    return Entry(
        recording_id=row.recording_id,
        subject_id=row.subject_id,
        time=row.time,
        signal=signal,
        device=row.device,
        source_file=file,
        source_row=line,
    )


def _reader(folder: Path) -> Any:
    """Reads an ECG of the export by its place, one of an archive by its name."""
    archive = ecg_reader(folder)

    def read(signal: Place | str) -> Signal:
        return read_ecg(signal) if isinstance(signal, Place) else archive(signal)

    return read


def _entries(
    config: configuration.Source, tables: Tables, export: _Export, record: Record, source: Path
) -> tuple[list[Entry], list[dict[str, Any]]]:
    """The recordings of known patients, by subject and time, with age and sex; EXCLUDED rows for the others."""
    found: list[Entry] = export.entries
    excluded: list[dict[str, Any]] = []
    if config.recordings is not None:
        beside, excluded = listed(tables, Path(config.recordings))
        found = found + beside
    if not found:
        raise EinthovenError(f"{source}: there is no recording. {_HINT}")
    people = patients_of(found, record.people)
    kept: dict[str, Entry] = {}
    for entry in found:
        if entry.subject_id not in people:
            excluded.append(entry.excluded("unknown-patient", "expected the subject of a Patient of the export"))
        elif entry.recording_id in kept:
            excluded.append(entry.excluded("duplicate-id", "the same recording as in a row before"))
        else:
            kept[entry.recording_id] = completed(entry, people[entry.subject_id])
    return in_order(kept.values()), excluded
