"""What is in a study, in numbers that may leave the hospital: the data card."""

import math
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import PureWindowsPath
from typing import Any, Final

from einthoven import schema
from einthoven.checking.findings import Verdict
from einthoven.checking.histograms import histograms
from einthoven.checking.rules import quoted
from einthoven.checking.tables import ERROR, NOTE, WARNING, Tables
from einthoven.checking.windows import pairing
from einthoven.disclosure import HIDDEN, SMALL, SMALL_CELL, Cell, hide, part_of, share, with_sum
from einthoven.pairing.splits import split_of

TOP_CODES: Final = 20
WHOLE: Final = ("diagnosis", "procedure", "medication")
"""The article's three kinds of code: coverage counts the pairs that have all of them."""
ARTICLE_TOKENS: Final = {"report": 354, "entity": 266}
"""Mean tokens per ECG of report and entity concatenation in the article, on its own hospital's notes."""

DATES: Final = {
    "simulated": "Dates are invented.",
    "ptbxl": "PTB-XL shifts its recording dates: years and seasons are not the true ones.",
    "mimic": "MIMIC shifts the dates of each patient by an own amount, into the years from 2100 on: intervals within a "
    "patient are true, calendar dates are not.",
}
UNKNOWN_DATES: Final = "Dates are as the source gives them; whether it had shifted them is not known here."


def make_card(tables: Tables, verdicts: list[Verdict], command: str) -> dict[str, Any]:
    """The card as plain values (JSON). Parts whose tables were not made yet are None."""
    ingested, paired = tables.manifests["ingest"], tables.manifests.get("pair")
    there = tables.there
    source = ingested["config"].get("name")
    kind = ingested["counts"]["data_kind"]
    return {
        "data_kind": kind,
        "source": source,
        "command": command,
        "versions": {"check": version("einthoven")} | {s: m.get("version") for s, m in tables.manifests.items()},
        "small_cell": SMALL_CELL,
        "verdicts": [verdict.as_json() for verdict in verdicts],
        "findings": {grade: _findings(verdicts, grade) for grade in (ERROR, WARNING, NOTE)},
        "rules": dict(Counter(verdict.state for verdict in verdicts)),
        "not_made": [name for name in ("entities", "pairs", "embeddings") if name not in there],
        "totals": _totals(tables),
        "counts": _counts(tables) if "recordings" in there else None,
        "splits": _splits(tables) if "recordings" in there else None,
        "dates": {name: _dates(tables, name) for name in ("recordings", "events", "notes") if name in there},
        "dates_are": DATES.get(source or "", UNKNOWN_DATES) if kind != schema.SEMI_SYNTHETIC else _RECHARTED,
        "histograms": [each.as_json() for each in histograms(tables)],
        "notes": _notes(tables) if {"notes", "recordings"} <= there else None,
        "codes": _top_codes(tables) if {"codes", "pairs"} <= there else None,
        "quality": _quality(tables) if "recordings" in there else None,
        "excluded": _excluded(tables) if "excluded" in there else None,
        "pairing": _without_paths(paired["config"]) if paired else None,
        "tokens": _tokens(paired["counts"].get("tokens") or {}) if paired else None,
    }


_RECHARTED: Final = "Recordings have the dates of their source, which may have shifted them; the chart's are invented."


def _findings(verdicts: list[Verdict], grade: str) -> int:
    return sum(finding.severity == grade for verdict in verdicts for finding in verdict.findings)


PATHS: Final = {"lexicon": "own lexicon", "pretrained": None}
"""Settings that may be a path of the machine, and what is shown in their place; None: the last part of it."""


def _without_paths(config: dict[str, Any]) -> dict[str, Any]:
    shown = {}
    for name, value in config.items():
        if isinstance(value, dict):
            value = _without_paths(value)
        elif isinstance(value, str) and name in PATHS:
            value = PATHS[name] or PureWindowsPath(value).name  # which knows both kinds of slash
        shown[name] = value
    return shown


def _totals(tables: Tables) -> dict[str, Cell]:
    """Rows of the tables. Notes are counted by kind as well, so their sum is told only where every kind's is."""
    totals = {name: tables.scans[name].rows for name in ("events", "notes", "entities") if name in tables.there}
    cells: dict[str, Cell] = {name: hide([count])[0] for name, count in totals.items()}
    if isinstance(cells.get("notes"), int):
        kinds = [count for (count,) in tables.ask("SELECT count(*) FROM notes GROUP BY kind")]
        cells["notes"] = HIDDEN if SMALL in hide(kinds) else cells["notes"]
    return cells


def _tokens(counted: dict[str, Any]) -> dict[str, Any]:
    """The statistics that pairing left in its manifest, none of them of fewer than 11 pairs."""
    sample = counted.get("sample") or 0
    shown = {name: value for name, value in counted.items() if not isinstance(value, dict)}
    shown |= {"sample": hide([sample])[0]} if "sample" in counted else {}
    return shown | {name: _lengths(value, sample) for name, value in counted.items() if isinstance(value, dict)}


def _lengths(found: dict[str, Any], sample: int) -> dict[str, Any]:
    """The last digit of notes per pair stands for at least 11 notes of the sample."""
    texts = found.get("with_text") or 0
    lengths: dict[str, Any] = {
        name: found[name] for name in ("mean", "median", "p95") if name in found and texts >= SMALL_CELL
    }
    digits = min(3, math.floor(math.log10(sample / SMALL_CELL))) if sample >= SMALL_CELL else None
    means = found.get("notes") or {}
    notes = {} if digits is None else {kind: round(mean, digits) for kind, mean in means.items()}
    return {"with_text": part_of([texts], [sample])[0], **lengths, "notes": notes}


def _row(name: str, counts: Sequence[int], *wholes: Sequence[int], shares: bool = True) -> dict[str, Any]:
    """A row of counts for each split and their sum, parts of those of other rows; shares are of the first of these."""
    cells = part_of(counts, *wholes)
    of = with_sum(wholes[0]) if wholes and shares else [0] * len(cells)
    return {"name": name, "cells": cells, "shares": [share(*both) for both in zip(cells, of, strict=True)]}


def _counts(tables: Tables) -> list[dict[str, Any]]:
    """Patients and recordings by split, and how many recordings have what."""
    wanted = {"patients": "count(DISTINCT subject_id)", "recordings": "count(*)"}
    wanted |= {"with a signal": 'count("row")', "with a time": "count(time)"}
    by_split = _by_split(tables, "recordings", wanted)
    recordings, timed = by_split["recordings"], by_split["with a time"]
    rows = [_row("patients", by_split["patients"], recordings, shares=False), _row("recordings", recordings)]
    rows += [_row(name, by_split[name], recordings) for name in ("with a signal", "with a time")]
    if "pairs" not in tables.there:
        return rows
    kinds = [*pairing(tables).code_kinds] if "pair" in tables.manifests else [*WHOLE, "finding"]
    covered = _by_split(tables, "pairs", {kind: _having(kind) for kind in kinds} | {_ALL: _having(*WHOLE)} | _TEXTS)
    whole, texts = covered.pop(_ALL), {name: covered.pop(name) for name in _TEXTS}
    rows += [_row(f"with a {kind} code", counts, recordings, timed) for kind, counts in covered.items()]
    rows.append(_row(_ALL, whole, recordings, *(covered[kind] for kind in WHOLE if kind in covered)))
    rows += [_row(name, counts, recordings) for name, counts in texts.items()]
    of_kinds = _texts(tables) if "notes" in tables.there else {}
    return rows + [_row(name, counts, recordings, texts["with a text"]) for name, counts in of_kinds.items()]


def _having(*kinds: str) -> str:
    return f"count(*) FILTER (list_has_all(code_kinds, [{', '.join(map(quoted, kinds))}]))"


_ALL: Final = f"with {', '.join(WHOLE)} codes, all"
_TEXTS: Final = {"with an entity text": "count(entity_text)", "with a text": "count(text)"}


def _by_split(tables: Tables, view: str, wanted: dict[str, str]) -> dict[str, list[int]]:
    """Of each wanted count those of the splits, in the order of the schema."""
    rows = tables.ask(f"SELECT split, {', '.join(wanted.values())} FROM {view} GROUP BY split")
    found = {row[0]: row[1:] for row in rows}
    nothing = [0] * len(wanted)
    return {name: [found.get(s, nothing)[place] for s in schema.SPLITS] for place, name in enumerate(wanted)}


def _texts(tables: Tables) -> dict[str, list[int]]:
    """The pairs whose text holds a note of each kind, by split."""
    listed = "(SELECT recording_id, split, unnest(note_ids) AS note_id FROM pairs)"
    rows = tables.ask(
        f"SELECT kind, split, count(DISTINCT p.recording_id) FROM {listed} p "
        "JOIN (SELECT note_id, kind FROM notes) USING (note_id) GROUP BY kind, split"
    )
    found = {(kind, split): count for kind, split, count in rows}
    return {
        f"with a text of {kind} notes": [found.get((kind, split), 0) for split in schema.SPLITS]
        for kind in schema.NOTE_KINDS
        if any(row[0] == kind for row in rows)
    }


def _splits(tables: Tables) -> dict[str, Any]:
    """Whether the splits are those of the patient's hash, or the source's own."""
    rows = tables.ask("SELECT subject_id, min(split) FROM recordings GROUP BY subject_id")
    unlike = sum(split_of(subject) != split for subject, split in rows)
    return {"by": "source" if unlike else "hash", "unlike_hash": part_of([unlike], [len(rows)])[0]}


def _dates(tables: Tables, name: str) -> dict[str, Any]:
    """The first and the last month, and how many rows have no time. Births are no contact with the hospital."""
    births = " WHERE code <> 'MEDS_BIRTH'" if name == "events" else ""
    month = "strftime({0}(time), '%Y-%m')"
    ((first, last, undated, rows),) = tables.ask(
        f"SELECT {month.format('min')}, {month.format('max')}, count(*) - count(time), count(*) FROM {name}{births}"
    )
    return {"first": first, "last": last, "undated": part_of([undated], [rows])[0]}


def _notes(tables: Tables) -> list[dict[str, Any]]:
    """Notes by kind and by the split of their patient; the last cell but one: of patients without a recording."""
    of = "(SELECT subject_id, min(split) AS split FROM recordings GROUP BY subject_id)"
    rows = tables.ask(f"SELECT kind, split, count(*) FROM notes LEFT JOIN {of} USING (subject_id) GROUP BY kind, split")
    table = []
    for kind in schema.NOTE_KINDS:
        found = {split: count for k, split, count in rows if k == kind}
        if found:
            counts = [found.get(split, 0) for split in (*schema.SPLITS, None)]
            table.append({"name": kind, "cells": with_sum(counts)})
    return table


def _top_codes(tables: Tables) -> list[dict[str, Any]]:
    """The codes that most patients have in their pairs; none of fewer than 11, since a code may be a free text."""
    listed = "(SELECT subject_id, unnest(codes) AS code, unnest(code_kinds) AS kind FROM pairs)"
    ((everybody,),) = tables.ask("SELECT count(DISTINCT subject_id) FROM pairs")
    rows = tables.ask(
        "SELECT code, kind, patients, description FROM "
        f"(SELECT code, min(kind) AS kind, count(DISTINCT subject_id) AS patients FROM {listed} GROUP BY code "
        f"HAVING patients >= {SMALL_CELL} ORDER BY patients DESC, code LIMIT {TOP_CODES}) "
        "LEFT JOIN (SELECT code, min(description) AS description FROM codes GROUP BY code) USING (code) "
        "ORDER BY patients DESC, code"
    )
    return [
        {"code": code, "kind": kind, "patients": part_of([count], [everybody])[0], "description": description}
        for code, kind, count, description in rows
    ]


def _quality(tables: Tables) -> list[dict[str, Any]]:
    """Recordings with a signal by quality flag, of whatever lead; a recording may have several."""
    ((signals, clean),) = tables.ask(
        'SELECT count("row"), count(*) FILTER ("row" IS NOT NULL AND coalesce(len(quality), 0) = 0) FROM recordings'
    )
    rows = tables.ask(
        "SELECT split_part(flag, ':', 1), count(DISTINCT place) FROM "
        "(SELECT place, unnest(quality) AS flag FROM recordings) GROUP BY 1 ORDER BY 2 DESC, 1"
    )
    found = {"none": clean} | dict(rows)
    alone = hide([*found.values()])  # flags that never come together add up to the recordings
    told = [
        HIDDEN if cell == HIDDEN else part_of([count], [signals])[0]
        for count, cell in zip(found.values(), alone, strict=True)
    ]
    return [
        {"flag": flag, "recordings": cell, "share": share(cell, signals)}
        for flag, cell in zip(found, told, strict=True)
    ]


def _excluded(tables: Tables) -> list[dict[str, Any]]:
    """Rows of the source and recordings that were kept out; they are counted exactly, being no patients."""
    rows = tables.ask(
        "SELECT reason, count(*), count(DISTINCT recording_id) FROM excluded GROUP BY reason ORDER BY 2 DESC, 1"
    )
    return [{"reason": reason, "rows": count, "recordings": recordings} for reason, count, recordings in rows]
