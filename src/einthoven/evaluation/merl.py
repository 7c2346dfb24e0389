"""MERL's zero-shot benchmark (Liu 2024): six sets of labels from its split tables, and its prompts.

The user's own copy of what github.com/cheliu-computation/MERL-ICML2024 publishes below `finetune/data_split` is read,
and `zeroshot/CKEPE_prompt.json`. Two defects are known and measured, not repeated silently:

- Labels of CSN (table "chapman") were made by asking whether a class's abbreviation is *part of the text* of all
  abbreviations: "ST" is in "STE", "AF" in "AFIB", "VB" in "AVB" and so on. "as published" takes the columns as they
  are; "corrected" asks for the abbreviation itself in the table's own list of them (column `diagnose`).
- Classes with one or two positives count like any other. They are marked, and left out of a second mean
  (evaluation/per_class.py).
"""

import csv
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.evaluation.label_sets import Bools, LabelSet, Place, file_key

PUBLISHED: Final = "as published"
CORRECTED: Final = "corrected"
MERL_PROMPT: Final = "MERL's prompt"
MERL_PHRASES: Final = "MERL's phrases"
PROMPTS_FILE: Final = "CKEPE_prompt.json"

MOST_BYTES: Final = 64 << 20
"""Of one table; the largest published has 2 MB."""
MOST_CLASSES: Final = 200
_ORIGIN: Final = "Expected the file as MERL publishes it (docs/benchmark.md)."
_LIST: Final = re.compile(r"\[\s*('[^',]*'(\s*,\s*'[^',]*')*)?\s*\]")


@dataclass(frozen=True)
class Layout:
    """A set's table: where it lies, and what its columns are. The classes are all columns after `before_classes`."""

    name: str
    path: str  # with {} for train, val or test
    files: tuple[str, ...]  # columns that name the recording's file, any of them
    before_classes: str
    raw: str | None  # column with the list of abbreviations that the labels were made from


def _ptbxl(kind: str, raw: str) -> Layout:
    return Layout(f"PTB-XL {kind}", f"ptbxl/{raw}/ptbxl_{raw}_{{}}.csv", ("filename_lr", "filename_hr"), raw, raw)


LAYOUTS: Final = (
    _ptbxl("super", "super_class"),
    _ptbxl("sub", "sub_class"),
    _ptbxl("form", "form"),
    _ptbxl("rhythm", "rhythm"),
    Layout("CPSC2018", "icbeb/icbeb_{}.csv", ("filename",), "scp_codes", None),
    Layout("CSN", "chapman/chapman_{}.csv", ("ecg_path",), "diagnose", "diagnose"),
)
SPLITS: Final = dict(zip(schema.SPLITS, ("train", "val", "test"), strict=True))


@dataclass(frozen=True)
class Labelling:
    """One split table, read."""

    classes: tuple[str, ...]
    files: tuple[tuple[str, ...], ...]  # of each row, the names its recording's file may have
    labels: Mapping[str, Bools]  # PUBLISHED, and CORRECTED where the table says what the labels were made from


def merl_sets(
    folder: Path, prompts: Path | None, split: str, recordings: Mapping[str, Place]
) -> tuple[list[LabelSet], list[str]]:
    """The sets whose table is there and names any of `recordings`, and why each of the others is not among them."""
    said = read_prompts(prompts or folder / PROMPTS_FILE)
    found, absent = [], []
    for layout in LAYOUTS:
        file = folder / layout.path.format(SPLITS[split])
        if not file.is_file():
            absent.append(f"{layout.name}: {layout.path.format(SPLITS[split])} is not there")
            continue
        table = read_labelling(file, layout)
        one = _found(layout, table, said, prompts or folder / PROMPTS_FILE, recordings)
        if one.places:
            found.append(one)
        else:
            absent.append(f"{layout.name}: no study has any of its {len(table.files)} recordings")
    return found, absent


def _found(
    layout: Layout, table: Labelling, said: Mapping[str, str], origin: Path, recordings: Mapping[str, Place]
) -> LabelSet:
    """The rows whose recording is in a study."""
    for name in (name for name in table.classes if name not in said):
        raise EinthovenError(f"{origin}: no prompt for class {name!r} of {layout.name}. {_ORIGIN}")
    places = [next((recordings[f] for f in files if f in recordings), None) for files in table.files]
    kept = np.array([place is not None for place in places], bool)
    labels = {rule: of[kept] for rule, of in table.labels.items()}
    counts: dict[str, Any] = {"listed": len(table.files), "not_in_a_study": int((~kept).sum())}
    if CORRECTED in labels:
        counts["changed"] = changes(table.classes, labels[PUBLISHED], labels[CORRECTED])
        counts["changed_in_the_table"] = changes(table.classes, *table.labels.values())
    asked: dict[str, dict[str, tuple[str, ...]]] = {
        MERL_PROMPT: {name: (said[name].casefold(),) for name in table.classes},
        MERL_PHRASES: {name: phrases(said[name]) for name in table.classes},
    }
    there = tuple(place for place in places if place is not None)
    return LabelSet(layout.name, table.classes, there, labels, asked, counts)


def changes(classes: tuple[str, ...], published: Bools, corrected: Bools) -> dict[str, Any]:
    """How many labels the correction takes away and gives, in all and for each class in which it changes any."""
    away, given = (published & ~corrected).sum(axis=0), (~published & corrected).sum(axis=0)
    each = {
        name: {"published": int(published[:, c].sum()), "taken_away": int(away[c]), "given": int(given[c])}
        for c, name in enumerate(classes)
        if away[c] or given[c]
    }
    return {"labels": int(away.sum() + given.sum()), "of": int(published.size), "classes": each}


def phrases(prompt: str) -> tuple[str, ...]:
    """The parts of a prompt between its commas, each once, without a full stop at the end."""
    parts = (part.strip().rstrip(".").strip() for part in prompt.casefold().split(","))
    return tuple(dict.fromkeys(filter(None, parts)))


def read_prompts(file: Path) -> dict[str, str]:
    """Class -> its prompt. EinthovenError where the file is not one object of texts."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise EinthovenError(f"{file}: more than {MOST_BYTES:,} bytes. {_ORIGIN}")
        found = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise EinthovenError(f"{file} is missing: name MERL's file of prompts by --prompts.") from None
    except (ValueError, RecursionError):
        raise EinthovenError(f"{file} is not readable JSON. {_ORIGIN}") from None
    texts = isinstance(found, dict) and all(isinstance(text, str) and phrases(text) for text in found.values())
    if not texts:
        raise EinthovenError(f"{file}: expected one object with a text for each class. {_ORIGIN}")
    return dict(found)


def read_labelling(file: Path, layout: Layout) -> Labelling:
    """Read one table; EinthovenError names the file, row (the heading is not counted) and column."""
    rows = _rows(file)
    heading = next(rows, [])
    needed = (*layout.files, layout.before_classes)
    for name in (name for name in needed if heading.count(name) != 1):
        raise EinthovenError(f"{file}: expected one column {name!r}, found {heading.count(name)}. {_ORIGIN}")
    first = heading.index(layout.before_classes) + 1
    classes = tuple(heading[first:])
    if not 0 < len(set(classes)) == len(classes) <= MOST_CLASSES:
        raise EinthovenError(f"{file}: expected columns of classes after {layout.before_classes!r}. {_ORIGIN}")
    where = [heading.index(name) for name in layout.files]
    files, published, corrected = [], [], []
    for number, row in enumerate(rows, start=1):
        if len(row) != len(heading):
            raise EinthovenError(f"{file}: row {number}: {len(row)} fields, the heading has {len(heading)}. {_ORIGIN}")
        for name, cell in zip(classes, row[first:], strict=True):
            if cell not in ("0", "1"):
                raise EinthovenError(f"{file}: row {number}: column {name!r}: expected 0 or 1. {_ORIGIN}")
        files.append(tuple(file_key(row[column]) for column in where))
        published.append([cell == "1" for cell in row[first:]])
        if layout.raw is not None:
            listed = _listed(row[heading.index(layout.raw)], file, number, layout.raw)
            corrected.append([name in listed for name in classes])
    if not files or len(set(files)) < len(files):
        raise EinthovenError(f"{file}: expected one row for each recording, and a recording in one row. {_ORIGIN}")
    labels = {PUBLISHED: np.array(published, bool)}
    return Labelling(classes, tuple(files), labels | ({CORRECTED: np.array(corrected, bool)} if corrected else {}))


def _rows(file: Path) -> Iterator[list[str]]:
    try:
        if file.stat().st_size > MOST_BYTES:
            raise EinthovenError(f"{file}: more than {MOST_BYTES:,} bytes. {_ORIGIN}")
        with file.open(encoding="utf-8-sig", newline="") as handle:
            yield from filter(None, csv.reader(handle, strict=True))
    except (UnicodeDecodeError, OSError, csv.Error) as error:
        raise EinthovenError(f"{file} cannot be read as CSV ({type(error).__name__}). {_ORIGIN}") from None


def _listed(cell: str, file: Path, number: int, column: str) -> set[str]:
    """ "SB,TWC" or "['STTC', 'NST_']" -> the abbreviations, without the underscores that MERL's columns lack."""
    text = cell.strip()
    if text.startswith("["):
        if not _LIST.fullmatch(text):
            raise EinthovenError(f"{file}: row {number}: column {column!r}: expected a list of names. {_ORIGIN}")
        return {name.strip().strip("_") for name in re.findall(r"'([^']*)'", text)}
    return {name.strip() for name in text.split(",")}
