"""An ECG as a FHIR Observation with SampledData -> its signal.

A component holds one lead: `valueSampledData` with origin (value and unit), period (milliseconds), factor, dimensions
(1) and data, decimals with spaces between. Its voltage is data * factor + origin, as FHIR defines. A lead that comes in
several components is their sequence, as in HL7's own example. https://hl7.org/fhir/R4/datatypes.html#SampledData
"""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from einthoven.schema import LEADS
from einthoven.sources.fhir_elements import Resource, element, items
from einthoven.waveforms.wfdb_format import MAX_SIGNALS, Record, RecordingError

Values = npt.NDArray[np.float64]

ECG_CODES: Final = frozenset(("11524-6", "34534-8", "131328", "2:256"))
"""LOINC "EKG study" and "12 lead EKG panel", MDC_ECG_ELEC_POTL (ISO/IEEE 11073-10101)."""

PERIODS: Final = 0.05, 100.0
"""Milliseconds between samples that are believed: 10 Hz to 20 kHz."""

MAX_MILLIVOLTS: Final = 1e6
MILLIVOLTS: Final = {
    "mV": 1.0,
    "uV": 1e-3,
    "µV": 1e-3,
    "μV": 1e-3,
    "nV": 1e-6,
    "V": 1e3,
    "MDC_DIM_MILLI_VOLT": 1.0,
    "MDC_DIM_MICRO_VOLT": 1e-3,
    "MDC_DIM_VOLT": 1e3,
}

_MDC_PLACES: Final = (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8)
"""Of schema.LEADS, the codes of MDC_ECG_LEAD_*; those of MDC_ECG_ELEC_POTL_* are 256 above them. Partition 2."""

_MDC_LEADS: Final = {
    form.format(base + number): lead
    for number, lead in zip(_MDC_PLACES, LEADS, strict=True)
    for form, base in (("2:{}", 0), ("2:{}", 256), ("{}", 2 << 16), ("{}", (2 << 16) + 256))
}
_NAMES: Final = {lead.casefold(): lead for lead in LEADS}
_PREFIXES: Final = ("mdc_ecg_elec_potl_", "mdc_ecg_lead_", "ecg lead ", "lead ")


@dataclass(frozen=True)
class Place:
    """Where the line of an Observation lies."""

    file: Path
    offset: int
    length: int


def is_ecg(observation: Resource) -> bool:
    """Whether it holds samples, and its code or a component's says that they are of an ECG."""
    sampled = [one for one in items(observation.get("component")) if isinstance(one.get("valueSampledData"), dict)]
    if isinstance(observation.get("valueSampledData"), dict):
        sampled.append(dict(observation))
    if not sampled:
        return False
    codes = (coding.get("code") for coding in items(element(observation, "code", "coding")))
    return any(isinstance(c, str) and c in ECG_CODES for c in codes) or any(lead_of(c.get("code")) for c in sampled)


def lead_of(concept: Any) -> str | None:
    """The standard lead that a CodeableConcept names: by MDC code, by MDC name, or as "Lead aVF"; else None."""
    codings = items(element(concept, "coding"))
    names = [name for coding in codings for name in (coding.get("code"), coding.get("display"))]
    for name in (*names, element(concept, "text")):
        lead = _lead(name) if isinstance(name, str) and len(name) < 64 else None
        if lead is not None:
            return lead
    return None


@lru_cache(4096)
def _lead(name: str) -> str | None:
    known = _MDC_LEADS.get(name)
    if known is not None:
        return known
    plain = name.strip().casefold()
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    return _NAMES.get(plain.strip())


def read_ecg(place: Place) -> Record:
    """Read the line at `place` again and take its signal; RecordingError if it cannot be used."""
    try:
        with place.file.open("rb") as file:
            file.seek(place.offset, os.SEEK_SET)
            observation = json.loads(file.read(place.length))
    except (OSError, ValueError, RecursionError):
        raise RecordingError("unreadable", "the file was changed while it was read") from None
    if not isinstance(observation, dict):
        raise RecordingError("unreadable", "the file was changed while it was read")
    return signal_of(observation)


def signal_of(observation: Resource) -> Record:
    """The standard leads of an Observation, in float32 millivolts [leads, samples], NaN where nothing was recorded.

    RecordingError: wrong-leads, bad-header (period, unit, dimensions…), bad-signal (data), truncated (leads of
    unequal length).
    """
    parts: dict[str, list[Values]] = {}
    periods = set()
    for lead, data in _sampled(observation):
        periods.add(_period(data))
        parts.setdefault(lead, []).append(_millivolts(data))
    if not parts:
        raise RecordingError("wrong-leads", f"Observation.component.code: expected one of {', '.join(LEADS)}")
    if len(periods) > 1:
        raise RecordingError("bad-header", "valueSampledData.period: expected the same of all leads")
    signals = [np.concatenate(chunks) for chunks in parts.values()]
    lengths = {len(signal) for signal in signals}
    if len(lengths) > 1 or 0 in lengths:
        raise RecordingError(
            "truncated", f"leads of {min(lengths)} to {max(lengths)} samples, expected as many of each"
        )
    return Record(np.stack(signals).astype(np.float32), tuple(parts), 1000.0 / periods.pop())


def _sampled(observation: Resource) -> Iterator[tuple[str, dict[str, Any]]]:
    """(lead, SampledData) of every standard lead."""
    components = [*items(observation.get("component")), dict(observation)]
    found = [(lead_of(one.get("code")), one.get("valueSampledData")) for one in components]
    leads = [(lead, data) for lead, data in found if lead is not None and isinstance(data, dict)]
    if len(leads) > MAX_SIGNALS:
        raise RecordingError("bad-header", f"{len(leads)} components, at most {MAX_SIGNALS} expected")
    yield from leads


def _period(data: dict[str, Any]) -> float:
    if "period" not in data and "interval" in data:
        raise RecordingError("bad-header", "valueSampledData.interval is of FHIR R5; expected period, of R4")
    period = _number(data.get("period"))
    if period is None or not PERIODS[0] <= period <= PERIODS[1]:
        raise RecordingError("bad-header", f"valueSampledData.period: expected {PERIODS[0]} to {PERIODS[1]} ms")
    return period


def _number(value: Any) -> float | None:
    """A finite number of a size that a signal's scale may have."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1e12:
        return None
    return float(value)


def _millivolts(data: dict[str, Any]) -> Values:
    origin, factor = data.get("origin"), _number(data.get("factor", 1))
    zero = _number(element(origin, "value"))
    units = (element(origin, name) for name in ("code", "unit"))
    unit = next((MILLIVOLTS[name] for name in units if isinstance(name, str) and name in MILLIVOLTS), None)
    if unit is None:
        raise RecordingError("bad-header", "valueSampledData.origin.unit: expected mV, uV, nV or V")
    if zero is None or factor is None or factor == 0:
        raise RecordingError("bad-header", "valueSampledData.origin.value and factor: expected numbers")
    if data.get("dimensions", 1) != 1:
        raise RecordingError("bad-header", "valueSampledData.dimensions: expected 1")
    raw = _samples(data)
    values = raw * factor + zero
    for beyond, name in ((-math.inf, "lowerLimit"), (math.inf, "upperLimit")):
        limit = _number(data.get(name))
        values[raw == beyond] = math.nan if limit is None else limit
    return np.clip(values * unit, -MAX_MILLIVOLTS, MAX_MILLIVOLTS)


def _samples(data: dict[str, Any]) -> Values:
    """The decimals of `data`; E (no measurement) is NaN, L and U (beyond the limits) are minus and plus infinity."""
    text = data.get("data")
    if not isinstance(text, str) or not text.isascii():
        raise RecordingError("bad-signal", "valueSampledData.data: expected decimals with spaces between")
    words = text.split()
    try:
        if set(text) <= _DECIMAL - {"E"}:
            return _finite(np.array(list(map(float, words)), np.float64))
        special = np.array([_SPECIAL.get(word, 0.0) for word in words], np.float64)
        plain = ["0" if word in _SPECIAL else word for word in words]
        if not set("".join(plain)) <= _DECIMAL:
            raise ValueError
        return special + _finite(np.array(list(map(float, plain)), np.float64))
    except ValueError:
        raise RecordingError("bad-signal", "valueSampledData.data: expected decimals, E, L or U") from None


_DECIMAL: Final = frozenset("0123456789+-.eE \n\t")
_SPECIAL: Final = {"E": math.nan, "L": -math.inf, "U": math.inf}


def _finite(values: Values) -> Values:
    if not np.isfinite(values).all():
        raise ValueError
    return values
