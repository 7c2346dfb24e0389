"""What must hold in the pairs: one for each recording, and nothing in it but the patient's own chart in its windows."""

import dataclasses
from typing import Final

from einthoven import schema
from einthoven.checking.rules import Rule, found, quoted
from einthoven.checking.tables import PAIR_AGAIN, Finding, Tables
from einthoven.config import Pairing, from_dict

PAIR_MANIFEST: Final = "manifests/pair.json"
DAY: Final = 86_400  # seconds
STATIC: Final = "static"
"""The kind of a code without a time."""


def pairing(tables: Tables) -> Pairing:
    """The settings that the pairs were made with, from their manifest."""
    config = tables.manifests["pair"]["config"]
    known = {setting.name for setting in dataclasses.fields(Pairing)}
    return from_dict(Pairing, {k: v for k, v in config.items() if k in known}, PAIR_MANIFEST)


def pairs_of_recordings(tables: Tables) -> list[Finding]:
    same = " AND ".join(
        f'p."{name}" IS NOT DISTINCT FROM r."{name}"' for name in ("subject_id", "time", "split", "row")
    )
    query = f"SELECT p.place FROM pairs p ANTI JOIN recordings r ON p.recording_id = r.recording_id AND {same}"
    findings = found(tables, "pairs", "recording_id", query, "patient, time, split and row as the recording has them")
    missing, _ = tables.places("SELECT r.place FROM recordings r ANTI JOIN pairs USING (recording_id)")
    if missing:
        expected = "a pair for every recording"
        findings.append(Finding(schema.PAIRS.path, "recording_id", missing, (), expected, PAIR_AGAIN))
    return findings


def pair_lists(tables: Tables) -> list[Finding]:
    """Lists of equal length; known kinds; a code without a day is static; a text has its notes and no text has none."""
    kinds = [STATIC, *(pairing(tables).code_kinds if "pair" in tables.manifests else ())]
    known = f"k IN ({', '.join(map(quoted, kinds))})" if len(kinds) > 1 else "k IS NOT NULL"
    nowhere = "coalesce(len({0}), 0) = 0"
    wanted = (
        ("code_days", "len(codes) IS DISTINCT FROM len(code_kinds) OR len(codes) IS DISTINCT FROM len(code_days) "
         "OR codes IS NULL", "as many days and kinds as codes"),
        ("codes", "len(codes) > len(list_filter(codes, lambda c: c IS NOT NULL))", "no empty code"),
        ("code_kinds", f"len(code_kinds) > len(list_filter(code_kinds, lambda k: {known}))",
         f"one of {', '.join(kinds)}"),
        ("code_days", "len(list_filter(list_zip(code_kinds, code_days), "
         f"lambda e: (e[1] = {quoted(STATIC)}) <> (e[2] IS NULL))) > 0", "a day, unless the code is static"),
        ("note_ids", f"(text IS NULL) <> ({nowhere.format('note_ids')})", "notes if there is a text, and none without"),
        ("entity_note_ids", f"(entity_text IS NULL) <> ({nowhere.format('entity_note_ids')})",
         "notes if there is an entity text, and none without"),
    )  # fmt: skip
    return [
        finding
        for column, wrong, expected in wanted
        for finding in found(tables, "pairs", column, f"SELECT place FROM pairs WHERE {wrong}", expected)
    ]


_ENTRIES: Final = f"""
    entries AS (SELECT * EXCLUDE (time), epoch_us(time) // 1000000 + day * {DAY} AS second FROM
        (SELECT place, recording_id, subject_id, time, unnest(codes) AS code, unnest(code_days)::DOUBLE AS day
        FROM pairs))"""
_ERROR: Final = f"1 + abs(day) * {DAY} / 2**24"
"""A float32 of days errs by 1 in 2**24, 2 s in a year; times count to the second."""

_NOT_OF_THE_CHART: Final = f"""
    WITH {_ENTRIES},
    dated AS (SELECT *, {_ERROR} AS error FROM entries WHERE isfinite(second)),
    latest AS (SELECT *, second - error AS low, second + error AS high FROM dated WHERE code IS NOT NULL),
    happened AS (SELECT subject_id, code, epoch_us(time) // 1000000 AS second FROM events WHERE time IS NOT NULL)
    SELECT place FROM latest p ASOF LEFT JOIN happened e
        ON p.subject_id = e.subject_id AND p.code = e.code AND p.high >= e.second
        WHERE e.second IS NULL OR e.second < p.low
    UNION
    SELECT place FROM (SELECT * FROM entries WHERE NOT coalesce(isfinite(second), false))
        ANTI JOIN events USING (subject_id, code)"""
"""Pairs with a dated code whose patient's last event of it up to then is earlier, or with another code that the patient
has no event of."""

_SAME_MOMENT: Final = f"coalesce(abs(epoch_us(e.time) // 1000000 - second) <= {_ERROR}, e.time IS NULL AND day IS NULL)"
_READ_FROM_IT: Final = f"""
    WITH {_ENTRIES},
    own AS (SELECT entries.* FROM entries JOIN events e USING (subject_id, code, recording_id) WHERE {_SAME_MOMENT})
    SELECT DISTINCT place FROM own WHERE NOT EXISTS (FROM events e WHERE e.subject_id = own.subject_id
        AND e.code = own.code AND e.recording_id IS DISTINCT FROM own.recording_id AND {_SAME_MOMENT})"""
"""Pairs with a code that only the events read from their own recording have at its time."""


def own_chart(tables: Tables) -> list[Finding]:
    """Every code of a pair is in the events of its patient, on its day; every note is one of its patient.

    Where the manifest says `own_codes` false, not only in the events that were read from the pair's own recording.
    """
    expected = "codes that the patient's own events have, on the days stated"
    findings = found(tables, "pairs", "codes", _NOT_OF_THE_CHART, expected)
    if "pair" in tables.manifests and not pairing(tables).own_codes:
        expected = "no code that was read from the pair's own recording alone (pairing.own_codes)"
        findings += found(tables, "pairs", "codes", _READ_FROM_IT, expected)
    for column in ("note_ids", "entity_note_ids"):
        notes = f"(SELECT place, subject_id, unnest({column}) AS note_id FROM pairs)"
        query = f"SELECT DISTINCT place FROM {notes} ANTI JOIN notes USING (subject_id, note_id)"
        findings += found(tables, "pairs", column, query, "notes of the same patient")
    return findings


def windows(tables: Tables) -> list[Finding]:
    """Codes and notes lie in the windows of the manifest: with `after` 0, before the recording."""
    config = pairing(tables)
    skew = round(60 * config.skew_minutes)
    low, high = _bounds(config.codes_before, config.codes_after, skew)
    late = f"list_max(code_days) {'>' if config.codes_after else '>='} CAST({high / DAY} AS FLOAT)"
    if not config.codes_after:
        moment = "epoch_us(time) // 1000000"
        at = f"{moment} + TRY_CAST(round(d * {DAY}) AS BIGINT)"
        late += f" OR len(list_filter(code_days, lambda d: {_latest(at)} >= {moment} + {high})) > 0"
    early = f"list_min(code_days) < CAST({low / DAY} AS FLOAT)"
    wrong = f"{early} OR {late} OR (time IS NULL AND list_max(code_days) IS NOT NULL)"
    expected = f"codes {_described(config.codes_before, config.codes_after)}"
    findings = found(tables, "pairs", "code_days", f"SELECT place FROM pairs WHERE {wrong}", expected)
    kinds = f"list_contains(CAST([{', '.join(map(quoted, config.note_kinds))}] AS VARCHAR[]), n.kind)"
    notes, entities = (config.notes_before, config.notes_after), (config.entities_before, config.entities_after)
    for column, window in (("note_ids", notes), ("entity_note_ids", entities)):
        findings += _notes(tables, column, _notes_inside(*window, skew), "notes " + _described(*window))
        findings += _notes(tables, column, kinds, f"notes of the kinds {', '.join(config.note_kinds)}")
    return findings


def _notes_inside(before: float, after: float, skew: int) -> str:
    """The condition that note n may be in pair p, times to the second."""
    low, high = _bounds(before, after, skew)
    moment, at = "epoch_us(p.time) // 1000000", "epoch_us(n.time) // 1000000"
    if after:  # a recording's own report belongs to it even where a time is missing
        return f"{at} - {moment} BETWEEN {low} AND {high} OR n.recording_id = p.recording_id"
    return f"{at} - {moment} >= {low} AND {_latest(at)} < {moment} + {high}"


def _latest(at: str) -> str:
    """The second at which an entry may have been made: a midnight is perhaps only a date, and counts for its day."""
    return f"{at} + CASE WHEN ({at}) % {DAY} = 0 THEN {DAY - 1} ELSE 0 END"


def _notes(tables: Tables, column: str, allowed: str, expected: str) -> list[Finding]:
    """Pairs that hold a note which is not allowed."""
    listed = f"SELECT place, recording_id, time, unnest({column}) AS note_id FROM pairs"
    query = (
        f"SELECT DISTINCT p.place FROM ({listed}) p "
        "JOIN (SELECT note_id, time, recording_id, kind FROM notes) n USING (note_id) "
        f"WHERE NOT coalesce({allowed}, false)"
    )
    return found(tables, "pairs", column, query, expected)


def _bounds(before: float, after: float, skew: int) -> tuple[int, int]:
    """Seconds from the recording: `skew` widens a window, but a window without a future ends so much earlier."""
    return -round(before * DAY + skew), round(after * DAY + skew) if after else -skew


def _described(before: float, after: float) -> str:
    return f"from {before:g} days before the recording to " + (f"{after:g} days after" if after else "before it")


PAIR_RULES: Final = (
    Rule("pairs-of-recordings", "Every recording has one pair, of its patient, time, split and signal.",
         ("pairs", "recordings"), pairs_of_recordings),
    Rule("pair-lists", "Codes, kinds and days of a pair belong together, texts have their notes.",
         ("pairs",), pair_lists),
    Rule("own-chart", "A pair holds codes and notes of its own patient only, the codes on their days.",
         ("pairs", "events", "notes"), own_chart),
    Rule("windows", "Nothing in a pair lies outside of its windows.", ("pairs", "notes", PAIR_MANIFEST), windows),
)  # fmt: skip
