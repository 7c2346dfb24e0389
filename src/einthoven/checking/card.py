"""What is in a study, in numbers that may leave the hospital: the data card."""

from collections import Counter
from importlib.metadata import version
from typing import Any, Final

from einthoven import schema
from einthoven.checking.cells import SMALL_CELL, Cell, hide, share
from einthoven.checking.findings import Verdict
from einthoven.checking.histograms import histograms
from einthoven.checking.tables import ERROR, NOTE, WARNING, Tables
from einthoven.checking.windows import pairing
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
    source = (ingested.get("config") or {}).get("name")
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
        "totals": {name: tables.scans[name].rows for name in ("events", "notes", "entities") if name in there},
        "counts": _counts(tables) if "recordings" in there else None,
        "splits": _splits(tables) if "recordings" in there else None,
        "dates": {name: _dates(tables, name) for name in ("recordings", "events", "notes") if name in there},
        "dates_are": DATES.get(source or "", UNKNOWN_DATES) if kind != schema.SEMI_SYNTHETIC else _RECHARTED,
        "histograms": [each.as_json() for each in histograms(tables)],
        "notes": _notes(tables) if {"notes", "recordings"} <= there else None,
        "codes": _top_codes(tables) if {"codes", "pairs"} <= there else None,
        "quality": _quality(tables) if "recordings" in there else None,
        "excluded": _excluded(tables) if "excluded" in there else None,
        "pairing": (paired.get("config") or {}) if paired else None,
        "tokens": _tokens((paired.get("counts") or {}).get("tokens") or {}) if paired else None,
    }


_RECHARTED: Final = "Recordings have the dates of their source, which may have shifted them; the chart's are invented."


def _findings(verdicts: list[Verdict], grade: str) -> int:
    return sum(finding.severity == grade for verdict in verdicts for finding in verdict.findings)


def _tokens(counted: dict[str, Any]) -> dict[str, Any]:
    """The statistics that pairing left in its manifest, with small counts hidden."""
    return {
        name: found | {"with_text": hide([found.get("with_text") or 0])[0]} if isinstance(found, dict) else found
        for name, found in counted.items()
    }


def _row(name: str, by_split: dict[str, int], of: list[Cell] | None = None) -> dict[str, Any]:
    """A row of counts for each split and their sum, and the shares of another row's."""
    counts = [by_split.get(split, 0) for split in schema.SPLITS]
    cells = [*hide(counts), *hide([sum(counts)])]
    shares = [share(cell, whole) for cell, whole in zip(cells, of, strict=True)] if of else [None] * len(cells)
    return {"name": name, "cells": cells, "shares": shares}


def _counts(tables: Tables) -> list[dict[str, Any]]:
    """Patients and recordings by split, and how many recordings have what."""
    wanted = {"patients": "count(DISTINCT subject_id)", "recordings": "count(*)"}
    wanted |= {"with a signal": 'count("row")', "with a time": "count(time)"}
    by_split = _by_split(tables, "recordings", wanted)
    first = [_row(name, by_split[name]) for name in ("patients", "recordings")]
    of = first[1]["cells"]
    rows = [*first, *(_row(name, by_split[name], of) for name in ("with a signal", "with a time"))]
    if "pairs" not in tables.there:
        return rows
    covered = _by_split(tables, "pairs", _coverage(tables))
    rows += [_row(name, covered[name], of) for name in covered]
    return rows + ([_row(name, found, of) for name, found in _texts(tables)] if "notes" in tables.there else [])


def _coverage(tables: Tables) -> dict[str, str]:
    kinds = [*pairing(tables).code_kinds] if "pair" in tables.manifests else [*WHOLE, "finding"]
    wanted = {f"with a {kind} code": f"count(*) FILTER (list_contains(code_kinds, '{_plain(kind)}'))" for kind in kinds}
    whole = ", ".join(f"'{kind}'" for kind in WHOLE)
    wanted[f"with {', '.join(WHOLE)} codes, all"] = f"count(*) FILTER (list_has_all(code_kinds, [{whole}]))"
    return wanted | {"with an entity text": "count(entity_text)", "with a text": "count(text)"}


def _plain(text: str) -> str:
    return text.replace("'", "''")


def _by_split(tables: Tables, view: str, wanted: dict[str, str]) -> dict[str, dict[str, int]]:
    rows = tables.ask(f"SELECT split, {', '.join(wanted.values())} FROM {view} GROUP BY split")
    return {name: {row[0]: row[place] for row in rows} for place, name in enumerate(wanted, start=1)}


def _texts(tables: Tables) -> list[tuple[str, dict[str, int]]]:
    """The pairs whose text holds a note of each kind, by split."""
    listed = "(SELECT recording_id, split, unnest(note_ids) AS note_id FROM pairs)"
    rows = tables.ask(
        f"SELECT kind, split, count(DISTINCT p.recording_id) FROM {listed} p "
        "JOIN (SELECT note_id, kind FROM notes) USING (note_id) GROUP BY kind, split"
    )
    return [
        (f"with a text of {kind} notes", {split: count for k, split, count in rows if k == kind})
        for kind in schema.NOTE_KINDS
        if any(row[0] == kind for row in rows)
    ]


def _splits(tables: Tables) -> dict[str, Any]:
    """Whether the splits are those of the patient's hash, or the source's own."""
    rows = tables.ask("SELECT subject_id, min(split) FROM recordings GROUP BY subject_id")
    unlike = sum(split_of(subject) != split for subject, split in rows)
    return {"by": "source" if unlike else "hash", "unlike_hash": hide([unlike])[0]}


def _dates(tables: Tables, name: str) -> dict[str, Any]:
    """The first and the last month, and how many rows have no time. Births are no contact with the hospital."""
    births = " WHERE code <> 'MEDS_BIRTH'" if name == "events" else ""
    month = "strftime({0}(time), '%Y-%m')"
    ((first, last, undated),) = tables.ask(
        f"SELECT {month.format('min')}, {month.format('max')}, count(*) - count(time) FROM {name}{births}"
    )
    return {"first": first, "last": last, "undated": hide([undated])[0]}


def _notes(tables: Tables) -> list[dict[str, Any]]:
    """Notes by kind and by the split of their patient; the last cell but one: of patients without a recording."""
    of = "(SELECT subject_id, min(split) AS split FROM recordings GROUP BY subject_id)"
    rows = tables.ask(f"SELECT kind, split, count(*) FROM notes LEFT JOIN {of} USING (subject_id) GROUP BY kind, split")
    table = []
    for kind in schema.NOTE_KINDS:
        found = {split: count for k, split, count in rows if k == kind}
        if found:
            counts = [found.get(split, 0) for split in (*schema.SPLITS, None)]
            table.append({"name": kind, "cells": [*hide(counts), *hide([sum(counts)])]})
    return table


def _top_codes(tables: Tables) -> list[dict[str, Any]]:
    """The codes that most patients have in their pairs."""
    listed = "(SELECT subject_id, unnest(codes) AS code, unnest(code_kinds) AS kind FROM pairs)"
    rows = tables.ask(
        "SELECT code, kind, patients, description FROM "
        f"(SELECT code, min(kind) AS kind, count(DISTINCT subject_id) AS patients FROM {listed} GROUP BY code "
        f"ORDER BY patients DESC, code LIMIT {TOP_CODES}) "
        "LEFT JOIN (SELECT code, min(description) AS description FROM codes GROUP BY code) USING (code) "
        "ORDER BY patients DESC, code"
    )
    return [
        {"code": code, "kind": kind, "patients": hide([patients])[0], "description": description}
        for code, kind, patients, description in rows
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
    found = [("none", clean), *rows]
    cells = [hide([count])[0] for _, count in found]
    return [
        {"flag": flag, "recordings": cell, "share": share(cell, signals)}
        for (flag, _), cell in zip(found, cells, strict=True)
    ]


def _excluded(tables: Tables) -> list[dict[str, Any]]:
    """Rows of the source and recordings that were kept out; they are counted exactly, being no patients."""
    rows = tables.ask(
        "SELECT reason, count(*), count(DISTINCT recording_id) FROM excluded GROUP BY reason ORDER BY 2 DESC, 1"
    )
    return [{"reason": reason, "rows": count, "recordings": recordings} for reason, count, recordings in rows]
