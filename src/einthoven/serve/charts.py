"""What a study knows of one recording, read from its tables when it is asked for.

Tables are sorted by patient, so that Parquet's statistics find a patient's rows without reading the others'.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.indexing import without_forgotten
from einthoven.schema import LEADS, Table
from einthoven.search.rows import descriptions
from einthoven.serve.bodies import ChartCode, ChartNote, RecordingAnswer
from einthoven.study import check_table, read_table
from einthoven.waveforms.draw import Shade, draw_svg
from einthoven.waveforms.formats import Ecg
from einthoven.waveforms.standardise import Samples, leads_of, to_millivolts
from einthoven.waveforms.store import Store

TITLE: Final = "12-lead ECG"
"""Of a drawing: an id would travel with every copy of it."""


@dataclass
class Charts:
    """The recordings of a study by id, and the chart around each."""

    study: Path
    store: Store
    show_notes: bool = False
    recordings: pa.Table = field(init=False)
    _place: dict[str, int] = field(init=False, repr=False)
    _descriptions: dict[str, str] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.recordings = without_forgotten(read_table(schema.RECORDINGS, self.study), self.study)
        self._place = {name: i for i, name in enumerate(self.recordings["recording_id"].to_pylist())}
        self._descriptions = descriptions(self.study)
        for table in (schema.EVENTS, schema.PAIRS, schema.NOTES):
            check_table(table, self.study)

    def __contains__(self, recording_id: object) -> bool:
        return recording_id in self._place

    def row(self, recording_id: str) -> dict[str, Any] | None:
        """The recording's row of RECORDINGS; None if there is none of this id."""
        place = self._place.get(recording_id)
        return None if place is None else self.recordings.slice(place, 1).to_pylist()[0]

    def recording(self, recording_id: str) -> RecordingAnswer | None:
        """All that is known of a recording; None if there is none of this id."""
        row = self.row(recording_id)
        if row is None:
            return None
        subject = row["subject_id"]
        return RecordingAnswer(
            recording_id=recording_id,
            time=_said(row["time"]),
            split=row["split"],
            age=row["age"],
            sex=row["sex"],
            source_rate=row["source_rate"],
            leads=leads_of(row["leads"]),
            quality=row["quality"] or [],
            device=row["device"],
            site=row["site"],
            signal=row["row"] is not None,
            findings=self._findings(subject, recording_id),
            codes=self._codes(subject, recording_id),
            notes=self._notes(subject),
        )

    def drawing(self, recording_id: str, shades: Sequence[Shade] = ()) -> str | None:
        """The recording on ECG paper, as SVG; None if there is none, or no signal. Its title is no id."""
        stored = self.stored(recording_id)
        return None if stored is None else draw_svg(to_millivolts(stored), self.store.sampling_rate, TITLE, shades)

    def stored(self, recording_id: str) -> Samples | None:
        """Int16 microvolts [12, samples]; None if there is no such recording, or no signal."""
        row = self.row(recording_id)
        return None if row is None or row["row"] is None else self.store.read([row["row"]])[0]

    def _findings(self, subject: int, recording_id: str) -> list[str]:
        rows = self._of(schema.EVENTS, subject, ["code", "recording_id"])
        codes = rows.filter(pc.equal(rows["recording_id"], recording_id))["code"].to_pylist()
        return [self._descriptions.get(code, code) for code in codes]

    def _codes(self, subject: int, recording_id: str) -> list[ChartCode]:
        rows = self._of(schema.PAIRS, subject, ["recording_id", "codes", "code_kinds", "code_days"])
        mine = rows.filter(pc.equal(rows["recording_id"], recording_id)).to_pylist()
        try:
            return [
                ChartCode(code=code, kind=kind, days=days, description=self._descriptions.get(code))
                for row in mine
                for code, kind, days in zip(row["codes"], row["code_kinds"], row["code_days"], strict=True)
            ]
        except (TypeError, ValueError):  # pydantic's are ValueErrors
            place = schema.PAIRS.at(self.study)
            raise EinthovenError(f"{place} is damaged: run the stage that writes it again.") from None

    def _notes(self, subject: int) -> list[ChartNote]:
        columns = ["kind", "time", *(["text"] if self.show_notes else [])]
        rows = self._of(schema.NOTES, subject, columns).to_pylist()
        return [ChartNote(kind=row["kind"], time=_said(row["time"]), text=row.get("text")) for row in rows]

    def _of(self, table: Table, subject: int, columns: list[str]) -> pa.Table:
        return read_table(table, self.study, columns, pc.field("subject_id") == subject)


def draw(ecg: Ecg) -> str:
    """An ECG as it was read from a file, on paper, as SVG."""
    twelve = np.full((len(LEADS), ecg.signal.shape[1]), np.nan, np.float32)
    for lead, row in zip(ecg.leads, ecg.signal, strict=True):
        if lead in LEADS:
            twelve[LEADS.index(lead)] = row
    return draw_svg(twelve, ecg.sampling_rate, TITLE)


def _said(time: Any) -> str | None:
    return None if time is None else time.isoformat()
