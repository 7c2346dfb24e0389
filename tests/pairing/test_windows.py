import datetime as dt
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from einthoven import schema
from einthoven.config import Entities, Pairing, TextEncoder
from einthoven.errors import EinthovenError
from einthoven.pairing.engines import RECORDINGS_AT_ONCE
from einthoven.pairing.pairs import pair
from einthoven.pairing.windows import TimeWindow
from einthoven.study import read_table, write_table

T = dt.datetime(2020, 6, 1, 12)


def rows(table: schema.Table, values: list[dict[str, Any]]) -> pa.Table:
    empty = dict.fromkeys(table.columns.names)
    return pa.Table.from_pylist([{**empty, **value} for value in values], schema=table.columns)


MENTION = dict.fromkeys(("negated", "uncertain", "historical", "family", "hypothetical"), False)


def paired(
    study: Path,
    recordings: list[dict],
    events: list[dict],
    notes: list[dict],
    config: Pairing | None = None,
    mentions: list[dict] | None = None,
    entities: Entities | None = None,
    **options: Any,
) -> list[dict[str, Any]]:
    full = [{"split": "train", "row": i, **recording} for i, recording in enumerate(recordings)]
    write_table(schema.RECORDINGS, study, rows(schema.RECORDINGS, full))
    write_table(schema.EVENTS, study, rows(schema.EVENTS, events))
    write_table(schema.NOTES, study, rows(schema.NOTES, [{"kind": "ecg", **note} for note in notes]))
    whose = {note["note_id"]: note["subject_id"] for note in notes}
    said = [
        {**MENTION, "label": "disease", "end": 99, "subject_id": whose[mention["note_id"]], **mention}
        for mention in mentions or []
    ]
    write_table(schema.ENTITIES, study, rows(schema.ENTITIES, said))
    pair(config or Pairing(), entities or Entities(), TextEncoder(vocabulary=80), study, **options)
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
    assert found["codes"] == ["SCP//-1"]


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
    with pytest.raises(EinthovenError, match="nothing could be inside"):
        TimeWindow(0, 0)


def test_a_prognostic_window_lets_in_no_report_of_its_own_nor_a_date_of_the_same_day(tmp_path: Path) -> None:
    midnight = T.replace(hour=0)
    events = [
        {"subject_id": 1, "time": midnight - dt.timedelta(days=d), "code": f"SCP//{d}"} for d in (0, 1)
    ]  # a date alone: on the day itself it may be later than the ECG
    notes = [
        {"subject_id": 1, "time": time, "note_id": name, "text": name, "recording_id": about}
        for name, time, about in (("own", days(0), "r"), ("earlier", days(-2), None), ("signed later", days(-1), "r"))
    ]
    config = Pairing(codes_after=0.0, notes_after=0.0)
    (found,) = paired(tmp_path, [{"recording_id": "r", "subject_id": 1, "time": T}], events, notes, config)
    assert found["codes"] == ["SCP//1"]
    assert found["note_ids"] == ["signed later", "earlier"]


def test_a_clock_that_may_be_off_widens_a_window_and_narrows_a_prognostic_one(tmp_path: Path) -> None:
    def found(**settings: float) -> list[str]:
        minutes = [-365 * 1440 - 20, -20, -5, 5, 365 * 1440 + 20]
        events = [{"subject_id": 1, "time": T + dt.timedelta(minutes=m), "code": f"SCP//{m}"} for m in minutes]
        config = Pairing(skew_minutes=20.0, **settings)
        (row,) = paired(tmp_path, [{"recording_id": "r", "subject_id": 1, "time": T}], events, [], config)
        return [code.removeprefix("SCP//") for code in row["codes"]]

    assert found() == ["-525620", "-20", "-5", "5", "525620"]
    assert found(codes_after=0.0) == ["-525620"]


def test_a_code_counts_once_a_day_and_the_cap_keeps_the_nearest(tmp_path: Path) -> None:
    hours = {"A": (1, 3, 30), "B": (-40, 2), "C": (-1,)}
    events = [
        {"subject_id": 1, "time": T + dt.timedelta(hours=h), "code": f"SCP//{code}"}
        for code in hours
        for h in hours[code]
    ]
    recording = [{"recording_id": "r", "subject_id": 1, "time": T}]
    (row,) = paired(tmp_path, recording, events, [])
    assert row["codes"] == ["SCP//B", "SCP//C", "SCP//A", "SCP//B", "SCP//A"]
    (row,) = paired(tmp_path, recording, events, [], Pairing(collapse_days=False))
    assert row["codes"] == ["SCP//B", "SCP//C", "SCP//A", "SCP//B", "SCP//A", "SCP//A"]
    (row,) = paired(tmp_path, recording, events, [], Pairing(max_codes=3))
    assert row["codes"] == ["SCP//C", "SCP//A", "SCP//B"]


def test_static_codes_come_first_without_a_day(tmp_path: Path) -> None:
    events = [
        {"subject_id": 1, "time": None, "code": "GENDER//F"},
        {"subject_id": 1, "time": None, "code": "RACE//X"},
        {"subject_id": 1, "time": days(-3), "code": "MEDICATION//START//aspirin"},
        {"subject_id": 1, "time": days(-2), "code": "MEDICATION//STOP//aspirin"},
    ]
    config = Pairing(static_codes=("GENDER//*",), max_codes=1)
    (row,) = paired(tmp_path, [{"recording_id": "r", "subject_id": 1, "time": T}], events, [], config)
    assert row["codes"] == ["GENDER//F", "MEDICATION//START//aspirin"]
    assert row["code_kinds"] == ["static", "medication"]
    assert row["code_days"] == [None, -3.0]


@pytest.mark.parametrize(("after", "expected"), [(365.0, [["X", "A"], ["X", "B"]]), (0.0, [["X"], ["X"]])])
def test_what_was_read_from_an_undated_ecg_is_static_only_there(tmp_path: Path, after: float, expected: list) -> None:
    events = [
        {"subject_id": 1, "time": None, "code": f"DX//{code}", "recording_id": about}
        for code, about in (("A", "a"), ("B", "b"), ("X", None))
    ]
    recordings = [{"recording_id": name, "subject_id": 1, "time": time} for name, time in (("a", T), ("b", days(9)))]
    found = paired(tmp_path, recordings, events, [], Pairing(static_codes=("DX//*",), codes_after=after))
    assert [sorted(row["codes"], reverse=True) for row in found] == [[f"DX//{c}" for c in codes] for codes in expected]


@pytest.mark.parametrize(("own", "first", "second"), [(True, "SPABC", "PABC"), (False, "PBC", "PAB")])
def test_without_own_codes_an_ecg_has_only_what_others_told(tmp_path: Path, own: bool, first: str, second: str) -> None:
    events = [
        {"subject_id": 1, "time": None if when is None else days(when), "code": f"DX//{code}", "recording_id": about}
        for code, when, about in (
            ("A", 0, "a"),
            ("B", 0, "a"),
            ("B", 0.25, "b"),
            ("C", 0.25, "b"),
            ("P", None, None),
            ("S", None, "a"),
        )
    ]
    recordings = [{"recording_id": r, "subject_id": 1, "time": days(day)} for r, day in (("a", 0), ("b", 0.25))]
    config = Pairing(code_kinds={"finding": ("DX//*",)}, static_codes=("DX//*",), own_codes=own)
    found = {row["recording_id"]: row for row in paired(tmp_path, recordings, events, [], config)}
    assert sorted(found["a"]["codes"]) == sorted(f"DX//{code}" for code in first)
    assert sorted(found["b"]["codes"]) == sorted(f"DX//{code}" for code in second)
    moments = {name: dict(zip(row["codes"], row["code_days"], strict=True)) for name, row in found.items()}
    assert moments["a"]["DX//B"] == (0.0 if own else 0.25)  # of the same day, that of the other ECG stays
    assert moments["b"]["DX//B"] == -0.25


def test_a_term_enters_once_as_what_is_said_of_it_and_never_if_denied(tmp_path: Path) -> None:
    notes = [{"subject_id": 1, "time": days(d), "note_id": n, "text": n} for n, d in (("far", -200), ("near", 3))]
    mentions = [
        {"note_id": "far", "start": 0, "term": "atrial fibrillation"},
        {"note_id": "far", "start": 9, "term": "diabetes", "historical": True},
        {"note_id": "near", "start": 40, "term": "atrial fibrillation"},
        {"note_id": "near", "start": 7, "term": "syncope", "uncertain": True},
        {"note_id": "near", "start": 1, "term": "heart failure", "negated": True},
        {"note_id": "near", "start": 2, "term": "stroke", "family": True},
        {"note_id": "near", "start": 3, "term": "palpitations", "hypothetical": True},
        {"note_id": "near", "start": 4, "term": "aspirin", "label": "medication"},
    ]
    recording = [{"recording_id": "r", "subject_id": 1, "time": T}]
    (row,) = paired(tmp_path, recording, [], notes, mentions=mentions)
    assert row["entity_text"] == "aspirin, possible syncope, atrial fibrillation, history of diabetes"
    assert row["entity_note_ids"] == ["near", "near", "near", "far"]
    assert (row["text"], row["note_ids"]) == ("near", ["near"])
    (row,) = paired(tmp_path, recording, [], notes, mentions=mentions, entities=Entities(labels=("medication",)))
    assert row["entity_text"] == "aspirin"


def test_only_relevant_notes_and_the_own_report_are_concatenated(tmp_path: Path) -> None:
    notes = [
        {"subject_id": 1, "time": days(d), "note_id": n, "text": f"{n} text", "recording_id": about}
        for n, d, about in (("own", 0, "r"), ("Cardiac", 1, None), ("spoken", 2, None), ("other", 3, None))
    ]
    mentions = [{"note_id": "spoken", "start": 0, "term": "syncope"}]
    recording = [{"recording_id": "r", "subject_id": 1, "time": T}]
    for options, kept in (
        ({}, ["own", "Cardiac", "spoken", "other"]),
        ({"keywords": ("cardiac",)}, ["own", "Cardiac"]),
        ({"relevant_entities": True}, ["own", "spoken"]),
        ({"relevant_entities": True, "keywords": ("cardiac",)}, ["own", "Cardiac", "spoken"]),
    ):
        (row,) = paired(tmp_path, recording, [], notes, Pairing(**options), mentions)
        assert row["note_ids"] == kept


HOURS = st.integers(-400 * 24, 400 * 24)
SUBJECTS = st.integers(1, 3)


def inside(at: int, time: int, before: int, after: int, skew: int) -> bool:
    """Minutes; the rules of TimeWindow once more, as plain arithmetic."""
    if after:
        return -before * 1440 - skew <= at - time <= after * 1440 + skew
    passed = at + 1440 <= time - skew if at % 1440 == 0 else at < time - skew
    return at - time >= -before * 1440 - skew and passed


@settings(max_examples=12, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(
    recordings=st.lists(st.tuples(SUBJECTS, HOURS), min_size=1, max_size=8),
    events=st.lists(st.tuples(SUBJECTS, HOURS, st.sampled_from("abc"), st.integers(-4, 7)), max_size=40),
    before=st.integers(1, 400),
    after=st.one_of(st.just(0), st.integers(1, 400)),
    skew=st.sampled_from([0, 90]),
    most=st.sampled_from([0, 2]),
    collapse=st.booleans(),
    own=st.booleans(),
    at_once=st.sampled_from([1, 1000]),
)
def test_pairing_equals_a_naive_loop(recordings, events, before, after, skew, most, collapse, own, at_once) -> None:
    config = Pairing(
        codes_before=float(before),
        codes_after=float(after),
        skew_minutes=float(skew),
        max_codes=most,
        collapse_days=collapse,
        own_codes=own,
    )
    # i: the recording that a code was read from, of the same patient, if not at the same time; -1: none
    events = [
        (s, h, c, -1) if i not in range(len(recordings)) else (recordings[i][0], h, c, i) for s, h, c, i in events
    ]
    start = dt.datetime(2000, 1, 1)

    def at(hour: int) -> dt.datetime:
        return start + dt.timedelta(hours=hour)

    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setitem(RECORDINGS_AT_ONCE, "duckdb", at_once)
        found = paired(
            Path(folder),
            [{"recording_id": f"{i:02d}", "subject_id": s, "time": at(h)} for i, (s, h) in enumerate(recordings)],
            [
                {"subject_id": s, "time": at(h), "code": f"SCP//{c}", "recording_id": None if i < 0 else f"{i:02d}"}
                for s, h, c, i in events
            ],
            [],
            config,
        )
    assert [row["recording_id"] for row in found] == [
        f"{i:02d}" for i, _ in sorted(enumerate(recordings), key=lambda r: (*r[1], r[0]))
    ]
    for row in found:
        subject, time = recordings[int(row["recording_id"])]
        codes = sorted(
            {
                (h, c)
                for s, h, c, i in events
                if s == subject
                and inside(h * 60, time * 60, before, after, skew)
                and (own or i != int(row["recording_id"]))
            }
        )
        if collapse:
            codes = [(h, c) for h, c in codes if not any(c == d and h // 24 == g // 24 and g < h for g, d in codes)]
        if most:
            codes = sorted(sorted(codes, key=lambda e: (abs(e[0] - time), e))[:most])
        assert row["codes"] == [f"SCP//{c}" for _, c in codes]
        assert row["code_days"] == [float(np.float32((h - time) / 24)) for h, _ in codes]
        assert config.codes_after or all(day < 0 for day in row["code_days"])
