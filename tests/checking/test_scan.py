"""Order, small cells and windows against naive versions of themselves."""

from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from einthoven import schema
from einthoven.checking.scan import scan
from einthoven.checking.tables import Tables
from einthoven.checking.windows import own_chart, windows
from einthoven.config import Pairing, to_dict
from einthoven.study import write_table

TIME = datetime(2020, 1, 1, 12)
times = st.one_of(st.none(), st.integers(0, 3).map(lambda day: TIME + timedelta(days=day)))


def scanned(table: schema.Table, rows: list[dict[str, object]], batch: int):
    with TemporaryDirectory() as folder:
        path = write_table(table, Path(folder), pa.Table.from_pylist(rows, schema=table.columns))
        return scan(table, path, batch)


@given(st.lists(st.tuples(st.integers(-2, 2), times), max_size=8), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_events_are_sorted_if_python_says_so(keys, batch) -> None:
    rows = [{"subject_id": subject, "time": time, "code": "C"} for subject, time in keys]
    found = scanned(schema.EVENTS, rows, batch)
    ranks = [(subject, time is not None, time or TIME) for subject, time in keys]
    descents = [place + 2 for place, (above, below) in enumerate(pairwise(ranks)) if below < above]
    assert found.rows == len(rows)
    assert (found.disorder.count, found.disorder.rows) == (len(descents), tuple(descents[:5]))


@given(st.lists(st.tuples(st.integers(-2, 2), times), max_size=8), st.integers(1, 4), st.booleans())
@settings(max_examples=20, deadline=None)
def test_notes_may_have_their_undated_first_or_last(keys, batch, first) -> None:
    keys.sort(key=lambda key: (key[0], (key[1] is None) != first, key[1] or TIME))
    rows = [{"note_id": "n", "subject_id": s, "time": t, "kind": "ecg", "text": ""} for s, t in keys]
    assert scanned(schema.NOTES, rows, batch).disorder.count == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 3)), max_size=8), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_mentions_are_in_runs_of_their_note(keys, batch) -> None:
    said = dict.fromkeys(("negated", "uncertain", "historical", "family", "hypothetical"), False)
    rows = [{"note_id": n, "start": s, "end": s + 1, "term": "t", "label": "finding", **said} for n, s in keys]
    found = scanned(schema.SUPPLIED_ENTITIES, rows, batch)
    steps = list(pairwise(keys))
    assert found.runs == bool(keys) + sum(above[0] != below[0] for above, below in steps)
    assert found.disorder.count == sum(above[0] == below[0] and below[1] < above[1] for above, below in steps)


DAY = 86_400


@given(
    before=st.sampled_from([0.0, 1.0, 30.5, 365.0]),
    after=st.sampled_from([0.0, 1.0, 365.0]),
    skew=st.sampled_from([0.0, 1.5, 60.0]),
    edge=st.sampled_from(["low", "high", "now"]),
    off=st.sampled_from([-600, -120, -61, -5, 0, 5, 61, 120, 600]),  # seconds from that edge; float32 days tell 3
)
@settings(max_examples=40, deadline=None)
def test_a_window_holds_what_its_bounds_say(before: float, after: float, skew: float, edge: str, off: int) -> None:
    delta = {"low": -before * DAY - 60 * skew, "high": after * DAY + 60 * skew, "now": 0.0}[edge] + off
    inside = delta >= -before * DAY - 60 * skew
    inside &= delta <= after * DAY + 60 * skew if after else delta < -60 * skew
    assume(before or after)
    config = Pairing(codes_before=before, codes_after=after, notes_before=before, notes_after=after, skew_minutes=skew)
    with duckdb.connect() as engine:
        at = TIME + timedelta(seconds=delta)
        engine.execute(
            "CREATE TABLE pairs AS SELECT 1 AS place, 'r' AS recording_id, $1::TIMESTAMP AS time, "
            "[$2::FLOAT] AS code_days, ['n'] AS note_ids, []::VARCHAR[] AS entity_note_ids",
            [TIME, np.float32(delta / DAY).item()],
        )
        engine.execute(
            "CREATE TABLE notes AS SELECT 'n' AS note_id, $1::TIMESTAMP AS time, '-' AS recording_id, 'ecg' AS kind",
            [at],
        )
        names = {"pairs": schema.PAIRS, "notes": schema.NOTES}
        tables = Tables(Path(), engine, {"pair": {"config": to_dict(config)}}, names=names)
        assert {finding.column for finding in windows(tables)} == (set() if inside else {"code_days", "note_ids"})


@pytest.mark.parametrize(("hour", "day", "inside"), [(0, 1, False), (0, 0, True), (1, 1, True), (12, 1, False)])
def test_what_may_have_only_a_date_is_not_before_a_recording_of_that_day(hour, day, inside) -> None:
    with duckdb.connect() as engine:
        engine.execute(
            "CREATE TABLE pairs AS SELECT 1 AS place, 'r' AS recording_id, TIMESTAMP '2020-01-02 12:00' AS time, "
            "[$1::FLOAT] AS code_days, ['n'] AS note_ids, []::VARCHAR[] AS entity_note_ids",
            [day - 1.5 + hour / 24],
        )
        engine.execute(
            "CREATE TABLE notes AS SELECT 'n' AS note_id, $1::TIMESTAMP AS time, 'r' AS recording_id, 'ecg' AS kind",
            [datetime(2020, 1, 1 + day, hour)],
        )
        names = {"pairs": schema.PAIRS, "notes": schema.NOTES}
        config = to_dict(Pairing(codes_after=0, notes_after=0))
        tables = Tables(Path(), engine, {"pair": {"config": config}}, names=names)
        assert {finding.column for finding in windows(tables)} == (set() if inside else {"code_days", "note_ids"})


@pytest.mark.parametrize(
    ("events", "day", "fits"),
    [
        ([("r", 0)], 0.0, False),
        ([("s", 0)], 0.0, True),
        ([(None, 0)], 0.0, True),
        ([("r", 0), ("s", 0)], 0.0, True),
        ([("r", 0), ("s", 9)], 0.0, False),
        ([("r", 9), ("s", 0)], 0.0, True),
        ([("r", None)], None, False),
        ([("r", None), (None, None)], None, True),
    ],
)
def test_a_code_of_the_recording_alone_is_found_where_own_codes_are_out(events, day, fits) -> None:
    with duckdb.connect() as engine:
        engine.execute(
            "CREATE TABLE pairs AS SELECT 1 AS place, 'r' AS recording_id, 1 AS subject_id, $1::TIMESTAMP AS time, "
            "['DX//A'] AS codes, [$2::FLOAT] AS code_days, []::VARCHAR[] AS note_ids, []::VARCHAR[] AS entity_note_ids",
            [TIME, day],
        )
        engine.execute("CREATE TABLE notes (subject_id BIGINT, note_id VARCHAR)")
        engine.execute("CREATE TABLE events (subject_id BIGINT, time TIMESTAMP, code VARCHAR, recording_id VARCHAR)")
        for about, at in events:
            time = None if at is None else TIME + timedelta(seconds=at)
            engine.execute("INSERT INTO events VALUES (1, $1, 'DX//A', $2)", [time, about])
        names = {"pairs": schema.PAIRS, "notes": schema.NOTES, "events": schema.EVENTS}
        for own in (True, False):
            config = to_dict(Pairing(own_codes=own))
            tables = Tables(Path(), engine, {"pair": {"config": config}}, names=names)
            assert [finding.column for finding in own_chart(tables)] == ([] if own or fits else ["codes"])


@pytest.mark.parametrize("after", [0.0, 30.0])
def test_a_recordings_own_report_without_a_time_is_inside_unless_the_future_is_out(after: float) -> None:
    with duckdb.connect() as engine:
        engine.execute(
            "CREATE TABLE pairs AS SELECT 1 AS place, 'r' AS recording_id, NULL::TIMESTAMP AS time, "
            "[]::FLOAT[] AS code_days, ['n'] AS note_ids, []::VARCHAR[] AS entity_note_ids"
        )
        engine.execute(
            "CREATE TABLE notes AS SELECT 'n' AS note_id, NULL::TIMESTAMP AS time, 'r' AS recording_id, 'ecg' AS kind"
        )
        names = {"pairs": schema.PAIRS, "notes": schema.NOTES}
        config = to_dict(Pairing(notes_after=after))
        assert bool(windows(Tables(Path(), engine, {"pair": {"config": config}}, names=names))) == (after == 0)
