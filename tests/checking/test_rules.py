"""Every rule finds what breaks it, and nothing else does; the good study breaks none."""

from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.checking.conftest import EMBEDDED, Rows, rows_of, settle, write_freely, write_rows

from einthoven import schema
from einthoven.checking.findings import HELD, NOT_CHECKED, RULES, Verdict
from einthoven.study import read_manifest, stage_manifest, write_manifest
from einthoven.waveforms.store import Store, StoreWriter

Judge = Callable[[Path], dict[str, Verdict]]
KEYED = (schema.RECORDINGS, schema.PAIRS, EMBEDDED)


def change(table: schema.Table, study: Path, place: int, /, **cells: Any) -> None:
    rows = rows_of(table, study)
    rows[place] |= cells
    write_freely(table, study, rows)


def everywhere(study: Path, recording: str, **cells: Any) -> None:
    """Change what recordings, pairs and embeddings all say of a recording."""
    for table in KEYED:
        rows = rows_of(table, study)
        for row in rows:
            if row["recording_id"] == recording:
                row |= {name: value for name, value in cells.items() if name in row}
        write_rows(table, study, rows)


def siblings(study: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two recordings of one patient."""
    rows = rows_of(schema.RECORDINGS, study)
    return next((a, b) for a, b in pairwise(rows) if a["subject_id"] == b["subject_id"])


def strangers(study: Path, same_split: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two recordings of two patients."""
    rows = rows_of(schema.RECORDINGS, study)
    return next(
        (a, b)
        for a in rows
        for b in rows
        if a["subject_id"] < b["subject_id"] and (a["split"] == b["split"]) == same_split
    )


def overwrite_signal(study: Path, row: int, by: int) -> None:
    store = Store.open(study)
    signals = store.read(range(store.rows))
    signals[row] = signals[by]
    with StoreWriter(study, store.sampling_rate, store.samples, store.rows, store.shard_rows) as writer:
        writer.write(0, signals)


def flipped_bit(study: Path) -> None:
    with (study / schema.WAVEFORMS / "00000.npy").open("r+b") as shard:
        (old,) = shard.seek(1000) and shard.read(1)
        shard.seek(1000)
        shard.write(bytes([old ^ 16]))


def split_a_patient(study: Path) -> None:
    first, second = siblings(study)
    other = "test" if first["split"] == "train" else "train"
    everywhere(study, second["recording_id"], split=other)


def repeat_a_recording(study: Path) -> None:
    rows = rows_of(schema.RECORDINGS, study)
    write_rows(schema.RECORDINGS, study, [*rows, rows[0] | {"row": None, "leads": None}])


def signal_in_two_splits(study: Path) -> None:
    a, b = strangers(study, same_split=False)
    overwrite_signal(study, a["row"], b["row"])


def signal_of_two_patients(study: Path) -> None:
    a, b = strangers(study, same_split=True)
    overwrite_signal(study, a["row"], b["row"])


def signal_twice_of_a_patient(study: Path) -> None:
    a, b = siblings(study)
    overwrite_signal(study, a["row"], b["row"])


def without(table: schema.Table, column: str) -> Callable[[Path], None]:
    return lambda study: pq.write_table(pq.read_table(table.at(study)).drop_columns([column]), table.at(study))


def with_type(table: schema.Table, column: str, kind: pa.DataType) -> Callable[[Path], None]:
    def spoil(study: Path) -> None:
        rows = pq.read_table(table.at(study))
        place = rows.column_names.index(column)
        pq.write_table(rows.set_column(place, column, rows[column].cast(kind)), table.at(study))

    return spoil


def damage(path: str, keep: float) -> Callable[[Path], None]:
    def spoil(study: Path) -> None:
        whole = (study / path).read_bytes()
        (study / path).write_bytes(whole[: int(keep * len(whole))])

    return spoil


def scramble(study: Path) -> None:
    """A Parquet file whose heading is whole and whose pages are not."""
    whole = bytearray(schema.NOTES.at(study).read_bytes())
    whole[100:4000] = bytes(3900)
    schema.NOTES.at(study).write_bytes(whole)


def gone(table: schema.Table) -> Callable[[Path], None]:
    return lambda study: table.at(study).unlink()


def no_store(study: Path) -> None:
    (study / schema.WAVEFORMS).rename(study / "elsewhere")


def cell(table: schema.Table, place: int, **cells: Any) -> Callable[[Path], None]:
    return lambda study: change(table, study, place, **cells)


def key(place: int, **cells: Any) -> Callable[[Path], None]:
    return lambda study: everywhere(study, rows_of(schema.RECORDINGS, study)[place]["recording_id"], **cells)


def rows_changed(table: schema.Table, how: Callable[[Rows], Rows]) -> Callable[[Path], None]:
    return lambda study: write_freely(table, study, how(rows_of(table, study)))


def swapped(row: int) -> Callable[[Rows], Rows]:
    return lambda rows: [*rows[:row], rows[row + 1], rows[row], *rows[row + 2 :]]


def point_astray(table: schema.Table) -> Callable[[Path], None]:
    """A row that names a recording of another patient."""

    def spoil(study: Path) -> None:
        rows = rows_of(table, study)
        place = next(i for i, row in enumerate(rows) if row["recording_id"] is not None)
        other = next(r for r in rows_of(schema.RECORDINGS, study) if r["subject_id"] != rows[place]["subject_id"])
        change(table, study, place, recording_id=other["recording_id"])

    return spoil


def a_kind_unknown(study: Path) -> None:
    """Of a note that is in no pair's text, since that would be a note of a kind not asked for as well."""
    read = {name for pair in rows_of(schema.PAIRS, study) for name in pair["note_ids"] + pair["entity_note_ids"]}
    place = next(i for i, note in enumerate(rows_of(schema.NOTES, study)) if note["note_id"] not in read)
    change(schema.NOTES, study, place, kind="letter")


def a_row_twice(study: Path) -> None:
    first, second = siblings(study)
    everywhere(study, second["recording_id"], row=first["row"])


def a_row_unused(study: Path) -> None:
    rows = rows_of(schema.RECORDINGS, study)
    name = rows[-1]["recording_id"]
    everywhere(study, name, row=None, leads=None)
    write_rows(EMBEDDED, study, [row for row in rows_of(EMBEDDED, study) if row["recording_id"] != name])


def codes_of(study: Path, **lists: Callable[[list[Any]], list[Any]]) -> None:
    pair = rows_of(schema.PAIRS, study)[0]
    change(schema.PAIRS, study, 0, **{name: how(pair[name]) for name, how in lists.items()})


def listed(**lists: Callable[[list[Any]], list[Any]]) -> Callable[[Path], None]:
    return lambda study: codes_of(study, **lists)


def ended(value: Any) -> Callable[[list[Any]], list[Any]]:
    return lambda values: [*values[:-1], value]


def moved(days: float) -> Callable[[Path], None]:
    """The last code of a pair, and an event of it, so many days from the recording."""

    def spoil(study: Path) -> None:
        pair, events = rows_of(schema.PAIRS, study)[0], rows_of(schema.EVENTS, study)
        codes_of(study, code_days=ended(days))
        first = next(event for event in events if event["subject_id"] == pair["subject_id"])
        event = {"code": pair["codes"][-1], "time": pair["time"] + timedelta(days=days)}
        events.append(dict.fromkeys(first) | {"subject_id": pair["subject_id"]} | event)
        write_rows(schema.EVENTS, study, sorted(events, key=lambda row: (row["subject_id"], str(row["time"] or ""))))

    return spoil


def settings(**changes: Any) -> Callable[[Path], None]:
    def spoil(study: Path) -> None:
        path = stage_manifest(study, "pair")
        manifest = read_manifest(path)
        assert manifest is not None
        write_manifest(path, {**manifest, "config": manifest["config"] | changes})

    return spoil


BROKEN: list[tuple[str, str, str, Callable[[Path], None]]] = [
    ("patient-across-splits", "recordings.parquet", "split", split_a_patient),
    ("recording-twice", "recordings.parquet", "recording_id", repeat_a_recording),
    ("signal-across-splits", "recordings.parquet", "row", signal_in_two_splits),
    ("signal-repeated", "recordings.parquet", "row", signal_of_two_patients),
    ("signal-repeated", "recordings.parquet", "row", signal_twice_of_a_patient),
    ("columns", "notes.parquet", "kind", without(schema.NOTES, "kind")),
    ("columns", "recordings.parquet", "age", with_type(schema.RECORDINGS, "age", pa.float64())),
    ("columns", "events.parquet", "", damage("events.parquet", 0.5)),
    ("columns", "notes.parquet", "", scramble),
    ("columns", "codes.parquet", "", damage("codes.parquet", 0)),
    ("columns", "pairs.parquet", "", gone(schema.PAIRS)),
    ("columns", "waveforms/store.json", "", damage("waveforms/00000.npy", 0.9)),
    ("columns", "waveforms/store.json", "", damage("waveforms/store.json", 0.5)),
    ("columns", "waveforms/store.json", "", flipped_bit),
    ("columns", "recordings.parquet", "row", no_store),
    ("empty-cells", "notes.parquet", "text", cell(schema.NOTES, 3, text=None)),
    ("empty-cells", "entities.parquet", "negated", cell(schema.ENTITIES, 0, negated=None)),
    ("values", "recordings.parquet", "split", key(0, split="dev")),
    ("values", "recordings.parquet", "sex", cell(schema.RECORDINGS, 0, sex="F")),
    ("values", "recordings.parquet", "age", cell(schema.RECORDINGS, 0, age=300.0)),
    ("values", "recordings.parquet", "age", cell(schema.RECORDINGS, 0, age=float("nan"))),
    ("values", "recordings.parquet", "source_rate", cell(schema.RECORDINGS, 0, source_rate=0.0)),
    ("values", "notes.parquet", "kind", a_kind_unknown),
    ("values", "entities.parquet", "label", cell(schema.ENTITIES, 0, label="gene")),
    ("values", "entities.parquet", "end", cell(schema.ENTITIES, 0, end=0)),
    ("repeated-ids", "codes.parquet", "code", rows_changed(schema.CODES, lambda rows: [*rows, rows[0]])),
    ("repeated-ids", "pairs.parquet", "recording_id", rows_changed(schema.PAIRS, lambda rows: [rows[0], *rows])),
    ("order", "events.parquet", "", rows_changed(schema.EVENTS, swapped(0))),  # the static event after a dated one
    ("order", "events.parquet", "", rows_changed(schema.EVENTS, lambda rows: rows[::-1])),
    ("order", "notes.parquet", "", rows_changed(schema.NOTES, lambda rows: [rows[-1], *rows[:-1]])),
    ("order", "pairs.parquet", "", rows_changed(schema.PAIRS, swapped(3))),
    ("order", "entities.parquet", "", rows_changed(schema.ENTITIES, swapped(0))),
    ("order", "entities.parquet", "note_id", rows_changed(schema.ENTITIES, lambda rows: [*rows[1:], rows[0]])),
    ("references", "events.parquet", "recording_id", point_astray(schema.EVENTS)),
    ("references", "entities.parquet", "note_id",
     rows_changed(schema.ENTITIES, lambda rows: [*rows, rows[0] | {"note_id": "nowhere"}])),
    ("references", "entities.parquet", "note_id", cell(schema.ENTITIES, 0, subject_id=-1)),
    ("references", "entities.parquet", "end", cell(schema.ENTITIES, 1, end=10**6)),
    ("embeddings", EMBEDDED.path, "recording_id", rows_changed(EMBEDDED, lambda rows: rows[1:])),
    ("embeddings", EMBEDDED.path, "recording_id", cell(EMBEDDED, 0, subject_id=-1)),
    ("embeddings", EMBEDDED.path, "embedding", cell(EMBEDDED, 0, embedding=[0.5] * 8)),
    ("embeddings", EMBEDDED.path, "embedding", cell(EMBEDDED, 0, embedding=[float("nan")] * 8)),
    ("embeddings", EMBEDDED.path, "features", cell(EMBEDDED, 0, features=[1.0])),
    ("store", "recordings.parquet", "row", key(-1, row=10**6)),
    ("store", "recordings.parquet", "row", a_row_twice),
    ("store", "recordings.parquet", "leads", cell(schema.RECORDINGS, 0, leads=7)),
    ("store", "recordings.parquet", "leads", cell(schema.RECORDINGS, 0, leads=None)),
    ("store", "waveforms/store.json", "", a_row_unused),
    ("pairs-of-recordings", "pairs.parquet", "recording_id", rows_changed(schema.PAIRS, lambda rows: rows[1:])),
    ("pairs-of-recordings", "pairs.parquet", "recording_id", cell(schema.PAIRS, 0, row=None)),
    ("pair-lists", "pairs.parquet", "code_days", listed(code_days=lambda days: days[:-1])),
    ("pair-lists", "pairs.parquet", "code_kinds", listed(code_kinds=ended("gene"))),
    ("pair-lists", "pairs.parquet", "code_days", listed(code_days=ended(None))),
    ("pair-lists", "pairs.parquet", "code_days", listed(code_kinds=ended("static"))),
    ("pair-lists", "pairs.parquet", "note_ids", cell(schema.PAIRS, 0, note_ids=[])),
    ("pair-lists", "pairs.parquet", "entity_note_ids", cell(schema.PAIRS, 0, entity_text="x", entity_note_ids=[])),
    ("own-chart", "pairs.parquet", "codes", listed(codes=ended("DIAGNOSIS//X"))),
    ("own-chart", "pairs.parquet", "codes", listed(codes=lambda codes: ["GENDER//Y", *codes[1:]])),
    ("own-chart", "pairs.parquet", "codes", listed(code_days=lambda days: [*days[:-1], days[-1] + 5 / 86_400])),
    ("own-chart", "pairs.parquet", "codes", listed(code_days=lambda days: [*days[:-1], days[-1] - 5 / 86_400])),
    ("own-chart", "pairs.parquet", "codes", settings(own_codes=False)),  # its own findings are in it
    ("own-chart", "pairs.parquet", "note_ids", cell(schema.PAIRS, 0, text="x", note_ids=["nowhere"])),
    ("windows", "pairs.parquet", "code_days", moved(365.1)),
    ("windows", "pairs.parquet", "code_days", moved(-365.1)),
    ("windows", "pairs.parquet", "code_days", listed(code_days=ended(float("nan")))),
    ("windows", "pairs.parquet", "code_days", settings(codes_after=0)),  # the recording's own findings, at day 0
    ("windows", "pairs.parquet", "note_ids", settings(notes_after=0)),  # its own report
    ("windows", "pairs.parquet", "note_ids", settings(note_kinds=["echo"])),
    ("windows", "pairs.parquet", "entity_note_ids", settings(note_kinds=[])),
    ("windows", "pairs.parquet", "entity_note_ids", settings(entities_before=1)),
]  # fmt: skip


def test_the_good_study_breaks_no_rule(unspoilt: Path, judge: Judge) -> None:
    assert {verdict.state for verdict in judge(unspoilt).values()} == {HELD}


@pytest.mark.parametrize(("rule", "file", "column", "spoil"), BROKEN)
def test_a_broken_rule_is_found_and_only_it(
    study: Path, judge: Judge, rule: str, file: str, column: str, spoil: Callable[[Path], None]
) -> None:
    spoil(study)
    settle(study) if rule != "columns" else None
    verdicts = judge(study)
    broken = [name for name, verdict in verdicts.items() if verdict.findings]
    assert broken == [rule], {name: verdicts[name].findings for name in broken}
    found = verdicts[rule].findings
    assert file in {finding.file for finding in found}
    assert column in {finding.column for finding in found if finding.file == file}
    assert all(finding.remedy and finding.expected and len(finding.rows) <= 5 for finding in found)
    assert verdicts[rule].state == {"signal-repeated": "note"}.get(
        rule, "warning" if file.startswith("waveforms") and rule == "store" else "error"
    )
    if rule != "columns":
        assert all(verdict.state == HELD for name, verdict in verdicts.items() if name != rule)


def test_every_rule_is_tried_above() -> None:
    assert {rule.name for rule in RULES} == {rule for rule, *_ in BROKEN} | {"stale"}


def test_rows_are_numbered_from_1_as_in_the_file(study: Path, judge: Judge) -> None:
    for row in (1, 4, 5):
        change(schema.RECORDINGS, study, row, sex="F")
    settle(study)
    (finding,) = judge(study)["values"].findings
    assert (finding.count, finding.rows) == (3, (2, 5, 6))


def test_messages_hold_no_cell(study: Path, judge: Judge) -> None:
    secret = "Jane Roe 1234"
    change(schema.RECORDINGS, study, 0, sex=secret)
    change(schema.NOTES, study, 0, kind=secret)
    rows = rows_of(schema.RECORDINGS, study)
    write_rows(schema.RECORDINGS, study, [*rows, rows[1]])
    told = repr([verdict.findings for verdict in judge(study).values() if verdict.findings])
    assert secret not in told and rows[1]["recording_id"] not in told


def test_a_table_changed_after_what_was_made_of_it_is_told(study: Path, judge: Judge) -> None:
    change(schema.NOTES, study, 0, text="another text")
    verdicts = judge(study)
    assert [name for name, verdict in verdicts.items() if verdict.findings] == ["stale"]
    expected = {finding.file: finding.expected for finding in verdicts["stale"].findings}
    assert set(expected) == {"entities.parquet", "pairs.parquet", "notes.parquet"}
    assert expected["notes.parquet"] == "as its stage wrote it"


def test_embeddings_of_an_earlier_ingest_and_an_interrupted_stage_are_warnings(study: Path, judge: Judge) -> None:
    ingested = stage_manifest(study, "ingest")
    ingested.write_text(ingested.read_text() + "\n")
    stage_manifest(study, "pair").unlink()
    change(EMBEDDED, study, 0, subject_id=-1)
    verdicts = judge(study)
    assert [name for name, verdict in verdicts.items() if verdict.findings] == ["stale"]
    assert verdicts["stale"].state == "warning"
    assert {finding.file for finding in verdicts["stale"].findings} == {EMBEDDED.path, "pairs.parquet"}
    assert verdicts["windows"].state == NOT_CHECKED


def test_what_was_not_made_yet_is_not_checked(study: Path, judge: Judge) -> None:
    for stage, table in (("pair", schema.PAIRS), ("entities", schema.ENTITIES)):
        stage_manifest(study, stage).unlink()
        table.at(study).unlink()
    verdicts = judge(study)
    assert not any(verdict.findings for verdict in verdicts.values())
    assert verdicts["own-chart"].state == NOT_CHECKED and "pairs" in verdicts["own-chart"].missing


def test_a_study_of_recordings_without_any_signal_is_sound(study: Path, judge: Judge) -> None:
    for table in KEYED:
        rows = [row | {name: None for name in ("row", "leads") if name in row} for row in rows_of(table, study)]
        write_rows(table, study, [] if table is EMBEDDED else rows)
    no_store(study)
    settle(study)
    verdicts = judge(study)
    assert not any(verdict.findings for verdict in verdicts.values())
    assert verdicts["signal-across-splits"].state == NOT_CHECKED
