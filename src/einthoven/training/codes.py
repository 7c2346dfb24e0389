"""Masked-code pretraining of sEHR-BERT: one linear loop that survives a kill with the same numbers."""

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from einthoven.batches import batches_per_epoch
from einthoven.config import CodePretraining, Recipe
from einthoven.encoders.code_records import Floats, Ints, code_batch
from einthoven.encoders.codes import MaskedCodes, create, load, save
from einthoven.errors import EinthovenError
from einthoven.ranks import accelerated, joined, mean_loss, parted
from einthoven.study import data_kind
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
)
from einthoven.training.masking import Question, ask_all, hide_at_random
from einthoven.training.timelines import Timelines, Windows, read_timelines, sequences, unknown_share
from einthoven.vocabulary import vocabulary as vocabularies
from einthoven.vocabulary.vocabulary import Vocabulary

Progress = Callable[[int, int, str], None]


HELD = 2000
"""Windows of the validation split that choose the epoch, drawn by the seed: a hospital's would take hours each time."""


def pretrain_on_study(
    recipe: Recipe, study: Path, out: Path, workshop: Path, signature: str, progress: Progress
) -> dict[str, Any]:
    """Read a study's timelines, train, write the directory `out`; return counts. All processes train, the first does
    the rest."""
    given = None
    if recipe.codes.pretrained is not None and (Path(recipe.codes.pretrained) / vocabularies.FILE).exists():
        given = load(Path(recipe.codes.pretrained))[1]  # its tokens are what its weights know
    lines, vocabulary = read_timelines(
        study, recipe.pairing, recipe.vocabulary, workshop / f"scratch-{joined().process_index}", given
    )
    torch.manual_seed(recipe.pretraining.seed)
    model = MaskedCodes(create(recipe.codes, vocabulary, tuple(recipe.pairing.code_kinds)))
    card = {
        "data_kind": data_kind(study),
        "seed": recipe.pretraining.seed,
        "patients": len(lines["train"]),
        "codes": len(lines["train"].tokens),
        "tokens": len(vocabulary),
        "unknown": {split: unknown_share(each) for split, each in lines.items()},
    }
    history = pretrain(
        recipe, model, vocabulary, lines["train"], lines["validation"], workshop, card, signature, progress
    )
    if not parted():
        return {}
    best, _, card = load(workshop / BEST)
    save(best, vocabulary, card, out)
    return {**card, "history": history}


def pretrain(
    recipe: Recipe,
    model: MaskedCodes,
    vocabulary: Vocabulary,
    train: Timelines,
    validation: Timelines,
    workshop: Path,
    card: dict[str, Any] | None = None,
    signature: str = "",
    progress: Progress = lambda step, steps, note: None,
) -> list[dict[str, float]]:
    """Train `model` on windows of `train`, write the average of the epoch with the lowest loss on windows of
    `validation` to `workshop/best`, return the history. Without validation windows the last epoch is written.

    After every epoch everything is kept in `workshop`; a run that finds such a state of the same `signature` goes on.
    Of each batch every process has its share of the windows, with the codes hidden that a single one would hide.
    """
    options, most = recipe.pretraining, recipe.codes.max_codes
    windows = train.windows(options.window_days, options.seed, 0)
    if not len(windows):
        raise EinthovenError("pretrain: no patient of the train split has two dated codes; there is nothing to learn.")
    held = validation.windows(options.window_days, options.seed).some(HELD, options.seed)
    accelerator = accelerated()
    rank, world = accelerator.process_index, accelerator.num_processes
    if len(windows) // batches_per_epoch(len(windows), options.batch) < world:
        raise EinthovenError(f"pretrain: batches of {options.batch} windows cannot be shared by {world} processes.")
    kind = precision(options.precision, accelerator.device)
    model.to(accelerator.device)
    optimizer = adamw(model, options.learning_rate, options.weight_decay)
    state = State(model, copy.deepcopy(model).eval(), optimizer, math.inf, 0, 0, [])
    resume(workshop, state, signature, accelerator.device)
    wrapped, optimizer = accelerator.prepare(state.model, state.optimizer)
    steps = batches_per_epoch(len(windows), options.batch) * options.epochs
    while state.epoch < options.epochs:
        state.model.train()
        losses: list[Tensor] = []
        for question in epoch_questions(train, options, most, len(vocabulary), state.epoch):
            seed_dropout(options.seed, state.step, rank)
            set_learning_rate(optimizer, learning_rate(state.step, steps, options.learning_rate, options.warmup))
            asked = question.share(rank, world).to(accelerator.device)
            loss = masked_loss(wrapped, asked, kind) / (len(question.answers) / world)  # the mean over all processes
            accelerator.backward(loss)
            finish_step(state, optimizer, accelerator, options.clip_norm, options.ema)
            losses.append(loss.detach())
            progress(state.step, steps, f"epoch {state.epoch + 1}/{options.epochs}")
        state.epoch += 1
        loss_of_epoch = mean_loss(accelerator, losses)
        if accelerator.is_main_process:
            entry = {"epoch": float(state.epoch), "step": float(state.step), "loss": loss_of_epoch}
            _close_epoch(state, options, most, held, vocabulary, card or {}, workshop, entry)
            keep(workshop, state, signature)
        accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        refuse_unsealed(workshop, state)
    return state.history


def epoch_questions(
    train: Timelines, options: CodePretraining, max_codes: int, tokens: int, epoch: int
) -> Iterator[Question]:
    """The batches of an epoch, in a random order: other windows and other hidden codes each epoch, by the seed."""
    windows = train.windows(options.window_days, options.seed, epoch)
    generator = np.random.default_rng([options.seed, epoch, 1])
    order = generator.permutation(len(windows))
    for which in np.array_split(order, batches_per_epoch(len(windows), options.batch)):
        batch = code_batch(sequences(windows, which), max_codes)
        question = hide_at_random(batch, which, options.mask, tokens, generator)
        if len(question.answers):
            yield question


def masked_loss(model: nn.Module, question: Question, kind: str) -> Tensor:
    """The sum of the cross-entropies of the hidden codes, in nats."""
    with torch.autocast(question.answers.device.type, torch.bfloat16, enabled=kind == "bf16"):
        logits = model(question.batch, question.places)
    return nn.functional.cross_entropy(logits, question.answers, reduction="sum")


@dataclass(frozen=True)
class Told:
    """How well the hidden codes of windows were told, one entry for each code."""

    windows: Ints  # [n] its window
    answers: Ints  # [n] its token
    ranks: Ints  # [n] its place among all tokens, from 1; of ties the lower token is first
    losses: Floats  # [n] cross-entropy, nats


@torch.inference_mode()
def tell_all(model: MaskedCodes, windows: Windows, max_codes: int, share: float, seed: int) -> Told:
    """Ask for every code of every window exactly once (masking.ask_all)."""
    model.eval()
    device = next(model.parameters()).device
    of, answers, ranks, losses = [], [], [], []
    for asked in ask_all(windows, max_codes, share, seed):
        question = asked.to(device)
        logits = model(question.batch, question.places)
        own = logits.gather(1, question.answers[:, None])
        lower = torch.arange(logits.shape[1], device=device)[None] < question.answers[:, None]
        ranks.append(1 + ((logits > own) | ((logits == own) & lower)).sum(dim=1).cpu())
        losses.append(nn.functional.cross_entropy(logits, question.answers, reduction="none").cpu())
        answers.append(asked.answers)
        of.append(torch.from_numpy(asked.windows)[asked.places[0]])
    if not answers:
        raise EinthovenError("there is no code to ask for: the windows are empty, or hold unknown codes alone.")
    return Told(*(torch.cat(part).numpy() for part in (of, answers, ranks, losses)))


def _close_epoch(
    state: State[MaskedCodes],
    options: CodePretraining,
    max_codes: int,
    held: Windows,
    vocabulary: Vocabulary,
    card: dict[str, Any],
    workshop: Path,
    entry: dict[str, float],
) -> None:
    last = state.epoch == options.epochs
    if len(held) and (last or state.epoch % options.validate_every == 0):
        told = tell_all(state.average, held, max_codes, options.mask, options.seed)
        entry["validation_loss"] = float(told.losses.mean())
        entry |= {f"validation_top{k}": float((told.ranks <= k).mean()) for k in (1, 5)}
    state.history.append(entry)
    score = entry.get("validation_loss", math.inf)
    if score < state.best or (not len(held) and last):
        state.best = min(score, state.best)
        save(state.average, vocabulary, {**card, **entry}, workshop / BEST)
        seal(workshop, state)
