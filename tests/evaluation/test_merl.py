"""MERL's tables in their published layout: the rule of labelling with its bug, and without; recordings by file name."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from einthoven.errors import EinthovenError
from einthoven.evaluation.label_sets import Place
from einthoven.evaluation.merl import (
    CORRECTED,
    LAYOUTS,
    MERL_PHRASES,
    MERL_PROMPT,
    PUBLISHED,
    changes,
    merl_sets,
    phrases,
    read_labelling,
    read_prompts,
)

TABLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "labels-and-splits" / "merl_data_split"
CSN, SUPER = LAYOUTS[5], LAYOUTS[0]
CLASSES = ("ST", "AF", "AFIB", "AVB", "VB")
DIAGNOSES = {"JS1": "STE,AFIB", "JS2": "ST", "JS3": "AVB,AF", "JS4": "SB"}
PROMPTS = {name: f"{name} in words, {name} said otherwise." for name in (*CLASSES, "MI", "NORM")}


def chapman(folder: Path, rows: list[list[str]] | None = None, heading: tuple[str, ...] = CLASSES) -> Path:
    """A table as MERL makes it: a class is there where its name is part of the text of all diagnoses."""
    file = folder / "chapman" / "chapman_val.csv"
    file.parent.mkdir(exist_ok=True)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(["ecg_path", "age", "diagnose", *heading])
        for name, said in DIAGNOSES.items():
            path = f"/chapman/WFDBRecords/44/448/{name}.mat"
            writer.writerow([path, "12", said, *(int(label in said) for label in CLASSES)])
        writer.writerows(rows or [])
    return file


def super_class(folder: Path, listed: str = "['MI', 'NST_']") -> None:
    file = folder / SUPER.path.format("val")
    file.parent.mkdir(parents=True)
    with file.open("w", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(
            ["ecg_id", "patient_id", "strat_fold", "filename_lr", "filename_hr", "super_class", "NST", "MI"]
        )
        writer.writerow(["8", "1.0", "9", "records100/00000/00008_lr", "records500/00000/00008_hr", listed, 1, 1])
        writer.writerow(["9", "2.0", "9", "records100/00000/00009_lr", "records500/00000/00009_hr", "['MI']", 0, 1])


def test_as_published_has_the_substring_bug_and_corrected_has_not(tmp_path: Path) -> None:
    found = read_labelling(chapman(tmp_path), CSN)
    assert found.classes == CLASSES and found.files[0] == ("JS1",)
    expected = [[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 1], [0, 0, 0, 0, 0]]
    assert found.labels[PUBLISHED].astype(int).tolist() == expected
    corrected = [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert found.labels[CORRECTED].astype(int).tolist() == corrected
    said = changes(found.classes, found.labels[PUBLISHED], found.labels[CORRECTED])
    assert said["labels"] == 3 and said["of"] == 20
    assert said["classes"]["VB"] == {"published": 1, "taken_away": 1, "given": 0}
    assert set(said["classes"]) == {"ST", "AF", "VB"}


def test_recordings_are_found_by_file_name_and_the_others_counted(tmp_path: Path) -> None:
    chapman(tmp_path)
    super_class(tmp_path)
    (tmp_path / "CKEPE_prompt.json").write_text(json.dumps(PROMPTS | {"NST": "st change"}))
    study = tmp_path / "study"
    sets, absent = merl_sets(
        tmp_path, None, "validation", {"JS3": Place(study, "c-3"), "00009_hr": Place(study, "ptbxl-9")}
    )
    assert [one.name for one in sets] == ["PTB-XL super", "CSN"] and len(absent) == 4
    ptbxl, csn = sets
    assert ptbxl.places == (Place(study, "ptbxl-9"),) and ptbxl.counts["not_in_a_study"] == 1
    assert ptbxl.labels[CORRECTED].tolist() == [[False, True]] and csn.places == (Place(study, "c-3"),)
    assert csn.counts["changed"]["labels"] == 1 and csn.counts["changed_in_the_table"]["labels"] == 3
    assert csn.prompts[MERL_PROMPT]["AF"] == ("af in words, af said otherwise.",)
    assert csn.prompts[MERL_PHRASES]["AF"] == ("af in words", "af said otherwise")


def test_phrases_of_a_prompt_come_once_without_full_stops() -> None:
    assert phrases("ST-T Change, st-t change,, Ischemic in leads.") == ("st-t change", "ischemic in leads")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["/a/JS5.mat", "1", "ST", "2", "0", "0", "0", "0"]], "row 5: column 'ST': expected 0 or 1"),
        ([["/a/JS5.mat", "1", "ST", "1"]], "row 5: 4 fields, the heading has 8"),
        ([["/a/JS1.mat", "1", "ST", "1", "0", "0", "0", "0"]], "a recording in one row"),
        ([["/a/JS5.mat", "1", "[secret", "1", "0", "0", "0", "0"]], "row 5: column 'diagnose': expected a list"),
    ],
)
def test_a_wrong_row_is_told_and_not_quoted(tmp_path: Path, rows: list[list[str]], said: str) -> None:
    file = chapman(tmp_path, rows)
    with pytest.raises(EinthovenError) as error:
        read_labelling(file, CSN)
    assert said in str(error.value) and str(file) in str(error.value) and "secret" not in str(error.value)


def test_a_wrong_table_is_told(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="columns of classes"):
        read_labelling(chapman(tmp_path, heading=("ST", "ST", "A", "B", "C")), CSN)
    with pytest.raises(EinthovenError, match="expected one column 'filename_lr', found 0"):
        read_labelling(chapman(tmp_path), SUPER)
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(EinthovenError, match="cannot be read as CSV"):
        read_labelling(tmp_path / "bytes.csv", CSN)


@pytest.mark.parametrize("text", ["[1]", '{"ST": 1}', '{"ST": " , "}', "{", "[" * 100000])
def test_prompts_are_one_object_of_texts(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(EinthovenError, match=r"p\.json"):
        read_prompts(tmp_path / "p.json")


def test_a_class_without_prompt_and_missing_prompts_are_told(tmp_path: Path) -> None:
    chapman(tmp_path)
    with pytest.raises(EinthovenError, match="--prompts"):
        merl_sets(tmp_path, None, "validation", {})
    (tmp_path / "CKEPE_prompt.json").write_text(json.dumps({"ST": "sinus tachycardia"}))
    with pytest.raises(EinthovenError, match="no prompt for class 'AF' of CSN"):
        merl_sets(tmp_path, None, "validation", {})


def test_the_published_tables_read_and_csn_changes_as_counted() -> None:
    if not TABLES.is_dir():
        pytest.skip(f"{TABLES} is not on this machine")
    prompts = read_prompts(TABLES / "CKEPE_prompt.json")
    for layout in LAYOUTS:
        found = read_labelling(TABLES / layout.path.format("val"), layout)
        assert set(found.classes) <= set(prompts)
        if layout.raw is not None and layout is not CSN:
            assert np.array_equal(found.labels[PUBLISHED], found.labels[CORRECTED]), layout.name
    csn = read_labelling(TABLES / CSN.path.format("test"), CSN)
    said = changes(csn.classes, csn.labels[PUBLISHED], csn.labels[CORRECTED])["classes"]
    assert said["VB"] == {"published": 169, "taken_away": 169, "given": 0}
    assert said["AVB"]["taken_away"] == 130 and said["AF"]["taken_away"] == 297 and said["SA"]["taken_away"] == 141
