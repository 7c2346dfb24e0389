"""MIMIC-IV-ECG -> recordings, machine reports and machine measurements.

The clock of an ECG machine is not synchronised with the hospital's: `pairing.skew_minutes` makes room for it.
"""

from pathlib import Path
from typing import Any, Final

import ibis
import pyarrow as pa

from einthoven import schema
from einthoven.sources.archive import Entry, plausible, sex_of
from einthoven.sources.codes import event
from einthoven.sources.mimic_chart import ADULTS
from einthoven.sources.mimic_tables import MEASURED, NOTHING, REPORTS, Published
from einthoven.sources.tabular import SourceTable
from einthoven.waveforms.loading import below
from einthoven.waveforms.wfdb_format import RecordingError, is_there

LONGEST, WIDEST = 10_000, 360
"""Milliseconds and degrees: what is not between 0 and these was not measured (29999, and also 0 and 32767)."""

MEASUREMENTS: Final = {
    "ECG//RR_INTERVAL": ("RR interval, milliseconds", "rr_interval", None),
    "ECG//PR_INTERVAL": ("PR interval, milliseconds", "qrs_onset", "p_onset"),
    "ECG//QRS_DURATION": ("QRS duration, milliseconds", "qrs_end", "qrs_onset"),
    "ECG//QT_INTERVAL": ("QT interval, milliseconds", "t_end", "qrs_onset"),
    "ECG//P_AXIS": ("P axis, degrees", "p_axis", None),
    "ECG//QRS_AXIS": ("QRS axis, degrees", "qrs_axis", None),
    "ECG//T_AXIS": ("T axis, degrees", "t_axis", None),
}
"""Code -> description, the column, and the column that is subtracted from it."""


class Electrocardiograms:
    """The two tables of the module. Reasons of exclusion: bad-row, duplicate-id, not-listed, no-time."""

    def __init__(self, published: Published) -> None:
        self.listed = published.take("record_list", "study_id")
        self.machine = published.take("machine_measurements", "study_id")
        self._details = self._checked_details(published)
        if self.listed.file == NOTHING:
            self.listed = SourceTable(self.machine.file, self.machine.rows.mutate(path=ibis.null("string")))
        elif self.machine.file != NOTHING:
            both = self.machine.rows.semi_join(self.listed.rows, ["subject_id", "study_id"])
            rest = self.machine.rows.anti_join(both, "source_row")
            published.refuse(self.machine, rest, "not-listed", "column study_id: not this patient's in record_list")
            self.machine = SourceTable(self.machine.file, both)

    def _checked_details(self, published: Published) -> Any:
        """`study_id`, `cart_id` and measurements; a row in which one is no number loses them, not its recording."""
        kinds = {"study_id": "int64", "cart_id": "int64"} | dict.fromkeys(MEASURED, "float64")
        if self.machine.file == NOTHING:
            return self.machine.rows.select(**{name: ibis.null(kind) for name, kind in kinds.items()})
        return published.check(self.machine, kinds).rows.drop("source_row")

    def folder(self, published: Published) -> Path:
        """Where the paths of record_list begin."""
        return (published.tables.folder / self.listed.file).parent

    def entries(self, published: Published, people: SourceTable) -> list[Entry]:
        """The recordings, by subject and time, with age and sex; a signal only where its header is there."""
        carts = self._details.select("study_id", "cart_id")
        rows = self.listed.rows.select("subject_id", "study_id", "ecg_time", "path", "source_row")
        rows = rows.left_join(carts, "study_id").drop("study_id_right")
        known = people.rows.select("subject_id", "gender", "anchor_age", "anchor_year")
        rows = rows.left_join(known, "subject_id").drop("subject_id_right")
        folder = self.folder(published)
        ordered = rows.order_by("subject_id", ibis.asc("ecg_time", nulls_first=True), "study_id")
        return [
            _entry(row, folder, self.listed.file) for batch in ordered.to_pyarrow_batches() for row in batch.to_pylist()
        ]

    def reports(self, recordings: Any) -> Any:
        """NOTES rows: the machine's statements, joined by ". ", of the recordings (an ibis.Table) that were kept."""
        rows = self._of(self.machine.rows, recordings)
        lines = [rows[column].re_replace(r"[.\s]+$", "").nullif("") for column in REPORTS]
        told = rows.mutate(text=ibis.array(lines).filter(lambda line: line.notnull()).join(". ").nullif(""))
        return told.filter(told.text.notnull()).select(
            "subject_id",
            "time",
            "text",
            "recording_id",
            note_id=told.recording_id + "-report",
            kind=ibis.literal("ecg"),
            code=ibis.null("string"),
        )[schema.NOTES.columns.names]

    def events(self, published: Published, recordings: Any) -> Any:
        """EVENTS rows: what the machine measured of the recordings that were kept."""
        rows = self._of(self.machine.rows.select("subject_id", "study_id", "source_row"), recordings)
        rows = rows.inner_join(self._details, "study_id")
        dated = published.keep(
            SourceTable(self.machine.file, rows), rows.time.notnull(), "no-time", "column ecg_time: empty"
        ).rows
        values = [ibis.struct({"code": ibis.literal(code), "value": _value(dated, code)}) for code in MEASUREMENTS]
        every = dated.select("subject_id", "time", "recording_id", one=ibis.array(values).unnest())
        every = every.select("subject_id", "time", "recording_id", code=every.one["code"], value=every.one["value"])
        there = every.filter(every.value.notnull())
        return event(there, there.code, there.time, numeric_value=there.value, recording_id=there.recording_id)

    def _of(self, rows: Any, recordings: Any) -> Any:
        """Rows of the recordings kept, with their `recording_id` and `time`."""
        named = rows.mutate(recording_id=recording_id(rows)).drop("subject_id")
        return named.inner_join(recordings, "recording_id")


def recording_id(rows: Any) -> Any:
    return "mimic-" + rows.study_id.cast("string")


def _value(rows: Any, code: str) -> Any:
    """A measurement; null where it was not made."""
    _, column, origin = MEASUREMENTS[code]
    value = rows[column] if origin is None else rows[column] - rows[origin]
    there = value.abs() <= WIDEST if code.endswith("AXIS") else (value > 0) & (value < LONGEST)
    return ibis.ifelse(there, value, ibis.null("float64"))


def titles() -> Any:
    """`code` and `description` of the measurements."""
    return ibis.memtable(
        pa.table({"code": list(MEASUREMENTS), "description": [text for text, *_ in MEASUREMENTS.values()]})
    )


def _entry(row: dict[str, Any], folder: Path, file: str) -> Entry:
    path, cart = row["path"], row["cart_id"]
    return Entry(
        recording_id=f"mimic-{row['study_id']}",
        subject_id=row["subject_id"],
        time=row["ecg_time"],
        signal=path if path is not None and _worth_reading(folder, path) else None,
        age=_age(row),
        sex=sex_of(row["gender"]),
        device=None if cart is None else f"cart {cart}",
        source_file=path or file,
        source_row=row["source_row"],
    )


def _worth_reading(folder: Path, path: str) -> bool:
    """False: nothing is there. A path that leads out of the folder is left to the reader to refuse."""
    try:
        return is_there(below(folder, f"{path}.hea"))
    except RecordingError:
        return True


def _age(row: dict[str, Any]) -> float | None:
    """Years at the recording, to a year; above 89 only that is known, and nothing before the anchor year."""
    age, anchor, time = row["anchor_age"], row["anchor_year"], row["ecg_time"]
    if age is None or anchor is None or time is None:
        return None
    years = time.year - anchor
    if age > ADULTS:
        return float(ADULTS + 1) if years >= 0 else None
    return plausible(float(age + years))
