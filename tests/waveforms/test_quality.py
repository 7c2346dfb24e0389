"""Quality flags: each is raised by what it describes and by nothing else."""

import numpy as np
import pytest

from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.waveforms.quality import flags

RATE = 100


def clean(recordings: int = 1) -> np.ndarray:
    """Beats that obey Einthoven, upright in I, II and V6, with a little noise."""
    seconds = np.arange(10 * RATE) / RATE
    beat = np.exp(-(((seconds % 0.8) - 0.4) ** 2) / 0.0008) + 0.2 * np.exp(-(((seconds % 0.8) - 0.6) ** 2) / 0.004)
    noise = np.random.default_rng(0).normal(0, 5, (recordings, 12, len(seconds)))
    size = np.array([600, 1000, 400, -800, 100, 700, -300, 300, 600, 900, 1000, 800.0])
    block = np.rint(size[:, None] * beat + noise).astype(np.int16)
    block[:, 2] = block[:, 1] - block[:, 0]
    return block


def lead(name: str) -> int:
    return LEADS.index(name)


def test_clean_has_none() -> None:
    assert flags(clean(3), RATE) == [[], [], []]
    assert flags(clean()[:0], RATE) == []


def test_only_the_recording_concerned() -> None:
    block = clean(3)
    block[1, lead("V3")] = 7
    assert flags(block, RATE) == [[], ["flat:V3"], []]


def test_flat_for_half_the_time() -> None:
    block = clean()
    block[0, lead("V5"), 480:] = 3
    assert flags(block, RATE) == [["flat:V5"]]


def test_missing_samples_are_not_amplitude() -> None:
    block = clean()
    block[0, lead("V1"), 300:320] = MISSING_SAMPLE
    block[0, lead("V2")] = MISSING_SAMPLE
    assert flags(block, RATE) == [["missing:V1", "missing:V2"]]


def test_flat_around_missing_samples() -> None:
    block = clean()
    block[0, lead("V1")] = 4
    block[0, lead("V1"), 300:] = MISSING_SAMPLE
    assert flags(block, RATE) == [["missing:V1", "flat:V1"]]


@pytest.mark.parametrize("sign", [1, -1])
def test_saturated_at_the_limit_or_held(sign: int) -> None:
    block = clean()
    block[0, lead("V4"), 500:530] = sign * 4000
    assert flags(block, RATE) == [["saturated:V4"]]
    block[0, lead("V4"), 500:530] = sign * 1500
    assert flags(block, RATE) == [[]]
    block[0, lead("V4"), 500:530:4] = sign * 4000
    assert flags(block, RATE) == [[]]
    block[0, lead("V4"), 500] = sign * 32767
    assert flags(block, RATE) == [["saturated:V4", "implausible-amplitude:V4"]]


def test_implausible_amplitude() -> None:
    block = clean()
    block[0, lead("V4"), [100, 200]] = 6000, -6000
    assert flags(block, RATE) == [["implausible-amplitude:V4"]]


def test_exchanged_arms() -> None:
    block = clean()
    right = block.copy()
    one, two, three, avr, avl = map(lead, ("I", "II", "III", "aVR", "aVL"))
    right[:, one], right[:, two], right[:, three] = -block[:, one], block[:, three], block[:, two]
    right[:, avr], right[:, avl] = block[:, avl], block[:, avr]
    assert flags(right, RATE) == [["limb-reversal-suspected"]]
    right[:, lead("V6")] = MISSING_SAMPLE
    assert "limb-reversal-suspected" not in flags(right, RATE)[0]


def test_not_einthoven() -> None:
    block = clean()
    block[0, lead("III")] = block[0, lead("V1")]
    assert flags(block, RATE) == [["not-einthoven"]]


def test_shorter_than_a_second_and_wrong_shape() -> None:
    assert len(flags(clean()[:, :, :50], RATE)) == 1
    with pytest.raises(ValueError, match="expected"):
        flags(clean()[:, :11], RATE)
