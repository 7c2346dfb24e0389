"""NOTE and NOTE_NLP of an OMOP CDM -> notes and the mentions that the hospital's own language processing found.

Reasons of exclusion: bad-row, duplicate-id, no-time, empty-text for notes; bad-row, no-concept, other-domain, no-note
for mentions.
"""

from pathlib import Path
from typing import Any, Final

import ibis

from einthoven import config as configuration
from einthoven import schema
from einthoven.sources.omop_tables import Cdm
from einthoven.sources.tabular import NOTE_ORDER, SourceTable, filled, write_rows
from einthoven.study import remove

_NOTE: Final = {
    "note_id": "int64",
    "person_id": "int64",
    "note_datetime": "timestamp(6)",
    "note_date": "timestamp(6)",
    "note_type_concept_id": "int64",
    "note_class_concept_id": "int64",
    "note_title": "string",
    "note_text": "string",
}
_NOTE_NLP: Final = {
    "note_id": "int64",
    "note_nlp_concept_id": "int64",
    "offset": "string",
    "lexical_variant": "string",
    "term_exists": "string",
    "term_temporal": "string",
    "term_modifiers": "string",
}

_YES: Final = "(?:true|t|yes|y|1)"
FLAGS: Final = {
    "negated": rf",(?:negated|negation)[=:](?:negated|{_YES}),",
    "uncertain": rf",(?:uncertain|uncertainty|rule_?out)[=:]{_YES},",
    "historical": rf",(?:(?:historical|history)[=:]{_YES}|(?:temporal|temporality)[=:](?:past|history|historical)),",
    "hypothetical": rf",(?:conditional|hypothetical)[=:]{_YES},",
}
"""What makes a mention negated …, searched in its modifiers as `_plain` writes them."""

SURE: Final = ("", "certain", "high", "definite", "positive", "confirmed", "true", "very high")
PATIENT: Final = ("", "patient", "self")
PAST: Final = ("past", "history", "historical", "history of", "history=true", "previous")
NO: Final = ("n", "no", "false", "f", "0")


def read_notes(cdm: Cdm, config: configuration.Source, concepts: Any, study: Path) -> dict[str, int]:
    """Write NOTES and, where NOTE_NLP is there, SUPPLIED_ENTITIES; counts of both."""
    remove(schema.SUPPLIED_ENTITIES.at(study))
    found = cdm.load("note", _NOTE, ("note_id", "person_id"), {"indent": _indent})
    if found is None:
        write_rows(schema.NOTES, study, ibis.memtable(schema.NOTES.columns.empty_table()))
        return {"notes": 0}
    found = cdm.first_of(found, "note_id")
    time = ibis.coalesce(found.rows.note_datetime, found.rows.note_date)
    found = cdm.keep(found, time.notnull(), "no-time", "columns note_datetime and note_date: empty")
    found = cdm.keep(found, found.rows.note_text.notnull(), "empty-text", "column note_text: empty")
    notes = write_rows(schema.NOTES, study, _notes(found.rows, concepts, config), NOTE_ORDER)
    return {"notes": notes} | _read_mentions(cdm, found.rows, concepts, study)


def _indent(rows: Any) -> Any:
    """Characters of blank before a note's text: cells are stripped, offsets count from before that."""
    text = rows.note_text.cast("string")
    return text.length() - text.lstrip().length()


def _notes(rows: Any, concepts: Any, config: configuration.Source) -> Any:
    """NOTES rows. A note's kind is told by its class, else its type, else its title."""
    classes = concepts.select(class_id="concept_id", class_name="name")
    types = concepts.select(type_id="concept_id", type_name="name")
    rows = rows.left_join(classes, rows.note_class_concept_id == classes.class_id)
    rows = rows.left_join(types, rows.note_type_concept_id == types.type_id)
    kinds = [(name.strip().lower(), kind) for name, kind in config.note_kinds.items()]
    told = [name.lower().cases(*kinds) for name in (rows.class_name, rows.type_name, rows.note_title) if kinds]
    notes = rows.select(
        time=ibis.coalesce(rows.note_datetime, rows.note_date),
        note_id=_note_id(rows.note_id),
        subject_id=rows.person_id,
        kind=ibis.coalesce(*told, ibis.literal(config.note_kind)),
        text=rows.note_text,
    )
    return filled(schema.NOTES, notes)


def _note_id(number: Any) -> Any:
    return "omop-" + number.cast("string")


def _read_mentions(cdm: Cdm, notes: Any, concepts: Any, study: Path) -> dict[str, int]:
    """Write SUPPLIED_ENTITIES from NOTE_NLP, where it is there; counts."""
    found = cdm.load("note_nlp", _NOTE_NLP, ("note_id", "note_nlp_concept_id"))
    if found is None:
        return {}
    named = concepts.mutate(label=label(concepts))
    joined = found.rows.left_join(named, found.rows.note_nlp_concept_id == named.concept_id)
    table = SourceTable(found.file, joined)
    table = cdm.keep(
        table, joined.name.notnull(), "no-concept", "column note_nlp_concept_id: no concept of that number"
    )
    table = cdm.keep(
        table, table.rows.label.notnull(), "other-domain", "column note_nlp_concept_id: no clinical domain"
    )
    rows = table.rows
    texts = notes.select("note_id", "indent", length=notes.note_text.length())
    orphans = rows.anti_join(texts, "note_id")
    cdm.refuse(table, orphans, "no-note", "column note_id: no such note in the study")
    mentions = _mentions(rows.inner_join(texts, "note_id"))
    order = mentions.columns
    count = write_rows(schema.SUPPLIED_ENTITIES, study, mentions, order)
    return {"mentions": count, "unplaced": int(mentions.filter(mentions.end == 0).count().to_pyarrow().as_py())}


def label(concepts: Any) -> Any:
    """One of ENTITY_LABELS by a concept's domain, or null. A symptom is what ICD's chapter of symptoms holds."""
    symptom = concepts.code.re_search(r"^ICD//(10//R|9//7[89]\d)")
    return ibis.cases(
        ((concepts.domain == "Condition") & symptom, "symptom"),
        (concepts.domain == "Condition", "disease"),
        (concepts.domain == "Drug", "medication"),
        (concepts.domain == "Procedure", "procedure"),
        (concepts.domain.isin(["Measurement", "Observation"]), "finding"),
    )


def _mentions(rows: Any) -> Any:
    """ENTITIES rows for mentions joined with their concept and note, in the order in which they are to be sorted."""
    start, end = place(rows)
    return rows.select(
        note_id=_note_id(rows.note_id),
        start=start,
        end=end,
        term=rows.name,
        label=rows.label,
        code=rows.code,
        **attributes(rows),
    )


def place(rows: Any) -> tuple[Any, Any]:
    """Where a mention lies in the note's stripped text, from `offset` ("12" or "12-20") and `lexical_variant`.

    (0, 0) where that is not told, or lies outside of the text: nothing is searched for.
    """
    offset = rows.offset.fill_null("")
    told = offset.re_extract(r"^(\d{1,9})", 1).nullif("").cast("int64")
    stop = offset.re_extract(r"^\d{1,9}\s*(?:-|,|:|;|\.\.)\s*(\d{1,9})$", 1).nullif("").cast("int64")
    end = ibis.ifelse((stop > told).fill_null(False), stop, told + rows.lexical_variant.length())
    first, last = told - rows.indent, end - rows.indent
    inside = ((first >= 0) & (last > first) & (last <= rows.length)).fill_null(False)
    return tuple(ibis.ifelse(inside, value, 0).cast("int32") for value in (first, last))


def attributes(rows: Any) -> dict[str, Any]:
    """negated, uncertain, historical, family and hypothetical, from term_exists, term_temporal and term_modifiers."""
    modifiers = _plain(rows.term_modifiers)
    told = {name: modifiers.re_search(pattern) for name, pattern in FLAGS.items()}
    subject = modifiers.re_extract(",subject[=:]([^,]*),", 1)
    certainty = modifiers.re_extract(",certainty[=:]([^,]*),", 1)
    absent, past = (rows[name].fill_null("").strip().lower() for name in ("term_exists", "term_temporal"))
    return {
        "negated": told["negated"] | absent.isin(NO),
        "uncertain": told["uncertain"] | certainty.notin(SURE),
        "historical": told["historical"] | past.isin(PAST),
        "family": subject.notin(PATIENT),
        "hypothetical": told["hypothetical"],
    }


def _plain(modifiers: Any) -> Any:
    """`Negated = True; Subject=family` as `,negated=true,subject=family,`."""
    listed = "," + modifiers.fill_null("").lower() + ","
    return listed.re_replace(r"[\s\"'{}]*([=:,;])[\s\"'{}]*", r"\1").replace(";", ",")
