"""A study as a MEDS 0.4 dataset; `sources/meds.py` reads it back to the same events, notes, codes and splits.

Notes that are no events are written as events with the code `NOTE//<kind>`, and with their id in an extra column.
Waveforms are not copied: `recordings.parquet` names them as the study's own source did.
"""

import json
from collections.abc import Iterator
from importlib.metadata import version
from itertools import groupby, pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.pairing.splits import refuse_leakage, split_of
from einthoven.sources import meds_files
from einthoven.sources.meds_files import NOTE, NOTE_ID, SPLIT_COLUMNS, SPLITS
from einthoven.sources.tabular import ROWS, cast, connect, event_order, stream
from einthoven.study import (
    atomic,
    check_table,
    data_kind,
    read_manifest,
    read_table,
    stage_manifest,
    write_json,
)

MARK: Final = "export.json"
"""The manifest of the stage: a directory that holds it is ours to replace."""

SHARD_ROWS: Final = 1 << 20
"""A shard has this many rows at most, and those of one more subject: a subject is never divided."""

LABELS: Final = pa.schema(
    [
        pa.field("subject_id", pa.int64(), nullable=False),
        pa.field("prediction_time", schema.TIME, nullable=False),
        pa.field("boolean_value", pa.bool_(), nullable=False),
    ]
)
"""Of the label schema of MEDS 0.4, what a label of yes and no has. Columns may be absent there, but not be null."""

MEDS_VERSION: Final = "0.4"
_OURS: Final = {ours: meds for meds, ours in SPLITS.items()}
_PLACE: Final = "einthoven_place"  # split and shard of a row, in one number that sorts
_IN_SPLIT: Final = 1 << 32  # places


def export(study: Path, out: Path, scratch: Path) -> dict[str, Any]:
    """Write the dataset `out`, replacing it whole; `scratch` is a directory for what does not fit into memory."""
    recordings = read_table(schema.RECORDINGS, study)
    refuse_leakage(recordings)
    manifest = read_manifest(stage_manifest(study, "ingest")) or {}
    published = published_in(study)
    engine = connect(scratch)
    try:
        with atomic(out) as folder:
            (folder / "metadata").mkdir(parents=True)
            rows, types = _rows(engine, study)
            everyone = rows.select("subject_id").distinct().to_pyarrow()["subject_id"]
            splits = subject_splits(everyone, recordings, published)
            written, shards = _write_shards(folder / meds_files.DATA, _placed(rows, splits), types)
            pq.write_table(splits, folder / meds_files.SUBJECT_SPLITS)
            codes = _codes(study, rows)
            pq.write_table(codes, folder / meds_files.CODES)
            about = _about(manifest, published, types, data_kind(study))
            (folder / meds_files.DATASET).write_text(json.dumps(about, indent=2, ensure_ascii=False), encoding="utf-8")
            pq.write_table(_archive(recordings), folder / meds_files.RECORDINGS)
            write_json(folder / MARK, {})  # not complete, but ours
    finally:
        engine.disconnect()
    return {
        "data_kind": data_kind(study),
        "rows": written,
        "shards": shards,
        "codes": codes.num_rows,
        "subjects": {name: pc.sum(pc.equal(splits["split"], name)).as_py() or 0 for name in SPLITS},
        "recordings": recordings.num_rows,
        "waveforms": "not copied",
    }


def _rows(engine: Any, study: Path) -> tuple[Any, pa.Schema]:
    """Events, and the notes that are none, as an ibis.Table, and the Arrow types of its columns."""
    events = engine.read_parquet(str(check_table(schema.EVENTS, study)), hive_partitioning=False)
    notes = engine.read_parquet(str(check_table(schema.NOTES, study)), hive_partitioning=False)
    notes = notes.filter(notes.code.isnull())
    fields = {field.name: field.remove_metadata() for field in pq.read_schema(schema.EVENTS.at(study))}
    if notes.count().execute():
        empty = {name: ibis.null(events[name].type()) for name in events.columns}
        told = {"subject_id": notes.subject_id, "time": notes.time, "text_value": notes.text}
        told |= {"code": ibis.literal(NOTE) + notes.kind, "recording_id": notes.recording_id, NOTE_ID: notes.note_id}
        events = events.mutate(**{NOTE_ID: ibis.null("string")})
        events = events.union(notes.select(**(empty | told)).select(events.columns))
        fields[NOTE_ID] = pa.field(NOTE_ID, pa.string())
    if not events.recording_id.notnull().any().execute():
        events = events.drop("recording_id")
        del fields["recording_id"]
    return events, pa.schema([fields[name] for name in events.columns])


def published_in(study: Path) -> Path | None:
    """The directory of what a MEDS dataset said of itself, in a study that was made of one."""
    manifest = read_manifest(stage_manifest(study, "ingest")) or {}
    return study / schema.MEDS_METADATA if manifest.get("config", {}).get("name") == "meds" else None


def subject_splits(everyone: pa.ChunkedArray, recordings: pa.Table, published: Path | None) -> pa.Table:
    """SUBJECT_SPLITS of all subjects: the official split, else that of their recordings, else by hash."""
    official = SPLIT_COLUMNS.empty_table()
    if published is not None:
        official = meds_files.read(published / Path(meds_files.SUBJECT_SPLITS).name)
    own = recordings.group_by(["subject_id", "split"]).aggregate([]).select(SPLIT_COLUMNS.names).cast(SPLIT_COLUMNS)
    own = own.filter(pc.invert(pc.is_in(own["subject_id"], official["subject_id"])))
    names = [_OURS[split] for split in own["split"].to_pylist()]
    known = pa.concat_tables([official, own.set_column(1, "split", pa.array(names, pa.string()))])
    others = everyone.filter(pc.invert(pc.is_in(everyone, known["subject_id"]))).combine_chunks()
    parts = (others[start : start + ROWS] for start in range(0, len(others), ROWS))
    hashed = [pa.table([part, [_OURS[split_of(s)] for s in part.to_pylist()]], schema=SPLIT_COLUMNS) for part in parts]
    return pa.concat_tables([known, *hashed]).sort_by("subject_id")


def _placed(rows: Any, splits: pa.Table) -> Any:
    """The rows with their place, in MEDS order within each shard."""
    sizes = rows.group_by("subject_id").agg(rows=rows.count()).join(ibis.memtable(splits), "subject_id")
    through = sizes.rows.sum().over(ibis.cumulative_window(group_by=sizes.split, order_by=sizes.subject_id))
    shard = ((through - sizes.rows) // SHARD_ROWS).cast("int64")
    rank = sizes.split.cases(*((name, _IN_SPLIT * number) for number, name in enumerate(SPLITS))).cast("int64")
    places = sizes.select("subject_id", **{_PLACE: rank + shard})
    return rows.join(places, "subject_id").order_by([_PLACE, *event_order(rows)])


def _write_shards(folder: Path, rows: Any, types: pa.Schema) -> tuple[int, int]:
    """Write `<split>/<number>.parquet`, one after the other; the numbers of rows and of shards."""
    written = shards = 0
    with stream("data", rows) as batches:
        for place, parts in groupby(_runs(batches), key=itemgetter(0)):
            with _shard(folder, place, types) as writer:
                for _, part in parts:
                    writer.write_table(cast(part, types))
                    written += part.num_rows
            shards += 1
    if not shards:  # a dataset has its columns even without events
        _shard(folder, 0, types).close()
        shards = 1
    return written, shards


def _shard(folder: Path, place: int, types: pa.Schema) -> pq.ParquetWriter:
    split, number = divmod(place, _IN_SPLIT)
    file = folder / list(SPLITS)[split] / f"{number}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    return pq.ParquetWriter(file, types)


def _runs(batches: pa.RecordBatchReader) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Parts of the batches whose rows have one place."""
    for batch in batches:
        places = batch.column(_PLACE).to_numpy()
        edges = [0, *(np.flatnonzero(np.diff(places)) + 1).tolist(), len(places)]
        for start, stop in pairwise(edges):
            if stop > start:
                yield int(places[start]), batch.slice(start, stop - start)


def _codes(study: Path, rows: Any) -> pa.Table:
    """The study's CODES, and every other code that a row has: MEDS wants them all."""
    codes = meds_files.read(check_table(schema.CODES, study)).replace_schema_metadata(None)
    used = rows.select("code").distinct().to_pyarrow()["code"]
    missing = pa.table({"code": used.filter(pc.invert(pc.is_in(used, codes["code"])))})
    return pa.concat_tables([codes, missing.cast(pa.schema([codes.schema.field("code")]))], promote_options="default")


def _about(manifest: dict[str, Any], published: Path | None, types: pa.Schema, kind: str) -> dict[str, Any]:
    """`dataset.json`: as it was published, or what is known of the study; and the kind of its data."""
    if published is not None:
        about = json.loads((published / Path(meds_files.DATASET).name).read_text(encoding="utf-8"))
        return about | {"data_kind": kind}
    return {
        "dataset_name": manifest.get("config", {}).get("name", "study"),
        "etl_name": "einthoven",
        "etl_version": version("einthoven"),
        "meds_version": MEDS_VERSION,
        "other_extension_columns": [name for name in types.names if name not in schema.EVENTS.columns.names[:5]],
        "data_kind": kind,
    }


def _archive(recordings: pa.Table) -> pa.Table:
    """RECORDINGS in the columns of sources/archive.py. A recording without a signal names no file."""
    there = pc.is_valid(recordings["row"])
    file = pc.if_else(there, recordings["source_file"], pa.scalar(None, pa.string()))
    names = ("recording_id", "subject_id", "time", "split", "age", "sex", "device", "site")
    return recordings.select(names).append_column("file", file)
