import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from einthoven import schema
from einthoven.config import Pairing
from einthoven.errors import EinthovenError
from einthoven.pairing.windows import TimeWindow, pair
from einthoven.study import read_table, write_table

T = dt.datetime(2020, 6, 1, 12)


def rows(table: schema.Table, values: list[dict[str, Any]]) -> pa.Table:
    empty = dict.fromkeys(table.columns.names)
    return pa.Table.from_pylist([{**empty, **value} for value in values], schema=table.columns)


def paired(
    study: Path, recordings: list[dict], events: list[dict], notes: list[dict], config: Pairing | None = None
) -> list[dict[str, Any]]:
    full = [{"split": "train", "row": i, **recording} for i, recording in enumerate(recordings)]
    write_table(schema.RECORDINGS, study, rows(schema.RECORDINGS, full))
    write_table(schema.EVENTS, study, rows(schema.EVENTS, events))
    write_table(schema.NOTES, study, rows(schema.NOTES, [{"kind": "ecg", **note} for note in notes]))
    pair(config or Pairing(), study)
    return read_table(schema.PAIRS, study).to_pylist()


def days(n: float) -> dt.datetime:
    return T + dt.timedelta(days=n)


def test_both_ends_of_the_window_are_inside(tmp_path: Path) -> None:
    events = [
        {"subject_id": 1, "time": days(d), "code": f"SCP//{name}"}
        for d, name in ((-365, "first"), (365, "last"), (-365.0001, "early"), (365.0001, "late"), (0, "b"), (0, "a"))
    ]
    (found,) = paired(tmp_path, [{"recording_id": "r", "subject_id": 1, "time": T}], events, [])
    assert found["codes"] == ["SCP//first", "SCP//a", "SCP//b", "SCP//last"]
    assert found["code_days"] == [-365.0, 0.0, 0.0, 365.0]


def test_nothing_of_the_future_enters_a_prognostic_window(tmp_path: Path) -> None:
    events = [
        {"subject_id": 1, "time": T + dt.timedelta(seconds=s), "code": f"SCP//{s}"} for s in (-1, 0, 1e-6, 1, 86400)
    ]
    config = Pairing(codes_after=0.0)
    (found,) = paired(tmp_path, [{"recording_id": "r", "subject_id": 1, "time": T}], events, [], config)
    assert found["codes"] == ["SCP//-1", "SCP//0"]


def test_own_report_first_then_the_nearest(tmp_path: Path) -> None:
    notes = [
        {"subject_id": 1, "time": days(d), "note_id": str(d), "text": f"text {d}", "recording_id": about}
        for d, about in ((-30, None), (1, None), (0, None), (5, "r"), (31, None))
    ]
    (found,) = paired(tmp_path, [{"recording_id": "r", "subject_id": 1, "time": T}], [], notes)
    assert found["text"] == "text 5\ntext 0\ntext 1\ntext -30"
    assert found["note_ids"] == ["5", "0", "1", "-30"]


def test_a_recording_without_a_chart_or_a_time_keeps_its_row(tmp_path: Path) -> None:
    recordings = [
        {"recording_id": "a", "subject_id": 1, "time": T},
        {"recording_id": "b", "subject_id": 2, "time": None},
    ]
    notes = [{"subject_id": 2, "time": None, "note_id": "n", "text": "own", "recording_id": "b"}]
    first, second = paired(tmp_path, recordings, [{"subject_id": 9, "time": T, "code": "SCP//x"}], notes)
    assert (first["codes"], first["code_days"], first["text"], first["note_ids"]) == ([], [], None, [])
    assert second["text"] == "own"


def test_only_the_kinds_asked_for(tmp_path: Path) -> None:
    events = [{"subject_id": 1, "time": T, "code": code} for code in ("SCP//A", "LAB//1", "DIAGNOSIS//ICD//10//I48")]
    notes = [{"subject_id": 1, "time": T, "note_id": k, "text": k, "kind": k} for k in ("ecg", "echo")]
    config = Pairing(code_kinds={"diagnosis": ("DIAGNOSIS//*",)}, note_kinds=("echo",))
    (found,) = paired(tmp_path, [{"recording_id": "r", "subject_id": 1, "time": T}], events, notes, config)
    assert (found["codes"], found["text"]) == (["DIAGNOSIS//ICD//10//I48"], "echo")


def test_bad_windows_and_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EinthovenError, match="zero or more"):
        TimeWindow(-1, 0)
    with pytest.raises(EinthovenError, match="unknown note kind 'dental'"):
        paired(tmp_path, [], [], [], Pairing(note_kinds=("dental",)))


moments = st.integers(-800, 800)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    recordings=st.lists(st.tuples(st.integers(1, 3), moments), min_size=1, max_size=5),
    events=st.lists(st.tuples(st.integers(1, 3), moments, st.sampled_from("abc")), max_size=12),
    before=st.integers(0, 400),
    after=st.integers(0, 400),
)
def test_pairing_equals_a_naive_loop(tmp_path: Path, recordings, events, before, after) -> None:
    config = Pairing(codes_before=float(before), codes_after=float(after))
    found = paired(
        tmp_path,
        [{"recording_id": f"{i:02d}", "subject_id": s, "time": days(d)} for i, (s, d) in enumerate(recordings)],
        [{"subject_id": s, "time": days(d), "code": f"SCP//{c}"} for s, d, c in events],
        [],
        config,
    )
    for (subject, at), row in zip(recordings, found, strict=True):
        inside = {(d, f"SCP//{c}") for s, d, c in events if s == subject and -before <= d - at <= after}
        assert row["codes"] == [c for _, c in sorted(inside)]
        assert row["code_days"] == [float(d - at) for d, _ in sorted(inside)]
