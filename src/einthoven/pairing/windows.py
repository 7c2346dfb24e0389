"""Pairing: which codes and notes lie in the window around each recording.

The engine is Ibis. The expressions avoid what some engines lack (`collect(order_by=)` fails on Spark), so they run
unchanged on DuckDB, PySpark and the warehouses that Ibis speaks to.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.config import Pairing
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import refuse_leakage
from einthoven.study import check_table, read_table, write_table

SEPARATOR = "\n"
"""Between the notes of a report concatenation."""

SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class TimeWindow:
    """Days before and after a recording, both ends included. `after=0` lets nothing of the future in."""

    before: float
    after: float

    def __post_init__(self) -> None:
        if not (0 <= self.before < math.inf and 0 <= self.after < math.inf):
            raise EinthovenError(f"window: before={self.before}, after={self.after}; expected days, zero or more.")

    def holds(self, time: Any, at: Any) -> Any:
        """Ibis: whether `at` lies inside the window around `time`, exact to the engine's time resolution."""
        low, high = (ibis.interval(seconds=round(days * SECONDS_PER_DAY)) for days in (self.before, self.after))
        return (at >= time - low) & (at <= time + high)


def codes_in_window(recordings: Any, events: Any, window: TimeWindow) -> Any:
    """Columns `recording_id`, `codes`, `code_days`: the codes of each recording's window in time order, then by code.

    The recording's own findings are inside, at day 0. A code repeated at one time is one event.
    """
    joined = recordings.inner_join(events, "subject_id").filter(lambda t: window.holds(t.time, t["at"]))
    delta = joined["at"].epoch_seconds() - joined.time.epoch_seconds()
    inside = joined.mutate(delta=delta).select("recording_id", "at", "delta", "code").distinct()
    listed = inside.group_by("recording_id").agg(
        sequence=ibis.struct({"at": inside["at"], "code": inside.code, "delta": inside.delta}).collect()
    )
    ordered = listed.mutate(sequence=listed.sequence.sort())
    return ordered.select(
        "recording_id",
        codes=ordered.sequence.map(lambda e: e["code"]),
        code_days=ordered.sequence.map(lambda e: (e["delta"] / SECONDS_PER_DAY).cast("float32")),
    )


def notes_in_window(recordings: Any, notes: Any, window: TimeWindow) -> Any:
    """Columns `recording_id`, `note_ids`, `texts`: notes nearest to the recording first, its own report before all.

    Nearest first, because a text encoder cuts what is too long at the end.
    """
    joined = recordings.inner_join(notes, "subject_id")
    own = (joined.about == joined.recording_id).fill_null(False)  # belongs to it even where a time is missing
    inside = joined.filter(window.holds(joined.time, joined["at"]).fill_null(False) | own)
    own = (inside.about == inside.recording_id).fill_null(False)
    distance = (inside["at"].epoch_seconds() - inside.time.epoch_seconds()).abs()
    inside = inside.mutate(rank=ibis.ifelse(own, -1, distance).cast("int64"))
    entry = ibis.struct({"rank": inside["rank"], "note_id": inside.note_id, "text": inside.text})
    listed = inside.group_by("recording_id").agg(sequence=entry.collect())
    ordered = listed.mutate(sequence=listed.sequence.sort())
    return ordered.select(
        "recording_id",
        note_ids=ordered.sequence.map(lambda e: e["note_id"]),
        texts=ordered.sequence.map(lambda e: e["text"]),
    )


def pair_tables(recordings: Any, events: Any, notes: Any, config: Pairing) -> Any:
    """Ibis tables with the columns of the schema -> one row per recording with its windows."""
    prefixes = [pattern.rstrip("*") for patterns in config.code_kinds.values() for pattern in patterns]
    wanted = ibis.or_(*(events.code.startswith(prefix) for prefix in prefixes), ibis.literal(False))
    dated_codes = events.filter(wanted).select("subject_id", "code", at=events.time)
    dated_notes = notes.filter(notes.kind.isin(config.note_kinds)).select(
        "subject_id", "note_id", "text", at=notes.time, about=notes.recording_id
    )
    keys = recordings.select("recording_id", "subject_id", "time")
    codes = codes_in_window(keys, dated_codes, TimeWindow(config.codes_before, config.codes_after))
    texts = notes_in_window(keys, dated_notes, TimeWindow(config.notes_before, config.notes_after))
    base = recordings.select("recording_id", "subject_id", "time", "split", "row")
    return (
        base.left_join(codes, "recording_id").drop("recording_id_right").left_join(texts, "recording_id")
        .drop("recording_id_right").order_by("recording_id")
    )  # fmt: skip


def pair(config: Pairing, study: Path) -> dict[str, Any]:
    """Write `pairs` from `recordings`, `events` and `notes`, on DuckDB; return counts."""
    recordings = read_table(schema.RECORDINGS, study)
    refuse_leakage(recordings)
    unknown = set(config.note_kinds) - set(schema.NOTE_KINDS)
    if unknown:
        raise EinthovenError(f"pairing: unknown note kind {min(unknown)!r}; known: {', '.join(schema.NOTE_KINDS)}.")
    engine = ibis.duckdb.connect()
    engine.raw_sql("SET enable_progress_bar = false")
    recorded, events, notes = (
        engine.read_parquet(str(check_table(table, study)))
        for table in (schema.RECORDINGS, schema.EVENTS, schema.NOTES)
    )
    try:
        found = pair_tables(recorded, events, notes, config).to_pyarrow()
    except duckdb.Error:  # its message may quote cells, so it is not passed on
        raise EinthovenError(f"{study}: events.parquet or notes.parquet is damaged; run the ingest again.") from None
    rows = _to_schema(found)
    write_table(schema.PAIRS, study, rows)
    return {
        "pairs": len(rows),
        "with_codes": pc.sum(pc.greater(pc.list_value_length(rows["codes"]), 0)).as_py() or 0,
        "with_text": len(rows) - rows["text"].null_count,
        "without_time": recordings["time"].null_count,
        "distinct_texts": pc.count_distinct(rows["text"]).as_py(),
        "codes_per_pair": pc.mean(pc.list_value_length(rows["codes"])).as_py(),
    }


def _to_schema(found: pa.Table) -> pa.Table:
    """Null lists become empty ones, lists of texts one text."""
    columns = {name: found[name] for name in ("recording_id", "subject_id", "time", "split", "row")}
    for name in ("codes", "code_days", "note_ids"):
        kind = schema.PAIRS.columns.field(name).type
        empty = pa.scalar([], type=kind)
        columns[name] = pc.if_else(pc.is_null(found[name]), empty, found[name].cast(kind))
    texts = [None if parts is None else SEPARATOR.join(parts) for parts in found["texts"].to_pylist()]
    columns |= {"text": pa.array(texts, pa.large_string()), "code_kinds": columns["codes"]}
    columns |= {"entity_text": pa.nulls(len(texts), pa.large_string()), "entity_note_ids": columns["note_ids"]}
    return pa.table(columns)
