"""What a classifier is to learn: a number, or nothing, for each recording and label.

From the study itself, `classes` (its diagnostic super-classes) or `age` (years at the recording), or from a file: CSV,
gzipped CSV or Parquet with a column `recording_id` and one column for each label. An empty cell is an unknown label.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.evaluation.labels import super_classes
from einthoven.sources import table_files
from einthoven.sources.cells import SourceTable, judged
from einthoven.sources.faults import making
from einthoven.sources.tabular import connect
from einthoven.study import read_table

CLASSES: Final = "classes"
REGRESSION: Final = "regression"
AUTO: Final = "auto"
AGE: Final = "age"

KEY: Final = "recording_id"
NO_LABELS: Final = ("subject_id", "split", "source_row", "verdict")
"""Columns that are no labels: patients and splits are the study's, the others mean something to our reader."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a classifier is asked to learn, from how many of the labels, and on which split it is measured."""

    labels: str  # CLASSES, AGE or a file
    task: str = AUTO
    fraction: float = 1.0  # of the labelled training patients
    subset: int = 0  # number of the subset drawn
    random_init: bool = False  # the encoder begins with random weights
    split: str = "validation"

    def __post_init__(self) -> None:
        if self.split not in schema.SPLITS[1:]:
            raise EinthovenError(
                f"--split {self.split}: expected validation or test; from the train split the classifier learns."
            )
        if not 0 < self.fraction <= 1:
            raise EinthovenError(f"a fraction of the labels lies above 0 and up to 1, not at {self.fraction}.")
        if self.subset < 0:
            raise EinthovenError(f"--subset {self.subset}: subsets are numbered from 0.")

    @property
    def name(self) -> str:
        """Of the run among those of other budgets."""
        return f"{self.fraction:g}-{self.subset}"


@dataclass(frozen=True)
class Targets:
    """Labels of recordings. `values` are 0 and 1 for classes, else in the label's own unit; NaN: unknown."""

    task: str  # CLASSES or REGRESSION
    labels: tuple[str, ...]
    recording_ids: tuple[str, ...]
    values: NDArray[np.float64]  # [recordings, labels]


def read_targets(labels: str, study: Path, task: str = AUTO) -> Targets:
    """Labels by name, `classes` or `age`, or of a file; recordings without any known label have no row.

    EinthovenError: the study has no such labels, the file is not as described above (it names file, row and column; the
    heading is not counted), or the labels are not of the `task`.
    """
    if task not in (AUTO, CLASSES, REGRESSION):
        raise EinthovenError(f"--task {task}: expected {AUTO}, {CLASSES} or {REGRESSION}.")
    file = file_of(labels)
    if file is not None:
        found = read_file(file, task)
    else:
        found = _classes(study) if labels == CLASSES else _age(study)
        if task not in (AUTO, found.task):
            raise EinthovenError(f"--task {task}: --labels {labels} are a matter of {found.task}.")
    known: NDArray[np.bool_] = np.asarray(~np.isnan(found.values).all(axis=1))
    ids = tuple(name for name, some in zip(found.recording_ids, known, strict=True) if some)
    return Targets(found.task, found.labels, ids, found.values[known])


def file_of(labels: str) -> Path | None:
    """The file of labels; None where they are the study's own. EinthovenError: they are neither."""
    if labels in (CLASSES, AGE):
        return None
    if not Path(labels).is_file():
        raise EinthovenError(
            f"--labels {labels}: expected {CLASSES}, {AGE}, or a file with a column {KEY} and one for each label."
        )
    return Path(labels)


def _classes(study: Path) -> Targets:
    found = super_classes(study)
    if not found.recording_ids:
        raise EinthovenError(f"{study}: no recording has a super-class. Give a file of labels to --labels.")
    return Targets(CLASSES, found.classes, found.recording_ids, found.labels.astype(np.float64))


def _age(study: Path) -> Targets:
    rows = read_table(schema.RECORDINGS, study, [KEY, AGE])
    rows = rows.filter(pc.is_finite(rows[AGE]))
    if not len(rows):
        raise EinthovenError(f"{study}: no recording has an age. Give a file of labels to --labels.")
    return Targets(REGRESSION, (AGE,), tuple(rows[KEY].to_pylist()), rows[AGE].to_numpy().astype(np.float64)[:, None])


def read_file(file: Path, task: str = AUTO) -> Targets:
    """All rows of a file of labels, in its order."""
    labels = _labels(file)
    with tempfile.TemporaryDirectory() as scratch, making(f"{file}: the table of labels"):
        engine = connect(Path(scratch))
        try:
            rows = _rows(engine, file, labels)
        finally:
            engine.disconnect()
    for row in (row for row in rows.to_pylist() if row["verdict"] is not None):
        raise EinthovenError(f"{file}: row {row['source_row']}: {row['verdict']}.")
    ids, places = rows[KEY].to_pylist(), rows["source_row"].to_pylist()
    _refuse_repeated(file, ids, places)
    values = np.stack([rows[label].to_numpy().astype(np.float64) for label in labels], axis=1)
    _refuse(file, places, labels, np.isinf(values), "a finite number")
    for column in np.flatnonzero(np.isnan(values).all(axis=0)):
        raise EinthovenError(f"{file}: column {labels[column]!r} has no value in any row. Fill it or take it out.")
    return Targets(_task(file, labels, places, values, task), labels, tuple(ids), values)


def _labels(file: Path) -> tuple[str, ...]:
    if not file.name.casefold().endswith(table_files.SUFFIXES):
        raise EinthovenError(f"{file}: expected a file of labels named {', '.join(table_files.SUFFIXES)}.")
    names = table_files.heading(file)
    if KEY not in names:
        listed = ", ".join(map(repr, names[:40])) or "an empty file"
        raise EinthovenError(f"{file}: column {KEY!r} is missing. Found: {listed}.")
    if "" in names:
        raise EinthovenError(f"{file}: column {names.index('') + 1} has no name. Name each label in the first line.")
    for name in (name for name in names if name.casefold() in NO_LABELS):
        raise EinthovenError(f"{file}: column {name!r} is no label: take it out. Patients and splits are the study's.")
    labels = tuple(name for name in names if name != KEY)
    if not labels:
        raise EinthovenError(f"{file}: expected a column for each label beside {KEY!r}.")
    return labels


def _rows(engine: Any, file: Path, labels: Sequence[str]) -> Any:
    """The columns as text and numbers, `source_row`, and in `verdict` what is wrong with a row."""
    columns = table_files.places(file, [KEY, *labels], [])
    for bad in table_files.load(engine, file, "labels", columns, file.name):
        raise EinthovenError(f"{file}: row {bad['source_row']}: {bad['detail']}.")
    rows = engine.table("labels")
    yes_or_no = {name: rows[name].cast("int8") for name in labels if rows[name].type().is_boolean()}
    table = SourceTable(file.name, rows.mutate(**yes_or_no) if yes_or_no else rows)
    found = judged(table, {KEY: "string", **dict.fromkeys(labels, "float64")}, [KEY])
    read = found.order_by("source_row").to_pyarrow()
    if not len(read):
        raise EinthovenError(f"{file}: no row below the heading; expected one for each labelled recording.")
    return read


def _refuse_repeated(file: Path, ids: Sequence[str], places: Sequence[int]) -> None:
    first: dict[str, int] = {}
    for name, place in zip(ids, places, strict=True):
        before = first.setdefault(name, place)
        if before != place:
            raise EinthovenError(f"{file}: row {place}: column {KEY!r}: the recording of row {before} again. Keep one.")


def _task(file: Path, labels: Sequence[str], places: Sequence[int], values: NDArray[np.float64], task: str) -> str:
    odd = ~np.isnan(values) & (values != 0) & (values != 1)
    if task == CLASSES:
        _refuse(file, places, labels, odd, "0, 1 or nothing, for a class")
    mixed = odd.any(axis=0)
    if task != AUTO:
        return task
    if mixed.any() and not mixed.all():
        yes, other = labels[int(np.argmin(mixed))], labels[int(np.argmax(mixed))]
        raise EinthovenError(
            f"{file}: column {yes!r} holds 0 and 1 alone, a class, column {other!r} other numbers. Divide the file, "
            f"or take all for numbers by --task {REGRESSION}."
        )
    return REGRESSION if mixed.any() else CLASSES


def _refuse(file: Path, places: Sequence[int], labels: Sequence[str], wrong: NDArray[np.bool_], expected: str) -> None:
    """EinthovenError for the first cell that is `wrong` [rows, labels]. What it holds is not repeated."""
    for row, column in np.argwhere(wrong):
        raise EinthovenError(f"{file}: row {places[row]}: column {labels[column]!r}: expected {expected}.")
