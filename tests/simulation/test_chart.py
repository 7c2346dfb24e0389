"""The simulated chart: what is said, denied, doubted and remembered around a recording."""

from datetime import datetime, timedelta

import numpy as np
import pytest

from einthoven.schema import CODES, EVENTS, NOTE_KINDS, NOTES
from einthoven.simulation.chart import Chart, Recorded, write_chart
from einthoven.simulation.findings import (
    ALIASES,
    CATALOGUE,
    CLASSES,
    EXCLUSIONS,
    RHYTHMS,
    consistent,
    draw_findings,
    draw_later,
)

TIME = datetime(2020, 3, 4, 5, 6)


def recorded(findings: list[frozenset[str]], age: float | None = 60.0) -> list[Recorded]:
    return [Recorded(f"r{i}", i, TIME, age, "female", each) for i, each in enumerate(findings)]


@pytest.fixture(scope="module")
def drawn() -> list[frozenset[str]]:
    return draw_findings(1500, np.random.default_rng(0))


@pytest.fixture(scope="module")
def chart(drawn: list[frozenset[str]]) -> Chart:
    return write_chart(recorded(drawn), np.random.default_rng(1))


def test_every_class_is_common_enough_to_evaluate(drawn: list[frozenset[str]]) -> None:
    for name in CLASSES:
        share = np.mean([any(CATALOGUE[code].superclass == name for code in each) for each in drawn])
        assert share >= 0.12, name


def test_drawn_findings_can_stand_together(drawn: list[frozenset[str]]) -> None:
    rng = np.random.default_rng(3)
    for each in drawn + [draw_later(each, rng) for each in drawn]:
        assert len(each & set(RHYTHMS)) == 1
        assert each == consistent(each)
        for code, excluded in EXCLUSIONS.items():
            assert code not in each or each.isdisjoint(excluded)
        assert "NORM" not in each or each <= {"NORM", "SR", "SBRAD", "STACH"}


def test_later_recordings_keep_scars_and_devices(drawn: list[frozenset[str]]) -> None:
    rng = np.random.default_rng(4)
    paced = [each for each in drawn if "PACE" in each]
    assert paced and all("PACE" in draw_later(each, rng) for each in paced)
    assert np.mean([draw_later(each, rng) == each for each in drawn]) > 0.6


def test_catalogue_is_complete() -> None:
    for finding in CATALOGUE.values():
        assert finding.description and finding.term and finding.term_de
        assert len(finding.phrases) >= 3 and len(finding.phrases_de) >= 2
        assert set(finding.elsewhere) <= set(NOTE_KINDS)
        for code, description in (*finding.diagnoses, *finding.procedures):
            assert description and "." not in code
    assert set(ALIASES.values()) <= set(CATALOGUE)


def test_columns_order_and_window(chart: Chart) -> None:
    assert chart.events.schema.equals(EVENTS.columns)
    assert chart.notes.schema.equals(NOTES.columns)
    assert chart.codes.schema.equals(CODES.columns)
    rows = chart.events.to_pylist()
    assert rows == sorted(rows, key=lambda row: (row["subject_id"], row["time"], row["code"]))
    for row in rows + chart.notes.to_pylist():
        assert abs(row["time"] - TIME) <= timedelta(days=365)
    days = np.array([(row["time"] - TIME).days for row in rows if row["code"].startswith("DIAGNOSIS")])
    assert (days < -180).any() and (days > 180).any()


def test_codes_have_descriptions_and_meds_form(chart: Chart) -> None:
    assert set(chart.codes["code"].to_pylist()) == set(chart.events["code"].to_pylist())
    assert all(chart.codes["description"].to_pylist())
    kinds = {code.split("//")[0] for code in chart.codes["code"].to_pylist()}
    assert kinds == {"DIAGNOSIS", "PROCEDURE", "MEDICATION"}
    assert "DIAGNOSIS//ICD//10//I4891" in chart.codes["code"].to_pylist()


def test_codes_speak_of_the_findings_but_not_always(drawn: list[frozenset[str]], chart: Chart) -> None:
    coded: dict[int, set[str]] = {}
    for subject, code in zip(chart.events["subject_id"].to_pylist(), chart.events["code"].to_pylist(), strict=True):
        coded.setdefault(subject, set()).add(code)

    def share(with_finding: bool) -> float:
        atrial = {code for code, _ in CATALOGUE["AFIB"].diagnoses}
        return float(
            np.mean([bool(coded.get(i, set()) & atrial) for i, s in enumerate(drawn) if ("AFIB" in s) == with_finding])
        )

    assert 0.6 < share(True) < 0.95
    assert 0 < share(False) < 0.1  # a history of it


def test_all_kinds_and_one_report_per_recording(drawn: list[frozenset[str]], chart: Chart) -> None:
    notes = chart.notes.to_pylist()
    assert {note["kind"] for note in notes} == set(NOTE_KINDS)
    reports = [note for note in notes if note["kind"] == "ecg"]
    assert all(note["time"] == TIME and note["recording_id"] == f"r{note['subject_id']}" for note in reports)
    assert all(note["recording_id"] is None for note in notes if note["kind"] != "ecg")
    assert 0.9 < len({note["subject_id"] for note in reports}) / len(drawn) < 0.99
    assert len({note["note_id"] for note in notes}) == len(notes)
    assert all(note["text"].strip() for note in notes)


def test_a_fifth_of_the_reports_is_german(chart: Chart) -> None:
    german_phrases = [words for finding in CATALOGUE.values() for words in (*finding.phrases_de, finding.term_de)]
    reports = [note["text"] for note in chart.notes.to_pylist() if note["kind"] == "ecg"]
    spoken = [any(words.lower() in text.lower() for words in german_phrases if len(words) > 6) for text in reports]
    assert 0.15 < np.mean(spoken) < 0.25


def test_what_is_absent_is_only_denied(drawn: list[frozenset[str]], chart: Chart) -> None:
    denials = ("no evidence of ", "no ", "negative for ", "there is no ", "kein hinweis auf ", "ohne anhalt für ")
    denied = 0
    for note in chart.notes.to_pylist():
        if note["kind"] != "ecg":
            continue
        for code in ("AFIB", "CLBBB", "AMI", "LVH"):
            if code in drawn[note["subject_id"]]:
                continue
            for sentence in note["text"].lower().split(". "):
                for term in (CATALOGUE[code].term.lower(), CATALOGUE[code].term_de.lower()):
                    if term in sentence:
                        denied += 1
                        negated = any(sentence.startswith(word + term) for word in denials)
                        assert negated or "is absent" in sentence or "nicht nachweisbar" in sentence, note["text"]
    assert denied > 100


def test_clinical_notes_hold_history_family_and_doubt(chart: Chart) -> None:
    notes = chart.notes.to_pylist()
    clinical = " ".join(note["text"] for note in notes if note["kind"] == "clinical")
    assert "Family history: father with" in clinical and "FHx of" in clinical
    assert "h/o " in clinical and "PMH: " in clinical
    reports = " ".join(note["text"] for note in notes if note["kind"] == "ecg")
    assert "Possible " in reports and "Cannot rule out " in reports and "V. a. " in reports


def test_noise_codes_grow_with_age() -> None:
    def per_patient(age: float) -> int:
        return write_chart(recorded([frozenset({"SR"})] * 200, age), np.random.default_rng(0)).events.num_rows

    assert per_patient(80) > 1.5 * per_patient(30)


def test_statements_of_real_recordings() -> None:
    real = recorded([frozenset({"ASMI", "SR"}), frozenset({"WPW"}), frozenset({"XYZ"}), frozenset()] * 30, age=None)
    plain = write_chart(real, np.random.default_rng(0))
    assert plain.unknown == 60  # WPW and XYZ
    told = write_chart(
        real,
        np.random.default_rng(0),
        {"WPW": "Wolff-Parkinson-White syndrome", "ASMI": "anteroseptal myocardial infarction"},
    )
    assert told.unknown == 30
    text = " ".join(told.notes["text"].to_pylist())
    assert "Wolff-Parkinson-White syndrome" in text and "nteroseptal myocardial infarction" in text
    assert "DIAGNOSIS//ICD//10//I252" in told.codes["code"].to_pylist()
    own = [n["text"] for n in told.notes.to_pylist() if n["kind"] == "ecg" and n["subject_id"] % 4 == 0]
    assert not any("No evidence of anterior myocardial infarction" in text for text in own)


def test_nothing_in_nothing_out_and_the_same_twice(drawn: list[frozenset[str]], chart: Chart) -> None:
    empty = write_chart([], np.random.default_rng(0))
    assert empty.events.num_rows == empty.notes.num_rows == empty.codes.num_rows == 0
    again = write_chart(recorded(drawn), np.random.default_rng(1))
    assert again.events.equals(chart.events) and again.notes.equals(chart.notes)
