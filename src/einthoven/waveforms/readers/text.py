"""CSV: a heading with the names of leads, a row per sample."""

import io
import re
from pathlib import Path
from typing import Any, Final

import numpy as np

from einthoven.schema import LEADS
from einthoven.waveforms.readers.protocol import MAX_VALUES, Channel, Found, Hints, lead_name, millivolts_per
from einthoven.waveforms.readers.tables import RATES, UNITS, channels, said
from einthoven.waveforms.wfdb_format import MAX_SIGNALS, RecordingError

_TIMES: Final = {"time": 1.0, "t": 1.0, "time_s": 1.0, "seconds": 1.0, "time_ms": 1e-3, "ms": 1e-3}
"""Columns that are the time, and their unit in seconds."""

_IRREGULAR: Final = 0.5  # of a sample


class Csv:
    """Comma, semicolon or tab. A time column or "# sampling_rate: 500", "I (mV)" or "# unit: mV". Empty: missing."""

    name = "CSV"

    def sniff(self, head: bytes, path: Path | None) -> bool:
        try:
            _, heading, _ = _parts(head)
        except RecordingError:
            return False
        return any(lead_name(name) in LEADS for name, _ in map(_unit, heading))

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        stated, heading, start = _parts(content)
        table = _numbers(content[start:], _delimiter(content[:start]), heading)
        titled = dict(zip(map(str.casefold, heading), table, strict=True))
        time, scale = next(((titled[name], scale) for name, scale in _TIMES.items() if name in titled), (None, 1.0))
        rate = _rate(time * scale) if time is not None else _stated(stated, hints)
        found: list[Channel] = []
        for title, values in zip(heading, table, strict=True):
            name, unit = _unit(title)
            if lead_name(name) in LEADS or (unit and millivolts_per(unit) is not None):
                unit = unit or said(stated, UNITS, hints.unit or "")
                found += channels([name], [values], rate, unit)
        return Found(tuple(found))


def _parts(content: bytes) -> tuple[dict[str, str], list[str], int]:
    """What the lines with # state, the heading, and where the numbers begin."""
    stated: dict[str, str] = {}
    place = len(b"\xef\xbb\xbf") if content.startswith(b"\xef\xbb\xbf") else 0
    for _ in range(64):
        end = content.find(b"\n", place, place + (1 << 14))
        if end < 0:
            break
        line = content[place:end].decode("utf-8", "replace").strip()
        place = end + 1
        if line.startswith("#"):
            key, _, value = line.lstrip("# ").replace("=", ":", 1).partition(":")
            stated[key.strip().casefold()] = value.strip()
        elif line:
            heading = [cell.strip().strip('"') for cell in line.split(_delimiter(line.encode()))]
            if len(heading) > MAX_SIGNALS or len(set(map(str.casefold, heading))) != len(heading):
                raise RecordingError(
                    "wrong-leads", f"expected at most {MAX_SIGNALS} columns, each with a name of its own"
                )
            return stated, heading, place
    raise RecordingError("unreadable", "expected a heading with the names of the leads, and rows of numbers")


def _delimiter(line: bytes) -> str:
    """The one that the heading, the last line given, has most of."""
    heading = line.strip().rpartition(b"\n")[2]
    return max(",;\t", key=lambda mark: heading.count(mark.encode()))


def _unit(title: str) -> tuple[str, str]:
    """("I", "mV") of "I (mV)" or "I [mV]"."""
    found = re.fullmatch(r"(.*?)\s*[(\[]([^()\[\]]{1,12})[)\]]", title)
    return (found[1], found[2]) if found else (title, "")


def _numbers(content: bytes, delimiter: str, heading: list[str]) -> Any:
    """[columns, rows]; empty cells NaN."""
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(
            io.BytesIO(content),
            csv.ReadOptions(column_names=[str(place) for place in range(len(heading))], use_threads=False),
            csv.ParseOptions(delimiter=delimiter),
            csv.ConvertOptions(
                column_types={str(place): pa.float64() for place in range(len(heading))},
                null_values=["", "nan", "NaN", "NA"],
                decimal_point="," if delimiter == ";" and b"." not in content[:4096] else ".",
            ),
        )
    except (pa.ArrowException, ValueError) as error:  # its message quotes the cell
        kind = type(error).__name__
        raise RecordingError(
            "unreadable", f"expected {len(heading)} numbers in each row; Arrow raised {kind}"
        ) from None
    if table.num_rows * len(heading) > MAX_VALUES:
        raise RecordingError("too-large", f"at most {MAX_VALUES} values expected")
    return [column.to_numpy() for column in table.columns]


def _rate(seconds: Any) -> float:
    """Hertz of evenly spaced times; a time that is a rounded decimal gives a whole rate nevertheless."""
    count = len(seconds)
    if count < 2 or not np.isfinite(seconds).all() or seconds[-1] <= seconds[0]:
        raise RecordingError("no-rate", "expected a time column that rises")
    step = (seconds[-1] - seconds[0]) / (count - 1)
    if np.abs(seconds - seconds[0] - step * np.arange(count)).max() > _IRREGULAR * step:
        raise RecordingError("unreadable", "expected times that are evenly spaced")
    rate = 1.0 / step
    return float(round(rate)) if abs(rate - round(rate)) < 1e-3 * rate and rate > 1 else float(rate)


def _stated(stated: dict[str, str], hints: Hints) -> float | None:
    text = said(stated, RATES)
    if text is None:
        return hints.sampling_rate
    number = re.match(r"\d{1,6}(?:\.\d{1,9})?", text)
    if number is None:
        raise RecordingError("no-rate", f"expected a number of hertz after {RATES[0]}")
    return float(number[0])
