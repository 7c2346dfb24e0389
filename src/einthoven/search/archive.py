"""An archive of ECGs that can be asked: a model, the index of a study, and what the study says of its recordings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from einthoven import schema
from einthoven.embed import Rows
from einthoven.errors import EinthovenError
from einthoven.evaluation.outliers import FILE, Outliers, load_outliers
from einthoven.model import NO_CODES, NO_TEXT, STRIPS, Model
from einthoven.model_directory import load
from einthoven.search.filters import Filter
from einthoven.search.index import Vector, VectorIndex
from einthoven.search.rows import descriptions
from einthoven.study import data_kind
from einthoven.vocabulary.vocabulary import UNK
from einthoven.waveforms.formats import Ecg
from einthoven.waveforms.strips import from_millivolts

MOST: Final = 1000  # hits of one answer


@dataclass(frozen=True)
class Query:
    """What is looked for, by exactly one of `text`, `codes`, `ecg`, `recording_id`; and among which recordings."""

    text: str | None = None
    codes: tuple[str, ...] = ()  # one record that has all of them
    ecg: Ecg | None = None
    recording_id: str | None = None  # of the archive
    top: int = 10
    where: Filter = ()
    space: str | None = None  # "coarse", where text is, or "fine", where codes are; None: the nearest to the query
    by_patient: bool = False  # of each patient only the best recording
    other_patients: bool = True  # with `recording_id`: none of the same patient


class Placed(NamedTuple):
    """Where a query is."""

    vector: Vector  # unit length [d]
    space: str
    outlier: bool | None = None  # of an ECG; None: the model has no detector, or nothing that it would be asked of
    subject_id: int | None = None  # of a recording of the archive


class UnknownCodeError(EinthovenError):
    """A code that the model cannot tell; `near` names some that it can, and quotes nothing."""

    def __init__(self, code: str, near: str) -> None:
        super().__init__(f"code {code!r} is not in the model's vocabulary; near ones: {near}.")
        self.near = near


@dataclass(frozen=True)
class Hit:
    """One recording found."""

    recording_id: str
    subject_id: int
    score: float  # cosine with the query
    split: str
    codes: tuple[str, ...]  # read from this very recording
    findings: tuple[str, ...]  # what they mean, as far as the study says
    outlier: bool | None  # the model's detector says so; None: it has none
    time: datetime | None
    age: float | None
    sex: str | None
    device: str | None
    quality: tuple[str, ...]


@dataclass(frozen=True)
class Answer:
    """Hits, best first, and what is known of the query."""

    hits: list[Hit]
    space: str
    outlier: bool | None = None  # of an ECG that was asked with


@dataclass
class Archive:
    """A model, an index and a study, opened once for many queries. Only the model and the index are asked."""

    model: Model
    index: VectorIndex
    outliers: Outliers | None
    meanings: Mapping[str, str]  # of codes
    data_kind: str
    study: Path
    directory: Path = field(default=Path())  # of the model

    @classmethod
    def open(cls, model_directory: Path, study: Path, index: VectorIndex) -> "Archive":
        """An index that `einthoven index` made of a study with this model."""
        outliers = load_outliers(model_directory) if (model_directory / FILE).exists() else None
        named = descriptions(study)
        return cls(load(model_directory), index, outliers, named, data_kind(study), study, model_directory)

    def search(self, query: Query) -> Answer:
        """The recordings nearest to a query; EinthovenError if the model or the index cannot answer it."""
        vector, space, outlier, own = self.embedded(query)
        without = own if query.other_patients else None
        return Answer(self.near(vector, space, query.top, query.where, query.by_patient, without), space, outlier)

    def embedded(self, query: Query) -> Placed:
        """A query as a vector, and what is known of it."""
        asked = [query.text is not None, bool(query.codes), query.ecg is not None, query.recording_id is not None]
        if sum(asked) != 1:
            raise EinthovenError("expected one query: a text, codes, an ECG or a recording of the archive.")
        if query.text is not None:
            if query.space not in (None, "coarse"):
                raise EinthovenError("a text is in the coarse space alone: leave the space out.")
            return Placed(self.of_text(query.text), "coarse")
        if query.codes:
            space = query.space or "fine"
            return Placed(self.of_codes(query.codes, space), space)
        space = query.space or ("coarse" if "coarse" in self.index.spaces else "fine")
        if query.ecg is not None:
            vector, outlier = self.of_ecg(query.ecg, space)
            return Placed(vector, space, outlier)
        (row,) = self.row(query.recording_id or "").to_pylist()
        if row[space] is None:
            raise EinthovenError(f"the index has no {space} vectors.")
        outlier = None if row["outlier"] is None else row["outlier"] > 0
        return Placed(np.asarray(row[space], np.float32), space, outlier, row["subject_id"])

    def of_text(self, text: str) -> Vector:
        if not text.strip():
            raise EinthovenError('the query is empty; expected words such as "atrial fibrillation".')
        if self.model.text is None:
            raise EinthovenError(NO_TEXT)
        return self.model.encode_text([text])[0]

    def of_codes(self, codes: Sequence[str], space: str = "fine") -> Vector:
        """One record of these codes. EinthovenError names one that the model cannot tell, and some that it can."""
        if self.model.codes is None or self.model.vocabulary is None:
            raise EinthovenError(NO_CODES)
        known = self.model.vocabulary
        for code in codes:
            if known.token_of(code)[0] == UNK:
                raise UnknownCodeError(code, ", ".join(get_close_matches(code, known.tokens, 3)) or "none is like it")
        return self.model.encode_codes([list(codes)], space=space)[0]

    def of_ecg(self, ecg: Ecg, space: str) -> tuple[Vector, bool | None]:
        """An ECG in a space, and whether it is an outlier; standard leads are read, others left out."""
        self.model.eval()
        seen = self.model.encode_strips(torch.from_numpy(strips_of(self.model, ecg))[None])
        vector = seen.vectors(space).float().cpu().numpy()
        outlier = None
        if self.outliers is not None:
            parts = [part.float().cpu().numpy() for part in (seen.vectors(), seen.features, seen.early)]
            outlier = bool(self.outliers.scores(Rows(parts[0], parts[1], parts[2], None))[0] > 0)
        return vector[0], outlier

    def near(
        self,
        vector: Vector,
        space: str,
        top: int,
        where: Filter = (),
        by_patient: bool = False,
        without: int | None = None,
    ) -> list[Hit]:
        """The recordings nearest to a vector: of each patient only the best, or none of the patient `without`."""
        if not 1 <= top <= MOST:
            raise EinthovenError(f"top {top}: expected 1 to {MOST:,}.")
        asked = top if without is None and not by_patient else 2 * top
        while True:
            found = self.index.query(vector, asked, space, where)
            hits = self._hits(found)
            if without is not None:
                hits = [hit for hit in hits if hit.subject_id != without]
            if by_patient:
                hits = list({hit.subject_id: hit for hit in reversed(hits)}.values())
            if len(hits) >= top or len(found) < asked:
                return sorted(hits, key=lambda hit: (-hit.score, hit.recording_id))[:top]
            asked *= 4

    def row(self, recording_id: str) -> pa.Table:
        """What the index holds of a recording; EinthovenError if it has none of this name."""
        row = self.index.rows([recording_id])
        if not len(row):
            raise EinthovenError("the index has no recording of this id; expected one of the study that has a signal.")
        return row

    def _hits(self, found: Sequence[tuple[str, float]]) -> list[Hit]:
        rows = self.index.rows([name for name, _ in found], vectors=False)
        rows = rows.drop_columns(["coarse", "fine", "site"]).to_pylist()
        of = {row["recording_id"]: row for row in rows}
        return [self._hit(of[name], score) for name, score in found if name in of]

    def _hit(self, row: dict[str, Any], score: float) -> Hit:
        codes: tuple[str, ...] = tuple(row.pop("findings") or ())
        flag = row.pop("outlier")
        return Hit(
            score=score,
            codes=codes,
            findings=tuple(self.meanings.get(code, code) for code in codes),
            outlier=None if flag is None else flag > 0,
            quality=tuple(row.pop("quality") or ()),
            **row,
        )


def strips_of(model: Model, ecg: Ecg, longest: float | None = None) -> NDArray[np.float32]:
    """An ECG as a model wants it, [s, 12, t]: of standard leads, others are left out; of `longest` seconds at most.

    EinthovenError if no standard lead has a sample.
    """
    standard = [i for i, lead in enumerate(ecg.leads) if lead in schema.LEADS]
    signal = ecg.signal[standard][:, : None if longest is None else round(longest * ecg.sampling_rate)]
    if not np.isfinite(signal).any():
        raise EinthovenError(f"the ECG has none of the leads {', '.join(schema.LEADS)}, or no sample of them.")
    leads, of = [ecg.leads[i] for i in standard], model.ecg_config
    return from_millivolts(signal[None], ecg.sampling_rate, leads, of.sampling_rate, of.strip_samples, STRIPS)[0]
