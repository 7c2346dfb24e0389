"""From a recording to the strips a model sees: millivolts, twelve leads, one rate, one length."""

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS, MICROVOLT, MISSING_SAMPLE
from einthoven.waveforms.wfdb_format import MAX_RATE, MIN_RATE

Floats = npt.NDArray[np.float32]

MOST: Final = 10_000
"""Of both numbers of a ratio of rates: the filter has twenty times as many taps. 499.9999 Hz would make it 10**8."""

MAINS: Final = (50, 60)
"""Hertz of the world's power lines."""


def resample(signal: Floats, rate: float, target: float) -> Floats:
    """Polyphase resampling along the last axis, hertz to hertz."""
    if rate == target:
        return signal
    from scipy.signal import resample_poly  # slow to import: a search by words does without

    ratio = Fraction(target).limit_denominator(MOST) / Fraction(rate).limit_denominator(MOST)
    if max(ratio.numerator, ratio.denominator) > MOST:
        ratio = ratio.limit_denominator(int(min(MOST, MOST * rate / target)))
    # "line": without it the ends of a strip that sits on an offset would ring
    return np.asarray(resample_poly(signal, ratio.numerator, ratio.denominator, axis=-1, padtype="line"), np.float32)


def millivolts(block: npt.NDArray[np.int16]) -> Floats:
    """Stored microvolts to millivolts; what was not recorded becomes 0."""
    signal: Floats = np.multiply(block, np.float32(MICROVOLT), dtype=np.float32)
    missing = block == MISSING_SAMPLE
    if missing.any():
        signal[missing] = 0
    return signal


def mains_heard(rate: float) -> npt.NDArray[np.int64]:
    """Those of `MAINS` below half the sampling rate: what sampled or resampled a recording took out the others, and
    their alias would be a tone that no recording has."""
    return np.array([hertz for hertz in MAINS if hertz < rate / 2], np.int64)


def lead_mask(leads: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which of the twelve leads are named, bool [12]."""
    return np.isin(LEADS, leads)


def starts(samples: int, length: int, count: int) -> npt.NDArray[np.int64]:
    """First samples of `count` evenly spaced strips; fewer where the recording is too short to differ."""
    return np.unique(np.linspace(0, max(samples - length, 0), count).round().astype(np.int64))


def cut(signal: Floats, length: int, count: int) -> Floats:
    """[n, 12, samples] -> [n, s, 12, length]: evenly spaced strips; a short recording is padded with zeros."""
    if signal.shape[-1] < length:
        signal = np.pad(signal, ((0, 0), (0, 0), (0, length - signal.shape[-1])))
    return np.stack([signal[..., s : s + length] for s in starts(signal.shape[-1], length, count)], axis=1)


def from_store(block: npt.NDArray[np.int16], rate: int, target: int, length: int, count: int) -> Floats:
    """Rows of the waveform store, [n, 12, samples] microvolts at `rate`, to strips [n, s, 12, length] at `target`."""
    return cut(resample(millivolts(block), rate, target), length, count)


def several(array: npt.ArrayLike, asked: str) -> Floats:
    """One recording [leads, samples] or several [n, leads, samples], as several; an error says what was `asked`."""
    signal = np.asarray(array, dtype=np.float32)
    if signal.ndim not in (2, 3):
        raise EinthovenError(f"{asked}: expected [leads, samples] or [n, leads, samples], got {signal.shape}.")
    return signal if signal.ndim == 3 else signal[None]


def from_millivolts(
    signal: npt.NDArray[np.floating[Any]], rate: float, leads: Sequence[str], target: int, length: int, count: int
) -> Floats:
    """Arrays of any lead order [n, leads, samples] in millivolts to strips [n, s, 12, length]."""
    if signal.shape[1] != len(leads):
        raise EinthovenError(f"{signal.shape[1]} leads of signal but {len(leads)} lead names.")
    if not MIN_RATE <= rate <= MAX_RATE:
        raise EinthovenError(f"sampling rate {rate} Hz; expected {MIN_RATE:g} to {MAX_RATE:,.0f} Hz.")
    if signal.shape[-1] == 0:
        raise EinthovenError("the recording has no samples.")
    if not np.isfinite(signal).any(axis=(1, 2)).all():
        raise EinthovenError("a recording has no sample in any lead: expected one or more; leave it out.")
    if np.nanmax(np.abs(signal), initial=0.0) > 1000:
        raise EinthovenError("values beyond 1000 mV: expected millivolts. Are these microvolts or ADC units?")
    twelve = np.zeros((len(signal), len(LEADS), signal.shape[-1]), np.float32)
    position = {name.upper(): i for i, name in enumerate(LEADS)}
    for column, name in enumerate(leads):
        if name.strip().upper() not in position:
            raise EinthovenError(f"unknown lead {name!r}; known leads: {', '.join(LEADS)}.")
        twelve[:, position[name.strip().upper()]] = signal[:, column]
    return cut(resample(np.nan_to_num(twelve, nan=0.0), rate, target), length, count)
