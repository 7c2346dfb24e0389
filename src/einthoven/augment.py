"""Augmentation: what a training strip undergoes before it enters a batch, in NumPy, each step a function.

A step that is off draws no random number, so what the other steps draw does not depend on whether it exists. Missing
leads stay missing: all zero, which is what the ECG encoder takes for "not recorded".
"""

from functools import cache
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from einthoven.config import Augmentation
from einthoven.schema import LEADS
from einthoven.waveforms.strips import Floats, lead_mask, mains_heard, millivolts

Bools = npt.NDArray[np.bool_]
Signals = npt.NDArray[np.int16]
Block = TypeVar("Block", Floats, Signals)
Generator = np.random.Generator


class Share(Generator):
    """Random numbers for some rows of a batch: those that one process, which has all rows, would draw for them.

    A shape [n, ...] asked for is drawn for all `rows` of the batch; the rows at `mine`, n of them, are returned. So the
    processes of a training draw more than they use, and together make the batch that a single one makes.
    """

    def __init__(self, generator: Generator, rows: int, mine: slice) -> None:
        super().__init__(generator.bit_generator)
        self.rows, self.mine = rows, mine

    def random(self, size: Any) -> Any:  # type: ignore[override]
        return super().random(self._whole(size))[self.mine]

    def uniform(self, low: Any, high: Any, size: Any) -> Any:  # type: ignore[override]
        return super().uniform(low, high, self._whole(size))[self.mine]

    def integers(self, low: Any, high: Any, size: Any) -> Any:  # type: ignore[override]
        return super().integers(low, high, self._whole(size))[self.mine]

    def choice(self, a: Any, size: Any) -> Any:  # type: ignore[override]
        return super().choice(a, self._whole(size))[self.mine]

    def _whole(self, size: Any) -> tuple[int, ...]:
        return (self.rows, *np.atleast_1d(size)[1:].tolist())


SUBSETS: Final = (LEADS[:6], ("I", "II"), ("I",), ("II",))
"""What devices with fewer electrodes record: the limb leads, two of them, a watch or patch (I), a monitor (II)."""


def augment(signal: Block, length: int, rate: int, options: Augmentation, generator: Generator) -> Floats:
    """Recordings [n, 12, samples] at `rate` hertz -> one cropped, distorted strip each in mV, float32 [n, 12, length].

    `signal` is in mV or, as the store has it, int16 microvolts: only what is kept of it is converted. A strip keeps at
    least one of the leads it had.
    """
    cut = crop(signal, length, generator) if options.crop else middle(signal, length)
    strip = millivolts(cut.view(np.int16)) if cut.dtype == np.int16 else cut.astype(np.float32)
    leads: Bools = np.any(strip, axis=-1)
    if options.scale:
        strip = scale(strip, options.scale, generator)
    if options.noise_mv:
        strip = noise(strip, options.noise_mv, generator)
    if options.wander_mv:
        strip = wander(strip, rate, options.wander_mv, generator)
    if options.mains_mv:
        strip = mains(strip, rate, options.mains_mv, generator)
    if options.time_mask:
        strip = time_mask(strip, options.time_mask, generator)
    if options.lead_subset:
        leads = lead_subset(leads, options.lead_subset, generator)
    if options.lead_dropout:
        leads = lead_dropout(leads, options.lead_dropout, generator)
    strip[~leads] = 0
    return strip


def crop(signal: Block, length: int, generator: Generator) -> Block:
    """A window of `length` samples at a random place, another for each recording; a short one is padded with zeros."""
    return _windows(signal, length, generator.integers(0, max(signal.shape[-1] - length, 0) + 1, len(signal)))


def middle(signal: Block, length: int) -> Block:
    """The window of `length` samples in the middle."""
    return _windows(signal, length, np.full(len(signal), max(signal.shape[-1] - length, 0) // 2))


def _windows(signal: Block, length: int, start: npt.NDArray[np.int64]) -> Block:
    if signal.shape[-1] < length:
        signal = np.pad(signal, ((0, 0), (0, 0), (0, length - signal.shape[-1])))
    return np.stack([signal[i, :, s : s + length] for i, s in enumerate(start)])


def scale(strip: Floats, spread: float, generator: Generator) -> Floats:
    """One gain for a whole strip, from 1 ± `spread`: the ratios between leads are findings."""
    return strip * _uniform(generator, 1 - spread, 1 + spread, (len(strip), 1, 1))


def noise(strip: Floats, up_to: float, generator: Generator) -> Floats:
    """White noise; its standard deviation, up to `up_to` mV, is another in each lead.

    Read from a table, for each lead at another place: to draw it anew took two thirds of an augmentation's time.
    """
    level = _uniform(generator, 0, up_to, (*strip.shape[:2], 1))
    windows = sliding_window_view(_white(strip.shape[-1]), strip.shape[-1])
    noisy: Floats = windows[generator.integers(0, len(windows), strip.shape[:2])]
    noisy *= level  # in place, here and below: on large batches new memory costs more than the arithmetic
    noisy += strip
    return noisy


@cache
def _white(length: int) -> Floats:
    """Normal numbers, always the same: half a million, or enough for strips of `length` samples."""
    return np.random.default_rng(0).standard_normal(max(2**19, 8 * length), np.float32)


def wander(strip: Floats, rate: int, up_to: float, generator: Generator) -> Floats:
    """Baseline wander: a sinusoid of 0.05 to 0.5 Hz (breathing), of up to `up_to` mV and any phase in each lead."""
    hertz = _uniform(generator, 0.05, 0.5, (len(strip), 1, 1))
    return _with_sinusoids(strip, hertz, rate, up_to, generator)


def mains(strip: Floats, rate: int, up_to: float, generator: Generator) -> Floats:
    """Hum of the power line: 50 or 60 Hz per strip, of up to `up_to` mV and any phase in each lead.

    Where the rate can carry neither (`strips.mains_heard`), the strip is returned as it is.
    """
    possible = mains_heard(rate).astype(np.float32)
    if not len(possible):
        return strip
    return _with_sinusoids(strip, generator.choice(possible, (len(strip), 1, 1)), rate, up_to, generator)


def _with_sinusoids(strip: Floats, hertz: Floats, rate: int, up_to: float, generator: Generator) -> Floats:
    """`strip` and sinusoids of `hertz` [n, 1, 1], in each lead with a phase and an amplitude of its own."""
    phase = _uniform(generator, 0, 2 * np.pi, (*strip.shape[:2], 1))
    level = _uniform(generator, 0, up_to, (*strip.shape[:2], 1))
    angle = 2 * np.pi * hertz * np.arange(strip.shape[-1], dtype=np.float32) / rate
    # sin(a + p) = sin(a) cos(p) + cos(a) sin(p): two sines for a strip in place of one for each lead
    parts = np.concatenate([level * np.cos(phase), level * np.sin(phase)], axis=-1)
    wave: Floats = parts @ np.concatenate([np.sin(angle), np.cos(angle)], axis=1)
    wave += strip
    return wave


def time_mask(strip: Floats, up_to: float, generator: Generator) -> Floats:
    """Blank one stretch of each strip, up to this share of it, in all leads: zeros, as a gap in a recording is read."""
    n, _, length = strip.shape
    share = generator.uniform(0, up_to, (n, 1, 1))
    start = (1 - share) * generator.random((n, 1, 1))
    time = (np.arange(length) + 0.5) / length
    return np.where((time >= start) & (time < start + share), np.float32(0), strip)


def lead_subset(leads: Bools, probability: float, generator: Generator) -> Bools:
    """Of the leads a strip has, bool [n, 12], those in one of `SUBSETS`, with this probability; else all.

    A strip that has no lead of the subset drawn keeps all.
    """
    subset = np.stack([lead_mask(names) for names in SUBSETS])[generator.integers(0, len(SUBSETS), len(leads))]
    reduced = leads & subset
    drawn = (generator.random(len(leads)) < probability) & reduced.any(axis=1)
    return np.where(drawn[:, None], reduced, leads)


def lead_dropout(leads: Bools, probability: float, generator: Generator) -> Bools:
    """Of the leads a strip has, bool [n, 12], those left when each is dropped with this probability.

    One stays always, the one with the highest draw: a strip without any lead would teach nothing.
    """
    draw = np.where(leads, generator.random(leads.shape), -1.0)
    kept: Bools = leads & ((draw >= probability) | (draw == draw.max(axis=1, keepdims=True)))
    return kept


def _uniform(generator: Generator, low: float, high: float, shape: tuple[Any, ...]) -> Floats:
    return generator.uniform(low, high, shape).astype(np.float32)
