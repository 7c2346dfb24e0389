"""The staged rows of an export -> EVENTS, CODES, NOTES and EXCLUDED, in DuckDB by Ibis expressions."""

from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.codes import person_events, write_codes, written
from einthoven.sources.screening import Screening
from einthoven.sources.tabular import NOTE_ORDER, SourceTable, Tables, event_order, filled, write_rows


class Record(Screening):
    """The patients, events and notes of an export whose rows are in the staging tables; `people` are the patients."""

    def __init__(self, tables: Tables, source: Path) -> None:
        super().__init__(tables)
        self.exclude(tables.engine.table("refused_lines"))
        self.people = self._once("patients").rows
        if not self.people.count().execute():
            raise EinthovenError(f"{source}: no Patient can be read. Expected a Patient.ndjson in the export.")
        same = self.people.group_by("subject_id").agg(times=lambda t: t.count()).filter(lambda t: t.times > 1)
        if same.count().execute():
            raise EinthovenError(
                f"{source}: two Patients have ids of equal hash; rename one of them and its references."
            )
        self._coded = self._resolved(self._of_patients("events"))
        self._notes = self._of_patients("notes").rows

    def write(self, study: Path, recordings: pa.Table) -> dict[str, Any]:
        """Write EVENTS, CODES, NOTES and EXCLUDED; counts. `recordings`: of the study."""
        events = ibis.union(filled(schema.EVENTS, self._coded), *person_events(self.people))
        counts: dict[str, Any] = {
            "patients": int(self.people.count().execute()),
            "events": write_rows(schema.EVENTS, study, events, event_order(events)),
            "notes": write_rows(schema.NOTES, study, self._linked(recordings), NOTE_ORDER),
        }
        write_codes(study, events, [self._coded])
        return counts | {"excluded": self.write_excluded(study)}

    def _once(self, name: str) -> SourceTable:
        """The rows of a staging table without those whose id was there before: exports may overlap."""
        return self.first_of(SourceTable(name, self.tables.engine.table(name)), "key")

    def _of_patients(self, name: str) -> SourceTable:
        found = self._once(name)
        unknown = found.rows.anti_join(self.people, "subject_id")
        self.refuse(found, unknown, "unknown-patient", "subject: expected a Patient of the export")
        return SourceTable(name, found.rows.semi_join(self.people, "subject_id"))

    def _resolved(self, events: SourceTable) -> Any:
        """Events with the codes of the Medications that they refer to."""
        drugs = self._once("medications").rows.select(drug="key", drug_code="code", drug_name="description")
        joined = events.rows.left_join(drugs, events.rows.medication == drugs.drug)
        named = joined.mutate(
            code=written(ibis.coalesce(joined.code, joined.drug_code)),
            description=ibis.coalesce(joined.description, joined.drug_name),
        )
        detail = "medicationReference: expected a coded Medication"
        return self.keep(SourceTable(events.file, named), named.code.notnull(), "no-code", detail).rows

    def _linked(self, recordings: pa.Table) -> Any:
        """NOTES rows: a report that names a kept recording of its patient among its results is that recording's."""
        notes = self._notes
        kept = ibis.memtable(recordings.select(["recording_id", "subject_id"]))
        results = notes.select("note_id", "subject_id", recording_id=notes.about.unnest())
        named = self.tables.stored("results", results)  # Ibis 12 cannot join what it unnests
        own = named.semi_join(kept, ["recording_id", "subject_id"]).group_by("note_id")
        own = own.agg(recording_id=lambda t: t.recording_id.min())
        return filled(schema.NOTES, notes.left_join(own, "note_id"))
