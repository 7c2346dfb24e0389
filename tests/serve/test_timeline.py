import re

from einthoven.serve.bodies import ChartCode, ChartNote, RecordingAnswer
from einthoven.serve.timeline import LEFT, MOST_DAYS, RIGHT, WIDTH, Mark, marks, static, timeline


def known(codes: list[ChartCode], notes: list[ChartNote], time: str | None = "2020-01-11T00:00:00") -> RecordingAnswer:
    return RecordingAnswer(
        recording_id="r", time=time, split="train", age=None, sex=None, source_rate=None, leads=[], quality=[],
        device=None, site=None, signal=True, findings=[], codes=codes, notes=notes,
    )  # fmt: skip


CODES = [
    ChartCode(code="DX//1", kind="diagnosis", days=-10.0, description="<b>old & new</b>"),
    ChartCode(code="SEX//F", kind="static", days=None, description=None),
]
NOTES = [ChartNote(kind="ecg", time="2020-01-01T12:00:00", text=None), ChartNote(kind="echo", time=None, text=None)]


def test_what_has_a_day_is_a_mark() -> None:
    found = marks(known(CODES, NOTES))
    assert [(mark.lane, mark.days, mark.note) for mark in found] == [
        ("diagnosis", -10.0, False),
        ("ECG reports", -9.5, True),
    ]
    assert [mark.note for mark in marks(known(CODES, NOTES, time=None))] == [False]
    assert [code.code for code in static(known(CODES, NOTES))] == ["SEX//F"]


def test_the_recording_is_in_the_middle_and_days_are_to_scale() -> None:
    drawn = timeline([Mark("finding", days, "x", False) for days in (-100.0, 0.0, 50.0)])
    left, middle, right = (float(x) for x in re.findall(r'cx="([\d.]+)"', drawn))
    assert middle == (LEFT + WIDTH - RIGHT) / 2
    assert abs((middle - left) / (right - middle) - 2) < 0.01


def test_marks_that_would_cover_each_other_are_one_that_names_them() -> None:
    drawn = timeline([Mark("finding", day, f"code {i}", False) for i, day in enumerate((0.0, 0.1, 90.0))])
    assert drawn.count("<circle") == 2 and "code 0, day +0; code 1, day +0" in drawn


def test_words_of_the_chart_are_escaped_and_the_far_away_is_left_out() -> None:
    drawn = timeline([*marks(known(CODES, NOTES)), Mark("echo", MOST_DAYS + 1, "far", True)])
    assert "<b>" not in drawn and "&lt;b&gt;old &amp; new" in drawn
    assert "far, day" not in drawn and "1 are further away" in drawn
    assert timeline([]) == ""
