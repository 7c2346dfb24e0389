"""The coded timelines of all patients of a study, and windows of them: what sEHR-BERT is pretrained on."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import ibis
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.config import Pairing
from einthoven.config import Vocabulary as Wanted
from einthoven.encoders.code_records import STATIC, CodeSequence, Ints, kind_numbers
from einthoven.errors import EinthovenError
from einthoven.export.meds import published_in, subject_splits
from einthoven.pairing.engines import DUCKDB, Engine, connected
from einthoven.pairing.kinds import Kinds, kinds_of
from einthoven.pairing.windows import SECONDS_PER_DAY, seconds
from einthoven.pairing.windows import STATIC as BEFORE_ALL
from einthoven.sources.meds_files import SPLITS
from einthoven.study import check_table, read_table
from einthoven.vocabulary.patients import patients_of
from einthoven.vocabulary.rules import rules_of
from einthoven.vocabulary.vocabulary import UNK, Vocabulary, build

BIRTH: Final = "MEDS_BIRTH"
SECONDS_PER_YEAR: Final = 365.25 * SECONDS_PER_DAY


@dataclass(frozen=True)
class Timelines:
    """Encoded codes of patients one after the other, in memory: 17 bytes a code, 2 GB for 10^8."""

    subjects: Ints  # [p]
    births: npt.NDArray[np.float64]  # [p] seconds since 1970; NaN: unknown
    offsets: Ints  # [p + 1]
    tokens: npt.NDArray[np.int32]  # [n]
    kinds: npt.NDArray[np.int8]  # [n]
    seconds: Ints  # [n] since 1970, ascending within a patient; BEFORE_ALL: static

    def __len__(self) -> int:
        return len(self.subjects)

    def windows(self, days: float, *seed: int) -> "Windows":
        """Windows of `days`, each around the moment of a code drawn at random: equal seeds give equal windows.

        A patient gives as many as their timeline is windows long, at least one; with fewer than two dated codes none.
        """
        first = self.offsets[:-1] + self._static()
        dated = self.offsets[1:] - first
        with_some = np.flatnonzero(dated >= 2)
        first, dated = first[with_some], dated[with_some]
        span = self.seconds[first + dated - 1] - self.seconds[first]
        times = np.maximum(1, np.ceil(span / (days * SECONDS_PER_DAY))).astype(np.int64)
        patients = np.repeat(with_some, times)
        place = np.random.default_rng(seed).random(len(patients)) * np.repeat(dated, times)
        return Windows(self, patients, self.seconds[np.repeat(first, times) + place.astype(np.int64)], days)

    def _static(self) -> Ints:
        """How many static codes each patient has."""
        before = np.concatenate([[0], np.cumsum(self.seconds == BEFORE_ALL)])
        return before[self.offsets[1:]] - before[self.offsets[:-1]]


@dataclass(frozen=True)
class Windows:
    """Parts of timelines, each seen from a moment. A sequence of `CodeSequence`, made when asked for."""

    timelines: Timelines
    patients: Ints  # [w] places in `timelines`
    moments: Ints  # [w] seconds since 1970
    days: float

    def __len__(self) -> int:
        return len(self.patients)

    @property
    def subjects(self) -> Ints:
        return self.timelines.subjects[self.patients]

    def some(self, most: int, seed: int) -> "Windows":
        """At most `most` of them, drawn by the seed, in their order."""
        drawn = np.sort(np.random.default_rng(seed).permutation(len(self))[:most])
        return replace(self, patients=self.patients[drawn], moments=self.moments[drawn])

    def __getitem__(self, window: int) -> CodeSequence:
        lines, patient, moment = self.timelines, self.patients[window], self.moments[window]
        start, stop = lines.offsets[patient], lines.offsets[patient + 1]
        times, half = lines.seconds[start:stop], round(self.days * SECONDS_PER_DAY / 2)
        static = int(np.searchsorted(times, BEFORE_ALL, side="right"))
        low = int(np.searchsorted(times, moment - half))
        high = int(np.searchsorted(times, moment + half, side="right"))
        kept = start + np.concatenate([np.arange(static), np.arange(max(low, static), high)])
        kinds = lines.kinds[kept].astype(np.int64)
        days = np.where(kinds == STATIC, 0.0, (lines.seconds[kept] - moment) / SECONDS_PER_DAY).astype(np.float32)
        age = float((moment - lines.births[patient]) / SECONDS_PER_YEAR)
        return CodeSequence(lines.tokens[kept].astype(np.int64), kinds, days, age)


def read_timelines(
    study: Path, pairing: Pairing, wanted: Wanted, scratch: Path, vocabulary: Vocabulary | None = None
) -> tuple[dict[str, Timelines], Vocabulary]:
    """The timelines of each split, and the vocabulary of the train split's patients (or the one given).

    Codes are those that `pairing` would let into a sequence, wherever in time they are. As there, one that comes
    several times on a day counts once, here also where two spellings or two rare codes became one token. Patients
    without a recording are in the split that the study's source or the hash of their id says.
    """
    with connected(DUCKDB, scratch) as engine:
        events = engine.read(check_table(schema.EVENTS, study))
        kinds = kinds_of(engine.run(events.select("code").distinct())["code"].to_pylist(), pairing)
        ranks = pa.table({"code": kinds.codes, "sequence": pc.is_valid(kinds.kinds), "static": kinds.static})
        ranked = events.inner_join(engine.table(ranks), "code")
        static = ranked.static & ranked.recording_id.isnull()  # else it is a finding of one undated ECG
        ranked = ranked.filter(ibis.ifelse(ranked.time.isnull(), static, ranked.sequence))
        splits = _splits(study, engine.run(ranked.select("subject_id").distinct())["subject_id"])
        if vocabulary is None:
            vocabulary = _vocabulary(study, wanted, engine, ranked, splits)
        rows = engine.run(_encoded(engine, ranked, kinds, pairing, vocabulary))
        births = engine.run(
            events.filter((events.code == BIRTH) & events.time.notnull())
            .group_by("subject_id")
            .agg(born=seconds(events.time).min())
        )
    return _by_split(rows, splits, _births(study, births)), vocabulary


def _splits(study: Path, subjects: pa.ChunkedArray) -> pa.Table:
    recordings = read_table(schema.RECORDINGS, study, ["subject_id", "split"])
    found = subject_splits(subjects, recordings, published_in(study))
    names = pc.index_in(found["split"], value_set=pa.array(SPLITS))
    ours = pa.array(list(SPLITS.values())).take(names.combine_chunks())
    return pa.table({"subject_id": found["subject_id"], "split": ours})


def _vocabulary(study: Path, wanted: Wanted, engine: Engine, ranked: Any, splits: pa.Table) -> Vocabulary:
    train = splits.filter(pc.equal(splits["split"], "train")).select(["subject_id"])
    if not len(train):
        raise EinthovenError(f"{study}: no patient of the train split has a code that pairing.code_kinds lets in.")
    had = ranked.select("subject_id", "code").distinct().inner_join(engine.table(train), "subject_id")
    seen = patients_of(engine.run(had.select("subject_id", "code")))
    return build(seen, wanted.floor, rules_of(wanted, read_table(schema.CODES, study)))


def _encoded(engine: Engine, ranked: Any, kinds: Kinds, pairing: Pairing, vocabulary: Vocabulary) -> Any:
    """Ibis: subject_id, second, token, kind of every code, in the order of `Timelines`."""
    numbers = kind_numbers(tuple(pairing.code_kinds))
    told = pa.table(
        {
            "code": kinds.codes,
            "token": vocabulary.encode(kinds.codes.to_pylist()).astype(np.int32),
            "kind": np.array([numbers.get(kind, STATIC) for kind in kinds.kinds.to_pylist()], np.int8),
        }
    )
    named = ranked.select("subject_id", "time", "code").inner_join(engine.table(told), "code")
    kind = ibis.ifelse(named.time.isnull(), STATIC, named.kind).cast("int8")
    dated = named.select("subject_id", "token", kind=kind, second=seconds(named.time).fill_null(BEFORE_ALL))
    span = (dated.second // (SECONDS_PER_DAY if pairing.collapse_days else 1)).name("span")
    once = dated.group_by(["subject_id", "token", "kind", span]).agg(second=dated.second.min())
    return once.select("subject_id", "second", "token", "kind").order_by(["subject_id", "second", "token", "kind"])


def _births(study: Path, events: pa.Table) -> dict[int, float]:
    """Seconds since 1970 of each subject's birth: the record's, else what the ages at their recordings say."""
    rows = read_table(schema.RECORDINGS, study, ["subject_id", "time", "age"])
    rows = rows.filter(pc.and_(pc.is_valid(rows["time"]), pc.is_valid(rows["age"])))
    moments = rows["time"].cast(pa.int64()).to_numpy() / 1e6
    born = moments - rows["age"].to_numpy() * SECONDS_PER_YEAR
    found = dict(zip(rows["subject_id"].to_pylist(), born.tolist(), strict=True))
    return found | dict(zip(events["subject_id"].to_pylist(), map(float, events["born"].to_pylist()), strict=True))


def _by_split(rows: pa.Table, splits: pa.Table, births: dict[int, float]) -> dict[str, Timelines]:
    subjects = rows["subject_id"].to_numpy()
    places = pc.index_in(rows["subject_id"], value_set=splits["subject_id"].combine_chunks())
    of_row = splits["split"].combine_chunks().take(places.combine_chunks())
    found = {}
    for split in schema.SPLITS:
        inside = pc.equal(of_row, split).to_numpy(zero_copy_only=False)
        here, starts = np.unique(subjects[inside], return_index=True)
        found[split] = Timelines(
            subjects=here,
            births=np.array([births.get(subject, np.nan) for subject in here.tolist()], np.float64),
            offsets=np.concatenate([starts, [inside.sum()]]).astype(np.int64),
            tokens=rows["token"].to_numpy()[inside],
            kinds=rows["kind"].to_numpy()[inside],
            seconds=rows["second"].to_numpy()[inside],
        )
    return found


def unknown_share(lines: Timelines) -> float:
    """The share of codes that are [UNK]; NaN where there is none."""
    return float(np.mean(lines.tokens == UNK)) if len(lines.tokens) else float("nan")


def sequences(windows: Windows, which: Sequence[int] | Ints) -> list[CodeSequence]:
    return [windows[int(window)] for window in which]
