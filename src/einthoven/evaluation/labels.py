"""The labels evaluation uses, read from a study's tables."""

import csv
from collections.abc import Collection, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.config import CODE_KINDS, Pairing
from einthoven.errors import EinthovenError
from einthoven.pairing.kinds import kinds_of
from einthoven.study import read_manifest, read_table, stage_manifest

PREFIX = "SCP_CLASS//"
ORDER = ("NORM", "MI", "STTC", "CD", "HYP")
"""The order in which PTB-XL's super-classes are reported; classes of other sources follow, sorted."""

SNOMED: Final = "DX//SNOMED//"
"""Findings in SNOMED CT, as the Challenges have them (sources/challenge.py)."""
SNOMED_FILE: Final = "snomed_classes.tsv"
"""SNOMED CT code -> super-class: the 2020 and 2021 Challenges' diagnoses (Perez Alday 2020; Reyna 2021) that are a
diagnostic statement of PTB-XL, or several of one super-class; with that statement, and the name the Challenge gives."""
SINUS: Final = f"{SNOMED}426783006"
"""Sinus rhythm: alone among a recording's codes it is what CPSC2018's "normal" became."""


class SuperClasses(NamedTuple):
    """Which recording is positive for which class."""

    classes: tuple[str, ...]
    recording_ids: tuple[str, ...]  # in the order of recordings.parquet
    labels: NDArray[np.bool_]  # [recordings, classes]
    without_class: int  # recordings of the study that have no class and so no row
    codes_of: dict[str, tuple[str, ...]]  # the codes of each class that recordings of the study have


def super_classes(study: Path) -> SuperClasses:
    """Diagnostic super-classes of each recording: the published PTB-XL aggregation (Wagner et al. 2020, their code).

    A recording is positive for class X if any of its own events has a code below `SCP_CLASS//X`, whatever its
    likelihood. Events of the patient's other recordings do not count. Recordings without any class get no row.

    SNOMED CT codes lie below the class that SNOMED_FILE gives them; a recording whose only one is SINUS is NORM.
    """
    codes = read_table(schema.CODES, study, ["code", "parent_codes"]).to_pylist()
    classes_of = {
        row["code"]: [p.removeprefix(PREFIX) for p in row["parent_codes"] or () if p.startswith(PREFIX)]
        for row in codes
    }
    events = read_table(schema.EVENTS, study, ["code", "recording_id"])
    events = events.filter(pc.is_valid(events["recording_id"]))
    present = set(events["code"].unique().to_pylist())  # a sub-class lies below a class, too, but nobody has it
    classes_of |= _snomed_classes(present)
    normal = _sinus_alone(events)
    if len(normal):
        classes_of[SINUS] = ["NORM"]  # as a query; it is no sign of NORM beside others
    known = {name for names in classes_of.values() for name in names}
    classes = (*(c for c in ORDER if c in known), *sorted(known - set(ORDER)))
    everyone = read_table(schema.RECORDINGS, study, ["recording_id"])["recording_id"].combine_chunks()
    labels = _labels(events, everyone, classes_of, classes, normal)
    labelled = labels.any(axis=1)
    codes_of = {
        c: tuple(code for code in sorted(present & classes_of.keys()) if c in classes_of[code]) for c in classes
    }
    ids = tuple(everyone.filter(pa.array(labelled)).to_pylist())
    return SuperClasses(classes, ids, labels[labelled], int((~labelled).sum()), codes_of)


def _labels(
    events: pa.Table,
    everyone: pa.Array,
    classes_of: Mapping[str, Sequence[str]],
    classes: Sequence[str],
    normal: pa.Array,
) -> NDArray[np.bool_]:
    """Which recordings have a code below which class, bool [recordings, classes]; SINUS counts for `normal` alone."""
    spelled = events["code"].combine_chunks().dictionary_encode()
    of_code = [classes_of.get(code, ()) for code in spelled.dictionary.to_pylist()]
    below = np.array([[c in of for c in classes] for of in of_code], bool).reshape(len(of_code), len(classes))
    code, row = spelled.indices.to_numpy(), pc.index_in(events["recording_id"], value_set=everyone)
    known = pc.or_(pc.not_equal(events["code"], SINUS), pc.is_in(events["recording_id"], value_set=normal))
    counts = pc.and_(known, pc.is_valid(row)).to_numpy(zero_copy_only=False)
    event, place = np.nonzero(below[code[counts]])
    labels = np.zeros((len(everyone), len(classes)), bool)
    labels[row.to_numpy()[counts].astype(np.int64)[event], place] = True
    return labels


def _snomed_classes(present: Collection[str]) -> dict[str, list[str]]:
    """The classes of those SNOMED CT codes that recordings have."""
    text = files("einthoven.evaluation").joinpath(SNOMED_FILE).read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return {SNOMED + row["snomed"]: [row["class"]] for row in rows if SNOMED + row["snomed"] in present}


def _sinus_alone(events: pa.Table) -> pa.Array:
    """The recordings whose only SNOMED CT code is SINUS; `events` have a recording."""
    coded = events.filter(pc.starts_with(events["code"], SNOMED))
    sinus = pc.unique(coded["recording_id"].filter(pc.equal(coded["code"], SINUS)))
    others = pc.unique(coded["recording_id"].filter(pc.not_equal(coded["code"], SINUS)))
    return sinus.filter(pc.invert(pc.is_in(sinus, value_set=others)))


def without_class(rows: pa.Table, study: Path, name: str | None) -> pa.Table:
    """Of rows with a `recording_id`, those that are not positive for a super-class; all where `name` is None."""
    if name is None:
        return rows
    return rows.filter(pc.invert(pc.is_in(rows["recording_id"], pa.array(of_class(study, name), pa.string()))))


def of_class(study: Path, name: str) -> list[str]:
    """The recordings that are positive for a super-class. EinthovenError where the study has no such class."""
    found = super_classes(study)
    if name not in found.classes:
        known = f"it has {', '.join(found.classes)}" if found.classes else "it has none"
        raise EinthovenError(f"{study} has no super-class {name!r} ([training] without_class): {known}.")
    positive = found.labels[:, found.classes.index(name)]
    return [recording for recording, holds in zip(found.recording_ids, positive, strict=True) if holds]


def codes_of(study: Path, recording_ids: Sequence[str]) -> dict[str, list[str]]:
    """The codes whose event names one of these recordings."""
    events = read_table(schema.EVENTS, study, ["code", "recording_id"])
    events = events.filter(pc.is_in(events["recording_id"], pa.array(recording_ids, pa.string())))
    found: dict[str, list[str]] = {}
    for code, recording in zip(events["code"].to_pylist(), events["recording_id"].to_pylist(), strict=True):
        found.setdefault(recording, []).append(code)
    return found


def own_findings(study: Path, recording_ids: Sequence[str]) -> list[frozenset[str]]:
    """What was found in each of these recordings: the codes of its own events, whatever their likelihood.

    Codes of a kind that can enter a pair count; others that name a recording are measurements ("ECG//QRS_DURATION").
    """
    had = codes_of(study, recording_ids)
    config = (read_manifest(stage_manifest(study, "pair")) or {}).get("config", {})
    patterns = {kind: tuple(of) for kind, of in config.get("code_kinds", CODE_KINDS).items()}
    ignored = tuple(config.get("ignored_codes", Pairing().ignored_codes))
    of_a_kind = Pairing(code_kinds=patterns, ignored_codes=ignored)
    known = set(kinds_of({code for codes in had.values() for code in codes}, of_a_kind).codes.to_pylist())
    return [frozenset(had.get(name, ())) & known for name in recording_ids]
