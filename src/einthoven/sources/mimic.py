"""MIMIC-IV (hosp), MIMIC-IV-ECG and MIMIC-IV-Note (PhysioNet), any subset -> the tables of a study and its waveforms.

Diagnoses have no time in MIMIC: they are dated by the discharge of their admission, or by its start
(`config.diagnosis_time`). Splits are by hash of the patient.

Reasons of exclusion: bad-row, duplicate-id (the first is kept), no-admission, no-time, not-listed (a row of
machine_measurements that record_list does not have), and those of a damaged signal. A recording whose signal is
absent is kept without one.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from einthoven import config as configuration
from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources import mimic_ecg
from einthoven.sources.archive import recording_counts, refuse_none, store_recordings
from einthoven.sources.codes import write_codes
from einthoven.sources.mimic_chart import read_chart
from einthoven.sources.mimic_ecg import Electrocardiograms
from einthoven.sources.mimic_notes import check_kinds, read_notes
from einthoven.sources.mimic_tables import LAYOUTS, Published
from einthoven.sources.tabular import NOTE_ORDER, Tables, event_order, write_rows
from einthoven.study import write_table
from einthoven.waveforms.loading import wfdb_reader


def ingest(
    config: configuration.Source,
    source: Path,
    study: Path,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write RECORDINGS, EVENTS, CODES, NOTES, EXCLUDED and the waveform store; return counts.

    `source` is a folder that holds the modules, in folders of any name. EinthovenError if none of their tables is
    there, if one lacks a column, or if there are ECGs and none can be used.
    """
    check_kinds(config.note_kinds)
    with Tables.of(source, study) as tables:
        published = Published(tables)
        chart = read_chart(published, config.diagnosis_time)
        ecg = Electrocardiograms(published)
        entries = ecg.entries(published, chart.people)
        reader = wfdb_reader(ecg.folder(published))
        recordings, excluded = store_recordings(entries, reader, study, config.sampling_rate, progress)
        published.exclude(excluded)
        kept = _named(tables, recordings)
        notes = ibis.union(read_notes(published, kept, config.note_kinds), ecg.reports(kept))
        if len(published.absent) == len(LAYOUTS):
            wanted = f"expected some of {', '.join(LAYOUTS)} (.csv, .csv.gz, .parquet)"
            raise EinthovenError(f"{source}: no table of MIMIC-IV below it; {wanted}.")
        if entries:
            refuse_none(len(recordings), source, excluded, "Copy the waveforms again.")
        write_table(schema.RECORDINGS, study, recordings)
        for part in (*chart.events, ecg.events(published, kept)):
            events = tables.stored("events", part)
        counts = {
            "events": write_rows(schema.EVENTS, study, events, event_order(events)),
            "codes": write_codes(study, events, [*chart.titles, mimic_ecg.titles()]),
            "notes": write_rows(schema.NOTES, study, notes, NOTE_ORDER),
            "excluded": published.write_excluded(study),
        }
    about = {"data_kind": schema.REAL, "diagnoses_dated_by": config.diagnosis_time, "absent": published.absent}
    return recording_counts(recordings) | counts | about


def _named(tables: Tables, recordings: pa.Table) -> Any:
    """The recordings kept, as an ibis.Table: recording_id, subject_id, time."""
    columns = ["recording_id", "subject_id", "time"]
    nullable = pa.schema([pa.field(name, schema.RECORDINGS.columns.field(name).type) for name in columns])
    return tables.stored("kept_recordings", recordings.select(columns).cast(nullable))
