"""EcgEmbedder: what scikit-learn does with a transformer, done with ECGs."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

import einthoven
from einthoven import EcgEmbedder
from einthoven.config import EcgEncoder, Space, TextEncoder
from einthoven.errors import EinthovenError
from einthoven.model import Model
from einthoven.schema import LEADS
from einthoven.simulation.heart import simulate


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("embedder") / "model"
    text = TextEncoder(hidden=16, layers=1, heads=2, vocabulary=200)
    Model.create(EcgEncoder(width=8, blocks=(1, 1)), text, Space(dim=16, hidden=16), ["sinus rhythm"]).save(path)
    return path


def hearts(n: int = 24) -> tuple[list[np.ndarray], np.ndarray]:
    """Recordings in millivolts at 100 Hz, of 5 to 10 s, half of them with a left bundle branch block."""
    labels = np.arange(n) % 2
    found = [frozenset({"CLBBB" if label else "NORM"}) for label in labels]
    signals = simulate(found, np.random.default_rng(0), sampling_rate=100) / 1000
    return [signal[:, : 500 + 100 * (i % 6)] for i, signal in enumerate(signals)], labels


def test_embeddings_are_those_of_the_model_whatever_the_neighbours_and_their_lengths(saved: Path) -> None:
    recordings, _ = hearts()
    model = einthoven.load(saved)
    expected = np.stack([model.encode_ecg(one, 100) for one in recordings])
    for batch in (1, 3, 64):
        found = EcgEmbedder(saved, 100, output="coarse", batch=batch).fit_transform(recordings)
        assert np.allclose(found, expected, atol=1e-6)
    assert found.dtype == np.float32
    features = EcgEmbedder(saved, 100).transform(recordings)
    assert features.shape == (24, model.ecg.dim) and not np.allclose(features[0], features[1])


def test_an_array_is_a_list_of_recordings(saved: Path) -> None:
    array = np.stack([one[:, :500] for one in hearts()[0]])
    embedder = EcgEmbedder(saved, 100)
    assert np.array_equal(embedder.transform(array), embedder.transform(list(array)))
    assert embedder.transform([]).shape == (0, 16)


def test_a_pipeline_is_searched_and_the_search_learns(saved: Path) -> None:
    recordings, labels = hearts(48)
    steps = [("ecg", EcgEmbedder(saved, 100)), ("scale", StandardScaler()), ("head", LogisticRegression())]
    search = GridSearchCV(Pipeline(steps), {"head__C": [1e-6, 1.0], "ecg__output": ["features", "coarse"]}, cv=3)
    search.fit(recordings, labels)
    assert search.best_score_ > 0.9
    assert (search.predict(recordings) == labels).mean() > 0.9
    named = make_pipeline(EcgEmbedder(saved, 100), LogisticRegression()).fit(recordings, labels)
    assert list(named[:-1].get_feature_names_out()[:2]) == ["features0", "features1"]
    assert len(named[:-1].get_feature_names_out()) == named[-1].coef_.shape[1]


def test_copies_and_pickles_hold_the_place_and_not_the_weights(saved: Path) -> None:
    embedder = EcgEmbedder(saved, 250, ("I", "II"), output="coarse", batch=8)
    recordings = [one[:2] for one in hearts(4)[0]]
    before = embedder.transform(recordings)
    assert clone(embedder).get_params() == embedder.get_params()
    stored = pickle.dumps(embedder)
    assert len(stored) < 1000
    assert np.array_equal(pickle.loads(stored).transform(recordings), before)  # noqa: S301


def test_a_model_trained_anew_is_read_anew(saved: Path, tmp_path: Path) -> None:
    first, place = einthoven.load(saved), tmp_path / "model"
    first.save(place)
    embedder, (recordings, _) = EcgEmbedder(place, 100), hearts(2)
    before = embedder.transform(recordings)
    first.untrained(1).save(place)
    assert not np.allclose(embedder.transform(recordings), before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"output": "words"}, "expected one of features, coarse, fine"),
        ({"output": "fine"}, "no fine space"),
        ({"batch": 0}, "at least 1"),
        ({"leads": ("I", "X")}, "unknown lead 'X'"),
        ({"sampling_rate": 0}, "sampling rate"),
        ({"model": "nowhere"}, "not a model directory"),
    ],
)
def test_wrong_settings_are_told_by_fit(saved: Path, settings: dict, message: str) -> None:
    with pytest.raises(EinthovenError, match=message):
        EcgEmbedder(**{"model": saved, "sampling_rate": 100, **settings}).fit([])


def test_a_wrong_recording_is_told(saved: Path) -> None:
    with pytest.raises(EinthovenError, match=r"recording 0 is \(500,\)"):
        EcgEmbedder(saved, 100).transform(hearts(1)[0][0])  # type: ignore[arg-type]
    with pytest.raises(EinthovenError, match=f"11 leads of signal but {len(LEADS)}"):
        EcgEmbedder(saved, 100).transform([np.zeros((11, 500))])
