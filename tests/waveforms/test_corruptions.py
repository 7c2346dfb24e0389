import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.errors import EinthovenError
from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.simulation.heart import simulate
from einthoven.waveforms.corruptions import CORRUPTIONS, CorruptedStore, corrupt, possible
from einthoven.waveforms.store import Store, StoreWriter

RATE = 250
EVERY = [(name, severity) for name, of in CORRUPTIONS.items() for severity in range(1, len(of.levels) + 1)]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture(scope="module")
def ecg() -> np.ndarray:
    stored = np.asarray(simulate([frozenset({"NORM"})] * 6, generator(), sampling_rate=RATE))
    return stored.astype(np.float32) / 1000


@given(
    chosen=st.sampled_from(EVERY),
    n=st.integers(1, 3),
    samples=st.integers(2, 300),
    rate=st.sampled_from([50, 100, 250, 500]),
    seed=st.integers(0, 100),
    missing=st.integers(0, 11),
)
def test_shape_dtype_seed_and_missing_leads_hold_for_any_recording(chosen, n, samples, rate, seed, missing) -> None:
    signal = generator(seed).standard_normal((n, 12, samples)).astype(np.float32)
    if missing >= 6 and chosen[0] not in ("limb reversal", "precordials"):  # these move leads
        signal[:, missing] = 0
    before = signal.copy()
    found = corrupt(signal, rate, *chosen, generator(seed))
    assert found.shape == signal.shape and found.dtype == np.float32 and np.isfinite(found).all()
    assert np.array_equal(found, corrupt(signal, rate, *chosen, generator(seed)))
    assert np.array_equal(signal, before)
    if not signal[:, missing].any():
        assert not found[:, missing].any()


@pytest.mark.parametrize("name", ["flat", "clipped", "mains", "muscle", "not ECG"])
def test_a_higher_severity_is_the_same_accident_only_worse(ecg: np.ndarray, name: str) -> None:
    changes = [corrupt(ecg, RATE, name, severity, generator(1)) - ecg for severity in range(1, 6)]
    sizes = np.stack([np.sqrt((change**2).mean(axis=(1, 2))) for change in changes])
    assert (np.diff(sizes, axis=0) > 0).all()


def test_levels_of_rate_and_gain_lie_ever_further_from_one() -> None:
    for name in ("wrong rate", "wrong gain"):
        distance = np.abs(np.log2(CORRUPTIONS[name].levels))
        assert (np.diff(distance) > -1e-6).all() and distance.min() > 0


def test_arm_reversal_is_what_exchanged_electrodes_record() -> None:
    """From the potentials of nine electrodes: the twelve leads, and those with the arms exchanged."""
    right, left, leg, *chest = generator().standard_normal((9, 2, 400))

    def leads(ra, la, ll):
        centre = (ra + la + ll) / 3
        limbs = [la - ra, ll - ra, ll - la, ra - (la + ll) / 2, la - (ra + ll) / 2, ll - (ra + la) / 2]
        return np.stack([*limbs, *(electrode - centre for electrode in chest)], axis=1).astype(np.float32)

    found = corrupt(leads(right, left, leg), RATE, "limb reversal", 1, generator())
    assert np.allclose(found, leads(left, right, leg), atol=1e-5)
    one, two, three, avr, avl, avf = found[:, :6].swapaxes(0, 1)
    assert np.allclose(one + three, two, atol=1e-5) and np.allclose(avr + avl + avf, 0, atol=1e-5)
    again = corrupt(found, RATE, "limb reversal", 1, generator())
    assert np.allclose(again, leads(right, left, leg), atol=1e-5)


def test_as_many_precordial_leads_move_as_asked_and_none_is_lost(ecg: np.ndarray) -> None:
    for severity, electrodes in enumerate(CORRUPTIONS["precordials"].levels, start=1):
        found = corrupt(ecg, RATE, "precordials", severity, generator(severity))
        assert np.array_equal(found[:, :6], ecg[:, :6])
        for before, after in zip(ecg[:, 6:], found[:, 6:], strict=True):
            source = [int(np.flatnonzero((before == lead).all(axis=1))[0]) for lead in after]
            assert sorted(source) == list(range(6))
            assert sum(place != lead for place, lead in enumerate(source)) == electrodes


def test_as_many_leads_are_flat_as_asked_and_the_same_ones_stay_flat(ecg: np.ndarray) -> None:
    flat = [~corrupt(ecg, RATE, "flat", severity, generator(3)).any(axis=-1) for severity in range(1, 6)]
    assert [set(found.sum(axis=1)) for found in flat] == [{1}, {2}, {4}, {8}, {12}]
    assert all((less <= more).all() for less, more in itertools.pairwise(flat))


def test_clipping_and_gain_are_exact(ecg: np.ndarray) -> None:
    assert np.array_equal(corrupt(ecg, RATE, "clipped", 3, generator()), np.clip(ecg, -0.3, 0.3))
    for severity, factor in enumerate(CORRUPTIONS["wrong gain"].levels, start=1):
        assert np.allclose(corrupt(ecg, RATE, "wrong gain", severity, generator()), factor * ecg)


def power(added: np.ndarray, rate: int, low: float, high: float) -> float:
    spectrum = np.abs(np.fft.rfft(added)) ** 2
    hertz = np.fft.rfftfreq(added.shape[-1], 1 / rate)
    return float(spectrum[..., (hertz >= low) & (hertz < high)].sum() / spectrum.sum())


def test_noise_lies_where_it_should_and_is_as_large_as_stated(ecg: np.ndarray) -> None:
    muscle = corrupt(ecg, RATE, "muscle", 5, generator()) - ecg
    assert power(muscle, RATE, 18, 126) > 0.98
    assert np.allclose(muscle.std(axis=-1), 0.4, rtol=1e-3)
    pink = corrupt(ecg, RATE, "not ECG", 5, generator())
    assert np.allclose(pink.std(axis=-1), ecg.std(axis=-1), rtol=1e-3)
    assert np.abs([np.corrcoef(a, b)[0, 1] for a, b in zip(pink[:, 1], ecg[:, 1], strict=True)]).max() < 0.5
    octaves = [power(pink, RATE, low, 2 * low) for low in (1, 2, 4, 8, 16, 32)]
    assert max(octaves) / min(octaves) < 1.5  # pink: as much in each


def test_mains_is_a_tone_of_the_line_and_nothing_where_the_rate_cannot_carry_it(ecg: np.ndarray) -> None:
    hum = corrupt(ecg, RATE, "mains", 5, generator()) - ecg
    assert power(hum, RATE, 49, 61) > 0.99 and np.allclose(hum.std(axis=-1), np.sqrt(0.5), rtol=0.01)
    assert np.array_equal(corrupt(ecg, 100, "mains", 5, generator()), ecg)
    assert [possible("mains", rate) for rate in (50, 100, 101, 500)] == [False, False, True, True]
    assert possible("muscle", 100)


def test_a_wrong_rate_makes_a_tone_faster_or_slower() -> None:
    tone = np.broadcast_to(np.sin(2 * np.pi * 8 * np.arange(2500) / RATE), (1, 12, 2500)).astype(np.float32)
    for severity, speed in enumerate(CORRUPTIONS["wrong rate"].levels, start=1):
        found = corrupt(tone, RATE, "wrong rate", severity, generator())
        peak = np.abs(np.fft.rfft(found[0, 0])).argmax() * RATE / 2500
        assert peak == pytest.approx(8 * speed, abs=0.2)


@pytest.mark.parametrize(
    ("name", "severity", "shape", "message"),
    [
        ("ghost", 1, (1, 12, 5), "unknown corruption"),
        ("flat", 0, (1, 12, 5), "expected 1 to 5"),
        ("limb reversal", 2, (1, 12, 5), "expected 1 to 1"),
        ("flat", 1, (1, 8, 5), "expected recordings"),
        ("flat", 1, (1, 12, 0), "expected recordings"),
    ],
)
def test_mistakes_are_told(name, severity, shape, message) -> None:
    with pytest.raises(EinthovenError, match=message):
        corrupt(np.zeros(shape, np.float32), RATE, name, severity, generator())


def test_a_corrupted_store_is_what_would_have_been_stored(tmp_path) -> None:
    block = generator().integers(-500, 500, (4, len(LEADS), 50)).astype(np.int16)
    block[1, 3] = MISSING_SAMPLE
    with StoreWriter(tmp_path, 100, 50, 4) as writer:
        writer.write(0, block)
    store, rows = Store.open(tmp_path), np.array([1, 3])
    loud = CorruptedStore(store, "wrong gain", 5, seed=0).read(rows)
    expected = np.clip(block[rows].astype(int) * 200, -32767, 32767)
    assert np.array_equal(loud, np.where(block[rows] == MISSING_SAMPLE, MISSING_SAMPLE, expected))
    noisy = [CorruptedStore(store, "muscle", 3, seed).read(rows) for seed in (0, 0, 1)]
    assert np.array_equal(noisy[0], noisy[1]) and not np.array_equal(noisy[0], noisy[2])
