"""Any recording -> the leads, rate, length and unit of the store (see schema.WAVEFORMS)."""

from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from einthoven.schema import LEADS, MICROVOLT, MISSING_SAMPLE
from einthoven.waveforms.wfdb_format import MIN_RATE, RecordingError

Samples = npt.NDArray[np.int16]
Millivolts = npt.NDArray[np.float32]

LIMIT: Final = 32_767  # microvolts; larger values are clipped, and quality.flags calls the lead saturated
_PLACES: Final = {lead.casefold(): place for place, lead in enumerate(LEADS)}
FRONTAL: Final = (("III", -1.0, 1.0), ("aVR", -0.5, -0.5), ("aVL", 1.0, -0.5), ("aVF", -0.5, 1.0))
"""Limb leads as multiples of I and II."""


@lru_cache(maxsize=1024)
def lead_places(names: tuple[str, ...]) -> tuple[int | None, ...]:
    """The place in schema.LEADS of each name, whatever its case; None for names that are no standard lead.

    RecordingError("wrong-leads") if no name is known or one lead comes twice.
    """
    places = tuple(_PLACES.get(name.strip().casefold().removeprefix("lead").strip(" _-")) for name in names)
    known = [place for place in places if place is not None]
    if not known:
        raise RecordingError("wrong-leads", f"none of the {len(names)} signals is one of {', '.join(LEADS)}")
    if len(set(known)) != len(known):
        raise RecordingError("wrong-leads", "a lead is there twice")
    return places


def standardise(
    signal: npt.NDArray[Any],
    names: Sequence[str],
    rate: float,
    target_rate: int,
    samples: int,
    out: Samples | None = None,
) -> Samples:
    """Bring recordings into the form of the store: int16 microvolts [..., 12, samples] at `target_rate` hertz.

    `signal` is [..., leads, any length], int16 microvolts (MISSING_SAMPLE: not recorded) or float millivolts (NaN: not
    recorded), at `rate` hertz. The first `samples / target_rate` seconds are kept and shorter recordings are padded
    with MISSING_SAMPLE. III, aVR, aVL and aVF are derived where they are absent and I and II are there. Values beyond
    ±32.767 mV are clipped. Recordings of equal leads, rate and length can be given as one array. `out`: where the
    result is written, if it has a place already.
    """
    if signal.ndim < 2 or signal.shape[-2] != len(names):
        raise ValueError(f"expected [..., {len(names)} leads, samples], not {signal.shape}")
    if signal.dtype != np.int16 and not np.issubdtype(signal.dtype, np.floating):
        raise ValueError(f"expected int16 microvolts or float millivolts, not {signal.dtype}")
    places = lead_places(tuple(names))
    if rate != target_rate:
        signal = _resample(np.ascontiguousarray(signal), rate, target_rate, samples)
    length = min(signal.shape[-1], samples)
    stored = signal[..., :length] if signal.dtype == np.int16 else to_microvolts(signal[..., :length])
    if out is None:
        out = np.empty((*signal.shape[:-2], len(LEADS), samples), dtype=np.int16)
    out[..., length:] = MISSING_SAMPLE
    for lead, place in enumerate(places):
        if place is not None:
            out[..., place, :length] = stored[..., lead, :]
    absent = set(range(len(LEADS))) - set(places)
    for place in absent:
        out[..., place, :] = MISSING_SAMPLE
    if absent and LEADS.index("I") not in absent and LEADS.index("II") not in absent:
        _derive(out, absent)
    return out


def to_microvolts(signal: npt.NDArray[Any]) -> Samples:
    """Float millivolts -> int16 microvolts: rounded, clipped, NaN as MISSING_SAMPLE."""
    scaled = np.clip(np.rint(signal / MICROVOLT), -LIMIT, LIMIT)
    result: Samples = np.where(np.isnan(scaled), MISSING_SAMPLE, scaled).astype(np.int16)
    return result


def to_millivolts(stored: Samples) -> Millivolts:
    """Int16 microvolts -> float32 millivolts, MISSING_SAMPLE as NaN."""
    result: Millivolts = np.where(stored == MISSING_SAMPLE, np.nan, stored * np.float32(MICROVOLT)).astype(np.float32)
    return result


def leads_of(mask: int | None) -> list[str]:
    """The leads of a bit mask as `recorded_leads` makes it, in the order of `schema.LEADS`; none of None."""
    return [lead for i, lead in enumerate(LEADS) if (mask or 0) >> i & 1]


def recorded_leads(block: Samples) -> npt.NDArray[np.int16]:
    """Bit masks [...] of the leads that have a sample, recorded or derived, in int16 microvolts [..., 12, samples]."""
    bits = (1 << np.arange(len(LEADS))).astype(np.int16)
    result: npt.NDArray[np.int16] = ((block.max(axis=-1) != MISSING_SAMPLE) * bits).sum(axis=-1).astype(np.int16)
    return result


def _derive(out: Samples, absent: set[int]) -> None:
    one, two = (to_millivolts(out[..., LEADS.index(lead), :]) for lead in ("I", "II"))
    for lead, of_one, of_two in FRONTAL:
        if LEADS.index(lead) in absent:
            out[..., LEADS.index(lead), :] = to_microvolts(of_one * one + of_two * two)


def _resample(signal: npt.NDArray[Any], rate: float, target_rate: int, samples: int) -> Millivolts:
    """Float millivolts at `target_rate`. Samples not recorded are bridged for the filter, and marked again after it."""
    from scipy.signal import resample_poly

    ratio = Fraction(target_rate / rate).limit_denominator(1000) if rate >= MIN_RATE else 0
    if ratio == 0:
        raise RecordingError("bad-header", f"cannot resample {rate} Hz to {target_rate} Hz")
    margin = 64 * max(1.0, rate / target_rate)  # what the filter sees beyond the last sample kept
    kept = signal[..., : int(samples * rate / target_rate + margin) + 1]
    values = to_millivolts(kept) if kept.dtype == np.int16 else kept.astype(np.float32)
    missing = np.isnan(values)
    gaps = bool(missing.any())
    if gaps:
        values = _bridge(values, missing)
    # "line" removes the straight line between the ends, so that an offset does not ring at the edges.
    result: Millivolts = resample_poly(values, ratio.numerator, ratio.denominator, axis=-1, padtype="line")
    if gaps:
        nearest = np.rint(np.arange(result.shape[-1]) * rate / target_rate).astype(np.int64)
        result[missing[..., np.minimum(nearest, values.shape[-1] - 1)]] = np.nan
    return result


def _bridge(values: Millivolts, missing: npt.NDArray[np.bool_]) -> Millivolts:
    """Straight lines across what was not recorded; 0 in leads without any sample."""
    flat, holes = values.reshape(-1, values.shape[-1]).copy(), missing.reshape(-1, values.shape[-1])
    for line in np.flatnonzero(holes.any(axis=1)):
        known = np.flatnonzero(~holes[line])
        everywhere = np.arange(flat.shape[1])
        flat[line] = np.interp(everywhere, known, flat[line, known]) if len(known) else 0.0
    return flat.reshape(values.shape)
