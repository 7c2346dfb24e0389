"""The staged rows of an export -> EVENTS, CODES, NOTES and EXCLUDED, in DuckDB by Ibis expressions."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import ibis
import pyarrow as pa

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.fhir_elements import icd_category
from einthoven.sources.fhir_files import LINE_BITS
from einthoven.sources.tabular import EVENT_ORDER, NOTE_ORDER, write_rows
from einthoven.study import write_table

GENDERS: Final = {"male": "GENDER//M", "female": "GENDER//F", "other": "GENDER//OTHER"}
BIRTH, DEATH = "MEDS_BIRTH", "MEDS_DEATH"


class Record:
    """The patients, events and notes of an export whose rows are in the staging tables of `engine`."""

    def __init__(self, engine: Any, files: Sequence[Path], source: Path) -> None:
        self._engine = engine
        names = [str(file.relative_to(source)) for file in files]
        self._files = ibis.memtable(pa.table({"file": range(len(names)), "source_file": names}))
        self._refused = [_from_stage(engine.table("refused"))]
        self._people = engine.create_table("people", self._once("patients"))
        if not self._people.count().execute():
            raise EinthovenError(f"{source}: no Patient can be read. Expected a Patient.ndjson in the export.")
        same = self._people.group_by("subject_id").agg(times=lambda t: t.count()).filter(lambda t: t.times > 1)
        if same.count().execute():
            raise EinthovenError(
                f"{source}: two Patients have ids of equal hash; rename one of them and its references."
            )
        self._coded = self._resolved(self._of_patients("events"))
        self._notes = self._of_patients("notes")

    def people(self, subjects: Iterable[int]) -> dict[int, tuple[datetime | None, str | None]]:
        """Birth and gender of those subjects that are patients of the export."""
        wanted = ibis.memtable(pa.table({"subject_id": pa.array(sorted(subjects), pa.int64())}))
        found = self._people.semi_join(wanted, "subject_id").select("subject_id", "birth", "gender").to_pyarrow()
        return {row["subject_id"]: (row["birth"], row["gender"]) for row in found.to_pylist()}

    def write(self, study: Path, recordings: pa.Table, excluded: list[dict[str, Any]]) -> dict[str, Any]:
        """Write the tables; counts. `recordings`: of the study; `excluded`: rows found elsewhere."""
        events = ibis.union(_columns(self._coded, schema.EVENTS), *self._statics())
        counts: dict[str, Any] = {
            "subjects": int(self._people.count().execute()),
            "events": write_rows(schema.EVENTS, study, events, EVENT_ORDER),
            "notes": write_rows(schema.NOTES, study, self._linked(recordings), NOTE_ORDER),
        }
        write_table(schema.CODES, study, pa.Table.from_pylist(self._codes(), schema=schema.CODES.columns))
        refused = [self._told(rows) for rows in self._refused]
        if excluded:
            nullable = pa.schema([column.with_nullable(True) for column in schema.EXCLUDED.columns])  # as those above
            refused.append(ibis.memtable(pa.Table.from_pylist(excluded, schema=nullable)))
        order = ("source_file", "source_row", "recording_id", "reason")
        write_rows(schema.EXCLUDED, study, ibis.union(*refused), order)
        found = self._engine.read_parquet(str(schema.EXCLUDED.at(study))).group_by("reason").agg(n=lambda t: t.count())
        counts["excluded"] = {row["reason"]: row["n"] for row in found.order_by("reason").to_pyarrow().to_pylist()}
        return counts

    def _once(self, name: str) -> Any:
        """The rows of a staging table without those whose id was there before: exports may overlap."""
        rows = self._engine.table(name)
        times = rows.group_by("key").agg(first=lambda t: t.place.min(), times=lambda t: t.count())
        later = rows.inner_join(times.filter(times.times > 1), "key").filter(lambda t: t.place > t.first)
        again = self._engine.create_table(f"{name}_again", later.select("place"))
        self._refuse(again, "duplicate-id", "id: the same as that of a resource before")
        return rows.anti_join(again, "place")

    def _of_patients(self, name: str) -> Any:
        rows = self._once(name)
        unknown = rows.anti_join(self._people, "subject_id")
        self._refuse(unknown, "unknown-patient", "subject: expected a Patient of the export")
        return rows.semi_join(self._people, "subject_id")

    def _resolved(self, events: Any) -> Any:
        """Events with the codes of the Medications that they refer to."""
        drugs = self._once("medications").select(drug="key", drug_code="code", drug_name="description")
        joined = events.left_join(drugs, events.medication == drugs.drug)
        named = joined.mutate(
            code=ibis.coalesce(joined.code, joined.drug_code),
            description=ibis.coalesce(joined.description, joined.drug_name),
        )
        self._refuse(named.filter(named.code.isnull()), "no-code", "medicationReference: expected a coded Medication")
        return named.filter(named.code.notnull())

    def _refuse(self, rows: Any, reason: str, detail: str) -> None:
        self._refused.append(
            _from_stage(rows.select("place", reason=ibis.literal(reason), detail=ibis.literal(detail)))
        )

    def _told(self, rows: Any) -> Any:
        """EXCLUDED rows: places become files and lines."""
        placed = rows.mutate(file=rows.place >> LINE_BITS, source_row=rows.place % (1 << LINE_BITS))
        return _columns(placed.inner_join(self._files, "file"), schema.EXCLUDED)

    def _statics(self) -> list[Any]:
        people = self._people
        born = people.filter(people.birth.notnull()).select("subject_id", time="birth", code=ibis.literal(BIRTH))
        dead = people.filter(people.death.notnull()).select("subject_id", time="death", code=ibis.literal(DEATH))
        gender = people.gender.cases(*GENDERS.items())
        known = people.filter(gender.notnull()).select("subject_id", time=ibis.null("timestamp(6)"), code=gender)
        return [_columns(rows, schema.EVENTS) for rows in (born, dead, known)]

    def _codes(self) -> list[dict[str, Any]]:
        """CODES rows by code: those of the events, with the first of their names in the alphabet, and categories."""
        coded = self._coded.group_by("code").agg(description=lambda t: t.description.min()).to_pyarrow()
        names: dict[str, str | None] = {row["code"]: row["description"] for row in coded.to_pylist()}
        statics = ibis.union(*(rows.select("code") for rows in self._statics())).distinct().to_pyarrow()
        names |= dict.fromkeys(statics["code"].to_pylist())
        parents = {code: icd_category(code) for code in names}
        names = dict.fromkeys(filter(None, parents.values())) | names
        return [
            {"code": code, "description": names[code], "parent_codes": list(filter(None, [parents.get(code)]))}
            for code in sorted(names)
        ]

    def _linked(self, recordings: pa.Table) -> Any:
        """NOTES rows: a report that names a kept recording of its patient among its results is that recording's."""
        notes = self._notes
        kept = ibis.memtable(recordings.select(["recording_id", "subject_id"]))
        results = notes.select("place", "subject_id", recording_id=notes.about.unnest())
        named = self._engine.create_table("results", results)  # Ibis 12 cannot join what it unnests
        own = named.semi_join(kept, ["recording_id", "subject_id"]).group_by("place")
        own = own.agg(recording_id=lambda t: t.recording_id.min())
        return _columns(notes.left_join(own, "place"), schema.NOTES)


def _from_stage(rows: Any) -> Any:
    return rows.select("place", "reason", "detail")


def _columns(rows: Any, table: schema.Table) -> Any:
    """The columns of a table of the schema in its order and types, null where `rows` has none."""
    chosen = {}
    for column in table.columns:
        kind = _IBIS[str(column.type)]
        chosen[column.name] = rows[column.name].cast(kind) if column.name in rows.columns else ibis.null(kind)
    return rows.select(**chosen)


_IBIS: Final = {
    "int64": "int64",
    "timestamp[us]": "timestamp(6)",
    "string": "string",
    "large_string": "string",
    "float": "float32",
}
