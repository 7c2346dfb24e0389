"""The simulated heart, measured as one measures an ECG."""

import numpy as np
import pytest
from numpy.typing import NDArray

from einthoven.schema import LEADS
from einthoven.simulation.heart import dipole, draw_anatomy, simulate

RATE = 500
N = 40


def ecg(*findings: str, noise: float = 0.0, n: int = N, seed: int = 5) -> NDArray[np.float64]:
    """Millivolts [n, 12, samples]."""
    return simulate([frozenset(findings)] * n, np.random.default_rng(seed), RATE, noise=noise) / 1000.0


def lead(signal: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    return signal[:, LEADS.index(name)]


def r_peaks(recording: NDArray[np.float64]) -> NDArray[np.intp]:
    """Samples of the R peaks of [12, samples]: where all leads together are steepest."""
    slope = np.abs(np.diff(recording, axis=1)).sum(0)
    slope = np.convolve(slope, np.ones(50) / 50, mode="same")
    high = slope > 0.4 * np.quantile(slope, 0.99)
    edges = np.flatnonzero(np.diff(high.astype(int)) == 1)
    peaks = [e + int(np.argmax(slope[e : e + 100])) for e in edges]
    return np.array([p for i, p in enumerate(peaks) if i == 0 or p - peaks[i - 1] > 0.2 * RATE])


def rates(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([60 * RATE / np.diff(r_peaks(each)).mean() for each in signal])


def variation(signal: NDArray[np.float64]) -> NDArray[np.float64]:
    intervals = [np.diff(r_peaks(each)) for each in signal]
    return np.array([each.std() / each.mean() for each in intervals])


def around_beats(*findings: str, seed: int = 5, n: int = N) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Noise-free leads I, II, V1-V6 [n, 8, 500] and dipole magnitude [n, 500] within 0.5 s of a beat."""
    anatomy = draw_anatomy(n, np.random.default_rng(seed))
    vector, beats = dipole([frozenset(findings)] * n, np.random.default_rng(seed), RATE, 10.0, anatomy)
    at = np.array([times[np.searchsorted(times, 3.0)] for times in beats.times])
    samples = np.rint(at * RATE).astype(int)[:, None] + np.arange(-250, 250)
    cut = np.stack([each[:, index] for each, index in zip(vector, samples, strict=True)])
    return anatomy.leads @ cut, np.linalg.norm(cut, axis=1)


def qrs_duration(*findings: str) -> NDArray[np.float64]:
    """Milliseconds in which the dipole moves fast, 100 ms before to 160 ms after the R peak."""
    anatomy = draw_anatomy(N, np.random.default_rng(5))
    vector, beats = dipole([frozenset(findings)] * N, np.random.default_rng(5), RATE, 10.0, anatomy)
    speed = np.linalg.norm(np.gradient(vector, 1 / RATE, axis=2), axis=1)  # mV per second
    out = []
    for each, times in zip(speed, beats.times, strict=True):
        peak = round(float(times[np.searchsorted(times, 3.0)]) * RATE)
        fast = np.flatnonzero(each[peak - 40 : peak + 80] > 5)
        out.append((fast[-1] - fast[0]) * 1000 / RATE)
    return np.array(out)


def test_shape_type_and_range() -> None:
    everything = [frozenset({a, b}) for a in ("SR", "AFIB", "AFLT", "PACE", "STACH") for b in ("PVC", "CLBBB", "LVH")]
    found = simulate(everything, np.random.default_rng(0), 100)
    assert found.shape == (15, 12, 1000) and found.dtype == np.int16
    assert 100 < np.abs(found.astype(int)).max() < 12000
    assert (found.std(axis=2) > 10).all()


def test_limb_leads_obey_einthoven_and_goldberger() -> None:
    x = simulate([frozenset({"NORM", "SR"})] * 4, np.random.default_rng(1)).astype(int)
    one, two, three, avr, avl, avf = (x[:, i] for i in range(6))
    assert (three == two - one).all()
    assert np.abs(avr + (one + two) / 2).max() <= 1
    assert np.abs(avl - (one - two / 2)).max() <= 1
    assert np.abs(avf - (two - one / 2)).max() <= 1


@pytest.mark.parametrize(("rhythm", "low", "high"), [("SBRAD", 38, 60), ("SR", 60, 100), ("STACH", 100, 155)])
def test_heart_rate(rhythm: str, low: float, high: float) -> None:
    measured = rates(ecg(rhythm))
    assert low < measured.min() and measured.max() < high


def test_fibrillation_is_irregular_and_without_p() -> None:
    assert np.median(variation(ecg("AFIB"))) > 0.15 > 0.06 > np.median(variation(ecg("NORM", "SR")))
    _, sinus = around_beats("SR")
    _, fibrillating = around_beats("AFIB")
    before = slice(250 - 120, 250 - 30)  # the mean beat: f-waves come in any phase, P always in the same
    assert sinus[:, before].mean(0).max() > 1.5 * fibrillating[:, before].mean(0).max()


def test_flutter_has_a_sawtooth_near_300_per_minute() -> None:
    two = lead(ecg("AFLT"), "II")
    power = np.abs(np.fft.rfft(two - two.mean(1, keepdims=True))) ** 2
    frequency = np.fft.rfftfreq(two.shape[1], 1 / RATE)
    band = (frequency > 4.4) & (frequency < 5.4)
    share = power[:, band].sum(1) / power[:, (frequency > 0.5) & (frequency < 20)].sum(1)
    plain = np.abs(np.fft.rfft(lead(ecg("SR"), "II"))) ** 2
    usual = plain[:, band].sum(1) / plain[:, (frequency > 0.5) & (frequency < 20)].sum(1)
    assert np.median(share) > 1.5 * np.median(usual)


def test_ectopic_beats_are_early_wide_and_followed_by_a_pause() -> None:
    anatomy = draw_anatomy(N, np.random.default_rng(2))
    _, beats = dipole([frozenset({"SR", "PVC"})] * N, np.random.default_rng(2), RATE, 10.0, anatomy)
    row, slot = np.nonzero(beats.ectopic[:, :-1])
    usual = np.median(beats.rr, axis=1)[row]
    assert set(row) == set(range(N))
    assert (beats.rr[row, slot] < 0.8 * usual).all() and (beats.rr[row, slot + 1] > 1.15 * usual).all()
    assert np.median(ecg("SR", "PVC").std(2).max(1)) > np.median(ecg("SR").std(2).max(1))


def test_first_degree_block_has_a_long_pr() -> None:
    def pr(*findings: str) -> float:
        """Milliseconds from the beginning of P to the beginning of QRS, 50 ms before R."""
        _, size = around_beats(*findings)
        before = size[:, 250 - 190 : 250 - 27].mean(0)  # the mean beat
        return 2.0 * (163 - int(np.argmax(before > 0.3 * before[-150:].max())))

    assert pr("SR") < 200 < pr("SR", "1AVB")


@pytest.mark.parametrize("wide", ["CLBBB", "CRBBB", "PACE"])
def test_blocks_and_paced_beats_are_wide(wide: str) -> None:
    assert np.median(qrs_duration("SR")) < 110
    found = qrs_duration(wide) if wide == "PACE" else qrs_duration("SR", wide)
    assert found.min() > 120


def test_bundle_branch_morphology() -> None:
    qrs = slice(250 - 25, 250 + 55)
    left, _ = around_beats("SR", "CLBBB")
    right, _ = around_beats("SR", "CRBBB")
    v1, v6 = left[:, 2, qrs], left[:, 7, qrs]
    assert (v1.min(1) < -3 * v1.max(1)).mean() > 0.9  # rS or QS
    assert (v6.max(1) > -3 * v6.min(1)).mean() > 0.9  # broad R without q or S
    late = slice(250 + 20, 250 + 45)
    assert (right[:, 2, late].max(1) > 0.3).mean() > 0.9  # R' in V1
    assert (right[:, 7, late].min(1) < -0.2).mean() > 0.9  # S in V6


def test_hypertrophy_by_sokolow_and_lyon() -> None:
    def index(*findings: str) -> NDArray[np.float64]:
        signal = ecg(*findings)
        return -lead(signal, "V1").min(1) + np.maximum(lead(signal, "V5").max(1), lead(signal, "V6").max(1))

    assert index("SR", "LVH").mean() > 3.5 > index("NORM", "SR").mean()
    leads, _ = around_beats("SBRAD", "LVH")
    assert np.median(leads[:, 6, 250 + 120 : 250 + 170].mean(1)) < -0.05  # strain: T inverted in V5


def test_infarcts_leave_q_waves_and_inverted_t() -> None:
    early = slice(250 - 22, 250 - 8)
    normal, _ = around_beats("SR")
    anterior, _ = around_beats("SR", "AMI")
    inferior, _ = around_beats("SR", "IMI")
    chest, two, three = (2, 3, 4), lambda x: x[:, 1], lambda x: x[:, 1] - x[:, 0]
    for each in chest:
        assert np.median(anterior[:, each, early].min(1)) < -0.25 < np.median(normal[:, each, early].min(1))
    for each in (two, three):
        assert np.median(each(inferior)[:, early].min(1)) < -0.25 < np.median(each(normal)[:, early].min(1))
        assert np.median(each(inferior)[:, 250 + 70 : 250 + 180].min(1)) < -0.1
    assert np.median(anterior[:, 3, 250 + 100 : 250 + 160].min(1)) < -0.1  # T in V2
    assert np.median(anterior[:, 3, 250 + 50 : 250 + 75].max(1)) > 0.08  # ST in V2
    assert np.median(anterior[:, 1, early].min(1)) > -0.2  # no inferior Q


def test_st_depression_and_long_qt() -> None:
    depressed, normal = around_beats("SR", "STD_")[0], around_beats("SR")[0]
    st = slice(250 + 40, 250 + 65)
    assert np.median(depressed[:, 6, st].mean(1)) < -0.07 < np.median(normal[:, 6, st].mean(1))

    def t_peak(*findings: str) -> float:
        return float(np.median(np.argmax(around_beats(*findings)[0][:, 5, 250 + 70 :], axis=1)))

    assert t_peak("SBRAD", "LNGQT") > t_peak("SBRAD") + 0.06 * RATE


def test_pacing_spikes_are_sharper_than_any_qrs() -> None:
    steep = np.abs(np.diff(ecg("PACE"), axis=2)).max((1, 2))
    assert (steep > 2 * np.abs(np.diff(ecg("SR"), axis=2)).max((1, 2))).mean() > 0.9
    assert np.median(variation(ecg("PACE"))) < 0.02


def test_same_seed_same_bits() -> None:
    sets = [frozenset({"SR"}), frozenset({"AFIB", "CLBBB"}), frozenset({"AFLT", "PVC"})] * 30
    one = simulate(sets, np.random.default_rng(9), 100)
    assert np.array_equal(one, simulate(sets, np.random.default_rng(9), 100))
    assert not np.array_equal(one, simulate(sets, np.random.default_rng(10), 100))


def test_a_patient_keeps_the_anatomy() -> None:
    anatomy = draw_anatomy(2, np.random.default_rng(0)).take(np.array([0, 0, 1]))
    sets = [frozenset({"SR"})] * 3
    x = simulate(sets, np.random.default_rng(1), RATE, anatomy=anatomy, noise=0.0) / 1000.0
    tall = x.max(2)
    assert np.abs(tall[0] - tall[1]).mean() < 0.5 * np.abs(tall[0] - tall[2]).mean()
