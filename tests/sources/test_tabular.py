"""Tables of a source: every format gives the same rows, a bad line costs one row, a damaged file is told."""

import csv
import datetime as dt
import gzip
import io
import time
from pathlib import Path
from typing import Any

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.sources import table_files
from einthoven.sources.tabular import (
    SourceTable,
    Tables,
    checked,
    connect,
    event_order,
    refusals,
    write_excluded,
    write_rows,
)
from einthoven.study import read_table

HEADING = "id,at,note\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "source"
    place.mkdir()
    return place


def write(file: Path, content: str | bytes) -> Path:
    data = content.encode() if isinstance(content, str) else content
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(gzip.compress(data) if file.name.endswith(".gz") else data)
    return file


def rows_of(folder: Path, *stems: str) -> tuple[list[tuple[Any, ...]], list[dict[str, Any]]]:
    """The rows of the table with the columns id, at, note; and the EXCLUDED rows."""
    with Tables.of(folder, folder.parent / "study") as tables:
        found = tables.read(*stems, required=("id",), optional=("at", "note"))
        assert found is not None
        return [tuple(r.values()) for r in found[0].rows.order_by("source_row").to_pyarrow().to_pylist()], found[1]


CONTENT = 'ID , at,note,more\n1,2180-01-31,"a ""b"",\nc",\n2,,# no comment,x\n\n3,"",,é\n'
ROWS = [(1, "1", "2180-01-31", 'a "b",\nc'), (2, "2", None, "# no comment"), (3, "3", None, None)]


@pytest.mark.parametrize("name", ["t.csv", "T.CSV", "t.csv.gz", "deep/er/t.csv"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_formats_of_csv(folder: Path, name: str, newline: str, mark: str) -> None:
    write(folder / name, mark + CONTENT.replace("\n", newline))
    found, excluded = rows_of(folder, "t")
    assert [tuple(c.replace("\r", "") if isinstance(c, str) else c for c in row) for row in found] == ROWS
    assert excluded == []


def test_parquet_keeps_its_types(folder: Path) -> None:
    when = dt.datetime(2180, 1, 31, 7)
    pq.write_table(pa.table({"note": ["a", None], "Id": [7, 8], "at": pa.array([when, None])}), folder / "t.parquet")
    assert rows_of(folder, "t") == ([(1, 7, when, "a"), (2, 8, None, None)], [])


def test_lines_that_are_no_row_are_listed_and_the_others_kept(folder: Path) -> None:
    lines = ["1,2180-01-01,a", "2,too few", "3,2180-01-03,c,too many", '4,x,"a"b', "5,2180-01-05,e", "6,,"]
    for newline in ("\n", "\r\n"):
        write(folder / "sub/t.csv", HEADING + newline.join(lines))
        found, excluded = rows_of(folder, "t")
        assert found == [(1, "1", "2180-01-01", "a"), (5, "5", "2180-01-05", "e"), (6, "6", None, None)]
        assert [(e["source_row"], e["reason"], e["source_file"]) for e in excluded] == [
            (2, "bad-row", "sub/t.csv"),
            (3, "bad-row", "sub/t.csv"),
            (4, "bad-row", "sub/t.csv"),
        ]
        assert "2 fields, the heading has 3" in excluded[0]["detail"]
        assert not any("too" in e["detail"] for e in excluded)


def test_mixed_line_ends(folder: Path) -> None:
    write(folder / "t.csv", HEADING + "1,,a\r\n2,,b\n3,,c\r\n")
    assert [row[3] for row in rows_of(folder, "t")[0]] == ["a", "b", "c"]


def test_order_is_the_file_s_when_several_threads_read(folder: Path) -> None:
    count = 400_000  # 20 MB: several of DuckDB's chunks
    write(folder / "t.csv", HEADING + "".join(f"{i},2180-01-01 00:00:00,{'x' * (i % 50)}\n" for i in range(count)))
    with Tables.of(folder, folder.parent / "study") as tables:
        found = tables.read("t", required=("id",))
        assert found is not None
        rows = found[0].rows
        wrong = rows.filter(rows.source_row != rows.id.cast("int64") + 1)
        assert (rows.count().execute(), wrong.count().execute()) == (count, 0)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def altered(data: bytes) -> bytes:
    return data[:-6] + bytes([data[-6] ^ 255]) + data[-5:]


@pytest.mark.parametrize("damage", [cut, altered, lambda data: data + b"junk", lambda data: b"no gzip"])
def test_damaged_gzip_is_no_shorter_table(folder: Path, damage: Any) -> None:
    whole = gzip.compress((HEADING + "".join(f"{i},,note {i * i}\n" for i in range(5000))).encode())
    (folder / "t.csv.gz").write_bytes(damage(whole))
    with pytest.raises(EinthovenError, match=r"t\.csv\.gz cannot be read"):
        rows_of(folder, "t")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "'id' is missing. Found: an empty file"),
        (b"\n\n", "'id' is missing"),
        (b"name,at\n1,2\n", "column 'id' is missing. Found: 'name', 'at'"),
        (b"id,at,ID\n1,2,3\n", "column 'id' is there more than once"),
        (b"id,at,note\n1,2,gr\xf6\xdfe\n", "not UTF-8"),
        (b"\xff\xfei\0d\0", "not UTF-8"),
        (b'id,at,note\n1,2,3\n4,5,"secret\n7,8,9\n', "before line 5: a quoted cell does not end"),
    ],
)
def test_files_that_are_no_table(folder: Path, content: bytes, message: str) -> None:
    write(folder / "t.csv", content)
    with pytest.raises(EinthovenError, match=message) as caught:
        rows_of(folder, "t")
    assert "secret" not in str(caught.value)


def test_damaged_parquet(folder: Path) -> None:
    pq.write_table(pa.table({"id": np.arange(50_000)}), folder / "t.parquet")
    data = bytearray((folder / "t.parquet").read_bytes())
    (folder / "t.parquet").write_bytes(data[:1000])
    with pytest.raises(EinthovenError, match=r"t\.parquet cannot be read"):
        rows_of(folder, "t")
    data[100:5000] = bytes(4900)
    (folder / "t.parquet").write_bytes(data)
    with pytest.raises(EinthovenError, match=r"t\.parquet cannot be read"):
        rows_of(folder, "t")


def test_lines_are_bounded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_files, "MAX_CELL", 1000)
    for content in ("x" * 5000, HEADING + "1,2," + "x" * 5000, HEADING + '1,2,"' + "x\n" * 5000 + '"'):
        write(folder / "t.csv", content)
        with pytest.raises(EinthovenError, match=r"more than 1000 characters|quoted cell does not end"):
            rows_of(folder, "t")
    write(folder / "t.csv", HEADING + '1,2,"' + "x\n" * 400 + '"')
    assert len(rows_of(folder, "t")[0][0][3]) == 800


def test_paths_with_signs_of_their_own(folder: Path) -> None:
    write(folder / "it's [a] *?" / "t.csv", HEADING + "1,,\n")
    pq.write_table(pa.table({"id": [2]}), folder / "it's [a] *?" / "u.parquet")
    write(folder / "it's a xy" / "v.csv", HEADING)
    assert [row[1] for row in rows_of(folder, "t")[0] + rows_of(folder, "u")[0]] == ["1", 2]


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)] * 3),
        max_size=6,
    )
)
def test_what_csv_writes_is_read_alike_by_both_ways(rows: list[tuple[str, str, str]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, quoting=csv.QUOTE_ALL)
    writer.writerows([("id", "at", "note"), *rows])
    expected = [(number, *(cell or None for cell in row)) for number, row in enumerate(rows, start=1)]
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        file = write(Path(place) / "t.csv", text.getvalue())
        engine, columns = connect(Path(place)), {"id": 0, "at": 1, "note": 2}
        for table, load in (("fast", table_files.load), ("slow", table_files._load_slowly)):
            assert load(engine, file, table, columns, "t.csv") == []
            found = engine.table(table).order_by("source_row").to_pyarrow().to_pylist()
            assert [tuple(row.values()) for row in found] == expected, table
        engine.disconnect()


def test_finding_files(folder: Path) -> None:
    deep = folder / "physionet.org/files/mimiciv/3.1/hosp"
    write(deep / "admissions.csv.gz", HEADING)
    write(folder / "files/p1000/p10000032/s1/t.csv", HEADING)
    write(folder / "records500/00000/t.csv", HEADING)
    write(folder / ".hidden/t.csv", HEADING)
    write(folder / "a_machine_measurements.csv", HEADING)
    write(folder / "machine_measurements_data_dictionary.csv", HEADING)
    with Tables.of(folder, folder.parent / "study") as tables:
        assert tables.find("ADMISSIONS") == deep / "admissions.csv.gz"
        assert tables.find("t") is None and tables.read("t", required=("id",)) is None
        assert tables.find("*machine_measurements") == folder / "a_machine_measurements.csv"
    write(folder / "Admissions.parquet", b"")
    with (
        Tables.of(folder, folder.parent / "study") as tables,
        pytest.raises(EinthovenError, match=r"both Admissions\.parquet and .*admissions\.csv\.gz\. Keep one"),
    ):
        tables.find("admissions")
    assert not (folder.parent / "study" / ".scratch").exists()


KINDS = {"n": "int64", "x": "float64", "day": "date", "at": "timestamp(6)", "word": "string", "words": "text"}


def check(table: pa.Table | dict[str, Any], required: tuple[str, ...] = ()) -> tuple[list[Any], list[Any]]:
    """(kept rows without source_row, [(source_row, detail)])"""
    columns = table if isinstance(table, pa.Table) else pa.table(table)
    rows = ibis.memtable(columns.append_column("source_row", pa.array(range(1, len(columns) + 1), pa.int64())))
    kinds = {name: KINDS[name.rstrip("_")] for name in columns.column_names}
    found = checked(SourceTable("t.csv", rows), kinds, required)
    kept = found.kept.order_by("source_row").drop("source_row").to_pyarrow().to_pylist()
    refused = found.refused.order_by("source_row").to_pyarrow().to_pylist()
    assert all((r["source_file"], r["reason"]) == ("t.csv", "bad-row") for r in refused)
    return [tuple(row.values()) for row in kept], [(r["source_row"], r["detail"]) for r in refused]


@pytest.mark.parametrize(
    ("column", "good", "bad"),
    [
        (
            "n",
            {"7": 7, " 7 ": 7, "-7": -7, "7.0": 7, "9007199254740993": 9007199254740993, "": None, " ": None},
            ["1.5", "1e3", "0x10", "1_000", "9223372036854775808", "nan", "seven", "--7"],
        ),
        (
            "x",
            {"7": 7.0, "-.5": -0.5, "1e3": 1000.0, "NaN": None, "nan": None, "": None},
            ["inf", "-Infinity", "1_000", "1,5", "0x10", "seven", "."],
        ),
        (
            "day",
            {"2180-01-31": dt.date(2180, 1, 31), "2180-1-3": dt.date(2180, 1, 3), "": None},
            ["5/7/2180", "5/7/21", "2180-02-30", "infinity", "epoch", "2180", "20180101", "80-01-01"],
        ),
        (
            "at",
            {
                "2180-01-31 07:08:09": dt.datetime(2180, 1, 31, 7, 8, 9),
                "2180-01-31T07:08:09.25": dt.datetime(2180, 1, 31, 7, 8, 9, 250_000),
                "2180-01-31": dt.datetime(2180, 1, 31),
                "2180-01-31 07:08:09+02:00": dt.datetime(2180, 1, 31, 7, 8, 9),
                "2180-01-31T07:08:09Z": dt.datetime(2180, 1, 31, 7, 8, 9),
                " ": None,
            },
            ["5/7/2180 10:00:00", "2180-01-31 25:00:00", "infinity", "now", "10:00"],
        ),
        ("word", {" a b ": "a b", "": None, " \t": None}, []),
        ("words", {" a\n": " a\n", "": None, " \n": None}, []),
    ],
)
def test_cells_of_text(column: str, good: dict[str, Any], bad: list[str]) -> None:
    kept, refused = check({column: pa.array([*good, *bad], pa.string())})
    assert [row[0] for row in kept] == list(good.values())
    assert [row for row, _ in refused] == list(range(len(good) + 1, len(good) + len(bad) + 1))
    assert {detail.partition(":")[0] for _, detail in refused} <= {f"column {column}"}
    assert not any(repr(cell) in detail for _, detail in refused for cell in bad)


def test_cells_of_parquet() -> None:
    numbers = pa.array([7.0, 1.5, float("nan"), None], pa.float64())
    kept, refused = check({"n": numbers, "x": numbers, "word": numbers})
    assert kept == [(7, 7.0, "7.0"), (None, None, None), (None, None, None)]
    assert refused == [(2, "column n: expected a whole number")]
    zoned = pa.array([dt.datetime(2180, 1, 31, 7, tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))
    assert check({"at": pa.array([dt.date(2180, 1, 31)]), "at_": zoned})[0][0][0] == dt.datetime(2180, 1, 31)
    for name, values in [("at", pa.array([5])), ("n", pa.array([dt.date(2180, 1, 1)])), ("word", pa.array([[1]]))]:
        with pytest.raises(EinthovenError, match=rf"t\.csv: column '{name}': expected .*the file holds"):
            check({name: values})


@pytest.mark.parametrize("zone", ["America/New_York", "Asia/Tokyo"])
def test_times_with_a_zone_do_not_depend_on_this_machine(
    folder: Path, zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = pa.array([dt.datetime(2180, 1, 31, 7, tzinfo=dt.UTC)], pa.timestamp("us", "UTC"))
    pq.write_table(pa.table({"at": times}), folder / "t.parquet")
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        with Tables.of(folder, folder.parent / "study") as tables:
            found = tables.read("t", required=("at",))
            assert found is not None
            kept = checked(found[0], {"at": "timestamp(6)"}, ()).kept.to_pyarrow().to_pylist()
    finally:
        monkeypatch.undo()
        time.tzset()
    assert kept[0]["at"] == dt.datetime(2180, 1, 31, 7)


def test_required_cells_and_the_first_column_is_named() -> None:
    kept, refused = check({"n": ["1", "", "x"], "word": ["", "", "c"]}, required=("n", "word"))
    assert kept == []
    assert refused == [
        (1, "column word: empty"),
        (2, "column n: empty"),
        (3, "column n: expected a whole number"),
    ]


def test_rows_are_written_sorted_with_columns_of_their_own(tmp_path: Path) -> None:
    when = dt.datetime(2180, 1, 1)
    rows = pa.table(
        {
            "subject_id": [2, 1, 1, 1],
            "time": pa.array([when, when, None, when]),
            "code": ["A", "B", "C", "A"],
            "numeric_value": pa.array([1.5, None, None, None], pa.float64()),
            "text_value": pa.nulls(4, pa.string()),
            "recording_id": pa.nulls(4, pa.string()),
            "hadm_id": [1, 2, 3, 4],
        }
    )
    events = ibis.memtable(rows)
    assert write_rows(schema.EVENTS, tmp_path, events, event_order(events)) == 4
    found = read_table(schema.EVENTS, tmp_path)
    assert [r["code"] for r in found.to_pylist()] == ["C", "A", "B", "A"]
    assert found["hadm_id"].to_pylist() == [3, 4, 2, 1] and found.column_names[-1] == "hadm_id"
    assert write_rows(schema.EVENTS, tmp_path, events.limit(0), event_order(events)) == 0
    assert read_table(schema.EVENTS, tmp_path).num_rows == 0


def test_a_failure_while_writing_quotes_no_cell_and_leaves_nothing(tmp_path: Path) -> None:
    rows = ibis.memtable(pa.table({"code": ["secret"], "description": ["x"]}))
    rows = rows.mutate(parent_codes=ibis.array([rows.code.cast("int64").cast("string")]))
    with pytest.raises(EinthovenError, match=r"codes\.parquet could not be made: ConversionException") as caught:
        write_rows(schema.CODES, tmp_path, rows)
    assert "secret" not in str(caught.value) and list(tmp_path.iterdir()) == []


def test_excluded_rows_from_tables_and_from_python(tmp_path: Path) -> None:
    rows = ibis.memtable(pa.table({"source_row": [5, 4]}))
    others = [{"recording_id": "r1", "reason": "truncated", "detail": "half"}]
    counts = write_excluded(tmp_path, [refusals(rows, "t.csv", "no-time", "column at: empty")], others)
    assert counts == {"no-time": 2, "truncated": 1}
    found = read_table(schema.EXCLUDED, tmp_path).to_pylist()
    assert [(r["recording_id"], r["source_file"], r["source_row"]) for r in found] == [
        (None, "t.csv", 4),
        (None, "t.csv", 5),
        ("r1", None, None),
    ]
    assert write_excluded(tmp_path, [], []) == {} and read_table(schema.EXCLUDED, tmp_path).num_rows == 0
