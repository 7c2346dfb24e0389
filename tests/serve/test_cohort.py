import csv
import io
from dataclasses import replace
from datetime import datetime
from typing import Any

import meds
import pyarrow.parquet as pq
import pytest

from einthoven.search.archive import Hit
from einthoven.serve.cohort import as_csv, as_meds_labels

HITS = [
    Hit("r1", 7, 0.9, "train", ("SCP//AFIB", "SCP//PVC"), ("atrial fibrillation", "ectopy, ventricular"), True,
        datetime(2020, 5, 2, 8, 30), 64.0, "female", "MAC", ("flat:V1",)),
    Hit("r2", 3, 0.7, "test", (), (), None, datetime(2021, 1, 1), None, None, None, ()),
    Hit("r3", 3, 0.5, "test", (), (), None, None, None, None, None, ()),
]  # fmt: skip


def rows(hits: list[Hit], **of: Any) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(as_csv(hits, **of).decode())))


def test_a_csv_has_a_row_for_each_recording_best_first() -> None:
    found = rows(HITS, least=0.7)
    assert [row["recording_id"] for row in found] == ["r1", "r2", "r3"]
    assert [row["positive"] for row in found] == ["True", "True", "False"]
    assert found[0]["codes"] == "SCP//AFIB; SCP//PVC" and found[0]["time"] == "2020-05-02T08:30:00"
    assert found[2]["time"] == found[2]["sex"] == found[2]["outlier"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t"])
def test_no_cell_is_a_formula(start: str) -> None:
    (row,) = rows([replace(HITS[0], device=f"{start}cmd|' /C calc'!A0", score=-0.5)])
    assert row["device"].startswith("'") and float(row["score"]) == -0.5


def test_meds_labels_are_what_meds_itself_takes_for_them() -> None:
    table = pq.read_table(io.BytesIO(as_meds_labels(HITS, 0.8)))
    meds.LabelSchema.validate(table)
    assert table.schema.field("subject_id").type == meds.LabelSchema.schema().field("subject_id").type
    assert table.to_pydict() == {
        "subject_id": [3, 7],
        "prediction_time": [datetime(2021, 1, 1), datetime(2020, 5, 2, 8, 30)],
        "boolean_value": [False, True],
        "float_value": [pytest.approx(0.7), pytest.approx(0.9)],
    }


def test_without_a_threshold_all_are_of_the_cohort() -> None:
    assert pq.read_table(io.BytesIO(as_meds_labels(HITS)))["boolean_value"].to_pylist() == [True, True]
    assert len(pq.read_table(io.BytesIO(as_meds_labels([])))) == 0
