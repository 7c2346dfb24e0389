"""Pairing as expressions: which codes, notes and terms lie in the window around each recording.

The engine is Ibis. The expressions use only what every engine has in the same sense (Spark has no
`collect(order_by=)`), so they run unchanged on DuckDB, PySpark and the warehouses that Ibis speaks to. Each gives one
row per recording that has anything in its window; `pairs.py` puts them together.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import ibis

from einthoven.errors import EinthovenError
from einthoven.pairing.kinds import KEY_BITS as KEY_BITS
from einthoven.pairing.kinds import MAX_CODES as MAX_CODES

SECONDS_PER_DAY: Final = 86_400

STATIC: Final = -(1 << 40)
"""The seconds of a code without a time: before all others."""


@dataclass(frozen=True)
class TimeWindow:
    """Days before and after a recording, both ends included, times to the second.

    `after=0` makes a prognostic window: nothing from the moment of the recording on is inside. An entry stamped
    midnight may only have a date, so there it counts for its whole day: on the day of the recording it stays out.
    `skew` seconds is how far the clock of the recording may be off: it widens the window on both sides, but moves the
    end of a prognostic one earlier.
    """

    before: float
    after: float
    skew: float = 0.0

    def __post_init__(self) -> None:
        if not all(0 <= value < math.inf for value in (self.before, self.after, self.skew)):
            raise EinthovenError(
                f"window: before={self.before}, after={self.after}, skew={self.skew}; expected zero or more."
            )
        if self.before == self.after == 0:
            raise EinthovenError("window: before and after are both 0, so nothing could be inside; widen one of them.")

    @property
    def prognostic(self) -> bool:
        return self.after == 0

    def holds(self, time: Any, at: Any) -> Any:
        """Ibis: whether `at` lies inside the window around `time`, both in whole seconds since 1970."""
        low = time - round(self.before * SECONDS_PER_DAY + self.skew)
        if not self.prognostic:
            return (at >= low) & (at <= time + round(self.after * SECONDS_PER_DAY + self.skew))
        last = ibis.ifelse(at % SECONDS_PER_DAY == 0, at + SECONDS_PER_DAY - 1, at)
        return (at >= low) & (last < time - round(self.skew))


def seconds(time: Any) -> Any:
    """Ibis: whole seconds since 1970, a fraction dropped. Engines differ in how they round one, so it goes first."""
    return time.truncate("s").epoch_seconds().cast("int64")


def codes_in_window(recordings: Any, events: Any, window: TimeWindow, collapse_days: bool, own: bool = True) -> Any:
    """Columns `recording_id`, `keys`: the codes of each recording's window, as sorted integers (KEY_BITS).

    `recordings` has recording_id, subject_id and time; `events` subject_id, time, rank and recording_id. The findings
    read from the recording itself are inside, at day 0; without `own` they are not. With `collapse_days` a code counts
    once a day, at its first time in the window.
    """
    keys = recordings.select("recording_id", "subject_id", moment=seconds(recordings.time))
    dated = events.select("subject_id", "rank", about=events.recording_id, second=seconds(events.time))
    joined = keys.inner_join(dated, "subject_id").filter(lambda t: window.holds(t.moment, t.second))
    if not own:
        joined = joined.filter(~joined.about.identical_to(joined.recording_id))  # most events are about no recording
    span = SECONDS_PER_DAY if collapse_days else 1
    once = joined.group_by(["recording_id", "rank", (joined.second // span).name("span")]).agg(
        second=joined.second.min()
    )
    key = once.second.cast("int64") * MAX_CODES + once["rank"].cast("int64")
    listed = once.select("recording_id", key=key).group_by("recording_id").agg(keys=lambda t: t.key.collect())
    return listed.select("recording_id", keys=listed["keys"].sort())


def static_codes(recordings: Any, events: Any, window: TimeWindow, own: bool = True) -> Any:
    """As `codes_in_window`, for events without a time: they belong to every recording of the subject.

    What was read from one recording (a finding of an undated ECG) belongs to that one, and in a prognostic window or
    without `own` to none.
    """
    undated = events.select("subject_id", "rank", about=events.recording_id)
    joined = recordings.select("recording_id", "subject_id").inner_join(undated, "subject_id")
    belongs = joined.about.isnull()
    if own and not window.prognostic:
        belongs |= joined.about == joined.recording_id
    joined = joined.filter(belongs)
    once = joined.select("recording_id", key=joined["rank"].cast("int64") + STATIC * MAX_CODES).distinct()
    listed = once.group_by("recording_id").agg(keys=once.key.collect())
    return listed.select("recording_id", keys=listed["keys"].sort())


def notes_near(recordings: Any, notes: Any, window: TimeWindow) -> Any:
    """One row per recording and note of its window: recording_id, note_id and `distance`, which orders a concatenation.

    The distance is in seconds, -1 for the recording's own report, which belongs to it even where a time is missing; in
    a prognostic window nothing is own, since a report is written after the recording.
    """
    keys = recordings.select("recording_id", "subject_id", moment=seconds(recordings.time))
    dated = notes.select("subject_id", "note_id", about=notes.recording_id, second=seconds(notes.time))
    joined = keys.inner_join(dated, "subject_id")
    inside = window.holds(joined.moment, joined.second).fill_null(False)
    own = (joined.about == joined.recording_id).fill_null(False)
    if window.prognostic:
        own = ibis.literal(False)
    near = joined.mutate(own=own, inside=inside).filter(lambda t: t.inside | t.own)
    distance = ibis.ifelse(near.own, -1, (near.second - near.moment).abs())
    return near.select("recording_id", "note_id", distance=distance.cast("int64"))


def report_concatenation(near: Any, notes: Any) -> Any:
    """Columns `recording_id`, `note_ids`, `texts`: the notes nearest to the recording first, its own report before all.

    Nearest first, because a text encoder cuts what is too long at the end. `notes` has note_id, text and `relevant`;
    a note that is not relevant enters only as the recording's own.
    """
    told = near.inner_join(notes, "note_id").filter(lambda t: t.relevant | (t.distance < 0))
    entry = ibis.struct({"distance": told.distance, "note_id": told.note_id, "text": told.text})
    listed = told.group_by("recording_id").agg(sequence=entry.collect())
    ordered = listed.mutate(sequence=listed.sequence.sort())
    return ordered.select(
        "recording_id",
        note_ids=ordered.sequence.map(lambda e: e["note_id"]),
        texts=ordered.sequence.map(lambda e: e["text"]),
    )


def entity_concatenation(near: Any, words: Any) -> Any:
    """Columns `recording_id`, `note_ids`, `words`: each term once, where it is first met in the order of the reports.

    `words` has note_id, start and words, as `entities.extract.rendered` gives them. `note_ids[i]` is the note in which
    `words[i]` was met.
    """
    first = words.group_by(["note_id", "words"]).agg(start=words.start.min())
    met = near.inner_join(first, "note_id")
    place = ibis.struct({"distance": met.distance, "note_id": met.note_id, "start": met.start})
    once = met.mutate(place=place).group_by(["recording_id", "words"]).agg(place=lambda t: t.place.min())
    entry = ibis.struct({"place": once.place, "words": once.words})
    listed = once.group_by("recording_id").agg(sequence=entry.collect())
    ordered = listed.mutate(sequence=listed.sequence.sort())
    return ordered.select(
        "recording_id",
        note_ids=ordered.sequence.map(lambda e: e["place"]["note_id"]),
        words=ordered.sequence.map(lambda e: e["words"]),
    )
