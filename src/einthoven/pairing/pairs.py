"""The stage `pair`: recordings, events, notes and entities -> PAIRS, some hundred thousand recordings at a time."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.config import Entities, Pairing, TextEncoder
from einthoven.entities.extract import rendered
from einthoven.pairing.engines import DUCKDB, Engine, connected
from einthoven.pairing.kinds import STATIC_KIND, Kinds, kinds_of
from einthoven.pairing.splits import refuse_leakage
from einthoven.pairing.tokens import SAMPLE, STRATEGIES, token_counts
from einthoven.pairing.windows import (
    KEY_BITS,
    MAX_CODES,
    SECONDS_PER_DAY,
    STATIC,
    TimeWindow,
    codes_in_window,
    entity_concatenation,
    notes_near,
    report_concatenation,
    static_codes,
)
from einthoven.study import atomic, check_table, read_table

NOTE_SEPARATOR: Final = "\n"
TERM_SEPARATOR: Final = ", "

Integers = npt.NDArray[np.int64]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Chart:
    """What the engine reads of a study, and what of it is wanted."""

    recordings: Any  # ibis.Table, as are the others
    events: Any  # subject_id, time, code
    notes: Any
    words: Any  # subject_id, note_id, start, words
    kinds: Kinds
    config: Pairing


def pair(
    config: Pairing,
    entities: Entities,
    encoder: TextEncoder,
    study: Path,
    engine: str = DUCKDB,
    memory: str | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write PAIRS; return counts. `engine` and `memory` as for `engines.connected`: they do not change the result."""
    recordings = read_table(schema.RECORDINGS, study, ["recording_id", "subject_id", "time", "split", "row"])
    refuse_leakage(recordings)
    recordings = recordings.sort_by([(name, "ascending") for name in ("subject_id", "time", "recording_id")])
    tally = Tally(stride=-(-len(recordings) // SAMPLE) or 1)
    with connected(engine, study / ".scratch", memory) as running:
        chart = open_chart(config, entities, study, running)
        with atomic(schema.PAIRS.at(study)) as temporary, pq.ParquetWriter(temporary, schema.PAIRS.columns) as writer:
            for part in parts(recordings, running.at_once):
                rows = pair_part(part, chart, running)
                writer.write_table(rows)
                tally.add(rows)
                if progress is not None:
                    progress(tally.pairs, len(recordings))
        sample = tally.sample()
        kinds = note_kinds(sample, chart.notes, running)
    counts = tally.counts() | {"without_time": recordings["time"].null_count}
    return counts | {"tokens": token_counts(sample, kinds, encoder)}


def note_kinds(sample: pa.Table, notes: Any, engine: Engine) -> dict[str, str]:
    """The kind of every note that a sample of pairs names."""
    named = [pc.list_flatten(sample[column]).unique() for _, column in STRATEGIES.values()]
    ids = engine.table(pa.table({"note_id": pa.concat_arrays(named).unique()}))
    found = engine.run(notes.select("note_id", "kind").semi_join(ids, "note_id"))
    return dict(zip(found["note_id"].to_pylist(), found["kind"].to_pylist(), strict=True))


def open_chart(config: Pairing, entities: Entities, study: Path, engine: Engine) -> Chart:
    """The tables of a study on an engine; codes are judged here, once."""
    tables = (schema.RECORDINGS, schema.EVENTS, schema.NOTES, schema.ENTITIES)
    recordings, events, notes, mentions = (engine.read(check_table(table, study)) for table in tables)
    codes = engine.run(events.select("code").distinct())["code"].to_pylist()
    notes = notes.filter(notes.kind.isin(config.note_kinds))
    return Chart(recordings, events, notes, rendered(mentions, entities), kinds_of(codes, config), config)


def parts(recordings: pa.Table, at_once: int) -> Iterator[pa.Table]:
    """Slices of recordings sorted by subject, of about `at_once`, none of which parts a subject."""
    subjects = recordings["subject_id"].to_numpy()
    start = 0
    while start < len(subjects):
        stop = min(start + at_once, len(subjects))
        stop = int(np.searchsorted(subjects, subjects[stop - 1], side="right"))
        yield recordings.slice(start, stop - start)
        start = stop


def pair_part(part: pa.Table, study: Chart, engine: Engine) -> pa.Table:
    """PAIRS rows of recordings that are all those of their subjects."""
    first, last = part["subject_id"][0].as_py(), part["subject_id"][-1].as_py()
    # All tables are in the order of subjects, so Parquet statistics leave little to be read.
    inside = {name: getattr(study, name) for name in ("recordings", "events", "notes", "words")}
    chart = replace(study, **{name: rows.filter(rows.subject_id.between(first, last)) for name, rows in inside.items()})
    columns = {name: part[name] for name in part.column_names}
    rows = pa.table({**columns, **_codes(part, chart, engine), **_texts(part, chart, engine)})
    return rows.select(schema.PAIRS.columns.names).cast(schema.PAIRS.columns)


def _codes(part: pa.Table, chart: Chart, engine: Engine) -> dict[str, pa.Array]:
    config, kinds = chart.config, chart.kinds
    ranks = engine.table(
        pa.table(
            {
                "code": kinds.codes,
                "rank": np.arange(len(kinds.codes)),
                "sequence": pc.is_valid(kinds.kinds),
                "static": kinds.static,
            }
        )
    )
    ranked = chart.events.select("subject_id", "time", "code", "recording_id").inner_join(ranks, "code")
    dated = ranked.filter(ranked.time.notnull() & ranked.sequence)
    window = TimeWindow(config.codes_before, config.codes_after, 60 * config.skew_minutes)
    found = engine.run(codes_in_window(chart.recordings, dated, window, config.collapse_days, config.own_codes))
    counts, keys = _aligned(part, found)
    counts, keys = nearest(counts, keys, _epoch(part["time"]), config.max_codes)
    if config.static_codes:
        undated = ranked.filter(ranked.time.isnull() & ranked.static)
        begun = engine.run(static_codes(chart.recordings, undated, window, config.own_codes))
        counts, keys = _joined(_aligned(part, begun), (counts, keys))
    return _decoded(counts, keys, _epoch(part["time"]), kinds)


def _aligned(part: pa.Table, found: pa.Table) -> tuple[Integers, Integers]:
    """Lengths of the lists in the order of `part`, and the lists' values one after the other."""
    places = pc.index_in(part["recording_id"], value_set=found["recording_id"].combine_chunks())
    lists = found["keys"].combine_chunks().take(places.combine_chunks())
    counts = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return counts, lists.flatten().to_numpy(zero_copy_only=False)


def _joined(before: tuple[Integers, Integers], after: tuple[Integers, Integers]) -> tuple[Integers, Integers]:
    """The lists of `before` each followed by that of `after`."""
    rows = np.concatenate([np.repeat(np.arange(len(counts)), counts) for counts, _ in (before, after)])
    order = np.argsort(rows, kind="stable")
    return before[0] + after[0], np.concatenate([before[1], after[1]])[order]


def nearest(counts: Integers, keys: Integers, moments: Integers, most: int) -> tuple[Integers, Integers]:
    """Of each list the `most` codes nearest in time to its recording, in their order; 0 keeps all.

    Of codes equally near the earlier one is kept, then the one whose code comes first.
    """
    if most == 0 or not len(counts) or counts.max() <= most:
        return counts, keys
    rows = np.repeat(np.arange(len(counts)), counts)
    distance = np.abs((keys >> KEY_BITS) - moments[rows])
    order = np.lexsort((keys, distance, rows))
    place = np.arange(len(keys)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = np.zeros(len(keys), np.bool_)
    kept[order[place < most]] = True
    return np.minimum(counts, most), keys[kept]


def _epoch(times: pa.ChunkedArray) -> Integers:
    """Whole seconds since 1970; 0 where there is no time, and then no code either."""
    found: Integers = pc.fill_null(times.cast(pa.int64()), 0).to_numpy() // 1_000_000
    return found


def _decoded(counts: Integers, keys: Integers, moments: Integers, kinds: Kinds) -> dict[str, pa.Array]:
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]), pa.int32())
    ranks, when = pa.array(keys & (MAX_CODES - 1)), keys >> KEY_BITS
    static = when == STATIC
    days = (when - np.repeat(moments, counts)) / SECONDS_PER_DAY
    kind = pc.if_else(pa.array(static), STATIC_KIND, kinds.kinds.take(ranks))
    return {
        "codes": pa.ListArray.from_arrays(offsets, kinds.codes.take(ranks)),
        "code_kinds": pa.ListArray.from_arrays(offsets, kind),
        "code_days": pa.ListArray.from_arrays(offsets, pa.array(days.astype(np.float32), mask=static)),
    }


def _texts(part: pa.Table, chart: Chart, engine: Engine) -> dict[str, pa.Array]:
    config, skew, notes = chart.config, 60 * chart.config.skew_minutes, chart.notes
    windows = (
        TimeWindow(config.notes_before, config.notes_after, skew),
        TimeWindow(config.entities_before, config.entities_after, skew),
    )
    near, around = (notes_near(chart.recordings, notes, window) for window in windows)
    judged = notes.select("note_id", "text", relevant=relevant(notes, chart.words, config))
    reports = engine.run(report_concatenation(near, judged))
    terms = engine.run(entity_concatenation(around, chart.words))
    note_ids, texts = _lists(part, reports, "note_ids"), _lists(part, reports, "texts")
    entity_notes, words = _lists(part, terms, "note_ids"), _lists(part, terms, "words")
    return {
        "text": _concatenated(texts, NOTE_SEPARATOR),
        "note_ids": pc.coalesce(note_ids, pa.scalar([], note_ids.type)),
        "entity_text": _concatenated(words, TERM_SEPARATOR),
        "entity_note_ids": pc.coalesce(entity_notes, pa.scalar([], entity_notes.type)),
    }


def relevant(notes: Any, words: Any, config: Pairing) -> Any:
    """Ibis: whether a note may enter a report concatenation. The article keeps those with keywords or entities."""
    tests = [notes.text.lower().contains(keyword.lower()) for keyword in config.keywords]
    if config.relevant_entities:
        tests.append(notes.note_id.isin(words.note_id))
    return ibis.or_(*tests) if tests else ibis.literal(True)


def _lists(part: pa.Table, found: pa.Table, column: str) -> pa.Array:
    """The lists of a column in the order of `part`; null where a recording has none."""
    places = pc.index_in(part["recording_id"], value_set=found["recording_id"].combine_chunks())
    return (
        found[column]
        .combine_chunks()
        .cast(pa.list_(pa.large_string() if column != "note_ids" else pa.string()))
        .take(places.combine_chunks())
    )


def _concatenated(lists: pa.Array, separator: str) -> pa.Array:
    return pc.binary_join(lists, pa.scalar(separator, pa.large_string()))


class Tally:
    """Counts over the parts of PAIRS, and every `stride`-th pair as a sample."""

    def __init__(self, stride: int) -> None:
        self.stride, self.pairs, self.codes, self.texts, self.entity_texts, self.all_kinds = stride, 0, 0, 0, 0, 0
        self.with_kind: Counter[str] = Counter()
        self._samples: list[pa.Table] = []

    def add(self, rows: pa.Table) -> None:
        first = -self.pairs % self.stride
        self._samples.append(rows.take(np.arange(first, len(rows), self.stride)))
        self.pairs += len(rows)
        self.texts += len(rows) - rows["text"].null_count
        self.entity_texts += len(rows) - rows["entity_text"].null_count
        lists = rows["code_kinds"].combine_chunks()
        kinds = lists.flatten().dictionary_encode()
        names = kinds.dictionary.to_pylist()
        has = np.zeros((len(rows), len(names) + 1), np.bool_)  # the last stands for a kind that nobody has
        has[pc.list_parent_indices(lists).to_numpy(), kinds.indices.to_numpy()] = True
        self.codes += len(kinds)
        self.with_kind.update({name: int(has[:, place].sum()) for place, name in enumerate(names)})
        three = [names.index(kind) if kind in names else -1 for kind in ("diagnosis", "procedure", "medication")]
        self.all_kinds += int(has[:, three].all(axis=1).sum())

    def sample(self) -> pa.Table:
        return pa.concat_tables(self._samples) if self._samples else schema.PAIRS.columns.empty_table()

    def counts(self) -> dict[str, Any]:
        return {
            "pairs": self.pairs,
            "with": dict(sorted(self.with_kind.items())),
            "with_diagnosis_procedure_medication": self.all_kinds,
            "with_text": self.texts,
            "with_entity_text": self.entity_texts,
            "codes_per_pair": self.codes / max(self.pairs, 1),
        }
