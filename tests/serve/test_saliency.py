from typing import Any

import numpy as np
import pytest

from einthoven.model import STRIPS, Model
from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.search.archive import Archive
from einthoven.serve.saliency import LEAST, WINDOW, Occlusion, blanked, heat, shades
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import from_store


@pytest.fixture(scope="module")
def stored(archive: Archive) -> Any:
    return Store.open(archive.study).read([3])[0]


def cosine(model: Model, signal: Any, vector: Any, rate: int, space: str) -> float:
    """Of one recording, by itself."""
    import torch

    of = model.ecg_config
    strips = from_store(signal[None], rate, of.sampling_rate, of.strip_samples, STRIPS)
    return float(model.encode_strips(torch.from_numpy(strips)).vectors(space).numpy()[0] @ vector)


@pytest.mark.parametrize("space", ["coarse", "fine"])
def test_one_pass_equals_a_naive_loop(archive: Archive, stored: Any, space: str) -> None:
    model, rate = archive.model, Store.open(archive.study).sampling_rate
    vector = archive.model.encode_text(["atrial fibrillation"])[0]
    falls = Occlusion.of(model, stored, rate, vector, space).falls(model)
    assert falls.shape == (12, 10)
    whole = cosine(model, stored, vector, rate, space)
    for lead in (0, 6, 11):
        for window in range(0, 10, 3):
            without = stored.copy()
            without[lead, window * rate : (window + 1) * rate] = 0
            assert falls[lead, window] == pytest.approx(whole - cosine(model, without, vector, rate, space), abs=2e-5)


def test_each_copy_lacks_one_window_of_one_lead() -> None:
    stored = np.arange(1, 12 * 25 + 1, dtype=np.int16).reshape(12, 25)
    copies = blanked(stored, 10).reshape(12, 3, 12, 25)  # the last window is half
    for lead in range(12):
        for window in range(3):
            expected = stored.copy()
            expected[lead, window * 10 : window * 10 + 10] = 0
            np.testing.assert_array_equal(copies[lead, window], expected)


def test_blanking_what_was_not_recorded_changes_nothing(archive: Archive, stored: Any) -> None:
    stored = stored.copy()
    stored[5] = MISSING_SAMPLE
    vector = archive.model.encode_text(["sinus rhythm"])[0]
    falls = Occlusion.of(archive.model, stored, 100, vector, "coarse").falls(archive.model)
    assert np.abs(falls[5]).max() < 1e-5


def test_shades_are_the_falls_by_the_largest() -> None:
    falls = np.zeros((12, 10), np.float32)
    falls[LEADS.index("V1"), 3], falls[LEADS.index("II"), 0], falls[0, 9] = 0.2, 0.1, -0.5
    falls[LEADS.index("V6"), 1] = 0.2 * LEAST * 0.9
    found = {(shade.lead, shade.start, shade.end): shade.weight for shade in shades(falls)}
    assert found == {("V1", 3.0, 3.0 + WINDOW): 1.0, ("II", 0.0, WINDOW): pytest.approx(0.5)}
    assert shades(-np.ones((12, 10), np.float32)) == []


def test_the_picture_has_a_cell_for_each_lead_and_window() -> None:
    falls = np.zeros((12, 10), np.float32)
    falls[0, 0] = 0.25
    drawn = heat(falls)
    assert drawn.count('class="cell"') == 120 and drawn.count('fill-opacity="1.00"') == 1
    assert "I, second 1: -0.250" in drawn
