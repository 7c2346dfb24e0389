"""Labels of a study and of files: what is read, and what is told about a file that is wrong."""

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from einthoven import pipeline, schema
from einthoven.config import Source
from einthoven.errors import EinthovenError
from einthoven.evaluation.labels import super_classes
from einthoven.evaluation.targets import Asked, read_file, read_targets
from einthoven.study import read_table


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("targets") / "study"
    pipeline.ingest(Source(name="simulated", subjects=20, sampling_rate=100), None, path)
    return path


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(text, encoding="utf-8")
    return folder / name


def test_classes_and_age_are_the_studys(study: Path) -> None:
    classes, age = read_targets("classes", study), read_targets("age", study)
    expected = super_classes(study)
    assert (classes.task, classes.labels, classes.recording_ids) == (
        "classes",
        expected.classes,
        expected.recording_ids,
    )
    assert np.array_equal(classes.values, expected.labels)
    rows = read_table(schema.RECORDINGS, study)
    assert (age.task, age.labels, age.values.shape) == ("regression", ("age",), (len(rows), 1))
    assert age.values[:, 0] == pytest.approx(rows["age"].to_numpy())
    with pytest.raises(EinthovenError, match="a matter of regression"):
        read_targets("age", study, "classes")
    with pytest.raises(EinthovenError, match="expected auto, classes or regression"):
        read_targets("age", study, "ranking")
    with pytest.raises(EinthovenError, match="expected classes, age, or a file"):
        read_targets("sex", study)


def test_zeros_and_ones_are_classes_and_other_numbers_are_not(tmp_path: Path, study: Path) -> None:
    classes = read_file(written(tmp_path, "AF,recording_id,MI\n1,a,\n0, b ,1\n"))
    assert (classes.task, classes.labels, classes.recording_ids) == ("classes", ("AF", "MI"), ("a", "b"))
    assert np.array_equal(classes.values, [[1, np.nan], [0, 1]], equal_nan=True)
    file = written(tmp_path, "recording_id,ef\nb,55.5\na,1\nc,\n")
    numbers = read_file(file)
    assert numbers.task == "regression" and numbers.values[:2, 0].tolist() == [55.5, 1]
    assert read_targets(str(file), study).recording_ids == ("b", "a")  # nothing is known of c
    assert read_file(written(tmp_path, "recording_id,x\na,1\nb,0\n"), "regression").task == "regression"


def test_parquet_and_gzip_are_read_alike(tmp_path: Path) -> None:
    table = pa.table({"recording_id": [7, 8], "AF": [True, None], "MI": pa.array([0, 1], pa.int8())})
    pq.write_table(table, tmp_path / "labels.parquet")
    with gzip.open(tmp_path / "labels.csv.gz", "wt") as file:
        file.write("recording_id,AF,MI\n7,1,0\n8,,1\n")
    one, other = read_file(tmp_path / "labels.parquet"), read_file(tmp_path / "labels.csv.gz")
    assert one.recording_ids == other.recording_ids == ("7", "8") and one.task == other.task == "classes"
    assert np.array_equal(one.values, other.values, equal_nan=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "column 'recording_id' is missing. Found: an empty file"),
        ("id,AF\na,1\n", "column 'recording_id' is missing. Found: 'id', 'AF'"),
        ("recording_id\na\n", "a column for each label"),
        ("recording_id,AF\n", "no row below the heading"),
        ("recording_id,AF,\na,1,1\n", "column 3 has no name"),
        ("recording_id,AF,af\na,1,1\n", "is there more than once"),
        ("recording_id,subject_id\na,1\n", "column 'subject_id' is no label"),
        ("recording_id,AF\na,1\na,0\n", "row 2: column 'recording_id': the recording of row 1 again"),
        ("recording_id,AF\na,1\n,0\n", "row 2: column recording_id: empty"),
        ("recording_id,AF\na,1\nb,secret\n", "row 2: column AF: expected a number"),
        ("recording_id,AF\na,1\nb,1e999\n", "row 2: column 'AF': expected a finite number"),
        ("recording_id,AF\na,1\nb,1,2\n", "row 2: 3 fields, the heading has 2"),
        ("recording_id,AF,MI\na,1,\nb,0,\n", "column 'MI' has no value in any row"),
        ("recording_id,AF,ef\na,1,0.4\n", "column 'AF' holds 0 and 1 alone, a class, column 'ef' other numbers"),
    ],
)
def test_a_wrong_file_is_told_by_row_and_column(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(EinthovenError) as error:
        read_file(written(tmp_path, text))
    assert said in str(error.value) and "labels.csv" in str(error.value) and "secret" not in str(error.value)


def test_a_number_is_no_class_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="row 2: column 'AF': expected 0, 1 or nothing"):
        read_file(written(tmp_path, "recording_id,AF\na,1\nb,0.5\n"), "classes")
    with pytest.raises(EinthovenError, match=r"\.csv, \.csv\.gz, \.parquet"):
        read_file(written(tmp_path, "recording_id\tAF\na\t1\n", "labels.tsv"))
    pq.write_table(pa.table({"recording_id": ["a"], "AF": [[1.0]]}), tmp_path / "labels.parquet")
    with pytest.raises(EinthovenError, match="column 'AF': expected a number"):
        read_file(tmp_path / "labels.parquet")
    (tmp_path / "labels.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(EinthovenError, match="cannot be read"):
        read_file(tmp_path / "labels.parquet")


cells = st.sampled_from(["", "0", "1", " 1 ", "0.5", "-3e2", "nan", "x", "inf", '"', "1,2", "0x1", "\n"])


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c", "", "ä"]), cells, cells), max_size=4))
def test_any_file_is_read_or_told(tmp_path: Path, rows: list[tuple[str, str, str]]) -> None:
    file = written(tmp_path, "recording_id,A,B\n" + "".join(",".join(row) + "\n" for row in rows))
    try:
        found = read_file(file)
    except EinthovenError as error:
        assert str(file) in str(error)
        return
    assert len(set(found.recording_ids)) == len(found.recording_ids) == len(rows)
    for (name, *of), key, values in zip(rows, found.recording_ids, found.values, strict=True):
        expected = [float(cell) if cell.strip() else np.nan for cell in of]
        assert name == key and np.array_equal(values, expected, equal_nan=True)


def test_what_is_asked_for_is_checked() -> None:
    for wrong, said in (
        ({"split": "train"}, "validation or test"),
        ({"fraction": 0.0}, "above 0"),
        ({"subset": -1}, "from 0"),
    ):
        with pytest.raises(EinthovenError, match=said):
            Asked(labels="age", **wrong)
