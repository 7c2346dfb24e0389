"""A beating dipole: findings in, 12-lead ECG out, a batch of recordings at a time.

The heart is one moving current dipole. Each beat is a sum of Gaussian waves in space and time (after McSharry et al.,
IEEE Trans Biomed Eng 2003, without its limit cycle), in Frank's axes: x to the left, y to the feet, z to the back, in
millivolts. A patient's lead matrix, Dower's (J Electrocardiol 1980;13:361) turned and disturbed, makes I, II and V1-V6
of it; the other limb leads follow by Einthoven's and Goldberger's equations from the rounded I and II.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from einthoven.schema import LEADS, MICROVOLT

Floats = NDArray[np.float32]
Statements = Sequence[frozenset[str]]
Has = Mapping[str, NDArray[np.bool_]]

CHUNK: Final = 64  # recordings at a time: keeps the arrays in the cache; part of what a seed means
FASTEST: Final = 0.3  # seconds: no RR interval is shorter
_LIMIT: Final = 32000  # microvolts
_QRS_ONSET: Final = -0.045  # seconds from the R peak of a normal beat

# fmt: off
_DOWER: Final = np.array([
    (0.632, -0.235, 0.059), (0.235, 1.066, -0.132),  # I, II; then V1 to V6
    (-0.515, 0.157, -0.917), (0.044, 0.164, -1.387), (0.882, 0.098, -1.277),
    (1.213, 0.127, -0.601), (1.125, 0.127, -0.086), (0.831, 0.076, 0.230),
], dtype=np.float32)
# fmt: on

P1, P2, Q, ANTERIOR, R, S, LATE, ST, T1, T2, U, SPIKE = range(12)
"""The waves of a beat. ANTERIOR is the early free-wall activation that makes r grow from V1 to V4."""


@dataclass(frozen=True)
class Wave:
    """One Gaussian: its centre in seconds from the R peak (ST, T, U: from the end of QT), its sigma, its dipole."""

    slot: int
    centre: float
    sigma: float
    vector: tuple[float, float, float]


# fmt: off
_NORMAL: Final = (
    # The right atrium, then the left (their time is set by the PR interval); the septum, from left to right;
    # the free wall; the base, backwards; the plateau; the slow upstroke of T and its fall.
    Wave(P1, 0.0, 0.018, (0.05, 0.06, -0.06)), Wave(P2, 0.0, 0.020, (0.06, 0.10, 0.03)),
    Wave(Q, -0.024, 0.008, (-0.12, -0.02, -0.24)), Wave(ANTERIOR, -0.010, 0.008, (0.35, 0.15, -0.35)),
    Wave(R, 0.0, 0.011, (1.05, 0.75, 0.45)), Wave(S, 0.022, 0.009, (-0.15, -0.10, 0.45)),
    Wave(LATE, 0.060, 0.018, (0.0, 0.0, 0.0)), Wave(ST, -0.200, 0.045, (0.02, 0.02, -0.03)),
    Wave(T1, -0.125, 0.045, (0.10, 0.08, -0.09)), Wave(T2, -0.085, 0.034, (0.24, 0.18, -0.18)),
    Wave(U, 0.060, 0.030, (0.01, 0.01, -0.015)), Wave(SPIKE, -0.062, 0.001, (0.0, 0.0, 0.0)),
)
_CHANGES: Final[tuple[tuple[str, tuple[Wave, ...]], ...]] = (
    ("LVH", (  # a larger free wall, and strain: ST and T away from it
        Wave(R, 0.002, 0.013, (2.10, 1.00, 1.15)), Wave(S, 0.026, 0.010, (-0.10, -0.10, 0.60)),
        Wave(ST, -0.200, 0.045, (-0.10, -0.05, 0.06)), Wave(T1, -0.125, 0.050, (-0.12, -0.06, -0.05)),
        Wave(T2, -0.085, 0.034, (-0.22, -0.10, -0.08)))),
    ("STD_", (
        Wave(ST, -0.195, 0.055, (-0.16, -0.12, 0.06)), Wave(T1, -0.125, 0.045, (-0.02, -0.01, -0.02)),
        Wave(T2, -0.080, 0.034, (0.10, 0.07, -0.06)))),
    ("AMI", (  # no anterior wall: early forces point backwards, injury current and inverted T to the front
        Wave(Q, -0.024, 0.012, (-0.10, 0.03, 0.55)), Wave(ANTERIOR, -0.010, 0.008, (0.05, 0.08, 0.10)),
        Wave(R, 0.0, 0.011, (0.80, 0.65, 0.35)), Wave(ST, -0.215, 0.050, (0.04, 0.0, -0.20)),
        Wave(T1, -0.120, 0.040, (-0.05, 0.03, 0.08)), Wave(T2, -0.085, 0.034, (-0.14, 0.08, 0.26)))),
    ("IMI", (  # no inferior wall: early forces point upwards
        Wave(Q, -0.024, 0.013, (0.03, -0.55, -0.14)), Wave(R, 0.003, 0.011, (1.00, 0.50, 0.45)),
        Wave(ST, -0.215, 0.050, (0.0, 0.08, -0.02)), Wave(T1, -0.120, 0.040, (0.08, -0.12, -0.09)),
        Wave(T2, -0.085, 0.034, (0.20, -0.30, -0.15)))),
    ("CRBBB", (  # the right ventricle last, to the right and the front
        Wave(LATE, 0.062, 0.019, (-0.50, -0.03, -0.68)), Wave(T2, -0.075, 0.036, (0.26, 0.15, 0.10)))),
    ("CLBBB", (  # no septal q; the left ventricle slowly, through the muscle; ST and T against QRS
        Wave(Q, -0.030, 0.008, (0.04, 0.04, -0.10)), Wave(ANTERIOR, -0.015, 0.012, (0.20, 0.15, 0.10)),
        Wave(R, 0.0, 0.022, (0.90, 0.35, 0.70)), Wave(S, 0.025, 0.009, (0.0, 0.0, 0.0)),
        Wave(LATE, 0.058, 0.023, (0.95, 0.30, 0.70)), Wave(ST, -0.190, 0.050, (-0.12, -0.04, -0.18)),
        Wave(T1, -0.110, 0.045, (-0.12, -0.04, -0.16)), Wave(T2, -0.075, 0.036, (-0.24, -0.08, -0.34)))),
    ("PACE", (  # from the apex of the right ventricle: as left bundle branch block, but upwards
        Wave(Q, -0.030, 0.008, (0.0, 0.0, 0.0)), Wave(ANTERIOR, -0.020, 0.012, (0.05, -0.10, 0.05)),
        Wave(R, 0.0, 0.024, (0.65, -0.85, 0.65)), Wave(S, 0.025, 0.009, (0.0, 0.0, 0.0)),
        Wave(LATE, 0.060, 0.024, (0.55, -0.55, 0.55)), Wave(ST, -0.190, 0.050, (-0.08, 0.12, -0.14)),
        Wave(T1, -0.110, 0.045, (-0.08, 0.16, -0.14)), Wave(T2, -0.075, 0.036, (-0.18, 0.34, -0.32)),
        Wave(SPIKE, -0.062, 0.001, (0.9, 1.6, 0.5)))),
)
"""What a finding makes of the normal beat, in this order, so that a block conducts through an infarcted heart."""
_ECTOPIC: Final = {
    R: (0.0, 0.026, 1.0), LATE: (0.060, 0.026, 0.7), ST: (-0.190, 0.050, -0.15), T2: (-0.085, 0.045, -0.45),
}
"""The waves of a ventricular ectopic beat: centre, sigma, share of the patient's ectopic axis."""
# fmt: on
_ECTOPIC_AXES: Final = np.array([(0.15, 1.0, 0.5), (-0.7, 0.5, -0.7), (0.6, -0.8, 0.5)], dtype=np.float32)


@dataclass(frozen=True)
class Anatomy:
    """What stays with a patient from one recording to the next; every array begins with the patient's axis."""

    leads: Floats  # [n, 8, 3]: from the dipole to I, II, V1-V6; holds the rotation of the heart and the electrodes
    gain: Floats  # [n, 12, 3]: of each wave
    width: Floats  # [n]: of the QRS waves
    pr: Floats  # [n], seconds
    qtc: Floats  # [n], seconds, Fridericia
    ectopic: Floats  # [n, 3]: the axis of ventricular ectopic beats, mV

    def take(self, rows: NDArray[np.intp] | slice) -> "Anatomy":
        return Anatomy(*(getattr(self, part.name)[rows] for part in fields(self)))


@dataclass(frozen=True)
class Beats:
    """When each heart beats. Slots beyond the end of the recording are late, not absent."""

    times: Floats  # [n, k]: R peaks, seconds from the start of the recording; the first lie before it
    rr: Floats  # [n, k]: interval before each beat, seconds
    ectopic: NDArray[np.bool_]  # [n, k]: begun in the ventricles
    flutter: Floats  # [n]: seconds per atrial cycle in flutter


def draw_anatomy(n: int, rng: np.random.Generator) -> Anatomy:
    """Draw `n` patients: axis (sigma 12 degrees frontal, 8 others), electrode placement, amplitudes, intervals."""
    angles = np.deg2rad(rng.normal(0, (8, 8, 12), (n, 3)))
    turn = np.broadcast_to(np.eye(3), (n, 3, 3))
    for axis, (a, b) in enumerate(((1, 2), (0, 2), (0, 1))):
        step = np.tile(np.eye(3), (n, 1, 1))
        step[:, a, a] = step[:, b, b] = np.cos(angles[:, axis])
        step[:, a, b], step[:, b, a] = -np.sin(angles[:, axis]), np.sin(angles[:, axis])
        turn = step @ turn
    placed = _DOWER * (1 + rng.normal(0, 0.08, (n, 8, 3)))
    gain = np.exp(rng.normal(0, 0.15, (n, 1, 1)) + rng.normal(0, 0.12, (n, 12, 1)) + rng.normal(0, 0.06, (n, 12, 3)))
    gain[:, (ST, T1, T2)] *= np.exp(rng.normal(0, 0.2, (n, 1, 1)))
    axes = _ECTOPIC_AXES[rng.integers(0, 3, n)] * rng.uniform(1.2, 1.8, (n, 1)) + rng.normal(0, 0.15, (n, 3))
    drawn = (placed @ turn, gain, rng.uniform(0.9, 1.1, n), rng.uniform(0.13, 0.185, n), rng.normal(0.41, 0.013, n))
    return Anatomy(*(part.astype(np.float32) for part in (*drawn, axes)))


def simulate(
    findings: Statements,
    rng: np.random.Generator,
    sampling_rate: int = 500,
    seconds: float = 10.0,
    *,
    anatomy: Anatomy | None = None,
    noise: float = 1.0,
) -> NDArray[np.int16]:
    """Simulate one recording for each set of SCP statements; statements without a meaning here change nothing.

    Returns int16 microvolts [n, 12, samples] in the order of `schema.LEADS`. `noise` scales wander, mains and muscle.
    """
    anatomy = draw_anatomy(len(findings), rng) if anatomy is None else anatomy
    out = np.empty((len(findings), len(LEADS), round(seconds * sampling_rate)), np.int16)
    starts = range(0, len(findings), CHUNK)
    for start, generator in zip(starts, rng.spawn(len(starts)), strict=True):
        rows = slice(start, start + CHUNK)
        part = anatomy.take(rows)
        vector, _ = dipole(findings[rows], generator, sampling_rate, seconds, part)
        leads = part.leads @ vector
        if noise:
            leads += noise * _disturbance(leads.shape, sampling_rate, generator)
        out[rows] = _twelve(leads)
    return out


def dipole(
    findings: Statements, rng: np.random.Generator, sampling_rate: int, seconds: float, anatomy: Anatomy
) -> tuple[Floats, Beats]:
    """The noise-free heart vector, millivolts [n, 3, samples], and the beats it was made of."""
    names = ("SBRAD", "STACH", "AFIB", "AFLT", "PVC", "1AVB", "LNGQT", "PACE", *(name for name, _ in _CHANGES))
    has = {name: np.array([name in each for each in findings], dtype=bool) for name in names}
    beats = _rhythm(has, rng, seconds)
    centre, sigma, vector = _morphology(has, anatomy, rng)
    qtc = np.where(has["LNGQT"], rng.uniform(0.50, 0.58, len(findings)), anatomy.qtc).astype(np.float32)
    # QT follows the rate with a memory: half the last interval, half the mean.
    qt = qtc[:, None] * np.cbrt(0.5 * beats.rr + 0.5 * beats.rr.mean(1, keepdims=True))
    breath = 1 + 0.04 * np.sin(2 * np.pi * rng.uniform(0.18, 0.3, (len(findings), 1)) * beats.times, dtype=np.float32)
    pad = sampling_rate  # one second either side, where waves of beats beyond the edges end
    heart = np.zeros((3, len(findings), round(seconds * sampling_rate) + 2 * pad), np.float32)
    for slot in range(len(_NORMAL)):
        ectopic_centre, ectopic_sigma, share = _ECTOPIC.get(slot, (0.0, 0.02, 0.0))
        times = beats.times + np.where(beats.ectopic, ectopic_centre, centre[:, slot, None])
        if slot in (ST, T1, T2, U):
            times += qt + _QRS_ONSET
        widths = np.where(beats.ectopic, ectopic_sigma, sigma[:, slot, None])
        vectors = np.where(beats.ectopic[..., None], share * anatomy.ectopic[:, None], vector[:, slot, None])
        coarse = np.maximum(widths, 0.5 / sampling_rate)  # a spike shorter than a sample still shows, lower
        vectors = vectors * (breath * np.sqrt(widths / coarse))[..., None]
        _add(heart, times + 1.0, coarse, vectors.astype(np.float32), sampling_rate)
    heart = heart[:, :, pad:-pad].transpose(1, 0, 2) + _atria(has, beats, rng, sampling_rate, heart.shape[2] - 2 * pad)
    return heart.astype(np.float32), beats


def _rhythm(has: Has, rng: np.random.Generator, seconds: float) -> Beats:
    n, slots = len(has["AFIB"]), int((seconds + 3) / FASTEST)
    rate = np.clip(rng.normal(72, 9, n), 62, 96)
    for name, low, high in (("SBRAD", 40, 56), ("STACH", 104, 150), ("AFIB", 65, 135), ("PACE", 60, 78)):
        rate = np.where(has[name], rng.uniform(low, high, n), rate)
    mean = (60 / rate)[:, None]
    breath = np.sin(2 * np.pi * rng.uniform(0.2, 0.3, (n, 1)) * mean * np.arange(slots) + rng.uniform(0, 6.3, (n, 1)))
    sinus = mean * (1 + rng.uniform(0.005, 0.035, (n, 1)) * breath + rng.normal(0, 0.008, (n, slots)))
    fibrillating = mean * np.exp(rng.normal(0, 0.24, (n, slots)))
    flutter = rng.uniform(0.19, 0.22, n)
    varying = rng.random((n, 1)) < 0.3  # variable block: every beat has its own ratio
    ratio = np.where(varying, rng.integers(2, 5, (n, slots)), rng.integers(2, 5, (n, 1)))
    other = [has[name][:, None] for name in ("PACE", "AFLT", "AFIB")]
    rr = np.select(other, [mean, flutter[:, None] * ratio, fibrillating], sinus)
    early = rng.random((n, slots)) < rng.uniform(0.05, 0.2, (n, 1))
    early[np.arange(n), rng.integers(3, 6, n)] = True  # at least one within ten seconds
    early[:, 1:] &= ~early[:, :-1]
    early &= has["PVC"][:, None]
    rr[early] *= 0.62
    rr[:, 1:] += np.where(early[:, :-1], rr[:, :-1] * 0.38 / 0.62, 0)  # the pause makes up for what came early
    rr = np.maximum(rr, FASTEST)
    times = np.cumsum(rr, 1) - rr[:, :1] * (1 + rng.random((n, 1)))
    kept = slice(0, int((times < seconds + 0.6).sum(1).max(initial=1)))
    single = np.float32
    return Beats(times[:, kept].astype(single), rr[:, kept].astype(single), early[:, kept], flutter.astype(single))


def _morphology(has: Has, anatomy: Anatomy, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Centres [n, 12] and sigmas [n, 12] in seconds, vectors [n, 12, 3] in mV, of every recording's own beat."""
    n = len(anatomy.pr)
    centre, sigma = (np.tile([getattr(wave, name) for wave in _NORMAL], (n, 1)) for name in ("centre", "sigma"))
    vector = np.tile(np.array([wave.vector for wave in _NORMAL]), (n, 1, 1))
    for name, waves in _CHANGES:
        severity = rng.uniform(0.85, 1.25, (n, 1))
        for wave in waves:
            rows, slot = has[name], wave.slot
            centre[rows, slot], sigma[rows, slot] = wave.centre, wave.sigma
            vector[rows, slot] += severity[rows] * (np.array(wave.vector) - vector[rows, slot])
    centre[:, Q : LATE + 1] *= anatomy.width[:, None]
    sigma[:, Q : LATE + 1] *= anatomy.width[:, None]
    pr = np.where(has["1AVB"], rng.uniform(0.22, 0.32, n), anatomy.pr)
    centre[:, P1] = _QRS_ONSET - pr + 0.045
    centre[:, P2] = centre[:, P1] + 0.032
    silent = has["AFIB"] | has["AFLT"] | (has["PACE"] & (rng.random(n) < 0.5))
    vector[silent, P1 : P2 + 1] = 0
    vector *= anatomy.gain
    return centre.astype(np.float32), sigma.astype(np.float32), vector.astype(np.float32)


def _add(heart: Floats, times: Floats, widths: Floats, vectors: Floats, sampling_rate: int) -> None:
    """Add one Gaussian per beat to heart [3, n, samples]; each is drawn out to four sigma only."""
    seen = (np.abs(vectors).max(2) > 0) & (times * sampling_rate < heart.shape[2])
    row, beat = np.nonzero(seen)
    middle, width = times[row, beat] * sampling_rate, widths[row, beat] * sampling_rate
    reach = int(4 * width.max(initial=0)) + 1
    sample = np.rint(middle).astype(np.intp)[:, None] + np.arange(-reach, reach + 1)
    curve = np.exp(-0.5 * ((sample - middle[:, None]) / width[:, None]) ** 2).astype(np.float32)
    curve[(sample < 0) | (sample >= heart.shape[2])] = 0
    place = (row[:, None] * heart.shape[2] + np.clip(sample, 0, heart.shape[2] - 1)).ravel()
    for axis in range(3):  # all in one type: numpy's fast path
        np.add.at(heart[axis].reshape(-1), place, (curve * vectors[row, beat, axis, None]).ravel())


def _atria(has: Has, beats: Beats, rng: np.random.Generator, rate: int, samples: int) -> Floats:
    """What fibrillating or fluttering atria add, millivolts [n, 3, samples]: f-waves of 4.5-8 Hz, or a sawtooth."""
    n = len(has["AFIB"])
    time = np.arange(samples, dtype=np.float32) / rate
    out = np.zeros((n, 3, samples), np.float32)
    drawn = [rng.uniform(low, high, (n, 3, 1)) for low, high in ((4.5, 8), (0, 6.3), (0.1, 0.4), (0.025, 0.08))]
    frequency, phase, drift, size = (each.astype(np.float32) for each in drawn)
    if len(rows := np.flatnonzero(has["AFIB"])):
        angle = 2 * np.pi * frequency[rows] * time + phase[rows] + 2 * np.sin(6.3 * drift[rows] * time)
        mix = np.array([(0.3, 0.1, 0.2), (0.2, 0.5, 0.3), (-0.8, -0.4, -0.7)], np.float32)
        out[rows] = size[rows, :1] * (mix @ np.sin(angle, dtype=np.float32))
    if len(rows := np.flatnonzero(has["AFLT"])):
        angle = 2 * np.pi * (time - beats.times[rows, :1] - 0.05) / beats.flutter[rows, None]
        saw = np.sin(angle) + np.sin(2 * angle) / 2 + np.sin(3 * angle) / 3
        axis = np.array((0.02, -0.16, -0.07), np.float32)  # upwards: negative in II, III, aVF; positive in V1
        out[rows] = (0.6 + 10 * size[rows, :1]) * axis[:, None] * saw[:, None]
    return out


def _disturbance(shape: tuple[int, ...], rate: int, rng: np.random.Generator) -> Floats:
    """Wander, mains and muscle noise of random strength, millivolts, shape [n, leads, samples]."""
    n, leads, samples = shape
    time = np.arange(samples, dtype=np.float32) / rate
    strength = np.exp(rng.normal((np.log(0.03), np.log(0.004), np.log(0.010)), (0.7, 0.8, 0.6), (n, 3)))
    slow = rng.uniform((0.05, 0.15, 0.3), (0.15, 0.3, 0.6), (n, 3))
    frequency = np.concatenate([slow, np.full((n, 1), 50.0)], 1).astype(np.float32)
    angle = 2 * np.pi * frequency[:, :, None] * time + rng.uniform(0, 6.3, (n, 4, 1)).astype(np.float32)
    weights = rng.normal(0, 1, (n, leads, 4)) * strength[:, (0, 0, 0, 1), None].transpose(0, 2, 1)
    if rate <= 100:  # an anti-aliasing filter would have removed the mains
        weights[:, :, 3] = 0
    noise: Floats = weights.astype(np.float32) @ np.sin(angle, dtype=np.float32)
    muscle = strength[:, 2, None] * np.exp(rng.normal(0, 0.4, (n, leads))) * min(1.0, (rate / 300) ** 0.5)
    noise += muscle[..., None].astype(np.float32) * rng.standard_normal(noise.shape, dtype=np.float32)
    return noise


def _twelve(leads: Floats) -> NDArray[np.int16]:
    """Microvolts [n, 12, samples] of I, II, V1-V6 in millivolts; limb leads from the rounded I and II."""
    units = np.clip(np.rint(leads / MICROVOLT), -_LIMIT // 2, _LIMIT // 2).astype(np.int16)
    one, two = units[:, 0], units[:, 1]
    limb = [one, two, two - one, -((one + two) // 2), one - two // 2, two - one // 2]
    return np.concatenate([np.stack(limb, 1), units[:, 2:]], axis=1)
