"""The tables: every path, column, type and unit of a study. The one place where a column is named.

A *study* is one directory. `subject_id` and `recording_id` mean one thing in every table. Times are
`timestamp[us]` without zone, as MEDS has them: the local wall clock of the hospital that recorded them.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pyarrow as pa

LEADS: Final = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""The order in which leads are stored, everywhere."""

MICROVOLT: Final = 1e-3
"""Millivolts in one stored int16 unit."""

MISSING_SAMPLE: Final = -32768
"""The int16 value of a sample that was not recorded (WFDB's own convention)."""

SPLITS: Final = ("train", "validation", "test")
NOTE_KINDS: Final = ("ecg", "echo", "radiology", "microbiology", "clinical", "surgical")
ENTITY_LABELS: Final = ("disease", "symptom", "finding", "medication", "procedure")
"""finding: what an ECG or an image shows, "left axis deviation"."""
REAL, SEMI_SYNTHETIC, SIMULATED = "real", "semi-synthetic", "simulated"
DATA_KINDS: Final = (REAL, SEMI_SYNTHETIC, SIMULATED)
"""real: public data as published; semi-synthetic: real waveforms, simulated chart; simulated: both simulated."""

TIME: Final = pa.timestamp("us")


@dataclass(frozen=True)
class Table:
    """A table of a study: where it lies below the study directory, and its columns."""

    path: str
    columns: pa.Schema

    def at(self, study: Path) -> Path:
        return study / self.path


RECORDINGS = Table(
    "recordings.parquet",
    pa.schema(
        [
            pa.field("recording_id", pa.string(), nullable=False),  # unique in the study
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("time", TIME),  # start of the recording
            pa.field("split", pa.string(), nullable=False),  # one of SPLITS
            pa.field("row", pa.int64()),  # row in the waveform store; null: known but without a signal
            pa.field("leads", pa.int16()),  # bit i set: LEADS[i] was recorded, or derived from I and II
            pa.field("source_rate", pa.float32()),  # hertz, before resampling
            pa.field("quality", pa.list_(pa.string())),  # flags of waveforms/quality.py; empty: none raised
            pa.field("age", pa.float32()),  # years at the recording; 90 where the source only says "over 89"
            pa.field("age_over_89", pa.bool_()),
            pa.field("sex", pa.string()),  # "female", "male" or null
            pa.field("device", pa.string()),
            pa.field("site", pa.string()),
            pa.field("source_file", pa.string()),  # relative to the source directory
        ]
    ),
)
"""One row per kept recording. Its signal is row `row` of the waveform store below `waveforms/`."""

EVENTS = Table(
    "events.parquet",
    pa.schema(
        [
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("time", TIME),  # null: static
            pa.field("code", pa.string(), nullable=False),
            pa.field("numeric_value", pa.float32()),
            pa.field("text_value", pa.large_string()),
            pa.field("recording_id", pa.string()),  # our extra column: the recording a finding was read from
        ]
    ),
)
"""MEDS 0.4 `data` columns, sorted by subject and time, and one extra column (MEDS allows extras)."""

CODES = Table(
    "codes.parquet",
    pa.schema(
        [
            pa.field("code", pa.string(), nullable=False),
            pa.field("description", pa.string()),
            pa.field("parent_codes", pa.list_(pa.string())),
        ]
    ),
)
"""MEDS 0.4 `metadata/codes`. `SCP//IMI` has the parent `SCP_CLASS//MI`: evaluation reads its classes here."""

NOTES = Table(
    "notes.parquet",
    pa.schema(
        [
            pa.field("note_id", pa.string(), nullable=False),
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("time", TIME),
            pa.field("kind", pa.string(), nullable=False),  # one of NOTE_KINDS
            pa.field("text", pa.large_string(), nullable=False),
            pa.field("recording_id", pa.string()),  # the recording an ECG report describes
            pa.field("code", pa.string()),  # of the event that the note is a copy of (MEDS text events); else null
        ]
    ),
)
"""Texts about a patient, sorted by subject and time. `note_id` is unique in the study."""

_MENTION: Final = [
    pa.field("start", pa.int32(), nullable=False),  # characters of the note's text, [start, end)
    pa.field("end", pa.int32(), nullable=False),
    pa.field("term", pa.string(), nullable=False),  # the lexicon's preferred term, never the note's own words
    pa.field("label", pa.string(), nullable=False),  # one of ENTITY_LABELS
    pa.field("code", pa.string()),  # of the lexicon, e.g. "ICD//10//I48"; null: none
    pa.field("negated", pa.bool_(), nullable=False),  # "no evidence of AF"
    pa.field("uncertain", pa.bool_(), nullable=False),  # "possible AF"
    pa.field("historical", pa.bool_(), nullable=False),  # "history of AF"
    pa.field("family", pa.bool_(), nullable=False),  # "father had AF"
    pa.field("hypothetical", pa.bool_(), nullable=False),  # "return if palpitations occur"
]

ENTITIES = Table(
    "entities.parquet",
    pa.schema(
        [
            pa.field("note_id", pa.string(), nullable=False),
            pa.field("subject_id", pa.int64(), nullable=False),
            *_MENTION,
        ]
    ),
)
"""Mentions of clinical terms, in the order of the notes, then by place; made once per note, whatever the pairs need."""

SUPPLIED_ENTITIES = Table(
    "entities_supplied.parquet", pa.schema([pa.field("note_id", pa.string(), nullable=False), *_MENTION])
)
"""Mentions that the source itself brought (OMOP's NOTE_NLP); absent where it brought none."""

EXCLUDED = Table(
    "excluded.parquet",
    pa.schema(
        [
            pa.field("recording_id", pa.string()),  # null where the row describes no recording
            pa.field("source_file", pa.string()),  # the table, or the recording's signal file
            pa.field("source_row", pa.int64()),  # 1-based data row of the source's table
            pa.field("reason", pa.string(), nullable=False),  # a short constant, e.g. "truncated"
            pa.field("detail", pa.string(), nullable=False),  # what was found and what was expected
        ]
    ),
)
"""Every recording and every row the source names and the study does not keep. Nothing is dropped anywhere else."""

PAIRS = Table(
    "pairs.parquet",
    pa.schema(
        [
            pa.field("recording_id", pa.string(), nullable=False),
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("time", TIME),
            pa.field("split", pa.string(), nullable=False),
            pa.field("row", pa.int64()),
            pa.field("codes", pa.list_(pa.string())),  # static codes first, then in time order, then by code
            pa.field("code_kinds", pa.list_(pa.string())),  # of each code: a kind of [pairing.codes], or "static"
            pa.field("code_days", pa.list_(pa.float32())),  # days from the recording; negative: before; null: static
            pa.field("text", pa.large_string()),  # report concatenation; null: no note in the window
            pa.field("note_ids", pa.list_(pa.string())),  # of the notes in `text`, in its order
            pa.field("entity_text", pa.large_string()),  # entity concatenation; null: no entity in the window
            pa.field("entity_note_ids", pa.list_(pa.string())),  # of the notes that gave it a term
        ]
    ),
)
"""One row per recording of the study, by subject, time and id, with its chart window. An empty window is kept: empty
lists, null text."""

CONCATENATIONS: Final = {"report": "text", "entity": "entity_text"}
"""The column of PAIRS that holds each concatenation of notes (article: entities ±1 year did better than reports)."""

EMBEDDINGS = Table(
    "embeddings.parquet",
    pa.schema(
        [
            pa.field("recording_id", pa.string(), nullable=False),
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("split", pa.string(), nullable=False),
            pa.field(
                "embedding", pa.list_(pa.float32())
            ),  # unit length, where text is or, without text, where codes are
            pa.field("features", pa.list_(pa.float32())),  # the encoder's pooled features, before the head
            pa.field("early", pa.list_(pa.float32())),  # mean and deviation of the first layers, for outlier detectors
            pa.field("fine", pa.list_(pa.float32())),  # unit length, where codes are; null: a model without codes
        ]
    ),
)
"""One row per recording with a signal, below `embeddings/<model fingerprint>/`: a study may hold several models'."""

TEXT_FEATURES = Table(
    "text_features",
    pa.schema(
        [
            pa.field("text_hash", pa.binary(32), nullable=False),  # SHA-256 of the text in UTF-8
            pa.field("vector", pa.list_(pa.float32()), nullable=False),  # the encoder's pooled features
        ]
    ),
)
"""What a frozen text encoder makes of texts, in parts: `text_features/<digest of the encoder>/00000.parquet` …

Kept from run to run by what is in it, not by a stage: so it is not among TABLES, whose columns date all stages."""

INDEX = Table(
    "index.parquet",
    pa.schema(
        [
            pa.field("recording_id", pa.string(), nullable=False),
            pa.field("subject_id", pa.int64(), nullable=False),
            pa.field("time", TIME),
            pa.field("split", pa.string(), nullable=False),
            pa.field("sex", pa.string()),
            pa.field("age", pa.float32()),
            pa.field("device", pa.string()),
            pa.field("site", pa.string()),
            pa.field("quality", pa.list_(pa.string())),
            pa.field("findings", pa.list_(pa.string())),  # codes read from this very recording, in their order
            pa.field("outlier", pa.float32()),  # score less the threshold of the model's detector; above 0: outlying
            pa.field("coarse", pa.list_(pa.float32())),  # unit length, where text is; null: the model has no such space
            pa.field("fine", pa.list_(pa.float32())),  # unit length, where codes are; null likewise
        ]
    ),
)
"""What a search index holds of each recording that has a signal, whatever keeps it: search/index.py."""

SCORES = Table(
    "scores.parquet",
    pa.schema(
        [
            pa.field("series", pa.string(), nullable=False),  # "model" or "random_init", the untrained control
            pa.field("recording_id", pa.string(), nullable=False),
            pa.field("subject", pa.int64(), nullable=False),  # equal numbers: one patient; it says nothing else
            pa.field("text", pa.int64()),  # equal numbers: equal texts; null: no text
            pa.field("record", pa.int64()),  # equal numbers: equal sets of codes; null: none that the model knows
            pa.field("labels", pa.map_(pa.string(), pa.bool_())),  # by class; null: no class is known
            pa.field("ranks", pa.map_(pa.string(), pa.int64())),  # from 1, by the place of the measure in metrics.json
            pa.field("precisions", pa.map_(pa.string(), pa.float32())),  # average precision, by the same places
            pa.field("scores", pa.map_(pa.string(), pa.float32())),  # by place and class, "probe/0.1/3/MI"
        ]
    ),
)
"""What an evaluation measured of each recording, beside its `metrics.json`: one row per series and recording, by id. It
is no table of a study, so not among TABLES."""

TABLES: Final = {
    t.path: t for t in (RECORDINGS, EVENTS, CODES, NOTES, SUPPLIED_ENTITIES, EXCLUDED, ENTITIES, PAIRS, EMBEDDINGS)
}

DIGEST: Final = hashlib.sha256(
    repr([(path, str(table.columns)) for path, table in sorted(TABLES.items())]).encode()
).hexdigest()[:16]
"""Of all columns: a stage whose tables would have others now is run again."""

WAVEFORMS: Final = "waveforms"
"""Directory of the waveform store: `store.json` (sampling_rate, samples, shard_rows, rows) and `00000.npy` …,
each int16 microvolts [rows, 12, samples]; row r of the study is row r % shard_rows of shard r // shard_rows. Beside
them `rows.crc32`: a CRC-32 for each row. Or a `store.json` alone, which names the `url` of such a directory
(waveforms/remote.py)."""

MEDS_METADATA: Final = "meds_metadata"
"""Directory of what a MEDS dataset says of itself, `dataset.json` and `subject_splits.parquet`, kept for the export.
Only in a study that was made of one."""

BEGUN: Final = ".study"
"""An empty file that says that a directory is a study, be its first ingest completed or not."""

MANIFESTS: Final = "manifests"
"""Directory of stage manifests, `<stage>.json`, each written last: it exists only if its stage completed."""
