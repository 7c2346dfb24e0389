"""Any lead order, case, rate, length and unit comes out as the store wants it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.waveforms.standardise import recorded_leads, standardise, to_microvolts, to_millivolts
from einthoven.waveforms.wfdb_format import RecordingError

RATE = 100
ALL = (1 << 12) - 1


def microvolts(leads: int = 12, samples: int = 1000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, (leads, samples)).astype(np.int16)


@settings(max_examples=50, deadline=None)
@given(st.permutations(list(range(12))), st.lists(st.booleans(), min_size=12, max_size=12), st.booleans())
def test_lead_order_and_case_do_not_matter(order: list[int], capital: list[bool], lead_prefix: bool) -> None:
    signal = microvolts(samples=50)
    names = [LEADS[place].upper() if capital[place] else LEADS[place].lower() for place in order]
    if lead_prefix:
        names = [f"Lead {name} " for name in names]
    assert np.array_equal(standardise(signal[order], names, RATE, RATE, 50), signal)


def test_unknown_leads_are_left_out_and_missing_ones_marked() -> None:
    signal = microvolts(3)
    out = standardise(signal, ["V3", "Resp", "II"], RATE, RATE, 1000)
    assert np.array_equal(out[LEADS.index("V3")], signal[0]) and np.array_equal(out[LEADS.index("II")], signal[2])
    assert recorded_leads(out) == (1 << LEADS.index("V3")) | (1 << LEADS.index("II"))
    assert (out[0] == MISSING_SAMPLE).all()


@pytest.mark.parametrize("names", [["vx", "vy", "vz"], ["I", "i", "II"]])
def test_wrong_leads(names: list[str]) -> None:
    with pytest.raises(RecordingError) as caught:
        standardise(microvolts(3), names, RATE, RATE, 1000)
    assert caught.value.reason == "wrong-leads"


def test_limb_leads_are_derived() -> None:
    signal = microvolts(8)
    signal[0, 7] = MISSING_SAMPLE
    out = standardise(signal, ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"], RATE, RATE, 1000)
    one, two = signal[0].astype(float), signal[1].astype(float)
    expected = {"III": two - one, "aVR": -(one + two) / 2, "aVL": one - two / 2, "aVF": two - one / 2}
    rest = np.arange(1000) != 7
    for lead, values in expected.items():
        assert np.abs(out[LEADS.index(lead)] - values)[rest].max() <= 0.51
        assert out[LEADS.index(lead), 7] == MISSING_SAMPLE
    assert recorded_leads(out) == ALL


def test_recorded_limb_leads_are_kept() -> None:
    signal = microvolts(12)
    assert np.array_equal(standardise(signal, LEADS, RATE, RATE, 1000), signal)
    assert (standardise(signal[:1], ["I"], RATE, RATE, 1000)[2] == MISSING_SAMPLE).all()


@pytest.mark.parametrize("length", [1, 700, 1000, 1300])
@pytest.mark.parametrize("rate", [100, 500, 257])
def test_length(length: int, rate: int) -> None:
    signal = microvolts(12, length * rate // 100)
    out = standardise(signal, LEADS, rate, RATE, 1000)
    filled = min(1000, -(-(length * rate // 100) * RATE // rate))
    assert out.shape == (12, 1000) and out.dtype == np.int16
    assert (out[:, :filled] != MISSING_SAMPLE).all() and (out[:, filled:] == MISSING_SAMPLE).all()


@pytest.mark.parametrize(
    ("rate", "target"), [(500, 100), (100, 500), (400, 500), (1000, 500), (257, 100), (250.0, 500)]
)
def test_resampling_keeps_a_slow_wave(rate: float, target: int) -> None:
    def wave(hertz: float) -> np.ndarray:
        seconds = np.arange(round(10 * hertz)) / hertz
        return np.stack([500 + 1000 * np.sin(2 * np.pi * (3 + lead) * seconds) for lead in range(12)])

    for signal in (np.rint(wave(rate)).astype(np.int16), (wave(rate) / 1000).astype(np.float32)):
        out = standardise(signal, LEADS, rate, target, 10 * target)
        middle = slice(target, -target)
        assert np.abs(out[:, middle] - wave(target)[:, middle]).max() < 12  # of 1000 microvolts


def test_resampling_removes_what_cannot_be_held() -> None:
    seconds = np.arange(5000) / 500
    signal = np.tile(np.sin(2 * np.pi * 120 * seconds), (12, 1)).astype(np.float32)
    assert np.abs(standardise(signal, LEADS, 500, 100, 1000)[:, 100:-100]).max() < 30


def test_resampling_does_not_depend_on_what_is_cropped() -> None:
    signal = microvolts(12, 15000)
    whole, first = (standardise(s, LEADS, 500, 100, 1000) for s in (signal, signal[:, :6000]))
    # Only the slope of the line taken off before the filter differs.
    assert np.abs(whole.astype(int) - first).max() <= 1


@pytest.mark.parametrize("target", [100, 50, 200])
def test_gaps_stay_gaps(target: int) -> None:
    signal = np.full((12, 1000), 1.0, dtype=np.float32)
    signal[3, 200:300] = np.nan
    signal[5] = np.nan
    out = standardise(signal, LEADS, RATE, target, 10 * target)
    missing = out == MISSING_SAMPLE
    assert missing[5].all() and not missing[[0, 1, 2, 4, 6, 11]].any()
    assert missing[3].sum() == pytest.approx(target, abs=2) and missing[3, int(2.5 * target)]
    assert np.abs(out[3][~missing[3]] - 1000).max() <= 10
    assert recorded_leads(out) == ALL & ~(1 << 5)


def test_batches_equal_single_ones() -> None:
    batch = np.stack([microvolts(seed=seed) for seed in range(4)])
    for rate in (100, 500):
        together = standardise(batch, LEADS, rate, RATE, 500)
        assert np.array_equal(together, np.stack([standardise(one, LEADS, rate, RATE, 500) for one in batch]))


def test_units_clip_and_come_back() -> None:
    values = np.array([0.0, 0.0004, -1.2345, 50.0, -50.0, np.nan, np.inf, -np.inf])
    stored = to_microvolts(values)
    assert stored.tolist() == [0, 0, -1234, 32767, -32767, MISSING_SAMPLE, 32767, -32767]
    assert np.isnan(to_millivolts(stored)[5]) and to_millivolts(stored)[2] == pytest.approx(-1.234)


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="leads"):
        standardise(microvolts(3), LEADS, RATE, RATE, 10)
    with pytest.raises(ValueError, match="int16 microvolts"):
        standardise(microvolts().astype(np.int32), LEADS, RATE, RATE, 10)
