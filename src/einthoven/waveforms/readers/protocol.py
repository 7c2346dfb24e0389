"""What a reader of an ECG format is, and how what it found becomes one array of leads."""

import importlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS
from einthoven.waveforms.wfdb_format import MAX_SIGNALS, MILLIVOLTS, MIN_RATE, RecordingError

Values = npt.NDArray[np.floating[Any]]

MAX_VALUES: Final = 1 << 26  # samples times leads: 12 leads for three hours at 500 Hz
MAX_RATE: Final = 100_000.0  # hertz

_EXTRA: Final = ("V7", "V8", "V9", "V3R", "V4R", "V5R", "V6R", "X", "Y", "Z")
_NAMES: Final = {name.casefold(): name for name in (*LEADS, *_EXTRA)}
_PREFIXES: Final = ("mdc_ecg_lead_", "mdc_ecg_", "ecg", "ekg", "lead")
_UNITS: Final = {
    **MILLIVOLTS,
    **{f"{word}volt{end}": factor for word, factor in (("milli", 1.0), ("micro", 1e-3)) for end in ("", "s")},
}


@dataclass(frozen=True)
class Hints:
    """What the caller knows of a file that does not say it itself; what a file says goes first."""

    sampling_rate: float | None = None  # hertz
    unit: str | None = None
    leads: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Channel:
    """One signal of a file."""

    name: str
    values: Values  # [samples], millivolts, NaN where missing
    rate: float  # hertz
    start: int = 0  # samples after the start of the recording


@dataclass(frozen=True)
class Found:
    """The channels of one recording. `recorded` and `subject` only leave when they are asked for."""

    channels: tuple[Channel, ...]
    recorded: datetime | None = None
    subject: str | None = None
    meta: dict[str, str | int | float] = field(default_factory=dict)  # nothing a patient could be known by


class Reader(Protocol):
    """Knows one format."""

    name: str

    def sniff(self, head: bytes, path: Path | None) -> bool:
        """Is this the format of a file that begins with `head`?"""
        ...

    def read(self, content: bytes, path: Path | None, hints: Hints) -> Found:
        """The recording; RecordingError with what was expected, or what a library raises, if it cannot be read."""
        ...


def needed(module: str, package: str) -> Any:
    """An optional module; EinthovenError with what to install where it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise EinthovenError(
            f"{package} is not installed, which reads this format: pip install einthoven[formats]"
        ) from None


def lead_name(text: str) -> str:
    """Our name of a lead ("aVR" of "MDC_ECG_LEAD_AVR", "V1" of "ECG V1"); else its own, cut short."""
    name = text.strip()
    key = name.casefold()
    for prefix in _PREFIXES:
        key = key.removeprefix(prefix).strip(" _-:")
    return _NAMES.get(key) or "".join(letter for letter in name if letter.isprintable())[:16]


def millivolts_per(unit: str) -> float | None:
    """Millivolts of one `unit`; None for what is no voltage."""
    return _UNITS.get(unit.strip().casefold())


def stacked(channels: Iterable[Channel]) -> tuple[npt.NDArray[np.float32], float, tuple[str, ...]]:
    """Float32 millivolts [leads, samples], hertz, our names, in the order found.

    Channels at another rate than the first standard lead are left out, and of two with one name the shorter one.
    Where a channel starts later or ends earlier than others it is NaN. RecordingError: wrong-leads, bad-header,
    too-large, no-signal.
    """
    named = [(lead_name(channel.name), channel) for channel in channels]
    standard = [channel for name, channel in named if name in LEADS]
    if not standard:
        raise RecordingError("wrong-leads", f"none of {len(named)} signals is one of {', '.join(LEADS)}")
    rate = standard[0].rate
    if not MIN_RATE <= rate <= MAX_RATE:
        raise RecordingError("bad-header", f"expected a sampling rate from {MIN_RATE:g} to {MAX_RATE:g} Hz")
    kept: dict[str, Channel] = {}
    for name, channel in named:
        if channel.rate == rate and (name not in kept or len(kept[name].values) < len(channel.values)):
            kept[name] = channel
    first = min(channel.start for channel in kept.values())
    length = max(channel.start + len(channel.values) for channel in kept.values()) - first
    if len(kept) > MAX_SIGNALS or length * len(kept) > MAX_VALUES:
        raise RecordingError(
            "too-large", f"{len(kept)} leads of {length} samples, at most {MAX_VALUES} values expected"
        )
    signal = np.full((len(kept), length), np.nan, np.float32)
    with np.errstate(over="ignore"):
        for row, channel in zip(signal, kept.values(), strict=True):
            row[channel.start - first :][: len(channel.values)] = channel.values
    signal[~np.isfinite(signal)] = np.nan
    if np.isnan(signal).all():
        raise RecordingError("no-signal", "no sample was recorded in any lead")
    return signal, rate, tuple(kept)
