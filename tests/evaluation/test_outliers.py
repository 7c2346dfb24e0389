"""Each detector against its formula, written as slowly as it is published."""

import dataclasses
from collections import namedtuple

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from scipy.optimize import minimize

from einthoven.errors import EinthovenError
from einthoven.evaluation.detectors import (
    DETECTORS,
    NEIGHBOURS,
    EarlyMahalanobis,
    Energy,
    Exposure,
    Mahalanobis,
    MaxCosine,
    Neighbours,
    RelativeMahalanobis,
    VirtualLogit,
)
from einthoven.evaluation.outliers import FILE, Calibrated, Outliers, load_outliers, save_outliers

Seen = namedtuple("Seen", ["vectors", "features", "early"])

WEIGHT = np.random.default_rng(1).normal(size=(3, 8)).astype(np.float32)
BIAS = np.array([0.5, -0.2, 0.1], np.float32)
PROMPTS = np.random.default_rng(2).normal(size=(4, 8)).astype(np.float32)


def features(n: int = 120, f: int = 8, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.normal(size=(n, f)) @ random.normal(size=(f, f)) + 3).astype(np.float32)


def made(name: str):
    needs = {"energy": (WEIGHT, BIAS), "vim": (WEIGHT, BIAS), "prompts": (PROMPTS,)}
    return DETECTORS[name](*needs.get(name, ()))


def fit(detector, rows: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Of exposure every other recording is a corrupted one."""
    detector.fit(rows, np.arange(len(rows)) % 2 if isinstance(detector, Exposure) else labels)


def ledoit_wolf(rows: np.ndarray) -> np.ndarray:
    """Ledoit and Wolf 2004, section 3.2, of centred rows: with the identity scaled to the mean variance."""
    n, f = rows.shape
    sample = sum(np.outer(x, x) for x in rows) / n
    mu = np.trace(sample) / f
    distance = ((sample - mu * np.eye(f)) ** 2).sum()
    spread = sum(((np.outer(x, x) - sample) ** 2).sum() for x in rows) / n**2
    share = min(spread, distance) / distance
    return share * mu * np.eye(f) + (1 - share) * sample


def test_mahalanobis_is_the_distance_in_the_shrunk_covariance():
    rows, others = features(), features(30, seed=5)
    detector = Mahalanobis()
    detector.fit(rows)
    mean = rows.mean(axis=0)
    inverse = np.linalg.inv(ledoit_wolf((rows - mean).astype(float)))
    expected = [(x - mean) @ inverse @ (x - mean) for x in others]
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-4)


def test_relative_mahalanobis_is_the_nearest_class_less_the_whole():
    rows, others, labels = features(), features(30, seed=5), np.random.default_rng(3).integers(-1, 3, 120)
    rows = rows + 2 * labels[:, None].astype(np.float32)
    detector = RelativeMahalanobis()
    detector.fit(rows, labels)
    mean, means = rows.mean(axis=0), [rows[labels == c].mean(axis=0) for c in range(3)]
    whole = np.linalg.inv(ledoit_wolf((rows - mean).astype(float)))
    residuals = np.stack([x - means[c] for x, c in zip(rows, labels, strict=True) if c >= 0]).astype(float)
    within = np.linalg.inv(ledoit_wolf(residuals))
    expected = [min((x - m) @ within @ (x - m) for m in means) - (x - mean) @ whole @ (x - mean) for x in others]
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-3, atol=1e-3)


def standard(rows: np.ndarray, usual: np.ndarray) -> np.ndarray:
    logs = [np.log(np.maximum(x, 1e-3)) for x in usual.astype(float)]
    mean, deviation = sum(logs) / len(logs), np.sqrt(sum((x - sum(logs) / len(logs)) ** 2 for x in logs) / len(logs))
    return np.stack([(np.log(np.maximum(x, 1e-3)) - mean) / deviation for x in rows.astype(float)])


def test_early_is_the_distance_of_standardised_logarithms():
    rows, others = np.exp(features() / 4), np.exp(features(30, seed=5) / 4)
    detector = EarlyMahalanobis()
    detector.fit(rows)
    inverse = np.linalg.inv(ledoit_wolf(standard(rows, rows)))
    expected = [z @ inverse @ z for z in standard(others, rows)]
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-3)


def test_exposure_is_the_logit_and_the_distance_in_deviations_of_the_usual():
    rows, others = np.exp(features() / 4), np.exp(features(30, seed=5) / 4)
    labels = np.repeat([0, 1], [80, 40])
    rows[80:, 3] *= 2
    detector = Exposure()
    detector.fit(rows, labels)
    usual = rows[:80]
    inverse = np.linalg.inv(ledoit_wolf(standard(usual, usual)))

    def loss(w: np.ndarray) -> float:  # logistic regression with the ridge penalty that scikit-learn calls C
        z = np.clip(standard(rows, usual), -8, 8) @ w[:-1] + w[-1]
        return float(np.log1p(np.exp(-(2 * labels - 1) * z)).sum() * 0.01 + 0.5 * (w[:-1] ** 2).sum())

    best = minimize(loss, np.zeros(9), method="BFGS", options={"gtol": 1e-7}).x

    def both(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        z = standard(x, usual)
        return np.clip(z, -8, 8) @ best[:-1] + best[-1], np.log([v @ inverse @ v for v in z])

    expected = sum((a - b.mean()) / b.std() for a, b in zip(both(others), both(usual), strict=True))
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-2, atol=1e-2)


def test_neighbours_is_the_distance_from_the_tenth_nearest_direction():
    rows, others = features(), features(30, seed=5)
    detector = Neighbours()
    detector.fit(rows)
    known = [x / np.linalg.norm(x) for x in rows]
    expected = [sorted(np.linalg.norm(x / np.linalg.norm(x) - k) for k in known)[NEIGHBOURS - 1] for x in others]
    np.testing.assert_allclose(detector.score(others), expected, atol=1e-3)
    assert np.allclose(detector.score(others), detector.score(7 * others), atol=1e-3)


def test_energy_is_minus_the_log_of_the_summed_exponentials():
    others = features(30)
    expected = [-np.log(sum(np.exp(float(w @ x + b)) for w, b in zip(WEIGHT, BIAS, strict=True))) for x in others]
    detector = Energy(WEIGHT, BIAS)
    detector.fit(features())
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-5)
    assert np.isfinite(detector.score(1e6 * others)).all()


def test_the_virtual_logit_is_the_scaled_residual_beside_the_energy():
    rows, others = features().astype(float), features(30, seed=5).astype(float)
    detector = VirtualLogit(WEIGHT, BIAS)
    detector.fit(rows)
    origin = -np.linalg.pinv(WEIGHT.astype(float)) @ BIAS
    assert np.allclose(WEIGHT @ origin + BIAS, 0, atol=1e-5)
    _, _, directions = np.linalg.svd(rows - origin)  # the same space by another way
    principal = directions[:4]

    def outside(x: np.ndarray) -> float:
        return float(np.linalg.norm((x - origin) - principal.T @ (principal @ (x - origin))))

    logits = [WEIGHT @ x + BIAS for x in rows]
    scale = np.mean([max(0.0, np.mean([v.max() for v in logits]))]) / np.mean([outside(x) for x in rows])
    expected = [scale * outside(x) - np.log(np.exp(WEIGHT @ x + BIAS).sum()) for x in others]
    assert scale > 0
    np.testing.assert_allclose(detector.score(others), expected, rtol=1e-3, atol=1e-3)


def test_a_virtual_logit_of_classifiers_that_never_agree_is_the_energy():
    detector = VirtualLogit(WEIGHT, BIAS - 1000)
    detector.fit(features())
    others = features(9, seed=4)
    np.testing.assert_allclose(detector.score(others), Energy(WEIGHT, BIAS - 1000).score(others))


def test_prompts_score_by_the_nearest_of_them():
    others = features(30)
    cosines = [[x @ p / np.linalg.norm(x) / np.linalg.norm(p) for p in PROMPTS] for x in others]
    np.testing.assert_allclose(MaxCosine(PROMPTS).score(others), [1 - max(row) for row in cosines], atol=1e-6)
    assert MaxCosine(PROMPTS).score(PROMPTS) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("name", DETECTORS)
def test_odd_features_still_give_finite_scores(name):
    constant = features()
    constant[:, 2] = 4
    few, same = features(5), np.ones((20, 8), np.float32)
    for rows in (constant, few, same, features(4)):
        detector = made(name)
        fit(detector, rows, np.zeros(len(rows), int))  # one class
        found = detector.score(features(7, seed=9))
        assert found.shape == (7,) and found.dtype == np.float64 and np.isfinite(found).all()
        assert detector.score(features(7)[:0]).shape == (0,)


@pytest.mark.parametrize("name", ["early", "mahalanobis", "neighbours", "vim"])
def test_what_lies_far_off_scores_above_all_that_is_usual(name):
    detector = made(name)
    detector.fit(features())
    away = features(10, seed=8) * np.array([1, -1] * 4, np.float32) * 30
    assert detector.score(away).min() > np.median(detector.score(features(100, seed=7)))


@pytest.mark.parametrize("name", DETECTORS)
def test_what_cannot_be_scored_is_told(name):
    detector = made(name)
    if name in ("early", "mahalanobis", "relative-mahalanobis", "neighbours"):
        with pytest.raises(EinthovenError, match="was it fitted"):
            detector.score(features())
        with pytest.raises(EinthovenError, match="two recordings or more"):
            detector.fit(features(1), np.zeros(1, int))
    fit(detector, features(), np.zeros(120, int))
    with pytest.raises(EinthovenError, match="takes features"):
        detector.score(features(3, f=9))
    with pytest.raises(EinthovenError, match="finite"):
        detector.score(np.full((2, 8), np.nan))
    if name == "relative-mahalanobis":
        with pytest.raises(EinthovenError, match="with a class"):
            detector.fit(features(), np.full(120, -1))
    if name == "exposure":
        with pytest.raises(EinthovenError, match=r"labels 0, and corrupted ones, 1"):
            detector.fit(features(), np.zeros(120, int))


def test_a_threshold_lets_no_more_be_flagged_than_stated():
    scores = np.random.default_rng(0).normal(size=1003)
    for rate in (0.01, 0.05, 0.2):
        above = (scores > Calibrated.on(Mahalanobis(), scores, rate).threshold).mean()
        assert rate - 2 / 1003 < above <= rate
    assert (scores[:7] > Calibrated.on(Mahalanobis(), scores[:7], 0.05).threshold).sum() == 0


@pytest.fixture
def found() -> Outliers:
    detectors = {}
    for name in DETECTORS:
        detector = made(name)
        fit(detector, features(), np.arange(120) % 3)
        detectors[name] = Calibrated.on(detector, detector.score(features(60, seed=3)), 0.1)
    return Outliers(detectors, "neighbours", 0.1, fitted=120, calibrated=60)


def test_saved_detectors_score_as_before_and_to_the_bit(found: Outliers, tmp_path):
    save_outliers(tmp_path / FILE, found)
    again, others = load_outliers(tmp_path), features(20, seed=11)
    assert dataclasses.replace(again, detectors={}) == dataclasses.replace(found, detectors={})
    for name, one in found.detectors.items():
        assert again.detectors[name].threshold == one.threshold
        assert np.array_equal(again.detectors[name].detector.score(others), one.detector.score(others)), name
    flagged = again.scores(Seen(others[:, :4], others, others))
    assert np.array_equal(
        flagged, found.detectors["neighbours"].detector.score(others) - again.detectors["neighbours"].threshold
    )
    first = (tmp_path / FILE).read_bytes()
    save_outliers(tmp_path / FILE, again)
    assert (tmp_path / FILE).read_bytes() == first


def test_what_is_missing_damaged_or_another_file_is_told(found: Outliers, tmp_path):
    with pytest.raises(EinthovenError, match="einthoven calibrate"):
        load_outliers(tmp_path)
    save_outliers(tmp_path / FILE, found)
    tensors = load_file(tmp_path / FILE)
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(whole[:500])
    with pytest.raises(EinthovenError, match="not a readable file"):
        load_outliers(tmp_path)
    from safetensors import safe_open

    with safe_open(_written(tmp_path / FILE, whole), framework="numpy") as file:
        header = file.metadata()
    for change in ({"extra": np.zeros(2)}, {"neighbours.known": None}):
        changed = {k: v for k, v in {**tensors, **change}.items() if v is not None}
        save_file(changed, tmp_path / FILE, metadata=header)
        with pytest.raises(EinthovenError, match="not a readable file"):
            load_outliers(tmp_path)
    for old, new in (('"format": 2', '"format": 1'), ('"chosen": "neighbours"', '"chosen": "ghost"')):
        save_file(tensors, tmp_path / FILE, metadata={"outliers": header["outliers"].replace(old, new)})
        with pytest.raises(EinthovenError, match="not a readable file"):
            load_outliers(tmp_path)


def _written(path, content: bytes):
    path.write_bytes(content)
    return path
