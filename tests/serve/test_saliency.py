import asyncio
import threading
from typing import Any

import numpy as np
import pytest
import torch

from einthoven.config import EcgEncoder, Space, TextEncoder
from einthoven.model import STRIPS, Model
from einthoven.schema import LEADS, MISSING_SAMPLE
from einthoven.search.archive import Archive
from einthoven.serve.bodies import SearchRequest
from einthoven.serve.options import Options
from einthoven.serve.saliency import CHUNK, LEAST, MOST, Occlusion, heat, occlusion, shades
from einthoven.serve.service import Service
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import from_store

SECONDS = tuple(float(second) for second in range(11))


@pytest.fixture(scope="module")
def stored(archive: Archive) -> Any:
    return Store.open(archive.study).read([3])[0]


def cosine(model: Model, signal: Any, vector: Any, rate: int, space: str) -> float:
    """Of one recording, by itself."""
    of = model.ecg_config
    strips = from_store(signal[None], rate, of.sampling_rate, of.strip_samples, STRIPS)
    return float(model.encode_strips(torch.from_numpy(strips)).vectors(space).numpy()[0] @ vector)


@pytest.mark.parametrize("space", ["coarse", "fine"])
def test_falls_are_those_of_a_naive_loop(archive: Archive, stored: Any, space: str) -> None:
    model, rate = archive.model, Store.open(archive.study).sampling_rate
    vector = archive.model.encode_text(["atrial fibrillation"])[0]
    found = occlusion(model, stored, rate, vector, space)
    assert found.edges == SECONDS and found.falls.shape == (12, 10) and found.window == 1
    whole = cosine(model, stored, vector, rate, space)
    for lead in (0, 6, 11):
        for window in range(0, 10, 3):
            without = stored.copy()
            without[lead, window * rate : (window + 1) * rate] = 0
            fall = whole - cosine(model, without, vector, rate, space)
            assert found.falls[lead, window] == pytest.approx(fall, abs=2e-5)


def test_a_long_recording_is_blanked_in_longer_windows_and_few_passes(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rate = archive.model, archive.model.ecg_config.sampling_rate
    long = np.random.default_rng(0).integers(-900, 900, (12, 90 * rate)).astype(np.int16)
    vector = model.encode_text(["atrial fibrillation"])[0]
    sizes, encode = [], model.encode_strips
    monkeypatch.setattr(model, "encode_strips", lambda strips: sizes.append(len(strips)) or encode(strips))  # type: ignore[func-returns-value]
    found = occlusion(model, long, rate, vector, "coarse")
    monkeypatch.undo()
    assert found.falls.shape == (12, MOST) and found.edges[-1] == 90 and found.window == 4.5
    assert max(sizes) == CHUNK
    for lead, window in ((0, 0), (7, 1), (3, 2), (5, 3), (11, 9), (11, 19)):
        without = long.copy()
        without[lead, int(4.5 * window * rate) : int(4.5 * (window + 1) * rate)] = 0
        fall = cosine(model, long, vector, rate, "coarse") - cosine(model, without, vector, rate, "coarse")
        assert found.falls[lead, window] == pytest.approx(fall, abs=2e-5)
    looked_at = [0, 1, 9, 10, 18, 19]  # by three strips of five seconds: from 0, 42.5 and 85 s on
    assert sum(sizes) == 1 + 12 * len(looked_at)
    assert not np.delete(found.falls, looked_at, axis=1).any() and found.falls[:, looked_at].any(axis=0).all()


def test_blanking_what_is_blank_costs_no_pass(archive: Archive, stored: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = stored.copy()
    stored[5], stored[7, :250] = MISSING_SAMPLE, MISSING_SAMPLE
    model, rate = archive.model, Store.open(archive.study).sampling_rate
    vector = model.encode_text(["sinus rhythm"])[0]
    sizes, encode = [], model.encode_strips
    monkeypatch.setattr(model, "encode_strips", lambda strips: sizes.append(len(strips)) or encode(strips))  # type: ignore[func-returns-value]
    falls = occlusion(model, stored, rate, vector, "coarse").falls
    assert not falls[5].any() and not falls[7, : 250 // rate].any() and falls[7, 250 // rate] != 0
    assert sum(sizes) == 1 + 110 - 250 // rate


def test_a_recording_of_less_than_a_window() -> None:
    torch.manual_seed(0)
    ecg, text = EcgEncoder(width=8, blocks=(1, 1)), TextEncoder(hidden=32, layers=1)
    model = Model.create(ecg, text, Space(dim=16), ["normal ecg"]).eval()
    signal = np.full((12, 100), 500, np.int16)
    found = occlusion(model, signal, 250, model.encode_text(["normal ecg"])[0], "coarse")
    assert found.edges == (0, 0.4) and found.falls.shape == (12, 1)


def test_others_do_not_wait_for_what_is_blanked(archive: Archive, recording: str) -> None:
    service, go = Service.of(archive, Options()), threading.Event()
    vector = archive.model.encode_text(["sinus rhythm"])[0]

    async def called() -> Occlusion:
        held = asyncio.create_task(service._blanking.do(go.wait))
        falls = asyncio.create_task(service.falls(recording, vector, "coarse"))
        found = await asyncio.wait_for(service.search(SearchRequest(text="atrial fibrillation")), 30)
        assert found.hits and not falls.done()
        go.set()
        await held
        return await falls

    try:
        assert asyncio.run(called()).falls.any()
        assert 'einthoven_waiting{lane="blanking"} 0' in service.metrics.text()
    finally:
        go.set()
        service.close()


def test_shades_are_the_falls_by_the_largest() -> None:
    falls = np.zeros((12, 10), np.float32)
    falls[LEADS.index("V1"), 3], falls[LEADS.index("II"), 0], falls[0, 9] = 0.2, 0.1, -0.5
    falls[LEADS.index("V6"), 1] = 0.2 * LEAST * 0.9
    of = Occlusion(SECONDS, falls)
    found = {(shade.lead, shade.start, shade.end): shade.weight for shade in shades(of)}
    assert found == {("V1", 3.0, 4.0): 1.0, ("II", 0.0, 1.0): pytest.approx(0.5)}
    assert [told[:3] for told in of.largest(5)] == [("V1", 3.0, 4.0), ("II", 0.0, 1.0), ("V6", 1.0, 2.0)]
    assert [told[0] for told in of.largest(1)] == ["V1"]
    none = Occlusion(SECONDS, -np.ones((12, 10), np.float32))
    assert shades(none) == none.largest(5) == []


def test_the_picture_has_a_cell_for_each_lead_and_window() -> None:
    falls = np.zeros((12, 10), np.float32)
    falls[0, 0] = 0.25
    drawn = heat(Occlusion(SECONDS, falls))
    assert drawn.count('class="cell"') == 120 and drawn.count('fill-opacity="1.00"') == 1
    assert "I, 0 to 1 s: -0.250" in drawn
