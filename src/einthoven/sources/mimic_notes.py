"""MIMIC-IV-Note -> notes: discharge letters and radiology reports.

The cardiologists' own ECG notes are not released. MIMIC-IV-ECG links them to recordings, though, so a note of
that identifier in a copy that has it is tied to its recording.
"""

from collections.abc import Mapping
from typing import Any, Final

import ibis

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources.mimic_ecg import recording_id
from einthoven.sources.mimic_tables import Published

TYPES: Final = {"DS": "clinical", "AD": "clinical", "RR": "radiology", "AR": "radiology", "EK": "ecg"}
"""`note_type` -> kind, before the recipe's `note_kinds`: letters, radiology reports, their addenda, and ECG notes."""

_TABLES: Final = {"discharge": "clinical", "radiology": "radiology"}
"""Table -> kind of its notes whose type is another, or none."""


def check_kinds(kinds: Mapping[str, str]) -> None:
    """Refuse a note type that MIMIC does not have: it would map nothing."""
    for name in kinds:
        if name not in TYPES:
            raise EinthovenError(f"source: note_kinds {name!r}: MIMIC's note types are {', '.join(TYPES)}.")


def read_notes(published: Published, recordings: Any, kinds: Mapping[str, str]) -> Any:
    """NOTES rows; `recordings` is an ibis.Table of those kept. Reasons of exclusion: bad-row, duplicate-id."""
    links = published.take("waveform_note_links", "note_id").rows
    links = links.select("note_id", "subject_id", recording_id=recording_id(links))
    links = links.semi_join(recordings, ["recording_id", "subject_id"])
    parts: list[Any] = []
    for name, kind in _TABLES.items():
        table = published.take(name, "note_id")
        for before in parts:
            again = table.rows.semi_join(before, "note_id")
            published.refuse(table, again, "duplicate-id", "column note_id: the same as in another table")
            table = type(table)(table.file, table.rows.anti_join(before, "note_id"))
        rows = table.rows.left_join(links, ["note_id", "subject_id"])
        parts.append(
            rows.select(
                "note_id",
                "subject_id",
                time=rows.charttime,
                kind=_kind(rows.note_type, TYPES | dict(kinds), kind),
                text=rows.text,
                recording_id=rows.recording_id,
                code=ibis.null("string"),
            )
        )
    return ibis.union(*parts).select(*schema.NOTES.columns.names)


def _kind(note_type: Any, kinds: Mapping[str, str], other: str) -> Any:
    return note_type.upper().cases(*kinds.items(), else_=other)
