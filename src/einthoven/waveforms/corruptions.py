"""What goes wrong before a recording is read, in NumPy: to measure whether a model's outlier detectors see it.

Each corruption takes recordings [n, 12, t] in mV at `rate` hertz and a level, and draws the same random numbers at
every level: a higher severity is the same accident, only worse. A lead that is all zero was not recorded and stays so.

An electrode of V1 or V2 one interspace too high is not among them: where no electrode was, nothing can be computed from
the twelve leads. What can is a precordial electrode in another one's place.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy.signal import butter, sosfiltfilt

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS, MICROVOLT, MISSING_SAMPLE
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import Floats, mains_heard, millivolts, resample

Generator = np.random.Generator

MUSCLE_HZ: Final = 20.0
"""Muscle noise lies above this."""
PRECORDIAL: Final = slice(LEADS.index("V1"), LEADS.index("V6") + 1)


def flat(signal: Floats, rate: float, leads: float, generator: Generator) -> Floats:
    """So many leads of each recording, at random, are 0 mV throughout: an electrode fell off.

    A model takes zeros for a lead that was not recorded, and lead dropout trains it for that: it may rightly not mind.
    """
    place = generator.random(signal.shape[:2]).argsort(axis=1).argsort(axis=1)
    return np.where((place < leads)[:, :, None], np.float32(0), signal)


def clipped(signal: Floats, rate: float, limit: float, generator: Generator) -> Floats:
    """The amplifier's range ends at ± `limit` mV."""
    return np.clip(signal, -limit, limit)


def arms_reversed(signal: Floats, rate: float, level: float, generator: Generator) -> Floats:
    """The electrodes of the arms exchanged: I is inverted, II and III, aVR and aVL change places, aVF stays.

    From I = LA - RA, II = LL - RA, III = LL - LA with LA and RA exchanged; the precordial leads keep their reference,
    the mean of all three.
    """
    one, two, three, right, left, foot = signal[:, :6].swapaxes(0, 1)
    return np.concatenate([np.stack([-one, three, two, left, right, foot], axis=1), signal[:, 6:]], axis=1)


def precordial_misplaced(signal: Floats, rate: float, electrodes: float, generator: Generator) -> Floats:
    """So many precordial electrodes, at random, each in the place of the next of them."""
    result = signal.copy()
    order = generator.random((len(signal), 6)).argsort(axis=1)[:, : int(electrodes)]
    recording = np.arange(len(signal))[:, None]
    result[:, PRECORDIAL][recording, order] = signal[:, PRECORDIAL][recording, np.roll(order, 1, axis=1)]
    return result


def mains(signal: Floats, rate: float, amplitude: float, generator: Generator) -> Floats:
    """Hum of the power line, 50 or 60 Hz, of this amplitude in mV, with any phase in each lead.

    At 100 Hz and below a recording can carry neither (`strips.mains_heard`).
    """
    heard = mains_heard(rate)
    if not len(heard):
        return signal
    hertz = generator.choice(heard, (len(signal), 1, 1))
    phase = generator.uniform(0, 2 * np.pi, (*signal.shape[:2], 1))
    hum = amplitude * np.sin(2 * np.pi * hertz * np.arange(signal.shape[-1]) / rate + phase)
    return _recorded(signal, signal + hum)


def muscle(signal: Floats, rate: float, level: float, generator: Generator) -> Floats:
    """White noise above 20 Hz (or a quarter of a low sampling rate), of this standard deviation in mV."""
    noise = generator.standard_normal(signal.shape)
    sections = butter(4, min(MUSCLE_HZ, rate / 4), "highpass", fs=rate, output="sos")
    noise = sosfiltfilt(sections, noise, padlen=min(21, signal.shape[-1] - 1))
    return _recorded(signal, signal + level * noise / (noise.std(axis=-1, keepdims=True) + 1e-12))


def not_ecg(signal: Floats, rate: float, share: float, generator: Generator) -> Floats:
    """This share of each lead's amplitude is pink noise of its own standard deviation; at 1 nothing else is left."""
    samples = signal.shape[-1]
    spectrum = np.fft.rfft(generator.standard_normal(signal.shape), axis=-1)
    spectrum[..., 1:] /= np.sqrt(np.arange(1, spectrum.shape[-1]))
    spectrum[..., 0] = 0
    noise = np.fft.irfft(spectrum, samples, axis=-1)
    noise *= signal.std(axis=-1, keepdims=True) / (noise.std(axis=-1, keepdims=True) + 1e-12)
    return _recorded(signal, (1 - share) * signal + share * noise)


def wrong_rate(signal: Floats, rate: float, speed: float, generator: Generator) -> Floats:
    """The header states `speed` times the true sampling rate, so the heart beats so many times as fast.

    What then is too short is repeated to the length it had, what is too long is cut.
    """
    played, samples = resample(signal, rate * speed, rate), signal.shape[-1]
    return np.tile(played, -(-samples // played.shape[-1]))[..., :samples]


def wrong_gain(signal: Floats, rate: float, factor: float, generator: Generator) -> Floats:
    """The header states another gain than the amplifier had."""
    return signal * np.float32(factor)


def _recorded(before: Floats, after: npt.NDArray[np.floating[Any]]) -> Floats:
    """`after` as float32, without what was added to leads that were not recorded."""
    return np.where(np.abs(before).max(axis=-1, keepdims=True) > 0, after, 0).astype(np.float32)


@dataclass(frozen=True)
class Corruption:
    """`levels[s - 1]` is severity s."""

    levels: tuple[float, ...]
    unit: str  # of the levels, as a table shows it
    apply: Callable[[Floats, float, float, Generator], Floats]


CORRUPTIONS: Final = {
    "flat": Corruption((1, 2, 4, 8, 12), "flat leads", flat),
    "clipped": Corruption((1.0, 0.5, 0.3, 0.2, 0.1), "mV", clipped),
    "limb reversal": Corruption((1,), "exchange of the arms", arms_reversed),
    "precordials": Corruption((2, 3, 4, 5, 6), "electrodes misplaced", precordial_misplaced),
    "mains": Corruption((0.05, 0.1, 0.2, 0.5, 1.0), "mV", mains),
    "muscle": Corruption((0.02, 0.05, 0.1, 0.2, 0.4), "mV", muscle),
    "not ECG": Corruption((0.2, 0.4, 0.6, 0.8, 1.0), "of the amplitude", not_ecg),
    "wrong rate": Corruption((0.8, 1.25, 0.5, 2.0, 4.0), "times as fast", wrong_rate),
    "wrong gain": Corruption((2, 0.5, 10, 0.1, 200), "times as large", wrong_gain),
}
"""Severities of rate and gain go by their distance from 1: what 400 and 500 Hz, 250 and 500 Hz, 250 and 1000 Hz
make of each other; half and double; a decimal place; units of 5 microvolts read as millivolts."""


def possible(name: str, rate: float) -> bool:
    """Whether a recording at this rate can show this corruption."""
    return name != "mains" or len(mains_heard(rate)) > 0


def corrupt(signal: Floats, rate: float, name: str, severity: int, generator: Generator) -> Floats:
    """Recordings [n, 12, t] in mV at `rate` hertz with one of `CORRUPTIONS`, severities from 1: float32, same shape."""
    if name not in CORRUPTIONS:
        raise EinthovenError(f"unknown corruption {name!r}; known: {', '.join(CORRUPTIONS)}.")
    chosen = CORRUPTIONS[name]
    if not 1 <= severity <= len(chosen.levels):
        raise EinthovenError(f"{name}: severity {severity}; expected 1 to {len(chosen.levels)}.")
    if signal.shape[1] != len(LEADS) or not signal.shape[-1]:
        raise EinthovenError(f"corrupt: expected recordings [n, {len(LEADS)}, samples], got {signal.shape}.")
    return np.asarray(chosen.apply(signal, rate, chosen.levels[severity - 1], generator), np.float32)


@dataclass(frozen=True)
class CorruptedStore:
    """A waveform store as it would be, had its recordings been corrupted before they were stored.

    Like every store it holds ± 32.767 mV: what lies beyond is cut. A sample that was not recorded stays so.
    """

    store: Store
    name: str
    severity: int
    seed: int

    @property
    def sampling_rate(self) -> int:
        return self.store.sampling_rate

    def read(self, rows: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.int16]:
        """Rows as the store has them, corrupted: drawn by the seed and the first row."""
        block = self.store.read(rows)
        generator = np.random.default_rng([self.seed, int(rows[0])])
        signal = corrupt(millivolts(block), self.sampling_rate, self.name, self.severity, generator)
        whole = np.clip(np.rint(signal / np.float32(MICROVOLT)), MISSING_SAMPLE + 1, -MISSING_SAMPLE - 1)
        return np.where(block == MISSING_SAMPLE, np.int16(MISSING_SAMPLE), whole.astype(np.int16))
