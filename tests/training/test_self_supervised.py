import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import Tensor

from einthoven.batches import Pairs, epoch_batches
from einthoven.config import Augmentation, EcgEncoder, Recipe, Space, Training
from einthoven.errors import EinthovenError
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.training.align import align, objective_of
from einthoven.training.aligned_pairs import Held
from einthoven.training.self_supervised import (
    FLAT_MV,
    Decoder,
    MaskedStrips,
    MatchingViews,
    Siblings,
    held_views,
    hidden_patches,
    masked_error,
    second_strips,
)

OBJECTIVES = ("simclr", "patient", "masked")
PATIENTS = 12
SUBJECTS = np.repeat(np.arange(PATIENTS), 2)


def recipe_of(objective: str, **training) -> Recipe:
    settings = {"epochs": 3, "batch": 6, "learning_rate": 3e-3, "ema": 0.9, "validate_every": 1, "precision": "fp32"}
    return Recipe(
        ecg=EcgEncoder(width=8, blocks=(1, 1), dropout=0.1, strip_seconds=3.0),
        space=Space(modalities=("ecg",), dim=16, hidden=32),
        augmentation=Augmentation(noise_mv=0, wander_mv=0, lead_dropout=0),
        training=Training(objective=objective, **settings | training),
    )


def waves(noise: float = 0.0) -> np.ndarray:
    """Two recordings of each patient: the patient is a frequency and amplitudes of leads, the recording a phase."""
    generator, t = np.random.default_rng(0), np.arange(1000) / 100
    leads, phases = generator.uniform(-1, 1, (PATIENTS, 12)), generator.uniform(0, 2 * np.pi, (PATIENTS, 2))
    angles = 2 * np.pi * (1 + 0.25 * np.arange(PATIENTS)[:, None, None]) * t + phases[:, :, None]
    signals = leads[:, None, :, None] * np.sin(angles)[:, :, None]
    signals += noise * generator.standard_normal(signals.shape)
    return (1000 * signals).reshape(-1, 12, 1000).astype(np.int16)


class Signals:
    """A store of the waves."""

    sampling_rate = 100

    def __init__(self, noise: float = 0.0) -> None:
        self.signals = waves(noise)

    def read(self, rows: np.ndarray) -> np.ndarray:
        return self.signals[rows]


def parts(recipe: Recipe, noise: float = 0.0) -> tuple[Model, Pairs, Held]:
    torch.manual_seed(0)
    model, store = Model.create(recipe.ecg, recipe.text, recipe.space), Signals(noise)
    rows = np.arange(len(SUBJECTS))
    objective = recipe.training.objective
    pairs = Pairs(rows, SUBJECTS, store.read, other=second_strips(objective, SUBJECTS))
    held = held_views(pa.table({"row": rows, "subject_id": SUBJECTS}), store, model, objective)
    assert held is not None
    return model, pairs, held


@pytest.mark.parametrize("objective", ["simclr", "patient"])
def test_strips_that_belong_together_find_each_other(tmp_path: Path, objective: str) -> None:
    recipe = recipe_of(objective, epochs=25, batch=12, validate_every=25)
    model, pairs, held = parts(recipe, noise=1.0)
    before = MatchingViews(model.eval()).score(held)
    history = align(recipe, model, pairs, held, tmp_path)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]
    assert before < 0.6 and history[-1]["validation_mrr"] > 0.8
    vectors = load(tmp_path / "best").encode_ecg(waves(1.0) / 1000, 100)
    nearest = np.argsort(vectors @ vectors.T, axis=1)[:, -2]  # but for itself
    assert (nearest // 2 == SUBJECTS).mean() > 0.7


def test_hidden_patches_are_told_from_the_others(tmp_path: Path) -> None:
    recipe = recipe_of("masked", epochs=60, batch=12, validate_every=60, mask=0.4)
    model, pairs, held = parts(recipe)
    before = objective_of(recipe.training, model).eval().score(held)
    history = align(recipe, model, pairs, held, tmp_path)
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]  # 1: the mean of each lead
    assert before < -0.9 and history[-1]["validation_score"] > -0.7
    best, strips = load(tmp_path / "best"), torch.from_numpy(held.strips[:, :1])
    features = best.encode_strips(strips).features
    assert torch.allclose(features, best.ecg.map(best.ecg.scaled(strips[:, 0])).mean(dim=-1), atol=1e-5)


class KilledError(Exception):
    pass


@pytest.mark.parametrize(("objective", "stop"), [("simclr", 3), ("patient", 5), ("masked", 6)])
def test_a_killed_run_ends_with_the_same_weights(tmp_path: Path, objective: str, stop: int) -> None:
    def kill(step: int, steps: int, note: str) -> None:
        if step == stop:
            raise KilledError

    recipe = recipe_of(objective, epochs=2, batch=8)
    whole = align(recipe, *parts(recipe), tmp_path / "whole")
    with pytest.raises(KilledError):
        align(recipe, *parts(recipe), tmp_path / "killed", progress=kill)
    assert align(recipe, *parts(recipe), tmp_path / "killed") == whole
    expected, got = (load(tmp_path / name / "best").state_dict() for name in ("whole", "killed"))
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    state = torch.load(tmp_path / "whole" / "state.pt", weights_only=True)
    again = torch.load(tmp_path / "killed" / "state.pt", weights_only=True)
    assert all(torch.equal(v, again["model"][name]) for name, v in state["model"].items())
    assert any(name.startswith("decoder.") for name in state["model"]) == (objective == "masked")
    assert not any("decoder" in name for name in got)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_step_in_chunks_is_the_step_of_the_whole_batch(objective: str) -> None:
    recipe = recipe_of(objective)
    model, pairs, _ = parts(recipe)
    trained = objective_of(recipe.training, model).eval()  # no dropout, no normalisation over what a chunk holds
    if objective == "masked":  # the hidden patches are drawn chunk by chunk
        trained.hide = lambda rows: (torch.arange(model.strip_samples) % 4 < 2).expand(rows, -1)
    (batch,) = epoch_batches(
        pairs, batch=24, length=model.strip_samples, rate=100, options=recipe.augmentation, seed=0, epoch=0
    )
    steps = []
    for chunk in (0, 5):
        trained.zero_grad()
        loss = trained.backward(trained, batch, replace(recipe.training, chunk=chunk), "fp32")
        steps.append((loss, {name: p.grad for name, p in trained.named_parameters()}))
    (loss, whole), (again, chunked) = steps
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    for name, gradient in whole.items():
        assert gradient is not None and chunked[name] is not None, name  # DDP waits for all of them
        assert torch.allclose(gradient, chunked[name], atol=1e-5), name
    assert max(float(gradient.abs().max()) for gradient in whole.values()) > 1e-3


def test_the_second_strip_is_of_the_patients_other_recording_whenever_there_is_one() -> None:
    subjects = np.array([7, 3, 7, 9, 7, 3])
    siblings, generator = Siblings.of(subjects), np.random.default_rng(0)
    index = np.arange(len(subjects))
    drawn = np.array([siblings(index, generator) for _ in range(60)])
    assert (subjects[drawn] == subjects).all()
    assert (drawn[:, 3] == 3).all() and not (drawn == index)[:, subjects != 9].any()
    assert set(drawn[:, 0]) == {2, 4} and set(drawn[:, 2]) == {0, 4} and set(drawn[:, 1]) == {5}


def test_batches_hold_a_second_strip_of_the_right_recording() -> None:
    signals = np.arange(1, 7, dtype=np.int16)[:, None, None] * np.full((6, 12, 40), 1000, np.int16)
    plain, subjects = Augmentation(scale=0, noise_mv=0, wander_mv=0, lead_dropout=0), np.array([0, 0, 1, 1, 2, 3])
    for objective, other in (("simclr", [1, 2, 3, 4, 5, 6]), ("patient", [2, 1, 4, 3, 5, 6])):
        pairs = Pairs(np.arange(6), subjects, lambda rows: signals[rows], other=second_strips(objective, subjects))
        for batch in epoch_batches(pairs, batch=3, length=30, rate=100, options=plain, seed=0, epoch=0):
            first, second = (x[:, 0, 0].round().int() for x in (batch.strip, batch.other))
            assert second.tolist() == [other[i - 1] for i in first.tolist()]
            halves = batch.split(2)
            assert torch.equal(torch.cat([half.other for half in halves]), batch.other)


def test_two_augmented_strips_of_a_recording_differ_and_repeat() -> None:
    _, pairs, _ = parts(recipe := recipe_of("simclr"))

    def first(epoch: int):
        return next(
            epoch_batches(pairs, batch=6, length=300, rate=100, options=recipe.augmentation, seed=0, epoch=epoch)
        )

    assert not torch.equal(first(0).strip, first(0).other)
    assert torch.equal(first(0).other, first(0).other) and not torch.equal(first(0).other, first(1).other)


def test_held_views_are_the_ends_of_each_patients_recordings() -> None:
    model, store = parts(recipe_of("simclr"))[0], Signals()
    table = pa.table({"row": [4, 5, 9], "subject_id": [8, 8, 2]})
    first, last = store.signals[..., :300] / 1000, store.signals[..., -300:] / 1000
    for objective, second in (("simclr", [9, 4]), ("patient", [9, 5])):
        held = held_views(table, store, model, objective)
        assert held is not None
        assert np.allclose(held.strips, np.stack([first[[9, 4]], last[second]], axis=1), atol=1e-6)
    assert held_views(table.slice(2), store, model, "simclr") is None


def test_the_score_is_the_mean_reciprocal_rank_of_the_matching_view() -> None:
    model, _, held = parts(recipe_of("simclr"))
    objective = MatchingViews(model.eval())
    a, b = (model.encode_strips(torch.from_numpy(held.strips[:, [v]])).fine.double().numpy() for v in range(2))
    total = 0.0
    for x, y in ((a, b), (b, a)):
        for i in range(len(x)):
            total += 1 / sum(float(x[i] @ y[j]) >= float(x[i] @ y[i]) for j in range(len(y)))
    assert objective.score(held) == pytest.approx(total / (2 * len(a)))


def naive_error(made: Tensor, strip: Tensor, hidden: Tensor) -> list[float]:
    errors = []
    for row in range(len(strip)):
        terms = []
        for lead in range(12):
            samples = [float(v) for v in strip[row, lead]]
            if not any(samples):
                continue
            mean = sum(samples) / len(samples)
            deviation = max(math.sqrt(sum((v - mean) ** 2 for v in samples) / len(samples)), FLAT_MV)
            for t, v in enumerate(samples):
                if hidden[row, t]:
                    terms.append((float(made[row, lead, t]) - (v - mean) / deviation) ** 2)
        errors.append(sum(terms) / max(len(terms), 1))
    return errors


def test_the_masked_error_equals_the_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    strip, made = (torch.randn(4, 12, 50, generator=generator) for _ in range(2))
    strip[0, 3:], strip[1] = 0, 0  # missing leads; a strip without any
    strip[2] *= 1e-3  # nearly flat
    hidden = torch.rand(4, 50, generator=generator) < 0.5
    assert masked_error(made, strip, hidden).tolist() == pytest.approx(naive_error(made, strip, hidden), rel=1e-4)


@pytest.mark.parametrize(("share", "count"), [(0.75, 13), (0.01, 1), (0.99, 16)])
def test_a_share_of_the_patches_is_hidden_whole(share: float, count: int) -> None:
    hidden = hidden_patches(200, 500, 30, share, torch.device("cpu"), torch.Generator().manual_seed(0))
    patches = torch.nn.functional.pad(hidden.int(), (0, 10), value=-1).view(200, 17, 30)
    assert all(len(set(patch[patch >= 0].tolist())) == 1 for patch in patches.flatten(0, 1))
    assert (patches[:, :, 0].sum(dim=1) == count).all()
    assert patches[:, :, 0].float().mean(dim=0).std() < 0.1  # each as often
    assert len({tuple(row) for row in hidden.tolist()}) > 10


def test_what_is_hidden_does_not_reach_the_encoder() -> None:
    model, _, held = parts(recipe := recipe_of("masked"))
    objective = MaskedStrips(model, recipe.training).eval()
    strip = torch.from_numpy(held.strips[:, 0])
    hidden = objective.hide(len(strip), torch.Generator().manual_seed(1))
    change = torch.randn(strip.shape, generator=torch.Generator().manual_seed(2)) * hidden[:, None]
    change -= hidden[:, None] * change.sum(-1, keepdim=True) / hidden.sum(-1)[:, None, None]  # the mean stays the same
    with torch.inference_mode():
        made = objective(strip, hidden)
        assert made.shape == strip.shape
        assert torch.allclose(objective(strip + change, hidden), made, atol=1e-4)
        assert not torch.allclose(objective(strip + change, ~hidden), objective(strip, ~hidden), atol=1e-4)


def test_the_decoder_lays_out_time_in_order() -> None:
    decoder = Decoder(channels=3, stride=4, width=8)
    x = torch.randn(2, 3, 5)
    out = decoder.layers(x)
    made = decoder(x)
    for lead, step, sample in ((0, 0, 0), (5, 2, 3), (11, 4, 1)):
        assert torch.equal(made[:, lead, step * 4 + sample], out[:, lead * 4 + sample, step])


def test_an_ecg_alone_is_saved_loaded_and_says_what_it_has_not(tmp_path: Path) -> None:
    recipe = recipe_of("simclr")
    recipe = replace(recipe, ecg=replace(recipe.ecg, scaling="minmax"))
    model = parts(recipe)[0].eval()
    model.save(tmp_path / "model")
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == ["config.json", "model.safetensors"]
    again, signal = load(tmp_path / "model"), waves() / 1000
    assert np.array_equal(again.encode_ecg(signal, 100), model.encode_ecg(signal, 100))
    assert np.array_equal(again.encode_ecg(signal, 100, space="fine"), again.encode_ecg(signal, 100))
    assert again.ecg_config.scaling == "minmax"
    for call, said in (
        (lambda: again.encode_text(["x"]), "no text encoder"),
        (lambda: again.encode_codes([["SCP//AFIB"]]), "no encoder of codes"),
        (lambda: again.encode_ecg(signal, 100, space="coarse"), "no coarse space"),
    ):
        with pytest.raises(EinthovenError, match=said):
            call()
    assert not np.allclose(model.untrained(1).encode_ecg(signal, 100), model.encode_ecg(signal, 100))


RANKS = """
import sys, torch, torch.distributed as dist
from accelerate import PartialState
sys.path.insert(0, sys.argv[2])
from test_self_supervised import parts, recipe_of
from einthoven.training.align import align
from pathlib import Path
process = PartialState(cpu=True)
recipe = recipe_of(sys.argv[3], epochs=1)
model, pairs, held = parts(recipe)
align(recipe, model, pairs, held if dist.get_rank() == 0 else None, Path(sys.argv[1]))
torch.save(dict(model.named_parameters()), Path(sys.argv[1]) / f"{dist.get_rank()}.pt")
dist.barrier()
process.destroy_process_group()
"""


@pytest.mark.parametrize("objective", ["patient", "masked"])
def test_two_processes_train_one_model(tmp_path: Path, objective: str) -> None:
    script = tmp_path / "ranks.py"
    script.write_text(RANKS)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    arguments = [str(tmp_path), str(Path(__file__).parent), objective]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert load(tmp_path / "best").card["step"] == 4
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
