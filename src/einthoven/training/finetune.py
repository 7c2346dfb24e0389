"""Fine-tuning of an ECG encoder with a linear head: one linear loop that survives a kill with the same numbers."""

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from einthoven.batches import Pairs, batches_per_epoch, deal, make_batch
from einthoven.classifier import Classifier, Head
from einthoven.config import Augmentation, EcgEncoder, FineTuning
from einthoven.errors import EinthovenError
from einthoven.evaluation.finetuned import measured
from einthoven.evaluation.targets import CLASSES, REGRESSION
from einthoven.training.labelled import Labelled
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
)
from einthoven.waveforms.store import Store

Progress = Callable[[int, int, str], None]


def head_of(task: str, labels: tuple[str, ...], values: NDArray[np.float64]) -> Head:
    """The head for labels whose training values are [n, labels]; numbers are standardised by these."""
    if task == CLASSES:
        return Head(task=task, labels=labels, mean=(0.0,) * len(labels), scale=(1.0,) * len(labels))
    for name, known in zip(labels, (~np.isnan(values)).sum(axis=0), strict=True):
        if not known:
            raise EinthovenError(f"label {name!r} has no value among the training recordings: label more of them.")
    spread = np.nanstd(values, axis=0)
    scale = tuple(np.where(spread > 0, spread, 1.0).tolist())
    return Head(task=task, labels=labels, mean=tuple(np.nanmean(values, axis=0).tolist()), scale=scale)


def unlearnt(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The labels [labels] that training values do not teach: there are no two values that differ."""
    known = ~np.isnan(values)
    low, high = (f(values, axis=0, where=known, initial=s) for f, s in ((np.min, np.inf), (np.max, -np.inf)))
    return np.asarray(low >= high)


def create(
    ecg: EcgEncoder, weights: dict[str, Tensor] | None, head: Head, train: Labelled, options: FineTuning
) -> Classifier:
    """A classifier with the encoder's weights given, or random ones; its head says the mean of what it is to learn.

    What is `unlearnt` the head says for ever: such a class has AUROC 0.5.
    """
    torch.manual_seed(options.seed)
    classifier = Classifier(ecg, head, {"random_init": weights is None}, options.dropout)
    if weights is not None:
        classifier.ecg.load_state_dict(weights, strict=True)
    if head.task == CLASSES:
        known = (~np.isnan(train.values)).sum(axis=0)
        share = (np.nansum(train.values, axis=0) + 0.5) / (known + 1)
        classifier.linear.bias.data.copy_(torch.from_numpy(np.log(share / (1 - share))))
    return classifier


def label_loss(logits: Tensor, targets: Tensor, task: str) -> Tensor:
    """Mean over the known cells of binary cross-entropy (classes) or squared error; [b, labels], NaN: unknown."""
    known = ~targets.isnan()
    filled = targets.nan_to_num(0.0)
    if task == CLASSES:
        each = F.binary_cross_entropy_with_logits(logits.float(), filled, reduction="none")
    else:
        each = (logits.float() - filled) ** 2
    return (each * known).sum() / known.sum().clamp(min=1)


def epochs_of(recordings: int, options: FineTuning) -> int:
    """Epochs of a run: those asked for, or as many as `min_steps` needs."""
    return max(options.epochs, math.ceil(options.min_steps / batches_per_epoch(recordings, options.batch)))


def epoch_of(
    train: Labelled,
    targets: NDArray[np.float32],
    store: Store,
    classifier: Classifier,
    options: FineTuning,
    augmentation: Augmentation,
    epoch: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of an epoch: augmented strips [b, 12, t] and targets [b, labels]; a function of seed and epoch."""
    pairs = Pairs(train.rows, train.subjects, store.read)
    rate, length = classifier.ecg_config.sampling_rate, classifier.strip_samples
    for i, index in enumerate(deal(train.subjects, options.batch, options.seed, epoch)):
        strip = make_batch(pairs, index, length, rate, augmentation, [options.seed, epoch, i]).strip
        yield strip, torch.from_numpy(targets[index])


def finetune(
    classifier: Classifier,
    train: Labelled,
    held: Labelled,
    store: Store,
    options: FineTuning,
    augmentation: Augmentation,
    workshop: Path,
    signature: str = "",
    progress: Progress = lambda step, steps, note: None,
) -> list[dict[str, float]]:
    """Train `classifier`, write the average of the epoch that is best on `held` to `workshop/best`, return the history.

    Where `held` cannot tell, the last epoch is written. At every validation all is kept in `workshop`; a run that finds
    such a state of the same `signature` goes on from it. `store` is at the encoder's rate.
    """
    accelerator = Accelerator()
    kind = precision(options.precision, accelerator.device)
    classifier.to(accelerator.device)
    targets = _standardised(classifier.head, train.values)
    optimizer = optimizer_of(classifier, options)
    state = State(classifier, copy.deepcopy(classifier).eval(), optimizer, -math.inf, 0, 0, [])
    resume(workshop, state, signature, accelerator.device)
    wrapped, optimizer = accelerator.prepare(state.model, state.optimizer)
    epochs = epochs_of(len(train), options)
    steps = batches_per_epoch(len(train), options.batch) * epochs
    losses: list[Tensor] = []
    while state.epoch < epochs:
        state.model.train()
        for strip, target in epoch_of(train, targets, store, classifier, options, augmentation, state.epoch):
            seed_dropout(options.seed, state.step)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(state.step, steps, group["peak"], options.warmup)
            with torch.autocast(accelerator.device.type, torch.bfloat16, enabled=kind == "bf16"):
                logits = wrapped(strip.to(accelerator.device, non_blocking=True))
            loss = label_loss(logits, target.to(accelerator.device, non_blocking=True), classifier.head.task)
            accelerator.backward(loss)
            finish_step(state, optimizer, accelerator, options.clip_norm, options.ema)
            losses.append(loss.detach())  # reading the value here would wait for the device
            progress(state.step, steps, f"epoch {state.epoch + 1}/{epochs}")
        state.epoch += 1
        if closes(state.epoch, epochs, options.validations):
            _close(state, epochs, held, store, workshop, float(torch.stack(losses).mean()))
            keep(workshop, state, signature)
            losses = []
    refuse_unsealed(workshop, state)
    return state.history


def closes(epoch: int, epochs: int, validations: int) -> bool:
    """Whether one of the evenly spaced validations follows the epoch (from 1); the last epoch has one always."""
    return epoch * validations // epochs > (epoch - 1) * validations // epochs


def optimizer_of(classifier: Classifier, options: FineTuning) -> torch.optim.Optimizer:
    """AdamW with a peak rate for the encoder and another for the head, kept in each group as "peak"."""
    of_encoder = options.new_learning_rate if classifier.card["random_init"] else options.learning_rate
    optimizer = adamw(classifier.ecg, of_encoder, options.weight_decay)
    for group in adamw(classifier.linear, options.new_learning_rate, options.weight_decay).param_groups:
        optimizer.add_param_group(group)
    for group in optimizer.param_groups:
        group["peak"] = group["lr"]
    return optimizer


def _standardised(head: Head, values: NDArray[np.float64]) -> NDArray[np.float32]:
    """What the head is to say, NaN where the label is unknown or cannot be learnt."""
    targets = (values - np.array(head.mean)) / np.array(head.scale)
    targets[:, unlearnt(values)] = np.nan
    return targets.astype(np.float32)


def _close(state: State[Classifier], epochs: int, held: Labelled, store: Store, workshop: Path, loss: float) -> None:
    entry = {"epoch": float(state.epoch), "step": float(state.step), "loss": loss}
    score = validate(state.average, held, store)
    if score is not None:
        entry["validation"] = score if state.average.head.task == CLASSES else -score
    state.history.append(entry)
    # of equally good epochs the last: AUROC cannot tell a half-trained classifier from one that is sure
    if (score is not None and score >= state.best) or (state.best == -math.inf and state.epoch == epochs):
        state.best = state.best if score is None else score
        state.average.card = {**state.average.card, **entry}
        state.average.save(workshop / BEST)
        seal(workshop, state)


def validate(classifier: Classifier, held: Labelled, store: Store) -> float | None:
    """Macro AUROC, or minus the mean RMSE in units of the labels' spread; None where `held` cannot tell."""
    if not len(held):
        return None
    head, found = classifier.head, classifier.predict_rows(store, held.rows)
    if head.task == REGRESSION:
        squared = ((found - held.values) / np.array(head.scale)) ** 2
        known = ~np.isnan(squared).all(axis=0)
        return -float(np.sqrt(np.nanmean(squared[:, known], axis=0)).mean()) if known.any() else None
    positive, negative = ((held.values == each).any(axis=0) for each in (1, 0))
    if not (positive & negative).any():
        return None
    score: Any = measured(head.task, held.values, found, head.labels, held.subjects, 0, 0)["macro"]["value"]
    return float(score)
