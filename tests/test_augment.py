import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven import augment as steps
from einthoven.augment import augment
from einthoven.config import Augmentation
from einthoven.schema import LEADS
from einthoven.waveforms.strips import lead_mask

OFF = Augmentation(crop=False, scale=0, noise_mv=0, wander_mv=0, lead_dropout=0, word_dropout=0)
ALL = Augmentation(mains_mv=0.1, time_mask=0.5, lead_subset=0.5, lead_dropout=0.3)


def noise(n: int = 3, samples: int = 1000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 12, samples)).astype(np.float32)


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_a_seed_draws_what_it_drew() -> None:
    """Values stored when noise came to be read from a table: a change of them is a change of every training."""
    signal = noise(seed=1)
    signal[1, 7] = 0
    strips = augment(signal, 500, 100, Augmentation(), generator(2))
    stored = [
        [-0.10114492475986481, 0.02697243168950081, 0.053786762058734894],
        [0.5539121031761169, -0.4434416890144348, 0.4496540129184723],
        [-0.41234397888183594, 0.4998268485069275, 0.5090897083282471],
    ]
    assert np.allclose(strips[:, ::4, 250], stored, rtol=0, atol=1e-6)
    missing = [[lead for lead in range(12) if not strip[lead].any()] for strip in strips]
    assert missing == [[7], [7, 9], []]


@given(
    n=st.integers(1, 4),
    samples=st.integers(1, 300),
    length=st.integers(1, 200),
    rate=st.sampled_from([50, 100, 110, 250, 500]),
    seed=st.integers(0, 1000),
    present=st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_shape_dtype_seed_and_missing_leads_hold_for_any_recording(n, samples, length, rate, seed, present) -> None:
    signal = np.where(np.array(present)[:, None], noise(n, samples, seed), np.float32(0))
    before = signal.copy()
    strips = augment(signal, length, rate, ALL, generator(seed))
    assert strips.shape == (n, 12, length) and strips.dtype == np.float32 and np.isfinite(strips).all()
    assert not strips[:, ~np.array(present)].any()
    assert np.array_equal(strips, augment(signal, length, rate, ALL, generator(seed)))
    assert np.array_equal(signal, before)


def test_with_everything_off_the_strip_is_the_middle_and_no_number_is_drawn() -> None:
    random = generator()
    assert np.array_equal(augment(noise(), 400, 100, OFF, random), noise()[:, :, 300:700])
    assert random.random() == generator().random()


def test_a_crop_is_a_window_and_every_window_comes() -> None:
    ramp = np.broadcast_to(np.arange(1, 13, dtype=np.float32), (500, 12, 12))
    strips = steps.crop(ramp, 8, generator())
    assert (np.diff(strips) == 1).all()
    assert set(strips[:, 0, 0]) == {1, 2, 3, 4, 5}
    padded = steps.crop(ramp, 20, generator())
    assert np.array_equal(padded[..., :12], ramp) and not padded[..., 12:].any()


def test_scale_is_one_gain_for_all_leads_within_its_bounds() -> None:
    signal = noise(2000, 5)
    gains = steps.scale(signal, 0.2, generator()) / signal
    assert np.allclose(gains, gains[:, :1, :1], rtol=1e-5)
    assert 0.8 <= gains[:, 0, 0].min() < 0.81 and 1.19 < gains[:, 0, 0].max() <= 1.2001


def test_noise_is_white_and_no_stronger_than_asked() -> None:
    added = steps.noise(np.zeros((200, 12, 1000), np.float32), 0.05, generator())
    levels = added.std(axis=-1)
    assert levels.max() < 0.05 * 1.1 and levels.min() < 0.005
    assert levels.mean() == pytest.approx(0.025, rel=0.05)  # the mean of a uniform level
    power = (np.abs(np.fft.rfft(added)) ** 2).mean(axis=(0, 1))[1:-1]
    assert power.max() / power.min() < 1.3


def peaks(added: np.ndarray, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequency in hertz and amplitude of the largest component, [n, 12] each."""
    spectrum = np.abs(np.fft.rfft(added)) / (added.shape[-1] / 2)
    return spectrum.argmax(axis=-1) * rate / added.shape[-1], spectrum.max(axis=-1)


def test_wander_is_slow_and_of_one_frequency_per_strip() -> None:
    added = steps.wander(np.zeros((40, 12, 20_000), np.float32), 100, 0.1, generator())  # 200 s
    hertz, _ = peaks(added, 100)
    assert hertz.min() >= 0.045 and hertz.max() <= 0.505 and np.ptp(hertz) > 0.35
    assert (np.ptp(hertz, axis=1) <= 0.0051).all()
    assert 0.09 < np.abs(added).max() <= 0.1


@pytest.mark.parametrize(("rate", "expected"), [(500, {50.0, 60.0}), (240, {50.0, 60.0}), (120, {50.0})])
def test_mains_is_a_sinusoid_of_the_lines_frequency(rate: int, expected: set[float]) -> None:
    added = steps.mains(np.zeros((100, 12, 2 * rate), np.float32), rate, 0.2, generator())
    hertz, amplitude = peaks(added, rate)
    assert set(hertz.ravel()) == expected
    assert (hertz == hertz[:, :1]).all()
    assert amplitude.max() <= 0.2001 and amplitude.mean() == pytest.approx(0.1, rel=0.1)
    assert np.allclose((added**2).mean(axis=-1), amplitude**2 / 2, atol=1e-6)  # nothing but the sinusoid
    phase = np.angle(np.exp(1j * np.angle(np.fft.rfft(added)))[..., 2 * int(min(expected))])
    assert np.abs(np.exp(1j * phase[hertz == min(expected)]).mean()) < 0.15  # any phase


@pytest.mark.parametrize("rate", [50, 100])
def test_mains_leaves_a_recording_alone_that_cannot_carry_it(rate: int) -> None:
    assert np.array_equal(steps.mains(noise(), rate, 0.2, generator()), noise())


def test_time_mask_blanks_one_stretch_in_all_leads() -> None:
    strips = steps.time_mask(np.ones((2000, 12, 400), np.float32), 0.25, generator())
    assert (strips == strips[:, :1]).all()
    blank = strips[:, 0] == 0
    edges = np.diff(np.pad(blank, ((0, 0), (1, 1))).astype(int))
    assert ((edges == 1).sum(axis=1) <= 1).all()
    share = blank.mean(axis=1)
    assert share.max() <= 0.25 + 1 / 400 and share.mean() == pytest.approx(0.125, rel=0.05)
    assert blank.any(axis=0).all()  # any part can be lost


def within_binomial_bounds(count: int, trials: int, probability: float) -> bool:
    """Within 5 standard deviations."""
    return abs(count - trials * probability) <= 5 * np.sqrt(trials * probability * (1 - probability))


def test_lead_dropout_drops_the_share_asked_for_and_never_all() -> None:
    leads = np.ones((5000, 12), bool)
    assert within_binomial_bounds((~steps.lead_dropout(leads, 0.1, generator())).sum(), leads.size, 0.1)
    last = steps.lead_dropout(leads, 1.0, generator())
    assert (last.sum(axis=1) == 1).all()
    assert all(within_binomial_bounds(count, 5000, 1 / 12) for count in last.sum(axis=0))


def test_a_recording_of_one_lead_keeps_it_and_one_of_none_stays_empty() -> None:
    leads = np.zeros((300, 12), bool)
    leads[:200, 8] = True
    for left in (steps.lead_dropout(leads, 0.9, generator()), steps.lead_subset(leads, 1.0, generator())):
        assert np.array_equal(left, leads)


def test_lead_subsets_come_as_often_as_asked() -> None:
    left = steps.lead_subset(np.ones((8000, 12), bool), 0.4, generator())
    names = [tuple(np.array(LEADS)[row]) for row in left]
    assert set(names) == {LEADS, *steps.SUBSETS}
    assert within_binomial_bounds(names.count(LEADS), 8000, 0.6)
    assert all(within_binomial_bounds(names.count(tuple(s)), 8000, 0.4 / len(steps.SUBSETS)) for s in steps.SUBSETS)


def test_masked_leads_are_zero_and_the_others_untouched() -> None:
    from dataclasses import replace

    strips = augment(noise(200), 1000, 100, replace(OFF, lead_subset=1.0, lead_dropout=0.2), generator())
    there = strips.any(axis=-1)
    assert np.array_equal(strips, noise(200) * there[:, :, None])
    assert there.any(axis=1).all()
    assert not there[:, ~lead_mask(LEADS[:6])].any()
