"""Challenge recordings: signals as other readers have them, diagnoses as events, every file kept or listed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wfdb
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import loadmat, savemat

from einthoven import pipeline, schema
from einthoven.config import Recipe, Source
from einthoven.errors import EinthovenError
from einthoven.schema import LEADS
from einthoven.sources.archive import MAX_AGE
from einthoven.sources.challenge import ingest
from einthoven.sources.challenge_header import parse_comments
from einthoven.study import read_table
from einthoven.waveforms.store import Store

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
NEEDS_SHARED = pytest.mark.skipif(not SHARED.exists(), reason=f"{SHARED} is not on this machine")


def microvolts(seed: int, samples: int = 5000) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).integers(-9, 10, (12, samples)), axis=1).astype(np.int16)


def write(
    path: Path, values: np.ndarray, *comments: str, rate: int = 500, form: str = "16+24", title: str | None = None
) -> None:
    """A recording as the Challenges publish it: a MATLAB 4 file for "16+24", a plain one for "16"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.name + (".dat" if form == "16" else ".mat")
    lines = [f"{title or path.name} 12 {rate} {values.shape[1]} 05-Feb-2020 11:39:16"]
    for name, total in zip(LEADS, values.astype(np.int64).sum(axis=1) & 0xFFFF, strict=True):
        lines.append(f"{file} {form} 1000/mV 16 0 0 {total} 0 {name}")
    path.with_name(path.name + ".hea").write_text("\n".join([*lines, *comments]) + "\n")
    if form == "16":
        path.with_name(file).write_bytes(values.T.astype("<i2").tobytes())
    else:
        savemat(path.with_name(file), {"val": values}, format="4")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    georgia = ("#Age: 56", "#Sex: Female", "#Dx: 164889003,59118001", "#Rx: Unknown")
    write(folder / "georgia" / "g1" / "E00001", microvolts(1), *georgia, title="E00001.mat")
    write(folder / "ptb" / "S0001", microvolts(2), "#Age: NaN", "#Sex: Unknown", "#Dx: 733534002")
    sami = ("# Age: 61", "# Sex: Male", "# Chagas label: True", "# Source: SaMi-Trop", "# Patient ID: 77")
    write(folder / "chagas" / "100", microvolts(3, 2934), *sami, rate=400, form="16")
    return folder


def table(of: schema.Table, study: Path) -> list[dict[str, Any]]:
    return read_table(of, study).to_pylist()


def run(source: Path, **settings: Any) -> tuple[Path, dict[str, Any]]:
    study = source.parent / "study"
    return study, ingest(Source(name="challenge", **settings), source, study)


def codes_of(study: Path) -> dict[str, list[tuple[str, float | None]]]:
    found: dict[str, list[tuple[str, float | None]]] = {}
    for event in table(schema.EVENTS, study):
        found.setdefault(event["recording_id"], []).append((event["code"], event["numeric_value"]))
    return found


def test_recordings_and_their_findings(source: Path) -> None:
    seen: list[tuple[int, int]] = []
    study = source.parent / "study"
    counts = ingest(Source(name="challenge"), source, study, lambda done, whole: seen.append((done, whole)))
    assert seen[-1] == (3, 3) and seen == sorted(seen)
    assert (counts["data_kind"], counts["sampling_rate"], counts["subjects"]) == ("real", 500, 3)
    assert (counts["events"], counts["notes"], counts["excluded"], counts["unknown_codes"]) == (4, 0, {}, 0)
    chagas, georgia, ptb = table(schema.RECORDINGS, study)
    assert [r["recording_id"] for r in (chagas, georgia, ptb)] == [
        "challenge-100",
        "challenge-E00001",
        "challenge-S0001",
    ]
    assert (georgia["age"], georgia["sex"], georgia["site"], georgia["time"]) == (56.0, "female", None, None)
    assert (ptb["age"], ptb["age_over_89"], ptb["sex"]) == (None, None, None)
    assert (chagas["sex"], chagas["site"], chagas["source_rate"]) == ("male", "SaMi-Trop", 400.0)
    assert codes_of(study) == {
        "challenge-100": [("DX//CHAGAS", 1.0)],
        "challenge-E00001": [("DX//SNOMED//164889003", None), ("DX//SNOMED//59118001", None)],
        "challenge-S0001": [("DX//SNOMED//733534002", None)],
    }
    assert all(event["time"] is None for event in table(schema.EVENTS, study))
    stored = Store.open(study).read([georgia["row"], ptb["row"]])
    assert np.array_equal(stored, [microvolts(1), microvolts(2)])
    assert table(schema.NOTES, study) == []


def test_codes_have_names_and_the_published_classes(source: Path) -> None:
    study, _ = run(source)
    codes = {row["code"]: row for row in table(schema.CODES, study)}
    snomed = [code for code in codes if code.startswith("DX//SNOMED//")]
    classes = [code for code in codes if code.startswith("DX_CLASS//")]
    assert (len(snomed), len(classes)) == (133, 26)
    for pair in ("733534002|164909002", "713427006|59118001", "284470004|63593006", "427172004|17338001"):
        one, other = (codes[f"DX//SNOMED//{code}"]["parent_codes"] for code in pair.split("|"))
        assert one == other and len(one) == 1
    assert codes["DX//SNOMED//164889003"]["description"] == "atrial fibrillation"
    assert codes["DX//CHAGAS"]["description"].startswith("Chagas disease")


def test_a_study_of_them_pairs(source: Path) -> None:
    study = source.parent / "study"
    assert pipeline.ingest(Source(name="challenge"), source, study).counts["events"] == 4
    counts = pipeline.pair(Recipe(), study).counts
    assert (counts["pairs"], counts["without_time"]) == (3, 3)  # no time, no window


def test_what_cannot_be_used_is_listed(source: Path) -> None:
    (source / "ptb" / "S0002.mat").write_bytes(b"")
    write(source / "ptb" / "S0003", microvolts(4))
    (source / "ptb" / "S0003.mat").unlink()
    write(source / "ptb" / "S0004", microvolts(5))
    whole = (source / "ptb" / "S0004.mat").read_bytes()
    (source / "ptb" / "S0004.mat").write_bytes(whole[:-2])
    (source / "ptb" / "S0005.hea").write_text("no header")
    write(source / "ptb" / "S0006", np.zeros((12, 5000), np.int16))
    write(source / "ptb" / "S0007", microvolts(7), "#Dx: secret,164889003", "# Chagas label: perhaps")
    write(source / "ptb" / "S0008", microvolts(8), form="16")
    header = source / "ptb" / "S0008.hea"
    header.write_text(header.read_text().replace("S0008.dat", "../x.dat"))
    study, counts = run(source)
    found = {(row["source_file"], row["reason"]): row for row in table(schema.EXCLUDED, study)}
    assert set(found) == {
        ("ptb/S0002.mat", "no-header"),
        ("ptb/S0003.hea", "missing-file"),
        ("ptb/S0004.hea", "truncated"),
        ("ptb/S0005.hea", "bad-header"),
        ("ptb/S0006", "flat"),
        ("ptb/S0007.hea", "bad-comment"),
        ("ptb/S0008.hea", "outside-folder"),
    }
    assert counts["excluded"]["bad-comment"] == 2 and sum(counts["recordings"].values()) == 4
    assert not any("secret" in row["detail"] or "perhaps" in row["detail"] for row in found.values())
    assert codes_of(study)["challenge-S0007"] == [("DX//SNOMED//164889003", None)]


def test_nothing_of_use(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    with pytest.raises(EinthovenError, match=r"no recording can be used .there is none.*\.hea"):
        run(tmp_path / "source")
    (tmp_path / "source" / "a.mat").write_bytes(b"")
    with pytest.raises(EinthovenError, match="1 no-header"):
        run(tmp_path / "source")


def test_equal_signals_are_one_subject_whatever_the_header_says(source: Path) -> None:
    write(source / "other" / "E00002", microvolts(1), form="16", rate=300)
    before = {r["recording_id"]: r["subject_id"] for r in table(schema.RECORDINGS, run(source)[0])}
    assert before["challenge-E00001"] == before["challenge-E00002"] and len(set(before.values())) == 3
    write(source / "other" / "E00003", microvolts(9))
    after = {r["recording_id"]: r["subject_id"] for r in table(schema.RECORDINGS, run(source)[0])}
    assert after.items() > before.items()


def test_a_patient_the_header_names_is_one_subject(source: Path) -> None:
    same = ("# Source: SaMi-Trop", "# Patient ID: 77")
    write(source / "chagas" / "101", microvolts(4), *same)
    write(source / "chagas" / "102", microvolts(5), "# Source: CODE-15%", "# Patient ID: 77")
    write(source / "chagas" / "103", microvolts(6), "# Source: SaMi-Trop", "# Patient ID: 78")
    write(source / "chagas" / "104", microvolts(4), "# Source: SaMi-Trop", "# Patient ID: 78")  # 101's signal
    subjects = {r["recording_id"]: r["subject_id"] for r in table(schema.RECORDINGS, run(source)[0])}
    one = {subjects[f"challenge-{n}"] for n in (100, 101, 103, 104)}
    assert len(one) == 1 and subjects["challenge-102"] not in one


def test_names_that_come_twice(source: Path) -> None:
    write(source / "copy" / "E00001", microvolts(1))
    write(source / "other" / "S0001", microvolts(9))
    study, counts = run(source)
    assert {r["recording_id"] for r in table(schema.RECORDINGS, study)} == {
        "challenge-100",
        "challenge-E00001",
        "challenge-ptb/S0001",
        "challenge-other/S0001",
    }
    assert counts["excluded"] == {"duplicate-id": 1}


def test_a_table_says_whose_recordings_are(source: Path) -> None:
    file = source.parent / "patients.csv"
    file.write_text(
        "recording_id,subject_id,time,split,sex\nE00001,5,2020-01-01 10:00:00,test,\nchallenge-S0001,5,,test,male\n"
        "absent,6,,,\nbad,x,,,\n"
    )
    study, counts = run(source, recordings=str(file))
    rows = {r["recording_id"]: r for r in table(schema.RECORDINGS, study)}
    georgia, ptb = rows["challenge-E00001"], rows["challenge-S0001"]
    assert georgia["subject_id"] == ptb["subject_id"] == 5 and georgia["split"] == "test"
    assert (georgia["sex"], ptb["sex"], str(georgia["time"])) == ("female", "male", "2020-01-01 10:00:00")
    assert [e["time"] is None for e in table(schema.EVENTS, study) if e["recording_id"] == "challenge-E00001"] == [
        False,
        False,
    ]
    assert counts["excluded"] == {"bad-row": 1, "missing-file": 1}


def test_equal_signals_in_two_stated_splits_are_told(source: Path) -> None:
    """Two subjects of the table are one, as their signals show; the table puts them into two splits."""
    write(source / "other" / "E00002", microvolts(1), form="16")
    file = source.parent / "patients.csv"
    file.write_text("recording_id,subject_id,split\nE00001,5,test\nE00002,6,train\n")
    with pytest.raises(EinthovenError, match=r"patients\.csv, row 2, column split"):
        run(source, recordings=str(file))
    file.write_text("recording_id,subject_id,split\nE00001,5,test\nE00002,6,\n")
    rows = table(schema.RECORDINGS, run(source, recordings=str(file))[0])
    assert [r["split"] for r in rows if r["subject_id"] == 5] == ["test", "test"]


def test_the_table_of_brugada_huca(source: Path) -> None:
    (source / "RECORDS").write_text("")
    metadata = source / "metadata.csv"
    metadata.write_text("patient_id,basal_pattern,sudden_death,brugada\n100,1,0,2\n9,0,0,0\n100,1,0,often\n")
    study, counts = run(source)
    assert set(codes_of(study)["challenge-100"]) == {
        ("DX//CHAGAS", 1.0),
        ("DX//BRUGADA", 2.0),
        ("DX//BRUGADA_PATTERN", 1.0),
        ("DX_ABSENT//SUDDEN_DEATH", 0.0),
    }
    assert counts["excluded"] == {"bad-row": 1, "missing-file": 1}
    assert {r["source_row"] for r in table(schema.EXCLUDED, study)} == {2, 3}
    metadata.write_text("patient_id,other\n100,1\n")
    assert codes_of(run(source)[0])["challenge-100"] == [("DX//CHAGAS", 1.0)]


@settings(deadline=None)
@given(st.lists(st.text(max_size=40), max_size=8))
def test_comments_of_any_text(lines: list[str]) -> None:
    found = parse_comments([*lines, *(f"Dx: {line}" for line in lines), *(f"Age: {line}" for line in lines)])
    assert all(code.isdecimal() and 6 <= len(code) <= 18 for code in found.codes)
    assert found.age is None or 0 <= found.age <= MAX_AGE


@pytest.mark.parametrize(
    ("line", "age"),
    [("Age: 74", 74), ("age : 74.0", 74), ("Age: NaN", None), ("Age: -1", None), ("Age: 300", None), ("Age:", None)],
)
def test_ages(line: str, age: float | None) -> None:
    assert parse_comments([line]).age == age


@pytest.mark.parametrize(
    ("text", "sex"), [("Female", "female"), ("M", "male"), ("Unknown", None), ("1", None), ("0", None)]
)
def test_sexes_are_words(text: str, sex: str | None) -> None:
    assert parse_comments([f"Sex: {text}"]).sex == sex


def test_codes_are_those_listed_once() -> None:
    found = parse_comments(["Dx: 426783006, 164889003,426783006,", "Rx: Unknown"])
    assert (found.codes, found.unread) == (("426783006", "164889003"), ())
    assert parse_comments(["Dx: Unknown"]).codes == () and parse_comments(["Dx: Unknown"]).unread == ()


EXPECTED = {  # subjects, events, exclusions
    "cinc2020-2021-mix": (77, 144, {"no-header": 10}),
    "challenge2025-code15-samitrop": (200, 200, {"flat": 1, "missing-file": 1}),
    "brugada-huca-1.0.0": (359, 1089, {}),
}


@NEEDS_SHARED
@pytest.mark.parametrize("name", EXPECTED)
def test_real_sets_are_understood_whole(tmp_path: Path, name: str) -> None:
    folder = SHARED / name
    counts = ingest(Source(name="challenge"), folder, tmp_path / "study")
    assert (counts["subjects"], counts["events"], counts["excluded"]) == EXPECTED[name]
    headers = sum(1 for _ in folder.rglob("*.hea"))
    excluded = table(schema.EXCLUDED, tmp_path / "study")
    assert sum(counts["recordings"].values()) + sum(r["recording_id"] is not None for r in excluded) == headers
    assert counts["unknown_codes"] == 0


@NEEDS_SHARED
def test_real_signals_are_those_of_wfdb_and_of_ptbxl(tmp_path: Path) -> None:
    folder = SHARED / "cinc2020-2021-mix"
    study = tmp_path / "study"
    ingest(Source(name="challenge", sampling_rate=500), folder, study)
    rows = table(schema.RECORDINGS, study)
    stored = Store.open(study)
    for row in rows[::4]:
        found = wfdb.rdrecord(str(folder / row["source_file"]))
        assert found.fs == 500 and [n.casefold() for n in found.sig_name] == [lead.casefold() for lead in LEADS]
        ours = stored.read([row["row"]])[0]
        expected = np.rint(found.p_signal.T * 1000)[:, : ours.shape[1]]
        assert np.array_equal(ours[:, : expected.shape[1]], expected)
        raw = loadmat(folder / (row["source_file"] + ".mat"))["val"]
        assert np.array_equal(raw, wfdb.rdrecord(str(folder / row["source_file"]), physical=False).d_signal.T)
    ptbxl = SHARED / "ptbxl-wfdb-sample-500hz" / "records500" / "00000"
    same = 0
    for row in rows:
        file = ptbxl / f"{row['recording_id'].removeprefix('challenge-HR')}_hr"
        if file.with_suffix(".hea").exists():
            values = wfdb.rdrecord(str(file), physical=False).d_signal.T
            assert np.array_equal(stored.read([row["row"]])[0], values)
            same += 1
    assert same > 0
