"""An archive beside a record: what can be paired is kept, what cannot is listed, what contradicts itself is told."""

import csv
import gzip
from datetime import datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.sources.archive import RATE, Entry, listed, signal_mark, store_recordings
from einthoven.sources.tabular import Tables
from einthoven.waveforms.loading import ecg_reader
from einthoven.waveforms.standardise import to_microvolts
from einthoven.waveforms.store import Store

COLUMNS = ("recording_id", "subject_id", "time", "file", "split", "age", "sex", "device", "site")


def microvolts(seed: int) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).integers(-9, 10, (12, 10 * RATE)), axis=1).astype(np.int16)


def write_record(path: Path, values: np.ndarray, file: str | None = None) -> None:
    sums = values.astype(np.int64).sum(axis=1) & 0xFFFF
    lines = [f"{path.name} 12 {RATE} {values.shape[1]}"]
    for lead, total in zip(schema.LEADS, sums, strict=True):
        lines.append(f"{file or path.name + '.dat'} 16 1000.0(0)/mV 16 0 0 {total} 0 {lead}")
    path.with_name(path.name + ".hea").write_text("\n".join(lines) + "\n")
    path.with_name(path.name + ".dat").write_bytes(values.T.astype("<i2").tobytes())


def write_list(file: Path, rows: list[dict[str, Any]], columns: tuple[str, ...] = COLUMNS) -> Path:
    """Cells as text in a CSV, gzipped or not, or as they are in a Parquet file."""
    if file.suffix == ".parquet":
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in columns}), file)
        return file
    with (gzip.open if file.suffix == ".gz" else open)(file, "wt", newline="", encoding="utf-8") as lines:
        writer = csv.DictWriter(lines, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return file


def read_list(file: Path) -> tuple[list[Entry], list[dict[str, Any]]]:
    with Tables.of(file.parent, file.parent / "study") as tables:
        return listed(tables, file)


def stored(file: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    entries, excluded = read_list(file)
    rows, unusable = store_recordings(entries, ecg_reader(file.parent), file.parent / "study", None)
    return rows.to_pylist(), [*excluded, *unusable]


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.parquet", "LIST.CSV"])
def test_a_table_with_signals_becomes_recordings(tmp_path: Path, name: str) -> None:
    text = not name.endswith("parquet")
    time = datetime(2180, 1, 31, 12, 30)
    people = {"time": str(time) if text else time, "sex": "female", "device": "D 1", "site": "north"}
    rows = [
        {"recording_id": "b", "subject_id": 2, "file": "b", "split": "test", "age": 95.0, **people},
        {"recording_id": "a", "subject_id": 1, "file": "a", "age": 60.5, **people},
        {"recording_id": "none", "subject_id": 1},
        {"recording_id": "gone", "subject_id": 1, "file": "gone"},
    ]
    for seed, record in enumerate(("a", "b")):
        write_record(tmp_path / record, microvolts(seed))
    kept, excluded = stored(write_list(tmp_path / name, rows))
    assert not excluded and [r["recording_id"] for r in kept] == ["gone", "none", "a", "b"]
    gone, none, a, b = kept
    assert (gone["row"], none["row"], a["row"], b["row"]) == (None, None, 0, 1)
    assert (gone["source_file"], none["source_file"], a["source_file"]) == ("gone", name, "a")
    assert (a["age"], a["age_over_89"], b["age"], b["age_over_89"]) == (60.5, False, 90, True)
    assert none["age"] is None and none["age_over_89"] is None and none["quality"] == []
    assert (a["split"], b["split"]) == (split_of(1), "test") and a["time"] == time
    assert (a["sex"], a["device"], a["site"], a["leads"], a["source_rate"]) == ("female", "D 1", "north", 4095, RATE)
    store = Store.open(tmp_path / "study")
    assert np.array_equal(store.read([0, 1]), [microvolts(0), microvolts(1)])


@pytest.mark.parametrize("name", ["list.csv", "list.parquet"])
def test_only_two_columns_are_needed(tmp_path: Path, name: str) -> None:
    file = write_list(tmp_path / name, [{"recording_id": "x", "subject_id": -7}], ("recording_id", "subject_id"))
    (row,), excluded = stored(file)
    assert not excluded and (row["subject_id"], row["split"], row["row"]) == (-7, split_of(-7), None)


@pytest.mark.parametrize(
    ("reason", "change", "told"),
    [
        ("bad-row", {"recording_id": ""}, "recording_id: empty"),
        ("bad-row", {"subject_id": " "}, "subject_id: empty"),
        ("bad-row", {"subject_id": "1.5"}, "subject_id: expected a whole number"),
        ("bad-row", {"subject_id": "1e300"}, "subject_id: expected a whole number"),
        ("bad-row", {"subject_id": "secret"}, "subject_id: expected a whole number"),
        ("bad-row", {"time": "secret"}, "time: expected a date and time"),
        ("bad-row", {"time": "infinity"}, "time: expected a date and time"),
        ("bad-row", {"time": "20000-01-01"}, "time: expected a date and time"),
        ("bad-row", {"split": "held_out"}, "split: expected one of train, validation, test"),
        ("bad-row", {"sex": "secret"}, "sex: expected one of female, male"),
        ("bad-row", {"age": "old"}, "age: expected a number"),
        ("bad-row", {"age": "-1"}, "age: expected years"),
        ("bad-row", {"age": "inf"}, "age: expected a number"),
        ("duplicate-id", {"recording_id": "r1"}, "recording_id: the same"),
    ],
)
def test_a_row_that_cannot_be_understood_is_listed(
    tmp_path: Path, reason: str, change: dict[str, str], told: str
) -> None:
    rows = [{"recording_id": f"r{n}", "subject_id": str(n), "split": "train"} for n in range(1, 4)]
    rows[1] |= change
    entries, (excluded,) = read_list(write_list(tmp_path / "list.csv", rows))
    assert [e.recording_id for e in entries] == ["r1", "r3"]
    assert (excluded["reason"], excluded["source_row"]) == (reason, 2) and told in excluded["detail"]
    assert "secret" not in str(excluded)


def test_ids_that_parquet_holds_as_other_numbers(tmp_path: Path) -> None:
    rows = [{"recording_id": n, "subject_id": subject} for n, subject in enumerate((5.0, 5.5, float("nan"), 1e300))]
    entries, excluded = read_list(write_list(tmp_path / "list.parquet", rows, ("recording_id", "subject_id")))
    assert [(e.recording_id, e.subject_id) for e in entries] == [("0", 5)]
    assert sorted(e["source_row"] for e in excluded) == [2, 3, 4]


def test_an_age_that_is_not_known(tmp_path: Path) -> None:
    (row,), excluded = stored(write_list(tmp_path / "l.csv", [{"recording_id": "x", "subject_id": 1, "age": "nan"}]))
    assert not excluded and row["age"] is None and row["age_over_89"] is None


def test_a_split_holds_for_the_whole_subject(tmp_path: Path) -> None:
    rows = [{"recording_id": f"r{n}", "subject_id": n // 2, "split": "test" if n % 2 else None} for n in range(40)]
    kept, _ = stored(write_list(tmp_path / "list.csv", rows))
    assert len(kept) == 40 and {r["split"] for r in kept} == {"test"}
    rows[4] |= {"split": "train"}
    with pytest.raises(EinthovenError, match=r"list\.csv, row 6, column split"):
        read_list(write_list(tmp_path / "list.csv", rows))


def test_splits_stay_when_the_archive_grows(tmp_path: Path) -> None:
    rows = [{"recording_id": f"r{n}", "subject_id": n} for n in range(300)]
    few, _ = stored(write_list(tmp_path / "list.csv", rows[::3]))
    many, _ = stored(write_list(tmp_path / "list.csv", rows))
    later = {r["recording_id"]: r["split"] for r in many}
    assert all(later[r["recording_id"]] == r["split"] for r in few)
    assert {r["split"] for r in few} == set(schema.SPLITS)


def damaged(path: Path) -> None:
    path.with_suffix(".dat").write_bytes(path.with_suffix(".dat").read_bytes()[:999])


def flat(path: Path) -> None:
    write_record(path, np.zeros((12, 10 * RATE), dtype=np.int16))


def outside(path: Path) -> None:
    write_record(path, microvolts(9), file="../other/x.dat")


@pytest.mark.parametrize(
    ("spoil", "name", "reason"),
    [
        (damaged, "x", "truncated"),
        (flat, "x", "flat"),
        (outside, "x", "outside-folder"),
        (None, "../archive/x", "outside-folder"),
        (None, "/etc/hostname", "outside-folder"),
        (None, ".", "outside-folder"),
    ],
)
def test_a_signal_that_cannot_be_used(tmp_path: Path, spoil: Any, name: str, reason: str) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    for seed, record in enumerate(("x", "y")):
        write_record(folder / record, microvolts(seed))
    if spoil is not None:
        spoil(folder / "x")
    rows = [{"recording_id": "1", "subject_id": 1, "file": name}, {"recording_id": "2", "subject_id": 2, "file": "y"}]
    (kept,), (excluded,) = stored(write_list(folder / "list.csv", rows))
    assert (kept["recording_id"], kept["row"]) == ("2", 0)
    assert (excluded["recording_id"], excluded["source_row"], excluded["reason"]) == ("1", 1, reason)
    assert np.array_equal(Store.open(folder / "study").read([0])[0], microvolts(1))


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    folder.mkdir()
    write_record(tmp_path / "x", microvolts(1))
    (folder / "x.hea").symlink_to(tmp_path / "x.hea")
    kept, (excluded,) = stored(write_list(folder / "l.csv", [{"recording_id": "1", "subject_id": 1, "file": "x"}]))
    assert not kept and excluded["reason"] == "outside-folder"


def test_without_any_signal_there_is_no_store(tmp_path: Path) -> None:
    write_record(tmp_path / "x", microvolts(1))
    rows = [{"recording_id": "1", "subject_id": 1, "file": "x"}]
    stored(write_list(tmp_path / "list.csv", rows))
    assert Store.open(tmp_path / "study").rows == 1
    (tmp_path / "x.hea").unlink()
    (row,), excluded = stored(tmp_path / "list.csv")
    assert row["row"] is None and not excluded and not (tmp_path / "study" / schema.WAVEFORMS).exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", r"list\.csv: column 'recording_id' is missing. Found: an empty file"),
        (b"recording_id,subject\n1,2\n", r"list\.csv: column 'subject_id' is missing"),
        (b"recording_id,subject_id\n1,\xff\n", "not UTF-8"),
        (None, r"list\.csv: no such table of recordings"),
    ],
)
def test_a_table_that_is_none(tmp_path: Path, content: bytes | None, told: str) -> None:
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(EinthovenError, match=told):
        read_list(tmp_path / "list.csv")


def test_a_parquet_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "list.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(EinthovenError, match="copy it again"):
        read_list(tmp_path / "list.parquet")


CELL = st.one_of(
    st.none(), st.text(max_size=8), st.integers().map(str), st.sampled_from(["train", "female", "1", "2000-01-01"])
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, CELL)), max_size=8), parquet=st.booleans())
def test_any_cells_are_kept_or_listed(tmp_path: Path, rows: list[dict[str, str | None]], parquet: bool) -> None:
    """Whatever the cells hold, each row is a recording or an exclusion, and no recording comes twice."""
    file = tmp_path / ("list.parquet" if parquet else "list.csv")
    if parquet:
        pq.write_table(pa.table({n: pa.array([r[n] for r in rows], pa.string()) for n in COLUMNS}), file)
    else:
        write_list(file, rows)
    try:
        kept, excluded = stored(file)
    except EinthovenError as error:
        assert "column split" in str(error) or "CSV" in str(error)
        return
    assert len(kept) + len(excluded) == len(rows)
    assert len({r["recording_id"] for r in kept}) == len(kept)
    assert all(r["split"] in schema.SPLITS for r in kept)


def test_files_of_any_format_beside_wfdb(tmp_path: Path, samples: dict[str, bytes], make: ModuleType) -> None:
    (tmp_path / "more").mkdir()
    for number, content in enumerate(samples.values()):
        (tmp_path / "more" / f"{number}.bin").write_bytes(content)
    (tmp_path / "more" / "no_header.mat").write_bytes(make.matlab())
    (tmp_path / "more" / "cut.xml").write_bytes(make.muse()[:-900])
    (tmp_path / "more" / "scan.pdf").write_bytes(b"%PDF-1.7")
    write_record(tmp_path / "w", microvolts(0))
    files = [f"more/{number}.bin" for number in range(len(samples))]
    files += ["more/no_header.mat", "w.hea", "more/cut.xml", "more/scan.pdf", "more/gone.dcm", "../x.dcm"]
    rows = [{"recording_id": f"{place:02}", "subject_id": 1, "file": name} for place, name in enumerate(files)]
    kept, excluded = stored(write_list(tmp_path / "list.csv", rows))
    reasons = {row["source_file"]: row["reason"] for row in excluded}
    assert reasons == {"more/cut.xml": "unreadable", "more/scan.pdf": "unknown-format", "../x.dcm": "outside-folder"}
    assert [row["row"] for row in kept] == [*range(len(samples) + 2), None] and kept[0]["source_file"] == "more/0.bin"
    expected = to_microvolts(make.MILLIVOLTS)
    exact = [lead for place, lead in enumerate(expected) if place in make.EIGHT]
    for signal in Store.open(tmp_path / "study").read(list(range(len(samples) + 1))):
        assert np.array_equal(signal[make.EIGHT, : make.COUNT], exact)
        assert np.abs(signal[2, : make.COUNT].astype(int) - expected[2]).max() <= 1  # III, also where it is derived


def test_a_changed_file_changes_the_mark(tmp_path: Path, make: ModuleType) -> None:
    file = write_list(tmp_path / "list.csv", [{"recording_id": "a", "subject_id": 1, "file": "a.dcm"}])
    before = signal_mark(file)
    (tmp_path / "a.dcm").write_bytes(make.dicom())
    assert len({before, signal_mark(file)}) == 2
