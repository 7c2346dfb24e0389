"""Contrastive alignment of ECG and text: one linear loop that survives a kill with the same numbers."""

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from einthoven.batches import Batch, Ints, Pairs, epoch_batches
from einthoven.config import Recipe, Training
from einthoven.contrast import gather, info_nce
from einthoven.errors import EinthovenError
from einthoven.evaluation.retrieval import best_ranks
from einthoven.model import Model
from einthoven.study import atomic
from einthoven.waveforms.strips import Floats


@dataclass(frozen=True)
class Held:
    """The validation pairs that choose the checkpoint."""

    strips: Floats  # [n, s, 12, t] millivolts
    texts: list[str]


@dataclass
class State:
    """All that the loop changes. Saved whole after every epoch, so that a killed run goes on as if it had not been."""

    model: Model
    average: Model  # exponential moving average of the weights: what is validated and saved
    optimizer: torch.optim.Optimizer
    epoch: int
    step: int
    best: float
    history: list[dict[str, float]]


def precision(wanted: str, device: torch.device) -> str:
    """ "bf16" where the processor computes in it, else "fp32"."""
    if wanted in ("bf16", "fp32"):
        return wanted
    if wanted != "auto":
        raise EinthovenError(f"training: precision {wanted!r}; expected auto, bf16 or fp32.")
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def learning_rate(step: int, steps: int, options: Training) -> float:
    """Linear warm-up, then a cosine to zero."""
    warm = max(1, round(options.warmup * steps))
    if step < warm:
        return options.learning_rate * (step + 1) / warm
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def align_loss(model: nn.Module, batch: Batch) -> Tensor:
    """Symmetric InfoNCE over the batches of all ranks. Equal texts are positives; other recordings of a patient
    are neither positive nor negative."""
    ecg, text, scale = model(batch.strip, batch.tokens, batch.mask)
    ecg, text = gather(ecg), gather(text)
    same_text, subject = gather(batch.text), gather(batch.subject)
    positives = same_text[:, None] == same_text[None, :]
    return info_nce(ecg, text, scale, positives, subject[:, None] == subject[None, :])


def align(
    recipe: Recipe,
    model: Model,
    pairs: Pairs,
    held: Held | None,
    out: Path,
    progress: Callable[[int, int, str], None] = lambda step, steps, note: None,
) -> list[dict[str, float]]:
    """Train `model` on `pairs` and write the best average on `held` to `out`; return the history.

    Between epochs everything is kept in `out.with_suffix(".training")`; a run that finds such a state, made with
    the same recipe, goes on from it.
    """
    options = recipe.training
    accelerator = Accelerator(gradient_accumulation_steps=options.gradient_accumulation)
    kind = precision(options.precision, accelerator.device)
    model.to(accelerator.device)
    state = State(model, copy.deepcopy(model).eval().requires_grad_(False), _optimizer(model, options), 0, 0, -1.0, [])
    folder = out.with_name(out.name + ".training")
    resume(folder, state, recipe)
    wrapped, optimizer = accelerator.prepare(state.model, state.optimizer)
    per_epoch = max(1, round(len(pairs) / options.batch))
    steps = per_epoch * options.epochs
    while state.epoch < options.epochs:
        state.model.train()
        losses: list[Tensor] = []
        for batch in epoch_batches(
            pairs,
            batch=options.batch,
            length=model.strip_samples,
            rate=model.ecg_config.sampling_rate,
            options=recipe.augmentation,
            seed=options.seed,
            epoch=state.epoch,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        ):
            torch.manual_seed(_seed(options.seed, state.step, accelerator.process_index))  # dropout
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(state.step, steps, options)
            with accelerator.accumulate(wrapped), autocast(accelerator.device, kind):
                loss = align_loss(wrapped, batch.to(accelerator.device))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), options.clip_norm)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            update_average(state.average, state.model, options.ema, state.step)
            losses.append(loss.detach())  # reading the value here would wait for the device
            state.step += 1
            progress(state.step, steps, f"epoch {state.epoch + 1}/{options.epochs}")
        state.epoch += 1
        if accelerator.is_main_process:
            _close_epoch(state, recipe, held, out, folder, float(torch.stack(losses).mean()))
        accelerator.wait_for_everyone()
    return state.history


def autocast(device: torch.device, kind: str) -> contextlib.AbstractContextManager[Any]:
    return torch.autocast(device.type, torch.bfloat16, enabled=kind == "bf16")


def _seed(seed: int, step: int, rank: int) -> int:
    return int(np.random.default_rng([seed, step, rank]).integers(2**31))


def _optimizer(model: Model, options: Training) -> torch.optim.Optimizer:
    # norms, biases and the temperature are not decayed
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    decayed = [p for _, p in named if p.ndim > 1]
    free = [p for _, p in named if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": options.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=options.learning_rate, betas=(0.9, 0.98))


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of the weights; its memory grows with the steps, so the start is forgotten soon."""
    decay = min(decay, (1 + step) / (10 + step))
    for mean, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new.to(mean.dtype), 1 - decay)
        else:
            mean.copy_(new)


def validate(model: Model, held: Held) -> float:
    """Mean reciprocal rank of the paired text among the distinct texts, and of the ECG among the ECGs."""
    parts = [model.encode_strips(torch.from_numpy(held.strips[i : i + 64]))[0] for i in range(0, len(held.texts), 64)]
    ecg = torch.cat(parts).cpu().numpy()
    distinct = list(dict.fromkeys(held.texts))
    number = {text: i for i, text in enumerate(distinct)}
    group: Ints = np.array([number[text] for text in held.texts])
    text = model.encode_text(distinct)
    there = best_ranks(ecg, text, group, np.arange(len(distinct)))
    back = best_ranks(text, ecg, np.arange(len(distinct)), group)
    return float(((1 / there).mean() + (1 / back).mean()) / 2)


def _close_epoch(state: State, recipe: Recipe, held: Held | None, out: Path, folder: Path, loss: float) -> None:
    entry = {"epoch": float(state.epoch), "step": float(state.step), "loss": loss, "time": time.time()}
    options = recipe.training
    last = state.epoch == options.epochs
    if held is not None and (last or state.epoch % options.validate_every == 0):
        entry["validation_mrr"] = validate(state.average, held)
    state.history.append(entry)
    score = entry.get("validation_mrr", -1.0)
    if score > state.best or (held is None and last):
        state.best = max(score, state.best)
        state.average.card = {**state.average.card, "epoch": state.epoch, "validation_mrr": score}
        state.average.save(folder / "best")
    save(folder, state, recipe)


def save(folder: Path, state: State, recipe: Recipe) -> None:
    """Write the loop's state: plain tensors and numbers, so that loading it runs no code."""
    with atomic(folder / "state.pt") as temporary:
        torch.save(
            {
                "recipe": repr(recipe),
                "model": state.model.state_dict(),
                "average": state.average.state_dict(),
                "optimizer": state.optimizer.state_dict(),
                "epoch": state.epoch,
                "step": state.step,
                "best": state.best,
                "history": json.dumps(state.history),
            },
            temporary,
        )


def resume(folder: Path, state: State, recipe: Recipe) -> None:
    """Put a saved state into `state`, if there is one of the same recipe."""
    path = folder / "state.pt"
    if not path.exists():
        return
    saved = torch.load(path, map_location=state.model.device, weights_only=True)
    if saved["recipe"] != repr(recipe):
        raise EinthovenError(f"{folder} holds a run of another recipe. Finish it with that recipe, or delete it.")
    state.model.load_state_dict(saved["model"])
    state.average.load_state_dict(saved["average"])
    state.optimizer.load_state_dict(saved["optimizer"])
    state.epoch, state.step, state.best = saved["epoch"], saved["step"], saved["best"]
    state.history = json.loads(saved["history"])
