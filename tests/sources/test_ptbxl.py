"""PTB-XL: what is good is ingested, what is bad is listed with its reason, what is no PTB-XL is told."""

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from einthoven import schema
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.sources.ptbxl import ingest
from einthoven.sources.ptbxl_rows import COLUMNS
from einthoven.study import read_table
from einthoven.waveforms.store import Store

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "ptbxl-wfdb-sample-500hz"
STATEMENTS = """,description,diagnostic,form,rhythm,diagnostic_class,diagnostic_subclass
NORM,normal ECG,1.0,,,NORM,NORM
IMI,inferior myocardial infarction,1.0,,,MI,IMI
NDT,non-diagnostic T abnormalities,1.0,1.0,,STTC,STTC
PVC,ventricular premature complex,,1.0,,,
SR,sinus rhythm,,,1.0,,
"""


def microvolts(seed: int, rate: int = 100) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).integers(-9, 10, (12, 10 * rate)), axis=1).astype(np.int16)


def write_record(path: Path, values: np.ndarray, rate: int = 100, names: Any = LEADS, file: str | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sums = values.astype(np.int64).sum(axis=1) & 0xFFFF
    lines = [f"{path.name} {len(values)} {rate} {values.shape[1]}"]
    for name, total in zip(names, sums, strict=True):
        lines.append(f"{file or path.name + '.dat'} 16 1000.0(0)/mV 16 0 0 {total} 0 {name.upper()}")
    path.with_name(path.name + ".hea").write_text("\n".join(lines) + "\n")
    path.with_name(path.name + ".dat").write_bytes(values.T.astype("<i2").tobytes())


def row(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "ecg_id": number,
        "patient_id": f"{100 + number // 2 + (number > 8)}.0",
        "age": "56.0",
        "sex": 1,
        "site": "2.0",
        "device": "CS-12   E",
        "recording_date": f"1990-01-{number:02d} 10:00:00",
        "report": "sinusrhythmus normales ekg",
        "scp_codes": "{'NORM': 100.0, 'SR': 0.0}",
        "strat_fold": number,
        "filename_lr": f"records100/00000/{number:05d}_lr",
        "filename_hr": f"records500/00000/{number:05d}_hr",
        **changes,
    }


def write_database(source: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> None:
    with (source / "ptbxl_database.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Ten good recordings at 100 Hz, folds 1 to 10, two per patient."""
    folder = tmp_path / "source"
    folder.mkdir()
    write_database(folder, [row(number) for number in range(1, 11)])
    (folder / "scp_statements.csv").write_text(STATEMENTS)
    for number in range(1, 11):
        write_record(folder / row(number)["filename_lr"], microvolts(number))
    return folder


def test_a_patient_in_two_splits_is_told(source: Path) -> None:
    write_database(source, [row(number, patient_id="7") for number in (8, 9)])
    with pytest.raises(EinthovenError, match=r"ptbxl_database\.csv, row 2, column split"):
        run(source)


def record(source: Path, number: int) -> Path:
    return source / row(number)["filename_lr"]


def table(of: schema.Table, study: Path) -> list[dict[str, Any]]:
    return read_table(of, study).to_pylist()


def run(source: Path, rate: int | None = None) -> tuple[Path, dict[str, Any]]:
    study = source.parent / "study"
    return study, ingest(Source(sampling_rate=rate), source, study)


def only_excluded(source: Path, reason: str, number: int = 3) -> dict[str, Any]:
    """The one excluded row; all the other recordings must be in the study with their own signal."""
    study, counts = run(source)
    (excluded,) = table(schema.EXCLUDED, study)
    assert (excluded["reason"], excluded["source_row"]) == (reason, number)
    assert counts["excluded"] == {reason: 1} and sum(counts["recordings"].values()) == 9
    kept = table(schema.RECORDINGS, study)
    assert [r["row"] for r in kept] == list(range(9))
    stored = Store.open(study).read([r["row"] for r in kept])
    for one, values in zip(kept, stored, strict=True):
        assert np.array_equal(values, microvolts(int(one["recording_id"].removeprefix("ptbxl-"))))
    for of in (schema.EVENTS, schema.NOTES):
        assert {r["recording_id"] for r in table(of, study)} == {r["recording_id"] for r in kept}
    return excluded


def test_everything_good(source: Path) -> None:
    seen: list[tuple[int, int]] = []
    study = source.parent / "study"
    counts = ingest(Source(), source, study, lambda done, whole: seen.append((done, whole)))
    assert counts["recordings"] == {"train": 8, "validation": 1, "test": 1} and seen[-1] == (10, 10)
    assert (counts["data_kind"], counts["sampling_rate"], counts["subjects"]) == ("real", 100, 7)
    assert (counts["events"], counts["notes"], counts["excluded"]) == (20, 10, {})
    recordings = table(schema.RECORDINGS, study)
    assert [r["split"] for r in recordings] == ["train"] * 8 + ["validation", "test"]
    first = recordings[0]
    assert (first["recording_id"], first["subject_id"], first["leads"], first["source_rate"]) == (
        "ptbxl-1",
        100,
        4095,
        100,
    )
    assert (first["age"], first["age_over_89"], first["sex"], first["device"], first["site"]) == (
        56.0,
        False,
        "female",
        "CS-12 E",
        "2",
    )
    assert str(first["time"]) == "1990-01-01 10:00:00" and first["source_file"] == "records100/00000/00001_lr"
    store = Store.open(study)
    assert (store.rows, store.samples, store.sampling_rate) == (10, 1000, 100)
    assert np.array_equal(store.read([7])[0], microvolts(8))


def test_events_and_codes(source: Path) -> None:
    rows = [row(number) for number in range(1, 11)]
    rows[0] |= {"scp_codes": "{'SR': 0, 'NDT': 15.0, 'XYZ': 50}", "recording_date": ""}
    write_database(source, list(reversed(rows)))
    study, counts = run(source)
    events = table(schema.EVENTS, study)
    assert [(e["code"], e["numeric_value"]) for e in events[:3]] == [("SCP//NDT", 15), ("SCP//SR", 0), ("SCP//XYZ", 50)]
    keys = [(e["subject_id"], str(e["time"] or ""), e["code"]) for e in events]
    assert keys == sorted(keys) and events[0]["recording_id"] == "ptbxl-1" and events[0]["time"] is None
    codes = {c["code"]: c for c in table(schema.CODES, study)}
    assert codes["SCP//IMI"]["parent_codes"] == ["SCP_CLASS//MI", "SCP_SUBCLASS//IMI"]
    assert codes["SCP//NDT"]["parent_codes"] == ["SCP_CLASS//STTC", "SCP_SUBCLASS//STTC", "SCP_FORM"]
    assert codes["SCP//SR"]["parent_codes"] == ["SCP_RHYTHM"] and codes["SCP//PVC"]["parent_codes"] == ["SCP_FORM"]
    assert codes["SCP_SUBCLASS//IMI"] == {
        "code": "SCP_SUBCLASS//IMI",
        "description": "inferior myocardial infarction",
        "parent_codes": ["SCP_CLASS//MI"],
    }
    assert codes["SCP_CLASS//MI"]["description"] == "myocardial infarction"
    assert codes["SCP//XYZ"]["description"] is None and counts["unknown_codes"] == 1
    assert {parent for c in codes.values() for parent in c["parent_codes"]} <= set(codes)


def test_notes_and_people(source: Path) -> None:
    rows = [row(number) for number in range(1, 11)]
    rows[0] |= {"report": "linkstyp 4.46              unbestÄtigter bericht", "age": "300.0", "sex": "0"}
    rows[1] |= {"report": "trace only requested. Edit: NORM 100, ", "age": "", "sex": "", "site": "", "device": " "}
    rows[2] |= {"report": "  "}
    write_database(source, rows)
    study, counts = run(source)
    first, second = table(schema.RECORDINGS, study)[:2]
    assert (first["age"], first["age_over_89"], first["sex"]) == (90.0, True, "male")
    assert all(second[name] is None for name in ("age", "age_over_89", "sex", "site", "device"))
    notes = table(schema.NOTES, study)
    assert notes[0] == {
        "note_id": "ptbxl-1-report",
        "subject_id": 100,
        "time": first["time"],
        "kind": "ecg",
        "text": "linkstyp",
        "recording_id": "ptbxl-1",
        "code": None,
    }
    assert (len(notes), counts["notes"]) == (8, 8)
    assert [counts[name] for name in ("footers_removed", "edits_removed", "non_reports", "missing_reports")] == [
        1,
        1,
        1,
        1,
    ]


def test_missing_files_are_a_partial_copy(source: Path) -> None:
    record(source, 3).with_suffix(".dat").unlink()
    assert only_excluded(source, "missing-file")["recording_id"] == "ptbxl-3"
    record(source, 3).with_suffix(".hea").unlink()
    assert only_excluded(source, "missing-file")["source_file"] == "records100/00000/00003_lr"


def test_damaged_signals(source: Path) -> None:
    values, path = microvolts(3), record(source, 3)
    whole = path.with_suffix(".dat").read_bytes()
    path.with_suffix(".dat").write_bytes(whole[:1000])
    assert "1000 bytes" in only_excluded(source, "truncated")["detail"]
    path.with_suffix(".dat").write_bytes(whole[::-1])
    only_excluded(source, "checksum")
    write_record(path, values, names=["X"] * 12)
    only_excluded(source, "wrong-leads")
    write_record(path, values, names=["I"] * 12)
    only_excluded(source, "wrong-leads")
    write_record(path, np.zeros_like(values))
    only_excluded(source, "flat")
    write_record(path, np.full_like(values, MISSING_SAMPLE))
    only_excluded(source, "no-signal")
    path.with_suffix(".hea").write_text("rubbish")
    only_excluded(source, "bad-header")


@pytest.mark.parametrize("file", ["../00000/00004_lr.dat", "../x.dat", "/etc/hostname"])
def test_headers_pointing_elsewhere(source: Path, file: str) -> None:
    write_record(record(source, 3), microvolts(3), file=file)
    assert "etc" not in only_excluded(source, "outside-folder")["detail"]


@pytest.mark.parametrize("name", ["../source/records100/00000/00003_lr", "/etc/hostname"])
def test_file_names_leading_out(source: Path, name: str) -> None:
    write_database(source, [row(n, filename_lr=name) if n == 3 else row(n) for n in range(1, 11)])
    only_excluded(source, "outside-folder")


@pytest.mark.parametrize(
    ("reason", "change"),
    [
        ("bad-row", {"ecg_id": "three"}),
        ("bad-row", {"ecg_id": ""}),
        ("bad-row", {"patient_id": ""}),
        ("bad-row", {"patient_id": "1.5"}),
        ("bad-row", {"patient_id": "1e300"}),
        ("bad-row", {"age": "old"}),
        ("bad-row", {"age": "-1"}),
        ("bad-row", {"age": "nan"}),
        ("bad-row", {"sex": "2"}),
        ("bad-row", {"recording_date": "secret words"}),
        ("bad-row", {"recording_date": "1990-01-01T10:00:00+02:00"}),
        ("bad-row", {"scp_codes": "secret words"}),
        ("bad-row", {"scp_codes": "{'NORM': 'secret'}"}),
        ("bad-fold", {"strat_fold": "11"}),
        ("bad-fold", {"strat_fold": ""}),
        ("duplicate-id", {"ecg_id": "2"}),
        ("missing-file", {"filename_lr": " "}),
    ],
)
def test_bad_rows(source: Path, reason: str, change: dict[str, str]) -> None:
    write_database(source, [row(n, **change) if n == 3 else row(n) for n in range(1, 11)])
    detail = only_excluded(source, reason)["detail"]
    assert next(iter(change)) in detail and "secret" not in detail
    assert reason == "missing-file" or "row 3" in detail


def test_row_with_fields_missing(source: Path) -> None:
    file = source / "ptbxl_database.csv"
    lines = file.read_text().splitlines()
    lines[3] = "3,101.0"
    file.write_text("\ufeff" + "\n".join(lines) + "\n\n", encoding="utf-8")
    assert "number of fields" in only_excluded(source, "bad-row")["detail"]


def test_missing_and_unknown_leads_are_marked(source: Path) -> None:
    values = microvolts(3)
    values[6, 100:] = MISSING_SAMPLE
    values[7] = MISSING_SAMPLE
    write_record(record(source, 3), values, names=[*LEADS[:11], "Resp"])
    study, counts = run(source)
    found = table(schema.RECORDINGS, study)[2]
    assert found["quality"][:3] == ["missing:V1", "missing:V2", "missing:V6"] and counts["flags"]["missing"] == 1
    assert found["leads"] == 4095 & ~(1 << 7) & ~(1 << 11)


@pytest.mark.parametrize("column", ["ecg_id", "report", "strat_fold", "filename_hr"])
def test_missing_column(source: Path, column: str) -> None:
    write_database(source, [row(1)], tuple(c for c in COLUMNS if c != column))
    with pytest.raises(EinthovenError, match=f"ptbxl_database.csv: column '{column}' is missing"):
        run(source)


def test_tables_that_are_none(source: Path) -> None:
    database, statements = source / "ptbxl_database.csv", source / "scp_statements.csv"
    whole = database.read_bytes()
    for content, message in [
        (b"", "an empty file"),
        (b"\xff\xfe" + whole, "not UTF-8"),
        (whole + "11,größe".encode("latin-1"), "not UTF-8"),
        (whole.split(b"\n")[0], "no recording can be used .there is none"),
        (whole + b'"' + b"x" * 200_000, "cannot be read as CSV"),
    ]:
        database.write_bytes(content)
        with pytest.raises(EinthovenError, match=message):
            run(source)
    database.unlink()
    with pytest.raises(EinthovenError, match=r"ptbxl_database\.csv is missing"):
        run(source)
    statements.write_text(STATEMENTS.replace("diagnostic_class", "other"))
    with pytest.raises(EinthovenError, match=r"scp_statements\.csv: column 'diagnostic_class'"):
        run(source)
    statements.unlink()
    with pytest.raises(EinthovenError, match=r"scp_statements\.csv is missing"):
        run(source)


def test_nothing_usable_leaves_the_tables_alone(source: Path) -> None:
    shutil.rmtree(source / "records100")
    with pytest.raises(EinthovenError, match="10 missing-file"):
        run(source)
    assert not (source.parent / "study" / "recordings.parquet").exists()


def test_rates(source: Path) -> None:
    for number in range(1, 11):
        write_record(source / row(number)["filename_hr"], microvolts(number, 500), 500)
    study, counts = run(source)
    assert counts["sampling_rate"] == 500 and np.array_equal(Store.open(study).read([4])[0], microvolts(5, 500))
    study, counts = run(source, 100)
    assert counts["sampling_rate"] == 100 and np.array_equal(Store.open(study).read([4])[0], microvolts(5))
    study, counts = run(source, 250)
    assert counts["sampling_rate"] == 250 and Store.open(study).samples == 2500
    assert table(schema.RECORDINGS, study)[0]["source_rate"] == 500
    for number in range(3, 11):
        (source / f"{row(number)['filename_hr']}.hea").unlink()
    assert run(source)[1]["sampling_rate"] == 100
    assert run(source, 500)[1]["recordings"]["train"] == 8  # most records are there at 100 Hz only


@pytest.mark.skipif(not REAL.exists(), reason=f"{REAL} is not on this machine")
def test_real_sample_at_500_hz(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "scp_statements.csv").write_text(STATEMENTS)
    (source / "ptbxl_database.csv").symlink_to(REAL / "ptbxl_database.csv")
    shutil.copytree(REAL / "records500", source / "records500")
    study, counts = run(source)
    assert counts["sampling_rate"] == 500 and counts["excluded"] == {} and counts["unknown_codes"] > 0
    assert Store.open(study).rows == sum(counts["recordings"].values()) > 80
