"""Answer a query in words with recordings of a study."""

from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.embed import matrix
from einthoven.errors import EinthovenError
from einthoven.evaluation.outliers import Outliers
from einthoven.model import Model
from einthoven.schema import Table
from einthoven.search.index import ExactIndex
from einthoven.study import read_table


@dataclass(frozen=True)
class Hit:
    """One recording found: its cosine with the query, and the codes read from this very recording."""

    recording_id: str
    score: float
    split: str
    findings: tuple[str, ...]
    outlier: bool | None = None  # the model's detector says so; None: it has none


def search_text(
    model: Model,
    embeddings: Table,
    study: Path,
    text: str,
    top: int,
    split: str | None = None,
    outliers: Outliers | None = None,
) -> list[Hit]:
    """The `top` recordings nearest to `text`, of the whole study or of one split, flagged by `outliers` if given."""
    if not text.strip():
        raise EinthovenError('the query is empty; expected words such as --text "atrial fibrillation".')
    if top < 1:
        raise EinthovenError(f"--top {top}: expected 1 or more.")
    rows = read_table(embeddings, study)
    if split is not None:
        rows = rows.filter(pc.equal(rows["split"], split))
    index = ExactIndex(rows["recording_id"].to_pylist(), matrix(rows["embedding"]))
    hits = index.query(model.encode_text([text])[0], top)
    split_of = dict(zip(rows["recording_id"].to_pylist(), rows["split"].to_pylist(), strict=True))
    names = [name for name, _ in hits]
    found = findings(study, names)
    flags: dict[str, bool] = {}
    if outliers is not None and names:
        shown = rows.filter(pc.is_in(rows["recording_id"], pa.array(names, pa.string())))
        above = outliers.scores(matrix(shown["features"]), matrix(shown["embedding"])) > 0
        flags = dict(zip(shown["recording_id"].to_pylist(), above.tolist(), strict=True))
    return [Hit(name, score, split_of[name], tuple(found.get(name, ())), flags.get(name)) for name, score in hits]


def findings(study: Path, recording_ids: list[str]) -> dict[str, list[str]]:
    """The codes whose event names one of these recordings, with their descriptions where the study has them."""
    events = read_table(schema.EVENTS, study, ["code", "recording_id"])
    events = events.filter(pc.is_in(events["recording_id"], pa.array(recording_ids, pa.string())))
    codes = read_table(schema.CODES, study, ["code", "description"])
    names = dict(zip(codes["code"].to_pylist(), codes["description"].to_pylist(), strict=True))
    found: dict[str, list[str]] = {}
    for code, recording in zip(events["code"].to_pylist(), events["recording_id"].to_pylist(), strict=True):
        found.setdefault(recording, []).append(names.get(code) or code)
    return found
