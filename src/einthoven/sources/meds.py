"""A MEDS 0.4 dataset and a table of its patients' ECGs -> tables.

Events stay as published, extra columns included. Events with text whose code is named in `note_kinds`, by itself or by
a pattern, become notes too; so do those with the codes `NOTE//ecg`, `NOTE//echo` and so on. What was exported by
`einthoven export meds` (export/meds.py) comes back as it was.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Final

import ibis
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.sources import meds_files
from einthoven.sources.archive import Entry, listed, recording_counts, refuse_none, store_recordings
from einthoven.sources.cells import exclusion
from einthoven.sources.faults import reading
from einthoven.sources.meds_files import NOTE, NOTE_ID, SPLITS, Shards
from einthoven.sources.screening import Screening
from einthoven.sources.tabular import NOTE_ORDER, Tables, event_order, write_rows
from einthoven.study import atomic, remove, write_json, write_table
from einthoven.waveforms.loading import ecg_reader

Progress = Callable[[int, int], None]

NOTE_CODES: Final = {NOTE + kind: kind for kind in schema.NOTE_KINDS}


def ingest(config: Source, source: Path, study: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Read the dataset below `source` and the archive that `config.recordings` names into `study`.

    Without `config.recordings`, the `recordings.parquet` of an exported dataset is taken. Excluded are rows without
    subject or code (bad-row), a code's second metadata row (duplicate-code) and what archive.py excludes.
    """
    archive, shards = _archive(config, source), meds_files.shards(source)
    about, official = meds_files.dataset(source), meds_files.subject_splits(source)
    kind = about.get("data_kind", schema.REAL)
    if kind not in schema.DATA_KINDS:
        known = ", ".join(schema.DATA_KINDS)
        raise EinthovenError(f"{source / meds_files.DATASET}: data_kind, where it is given, is one of {known}.")
    with Tables.of(source, study) as tables:
        entries, excluded = listed(tables, archive)
        entries, hashed = _with_official_splits(entries, official, archive)
        refuse_none(len(entries), archive, excluded, "docs/sources/archive.md says what a row must have.")
        screening = Screening(tables)
        published = _published(screening, shards)
        without_key = screening.excluded()
        events = _write_events(tables, published, study, shards, without_key)
        codes, more = _write_codes(source, study, events, NOTE_ID in shards.extra.names)
        notes = _write_notes(config.note_kinds, study, events, published)
        recordings, unusable = store_recordings(
            entries, ecg_reader(archive.parent), study, config.sampling_rate, progress
        )
        write_table(schema.RECORDINGS, study, recordings)
        screening.exclude([*excluded, *more, *unusable])
        counts = {
            "subjects_without_events": _strangers(pc.unique(recordings["subject_id"]), published),
            "subjects_split_by_hash": hashed,
            "events": events.count().execute(),
            **codes,
            **notes,
            "excluded": screening.write_excluded(study),
        }
    _keep_metadata(study, about, official)
    return {"data_kind": kind, **recording_counts(recordings), **counts}


def _archive(config: Source, source: Path) -> Path:
    if config.recordings is not None:
        return Path(config.recordings)
    exported = source / meds_files.RECORDINGS
    if exported.is_file():
        return exported
    raise EinthovenError(
        'meds: which ECGs? Name a CSV or Parquet table in the recipe, `[source] recordings = "…"`, one row per ECG: '
        "recording_id, subject_id (as in MEDS), time, file (a WFDB record, relative to the table). "
        "docs/sources/archive.md shows one."
    )


def _with_official_splits(entries: list[Entry], official: pa.Table, file: Path) -> tuple[list[Entry], int]:
    """The entries with their subject's official split; the number of subjects that no one gave a split."""
    ours = official.filter(pc.is_in(official["subject_id"], pa.array({e.subject_id for e in entries}, pa.int64())))
    names = dict(zip(ours["subject_id"].to_pylist(), ours["split"].to_pylist(), strict=True))
    for entry in entries:
        name = names.get(entry.subject_id)
        if name is not None and entry.split not in (None, SPLITS[name]):
            raise EinthovenError(
                f"{file.name}, row {entry.source_row}, column split: the subject is in {name!r} of "
                f"{meds_files.SUBJECT_SPLITS}, which is {SPLITS[name]!r} here. Correct or empty the column."
            )
    given = {e.subject_id for e in entries if e.split is not None or e.subject_id in names}
    hashed = {e.subject_id for e in entries} - given
    return [replace(e, split=SPLITS[names[e.subject_id]]) if e.subject_id in names else e for e in entries], len(hashed)


def _published(screening: Screening, shards: Shards) -> Any:
    """An ibis.Table of the rows with subject and code; the others are listed as excluded."""
    tables = screening.tables
    found = tables.engine.read_parquet(
        [str(file) for file in shards.files], union_by_name=True, hive_partitioning=False
    )
    for field in shards.extra:
        held = found[field.name].type().to_pyarrow()
        try:
            pa.array([], held).cast(held if pa.types.is_null(field.type) else field.type)
        except pa.ArrowException:
            raise EinthovenError(
                f"{tables.folder}: column {field.name!r} is {field.type}, which cannot be kept; remove or convert it."
            ) from None
    for file in shards.files:
        batches = meds_files.rows_without_key(file, str(file.relative_to(tables.folder)))
        with reading(file):
            screening.exclude(pa.RecordBatchReader.from_batches(schema.EXCLUDED.columns, batches))
    absent = {f.name: ibis.null(str(ibis.dtype(f.type))) for f in schema.EVENTS.columns if f.name not in shards.present}
    kept = found.filter(found.subject_id.notnull() & found.code.notnull()).mutate(**absent)
    return kept.select(*schema.EVENTS.columns.names, *shards.extra.names)


def _write_events(tables: Tables, published: Any, study: Path, shards: Shards, excluded: int) -> Any:
    """Write EVENTS; return them as an ibis.Table. Rows equal in the order's columns are ordered by all others."""
    events = published
    if NOTE_ID in shards.extra.names:
        events = published.filter(published[NOTE_ID].isnull()).drop(NOTE_ID)
    written = write_rows(schema.EVENTS, study, events, event_order(events), shards.extra)
    restored = 0 if events is published else published[NOTE_ID].count().execute()
    if written + restored + excluded != shards.rows:
        raise EinthovenError(f"{tables.folder / meds_files.DATA}: files changed while they were read, or are damaged.")
    return tables.engine.read_parquet(str(schema.EVENTS.at(study)), hive_partitioning=False)


def _write_codes(source: Path, study: Path, events: Any, exported: bool) -> tuple[dict[str, int], list[dict[str, Any]]]:
    """Write CODES: the published metadata and, without a description, the codes of events that have none."""
    used = events.select("code").distinct().to_pyarrow()["code"]
    described, excluded = _published_codes(source / meds_files.CODES)
    if exported:  # codes of restored notes
        notes = pc.is_in(described["code"], pa.array(list(NOTE_CODES)))
        described = described.filter(pc.or_(pc.invert(notes), pc.is_in(described["code"], used)))
    missing = pa.table({"code": used.filter(pc.invert(pc.is_in(used, described["code"])))})
    codes = pa.concat_tables([described, missing], promote_options="default").sort_by("code")
    extra = list(codes.schema)[len(schema.CODES.columns) :]
    with atomic(schema.CODES.at(study)) as temporary:
        pq.write_table(codes.cast(pa.schema([*schema.CODES.columns, *extra])), temporary)
    return {"codes_without_metadata": missing.num_rows}, excluded


def _published_codes(file: Path) -> tuple[pa.Table, list[dict[str, Any]]]:
    """The rows of `metadata/codes.parquet`, one per code, in the columns of CODES and its own after them."""
    columns = schema.CODES.columns
    if not file.exists():
        return columns.empty_table(), []
    meds_files.columns_of(file, columns, ("code",))
    table = meds_files.read(file)
    rows = pa.table({"code": table["code"], "row": pa.array(range(1, table.num_rows + 1), pa.int64())})
    empty = pc.is_null(rows["code"])
    firsts = rows.group_by("code").aggregate([("row", "min")])["row_min"]
    again = pc.and_not(pc.invert(pc.is_in(rows["row"], firsts)), empty)
    excluded = [
        exclusion(reason, f"column code: {detail}", meds_files.CODES, row)
        for which, reason, detail in (
            (empty, "bad-row", "empty"),
            (again, "duplicate-code", "the same as in a row before"),
        )
        for row in rows["row"].filter(which).to_pylist()
    ]
    fields = [columns.field(f.name) if f.name in columns.names else f.remove_metadata() for f in table.schema]
    kept = table.filter(pc.invert(pc.or_(empty, again))).cast(pa.schema(fields))
    return pa.concat_tables([columns.empty_table(), kept], promote_options="default"), excluded


def _kinds(codes: Iterable[str], patterns: Mapping[str, str]) -> dict[str, str]:
    """The note kind of each code that has one: by its own name first, then by the first pattern that fits."""
    found = {}
    for code in codes:
        fitting = (kind for pattern, kind in patterns.items() if fnmatchcase(code, pattern))
        kind = patterns.get(code) or next(fitting, None) or NOTE_CODES.get(code)
        if kind is not None:
            found[code] = kind
    return found


def _write_notes(patterns: Mapping[str, str], study: Path, events: Any, published: Any) -> dict[str, Any]:
    """Write NOTES: copies of the events with text whose code has a note kind, and exported notes as they were."""
    texts = events.filter(events.text_value.notnull())
    kinds = _kinds(texts.select("code").distinct().to_pyarrow()["code"].to_pylist(), patterns)
    names = pa.table({"code": list(kinds), "kind": list(kinds.values())}, schema=_KINDS)
    copied = texts.inner_join(ibis.memtable(names), "code")
    legible = copied.filter(copied.text_value.strip() != "")
    order = [ibis.asc(legible.time, nulls_first=True), legible.code, legible.text_value, legible.recording_id]
    number = ibis.row_number().over(ibis.window(group_by=legible.subject_id, order_by=order))
    identity = ibis.literal("meds-") + legible.subject_id.cast("string") + "-" + (number + 1).cast("string")
    notes = legible.select(
        "subject_id", "time", "kind", "recording_id", "code", note_id=identity, text=legible.text_value
    )
    if NOTE_ID in published.columns:
        notes = notes.union(_restored(published).select(notes.columns))
    written = write_rows(schema.NOTES, study, notes, NOTE_ORDER)
    saved = events.get_backend().read_parquet(str(schema.NOTES.at(study)))
    if saved.note_id.nunique().execute() != written:
        raise EinthovenError(f"column {NOTE_ID!r} of the data gives two notes one id; make their ids different.")
    matched = copied.count().execute()
    return {
        "notes": written,
        "texts": {"not_notes": texts.count().execute() - matched, "blank": matched - legible.count().execute()},
    }


_KINDS: Final = pa.schema([("code", pa.string()), ("kind", pa.string())])


def _restored(published: Any) -> Any:
    """NOTES rows of an exported study's notes, which were no events."""
    rows = published.filter(published[NOTE_ID].notnull())
    if rows.filter(~rows.code.isin(list(NOTE_CODES)) | rows.text_value.isnull()).count().execute():
        raise EinthovenError(
            f"column {NOTE_ID!r} of the data is set where the code is not {NOTE}KIND, or without text."
        )
    return rows.select(
        "subject_id",
        "time",
        "recording_id",
        kind=rows.code.substr(len(NOTE)),
        code=ibis.null("string"),
        note_id=rows[NOTE_ID],
        text=rows.text_value,
    )


def _strangers(subjects: pa.Array, published: Any) -> int:
    """How many of the subjects the dataset does not know."""
    known = ibis.memtable(pa.table({"subject_id": subjects})).semi_join(published, "subject_id")
    return len(subjects) - int(known.count().execute())


def _keep_metadata(study: Path, about: dict[str, Any], official: pa.Table) -> None:
    """What the tables of a study have no place for, and an export gives back."""
    folder = study / schema.MEDS_METADATA
    remove(folder)
    write_json(folder / Path(meds_files.DATASET).name, about)
    with atomic(folder / Path(meds_files.SUBJECT_SPLITS).name) as temporary:
        pq.write_table(official, temporary)
