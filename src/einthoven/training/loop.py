"""What every training loop shares: its state, kept and taken up again; optimiser, schedule, average of the weights."""

import json
import math
import os
import pickle
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn

from einthoven.errors import EinthovenError
from einthoven.study import atomic, sha256

M = TypeVar("M", bound=nn.Module)


@dataclass
class State(Generic[M]):
    """All that a loop changes. Saved whole after every epoch, so that a killed run goes on as if it had not been."""

    model: M
    average: M  # exponential moving average of the weights: what is validated and saved
    optimizer: torch.optim.Optimizer
    best: float  # the validation score of the epoch that was kept
    epoch: int
    step: int
    history: list[dict[str, float]]
    sealed: dict[str, str] = field(default_factory=dict)  # SHA-256 of each file of the epoch that was kept


BEST = "best"
"""Below a workshop, the epoch that was kept, as a directory."""


def seal(workshop: Path, state: State[M]) -> None:
    """Note what the epoch's directory, just written, holds."""
    state.sealed = _contents(workshop / BEST)


def refuse_unsealed(workshop: Path, state: State[M]) -> None:
    """Refuse a kept epoch that is not as it was written, before it becomes the result."""
    if state.sealed != _contents(workshop / BEST):
        raise EinthovenError(f"{workshop / BEST} is damaged: delete {workshop} and repeat; training begins anew.")


def _contents(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): sha256(path) for path in sorted(directory.rglob("*")) if path.is_file()}


def keep(workshop: Path, state: State[M], signature: str) -> None:
    """Write a loop's state: plain tensors and numbers, so that loading it runs no code."""
    parts = {name: getattr(state, name).state_dict() for name in ("model", "average", "optimizer")}
    numbers = {"epoch": state.epoch, "step": state.step, "best": state.best, "history": json.dumps(state.history)}
    numbers["sealed"] = json.dumps(state.sealed)
    with atomic(workshop / "state.pt") as temporary:
        torch.save({"signature": signature, **parts, **numbers}, temporary)


def resume(workshop: Path, state: State[M], signature: str, device: torch.device) -> None:
    """Put the saved state of the same run into `state`, if there is one.

    `signature` says what a run depends on: a state with another one is refused.
    """
    path = workshop / "state.pt"
    if not path.exists():
        return
    saved = _load(path, device)
    if saved["signature"] != signature:
        raise EinthovenError(
            f"{workshop} holds an unfinished run of another recipe or study. Finish it with those, or delete it."
        )
    for name in ("model", "average", "optimizer"):
        getattr(state, name).load_state_dict(saved[name])
    state.epoch, state.step, state.best = saved["epoch"], saved["step"], saved["best"]
    state.history = json.loads(saved["history"])
    if "sealed" in saved:
        state.sealed = json.loads(saved["sealed"])
    else:  # by an earlier version
        seal(workshop, state)


def _load(path: Path, device: torch.device) -> dict[str, Any]:
    """A state; of the checksums that are in the file torch looks at none, and of "cpu:0" it knows nothing."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is None:
                return dict(torch.load(path, map_location=device.type, weights_only=True))
    except (zipfile.BadZipFile, pickle.UnpicklingError, RuntimeError, ValueError, KeyError, EOFError):
        pass
    raise EinthovenError(f"{path} is damaged: delete {path.parent} and repeat; training begins anew.")


def precision(wanted: str, device: torch.device) -> str:
    """ "bf16" where the processor computes in it, else "fp32"."""
    if wanted in ("bf16", "fp32"):
        return wanted
    if wanted != "auto":
        raise EinthovenError(f"training: precision {wanted!r}; expected auto, bf16 or fp32.")
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported() else "fp32"


def threads_ahead(device: torch.device) -> int:
    """Batches that threads make while others are trained on: this process's share of the cores, 8 at most; on the
    processor itself none, see `batches.epoch_batches`."""
    if device.type == "cpu":
        return 0
    return min(8, max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up over that share of the steps, then a cosine to zero."""
    warm = max(1, round(warmup * steps))
    if step < warm:
        return peak * (step + 1) / warm
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def seed_dropout(seed: int, step: int, rank: int = 0) -> None:
    """Dropout as a function of seed, step and rank: a resumed run draws what an uninterrupted one would have drawn."""
    torch.manual_seed(int(np.random.default_rng([seed, step, rank]).integers(2**31)))


def adamw(model: nn.Module, peak: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW over what is trained; norms, biases and temperatures are not decayed."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=peak, betas=(0.9, 0.98), fused=True)


def finish_step(
    state: State[M], optimizer: torch.optim.Optimizer, accelerator: Accelerator, clip_norm: float, ema: float
) -> None:
    """From the gradients of a step to new weights and a new average of them. `optimizer` is the prepared one."""
    accelerator.clip_grad_norm_(state.model.parameters(), clip_norm)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    update_average(state.average, state.model, ema, state.step)
    state.step += 1


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Exponential moving average of the weights; its memory grows with the steps, so the start is forgotten soon.

    What is frozen stays what it is: that of a large encoder would cost more than the rest of a step.
    """
    decay = min(decay, (1 + step) / (10 + step))
    means, news = list(average.state_dict().values()), list(model.state_dict(keep_vars=True).values())
    trained = [not isinstance(new, nn.Parameter) or new.requires_grad for new in news]
    means, news = ([_own(value) for value in values] for values in (means, news))
    smooth = [i for i, mean in enumerate(means) if mean.is_floating_point() and trained[i]]
    torch._foreach_lerp_([means[i] for i in smooth], [news[i] for i in smooth], 1 - decay)
    for mean, new in zip(means, news, strict=True):
        if not mean.is_floating_point():  # counters
            mean.copy_(new)


def _own(value: torch.Tensor) -> torch.Tensor:
    """Of a tensor that processes share, the part that is here."""
    return value.to_local() if hasattr(value, "to_local") else value
