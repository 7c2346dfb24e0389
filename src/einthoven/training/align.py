"""Contrastive alignment of ECG, codes and text, and the baselines of it: one linear loop that survives a kill with the
same numbers."""

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor, nn

from einthoven.batches import Batch, Pairs, batches_per_epoch, epoch_batches
from einthoven.config import Recipe, Training
from einthoven.encoders.text_features import KeptFeatures
from einthoven.errors import EinthovenError
from einthoven.evaluation.labels import without_class
from einthoven.evaluation.split import numbers_of
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.progress import Progress, silent
from einthoven.ranks import accelerated, joined, mean_loss, parted
from einthoven.study import data_kind
from einthoven.training.aligned_pairs import (
    MOST_HELD,
    Held,
    code_kinds,
    code_part,
    codes_of,
    held_of,
    kept_features,
    sampled,
    texts_of,
    vocabulary_texts,
)
from einthoven.training.loop import (
    BEST,
    State,
    adamw,
    finish_step,
    keep,
    learning_rate,
    precision,
    refuse_unsealed,
    resume,
    seal,
    seed_dropout,
    set_learning_rate,
    threads_ahead,
)
from einthoven.training.objective import Objective, embedded, reciprocal_rank
from einthoven.training.paired_columns import distinct_texts, texts_at, training_pairs
from einthoven.training.probes import fit_probes_of
from einthoven.training.self_supervised import MaskedStrips, MatchingViews, held_views, second_strips
from einthoven.training.sharding import collect, shard
from einthoven.training.step import backward
from einthoven.waveforms.rates import at_rate
from einthoven.waveforms.store import Store


def train_on_study(
    recipe: Recipe, study: Path, out: Path, workshop: Path, signature: str, progress: Progress
) -> dict[str, Any]:
    """Read a study's pairs, train, write the model directory `out`; return counts."""
    model, pairs, held, size = read(recipe, study, progress)
    history = align(recipe, model, pairs, held, workshop, signature, progress)
    if not parted():
        return {}
    best = load(workshop / BEST)
    best.save(out)
    probes = fit_probes_of(best, study, out, recipe.evaluation, progress)
    return {**size, "history": history, "probes": probes, **best.card}


def read(recipe: Recipe, study: Path, progress: Progress) -> tuple[Model, Pairs, Held | None, dict[str, int]]:
    """A new model, the pairs that it is trained on and those that choose its epoch, these in the first process alone;
    and how much there is to learn from. The tables they are made of are let go: a million pairs make large ones."""
    process = joined()
    with process.main_process_first():
        store = at_rate(study, recipe.ecg.sampling_rate)
    table = training_pairs(study, recipe.training.concatenation, recipe.space.modalities)
    table = without_class(table, study, recipe.training.without_class)
    train = table.filter(pc.equal(table["split"], "train"))
    if len(train) < 2:
        wanted = " or ".join(name for name in recipe.space.modalities if name != "ecg")
        needed = f"pairs with a signal and {wanted}" if wanted else "recordings with a signal"
        raise EinthovenError(f"{study}: {len(train)} training {needed}; at least 2 are needed.")
    distinct = {"patients": train["subject_id"], "distinct_texts": train["digest"]}
    size = {"pairs": len(train), **{name: pc.count_distinct(of).as_py() for name, of in distinct.items()}}
    model, pairs, kept = prepared(recipe, study, train, store, progress)
    validation = table.filter(pc.equal(table["split"], "validation"))
    validation = sampled(validation, MOST_HELD, recipe.training.seed)
    held = None
    if process.is_main_process and pairs.other is not None:
        held = held_views(validation, store, model, recipe.training.objective)
    elif process.is_main_process:
        held = held_of(validation, study, store, model, recipe.training.concatenation, kept)
    return model, pairs, held, size


def prepared(
    recipe: Recipe, study: Path, train: pa.Table, store: Store, progress: Progress
) -> tuple[Model, Pairs, KeptFeatures | None]:
    """A new model, its training pairs in memory, and where a frozen encoder's features of texts are kept.

    `store` is at the model's rate.
    """
    process, wording = joined(), recipe.training.concatenation
    of_pair, places = distinct_texts(train)
    spoken: list[str] = []
    if "text" in recipe.space.modalities and recipe.text.pretrained is None:
        subjects = train["subject_id"].to_numpy()
        spoken = vocabulary_texts(study, wording, places, of_pair, subjects, recipe.text.floor)
    model = new_model(recipe, study, spoken)
    model.card["pairs"] = len(train)
    kept = kept_features(model.to(process.device), study, progress)
    with process.main_process_first():  # which encodes what the others find kept
        told = None
        if model.text is not None:
            told = texts_of(model, of_pair, texts_at(study, wording, places), len(places), kept)
        pairs = Pairs(
            rows=train["row"].to_numpy(),
            subjects=train["subject_id"].to_numpy(),
            read=store.read,
            texts=told,
            codes=None if model.codes is None else codes_of(model, train, study),
            other=second_strips(recipe.training.objective, train["subject_id"].to_numpy()),
        )
    return model, pairs, kept


def new_model(recipe: Recipe, study: Path, texts: list[str]) -> Model:
    """A model with new weights and the vocabularies of a study's train split, and in its card what it is trained on."""
    torch.manual_seed(recipe.training.seed)
    codes = code_part(recipe, study) if "codes" in recipe.space.modalities else None
    model = Model.create(recipe.ecg, recipe.text, recipe.space, texts, codes)
    model.card = {
        "data_kind": data_kind(study),
        "seed": recipe.training.seed,
        "concatenation": recipe.training.concatenation,
        "code_kinds": code_kinds(study),
    }
    if recipe.training.without_class is not None:
        model.card["without_class"] = recipe.training.without_class
    return model


def align(
    recipe: Recipe,
    model: Model,
    pairs: Pairs,
    held: Held | None,
    workshop: Path,
    signature: str = "",
    progress: Progress = silent,
) -> list[dict[str, float]]:
    """Train `model` on `pairs`, write the average of the best epoch on `held` to `workshop/best`, return the history.

    For what it is trained `training.objective` says; `pairs.other` and `held` must be what that needs.
    After every epoch everything is kept in `workshop`; a run that finds such a state goes on from it. `signature`
    says what the run depends on: a state with another one is refused.
    """
    options = recipe.training
    accelerator = accelerated()
    kind = precision(options.precision, accelerator.device)
    state = begun(options, model, accelerator.device)
    resume(workshop, state, signature, accelerator.device)
    own = state
    if options.sharding == "fsdp" and accelerator.num_processes > 1:
        own = shard(state, options, accelerator.device.type)
        wrapped, optimizer = own.model, own.optimizer
    else:
        wrapped, optimizer = accelerator.prepare(state.model, state.optimizer)
    whole = state if accelerator.is_main_process else None
    steps = batches_per_epoch(len(pairs), options.batch) * options.epochs
    while own.epoch < options.epochs:
        own.model.train()
        losses: list[Tensor] = []
        for batch in epoch_batches(
            pairs,
            batch=options.batch,
            length=model.strip_samples,
            rate=model.ecg_config.sampling_rate,
            options=recipe.augmentation,
            seed=options.seed,
            epoch=own.epoch,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
            ahead=threads_ahead(accelerator.device),
        ):
            seed_dropout(options.seed, own.step, accelerator.process_index)
            set_learning_rate(optimizer, learning_rate(own.step, steps, options.learning_rate, options.warmup))
            loss = own.model.backward(wrapped, batch.to(accelerator.device), options, kind)
            finish_step(own, optimizer, accelerator, options.clip_norm, options.ema)
            losses.append(loss)  # reading the value here would wait for the device
            progress(own.step, steps, f"epoch {own.epoch + 1}/{options.epochs}")
        own.epoch += 1
        loss_of_epoch = mean_loss(accelerator, losses)
        if own is not state:
            collect(own, whole)
        if whole is not None:
            _close_epoch(whole, options, held, workshop, signature, loss_of_epoch)
        accelerator.wait_for_everyone()
    if whole is not None:
        refuse_unsealed(workshop, whole)
    return state.history


def begun(options: Training, model: Model, device: torch.device) -> State[Objective]:
    """Before the first step."""
    objective = objective_of(options, model).to(device)
    optimizer = adamw(objective, options.learning_rate, options.weight_decay)
    frozen = {id(p): p for p in objective.parameters() if not p.requires_grad}  # their own average: one copy does
    average = copy.deepcopy(objective, frozen).eval().requires_grad_(False)
    return State(objective, average, optimizer, -math.inf, 0, 0, [])


def objective_of(options: Training, model: Model) -> Objective:
    """What `options` train the model for."""
    if options.objective == "contrast":
        return Alignment(model)
    return MaskedStrips(model, options) if options.objective == "masked" else MatchingViews(model)


class Alignment(Objective):
    """The contrastive losses between modalities, and what stands beside them (step.py)."""

    def backward(self, wrapped: nn.Module, batch: Batch, options: Training, kind: str) -> Tensor:
        return backward(self.model, wrapped, batch, options, kind)

    def score(self, held: Held) -> float:
        return validate(self.model, held)


def validate(model: Model, held: Held) -> float:
    """Mean reciprocal rank between ECGs and the distinct texts, and between ECGs and records, both ways; their mean."""
    scores = []
    if model.text is not None:
        told = np.array([i for i, text in enumerate(held.texts) if text is not None], np.int64)
        texts = [text for text in held.texts if text is not None]
        distinct, group = list(dict.fromkeys(texts)), numbers_of(texts)
        features = model.text_features(distinct) if held.text_features is None else held.text_features
        ecg = embedded(model, held.strips, "coarse", told)
        scores.append(reciprocal_rank(ecg, model.project_text(features), group))
    if held.records is not None and held.code_sets is not None:
        known = np.flatnonzero(np.diff(held.records.offsets))
        _, first, group = np.unique(held.code_sets[known], return_index=True, return_inverse=True)
        codes = model.encode_records(held.records)[known][first]
        scores.append(reciprocal_rank(embedded(model, held.strips, "fine", known), codes, group))
    return float(np.mean(scores))


def _close_epoch(
    state: State[Objective], options: Training, held: Held | None, workshop: Path, signature: str, loss: float
) -> None:
    entry = {"epoch": float(state.epoch), "step": float(state.step), "loss": loss}
    last = state.epoch == options.epochs
    score, average = -math.inf, state.average
    if held is not None and (last or state.epoch % options.validate_every == 0):
        score = entry[average.measure] = average.score(held)
    state.history.append(entry)
    if score > state.best or (held is None and last):
        state.best = max(score, state.best)
        average.model.card = {**average.model.card, **entry}
        average.model.save(workshop / BEST)
        seal(workshop, state)
    keep(workshop, state, signature)
