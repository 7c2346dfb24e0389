"""The stage: each text once, supplied mentions kept, a cache without text that a kill does not spoil."""

import datetime as dt
import os
import signal
import threading
from pathlib import Path
from typing import Any

import ibis
import pyarrow as pa
import pytest

from einthoven import pipeline, schema
from einthoven.config import Entities
from einthoven.entities import extract as stage
from einthoven.entities.extract import extract, rendered
from einthoven.errors import EinthovenError
from einthoven.study import read_table, write_json, write_table

OWN = "term\tpreferred\tlabel\tcode\tlanguage\tcase\n"
LEXICON = OWN + "af\tatrial fibrillation\tdisease\tSCP//AFIB\ten\t\nfever\tfever\tsymptom\t\ten\t\n"


def write_notes(study: Path, texts: list[str]) -> None:
    rows = [
        {"note_id": f"n{i}", "subject_id": 1, "time": dt.datetime(2020, 1, 1), "kind": "clinical", "text": text}
        for i, text in enumerate(texts)
    ]
    write_table(schema.NOTES, study, pa.Table.from_pylist(rows, schema=schema.NOTES.columns))


def mention(note: str, term: str = "supplied", **flags: Any) -> dict[str, Any]:
    plain = dict.fromkeys(("negated", "uncertain", "historical", "family", "hypothetical"), False)
    return {"note_id": note, "start": 0, "end": 2, "term": term, "label": "disease", "code": None, **plain, **flags}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=schema.ENTITIES.columns)


def silent(done: int, total: int) -> None:
    """No progress."""


@pytest.fixture
def config(tmp_path: Path) -> Entities:
    (tmp_path / "own.tsv").write_text(LEXICON)
    return Entities(lexicon=str(tmp_path / "own.tsv"), replace=True)


@pytest.mark.parametrize("processes", [1, 2])
def test_every_note_has_its_mentions_and_each_text_is_read_once(
    tmp_path: Path, config: Entities, processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "ALONE", 0)
    monkeypatch.setattr(stage, "BLOCK", 2)
    texts = ["No AF.", "AF, possible AF.", "nothing", "No AF.", "fever now", "Father had AF."]
    write_notes(tmp_path, texts)
    steps: list[tuple[int, int]] = []
    counts = extract(config, tmp_path, lambda done, total: steps.append((done, total)), processes=processes)
    found = read_table(schema.ENTITIES, tmp_path).to_pylist()
    assert [(row["note_id"], texts[int(row["note_id"][1:])][row["start"] : row["end"]]) for row in found] == [
        ("n0", "AF"), ("n1", "AF"), ("n1", "AF"), ("n3", "AF"), ("n4", "fever"), ("n5", "AF"),
    ]  # fmt: skip
    assert [row["negated"] for row in found] == [True, False, False, True, False, False]
    assert [row["uncertain"] for row in found] == [False, False, True, False, False, False]
    assert found[0]["term"] == "atrial fibrillation" and found[0]["code"] == "SCP//AFIB" and found[4]["code"] is None
    assert counts["notes"] == 6 and counts["distinct_texts"] == counts["texts_read"] == 5
    assert (counts["mentions"], counts["negated"], counts["family"]) == (6, 2, 1)
    assert steps[-1] == (5, 5)


def test_only_new_texts_are_read_and_another_lexicon_reads_all(tmp_path: Path, config: Entities) -> None:
    write_notes(tmp_path, ["AF", "fever"])
    assert extract(config, tmp_path, silent)["texts_read"] == 2
    write_notes(tmp_path, ["fever", "AF", "no fever"])
    assert extract(config, tmp_path, silent)["texts_read"] == 1
    assert [row["note_id"] for row in read_table(schema.ENTITIES, tmp_path).to_pylist()] == ["n0", "n1", "n2"]
    Path(str(config.lexicon)).write_text(LEXICON.replace("atrial fibrillation", "afib"))
    assert extract(config, tmp_path, silent)["texts_read"] == 3
    assert len(list((tmp_path / ".entities").iterdir())) == 1


def test_a_killed_run_goes_on_and_ends_alike(tmp_path: Path, config: Entities, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "BLOCK", 1)
    write_notes(tmp_path, ["AF", "fever", "no AF"])

    def killed(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(config, tmp_path, killed)
    assert not schema.ENTITIES.at(tmp_path).exists()
    assert extract(config, tmp_path, silent)["texts_read"] == 1
    assert [row["negated"] for row in read_table(schema.ENTITIES, tmp_path).to_pylist()] == [False, False, True]


def test_the_cache_holds_no_text(tmp_path: Path, config: Entities) -> None:
    write_notes(tmp_path, ["AF after the xylophone"])
    extract(config, tmp_path, silent)
    blocks = list((tmp_path / ".entities").rglob("*.parquet"))
    assert blocks and all(b"xylophone" not in block.read_bytes() for block in blocks)


def test_supplied_mentions_hold_for_their_notes(tmp_path: Path, config: Entities) -> None:
    write_notes(tmp_path, ["AF", "AF", "fever"])
    write_table(schema.SUPPLIED_ENTITIES, tmp_path, table([mention("n1", negated=True)]))
    counts = extract(config, tmp_path, silent)
    assert counts["supplied_notes"] == 1
    terms = [row["term"] for row in read_table(schema.ENTITIES, tmp_path).to_pylist()]
    assert terms == ["atrial fibrillation", "supplied", "fever"]
    extract(Entities(lexicon=config.lexicon, replace=True, use_supplied=False), tmp_path, silent)
    terms = [row["term"] for row in read_table(schema.ENTITIES, tmp_path).to_pylist()]
    assert terms == ["atrial fibrillation", "atrial fibrillation", "fever"]


def test_no_notes_no_entities(tmp_path: Path, config: Entities) -> None:
    write_notes(tmp_path, [])
    assert extract(config, tmp_path, silent)["mentions"] == 0
    assert read_table(schema.ENTITIES, tmp_path).num_rows == 0


def test_a_process_that_is_killed_while_it_starts_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for want of memory. The shipped lexicon is more than a pipe holds."""
    monkeypatch.setattr(stage, "ALONE", 0)
    write_notes(tmp_path, ["AF", "fever"])
    ended = threading.Event()

    def kill_each() -> None:
        while not ended.wait(0.005):
            for task in Path("/proc/self/task").iterdir():
                for child in (task / "children").read_text().split():
                    if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                        os.kill(int(child), signal.SIGKILL)

    killer = threading.Thread(target=kill_each)
    killer.start()
    try:
        with pytest.raises(EinthovenError, match="a process that read notes was killed"):
            extract(Entities(), tmp_path, silent, processes=2)
    finally:
        ended.set()
        killer.join()
    monkeypatch.undo()
    assert extract(Entities(), tmp_path, silent)["mentions"] == 2


@pytest.mark.parametrize("place", [0, 40, -1])
def test_a_damaged_block_is_read_again(tmp_path: Path, config: Entities, place: int) -> None:
    write_notes(tmp_path, ["AF"])
    assert extract(config, tmp_path, silent)["texts_read"] == 1
    assert extract(config, tmp_path, silent)["texts_read"] == 0
    (block,) = (tmp_path / ".entities").rglob("*.parquet")
    whole, made = block.read_bytes(), schema.ENTITIES.at(tmp_path).read_bytes()
    changed = bytearray(whole)
    changed[place] ^= 4
    for damaged in (changed, whole[: len(whole) // 2], b""):
        block.write_bytes(damaged)
        assert extract(config, tmp_path, silent)["texts_read"] == 1
        assert schema.ENTITIES.at(tmp_path).read_bytes() == made and block.read_bytes() == whole


def test_the_stage_runs_once(tmp_path: Path, config: Entities) -> None:
    write_notes(tmp_path, ["AF"])
    write_json(tmp_path / "manifests" / "ingest.json", {"counts": {"data_kind": "simulated"}})
    assert pipeline.entities(config, tmp_path).fresh
    assert not pipeline.entities(config, tmp_path).fresh
    assert not pipeline.entities(Entities(lexicon=config.lexicon, replace=True, uncertain=False), tmp_path).fresh
    write_notes(tmp_path, ["AF", "fever"])
    assert pipeline.entities(config, tmp_path).counts["texts_read"] == 1


def words_of(row: dict[str, Any], config: Entities) -> str | None:
    """`rendered`, plainly."""
    if row["negated"] or row["family"] or row["hypothetical"] or row["label"] not in config.labels:
        return None
    if (row["uncertain"] and not config.uncertain) or (row["historical"] and not config.historical):
        return None
    return ("possible " if row["uncertain"] else "") + ("history of " if row["historical"] else "") + str(row["term"])


@pytest.mark.parametrize("uncertain", [True, False])
@pytest.mark.parametrize("historical", [True, False])
@pytest.mark.parametrize("labels", [schema.ENTITY_LABELS, ("symptom",), ()])
def test_rendered_is_the_plain_loop(uncertain: bool, historical: bool, labels: tuple[str, ...]) -> None:
    names = ("negated", "uncertain", "historical", "family", "hypothetical")
    rows = [
        mention(
            f"n{number}-{label}", "term", label=label, **{name: bool(number >> i & 1) for i, name in enumerate(names)}
        )
        for number in range(32)
        for label in schema.ENTITY_LABELS
    ]
    config = Entities(uncertain=uncertain, historical=historical, labels=labels)
    found = rendered(ibis.memtable(table([{**row, "subject_id": 1} for row in rows])), config).to_pyarrow().to_pylist()
    expected = [
        {"subject_id": 1, "note_id": row["note_id"], "start": 0, "words": words_of(row, config)} for row in rows
    ]
    expected = [one for one in expected if one["words"] is not None]
    assert sorted(found, key=lambda one: one["note_id"]) == sorted(expected, key=lambda one: str(one["note_id"]))
