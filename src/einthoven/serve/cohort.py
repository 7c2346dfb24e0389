"""The recordings of a search as a file: a CSV to look at, or labels as MEDS has them, to learn from."""

import csv
import io
from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from einthoven.export.meds import LABELS
from einthoven.search.archive import Hit

SCORED: Final = pa.schema([*LABELS, pa.field("float_value", pa.float32())])
"""Labels, and the score that each was made of."""

COLUMNS: Final = (
    "recording_id", "subject_id", "time", "split", "score", "positive", "age", "sex", "outlier", "codes", "findings",
    "quality", "device",
)  # fmt: skip
FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for a formula where a cell begins with it."""


def as_csv(hits: Sequence[Hit], least: float | None = None) -> bytes:
    """One row for each recording, best first; `positive`: its score is at least `least`, without one always."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for hit in hits:
        row = {**vars(hit), "positive": _positive(hit, least), "score": round(hit.score, 6)}
        row["time"] = "" if hit.time is None else hit.time.isoformat()
        for name in ("codes", "findings", "quality"):
            row[name] = "; ".join(row[name])
        writer.writerow([_cell(row[name]) for name in COLUMNS])
    return out.getvalue().encode()


def as_meds_labels(hits: Sequence[Hit], least: float | None = None) -> bytes:
    """Parquet in MEDS' label schema, by subject and time: is a patient, at the time of a recording, of the cohort?

    `boolean_value`: the score is at least `least`, without one always; `float_value`: the score. Recordings without a
    time are left out, as MEDS cannot say them.
    """
    timed = sorted((hit for hit in hits if hit.time is not None), key=lambda hit: (hit.subject_id, hit.time))
    columns: dict[str, Any] = {
        "subject_id": [hit.subject_id for hit in timed],
        "prediction_time": [hit.time for hit in timed],
        "boolean_value": [_positive(hit, least) for hit in timed],
        "float_value": [hit.score for hit in timed],
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns, SCORED), out)
    return out.getvalue()


def _positive(hit: Hit, least: float | None) -> bool:
    return least is None or hit.score >= least


def _cell(value: Any) -> str:
    text = "" if value is None else str(value)
    return f"'{text}" if isinstance(value, str) and text.startswith(FORMULA) else text
