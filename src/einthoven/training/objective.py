"""What a model is trained for: the one thing in which the runs of the training loop differ."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from einthoven.batches import Batch, Ints
from einthoven.config import Training
from einthoven.evaluation.retrieval import best_ranks
from einthoven.model import Model
from einthoven.training.aligned_pairs import Held, Strips
from einthoven.waveforms.strips import Floats


class Objective(nn.Module, ABC):
    """The model and whatever else is trained with it. Only the model is in a model directory; the loop keeps all."""

    measure: ClassVar[str] = "validation_mrr"
    """The name of `score` in the history."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, *inputs: Any) -> Any:
        """The one call that DDP sees."""
        return self.model(*inputs)

    @abstractmethod
    def backward(self, wrapped: nn.Module, batch: Batch, options: Training, kind: str) -> Tensor:
        """Add the gradients of a step to all parameters; return the loss. `wrapped` wraps the objective for DDP."""

    @abstractmethod
    def score(self, held: Held) -> float:
        """How well the held-out recordings are done; the epoch with the highest is kept."""


def embedded(model: Model, strips: Strips, space: str, which: Ints) -> Floats:
    """Unit vectors [n, d] of the recordings at the places `which` [n], given as strips."""
    parts = [
        model.encode_strips(torch.from_numpy(strips[which[i : i + 64]])).vectors(space)
        for i in range(0, len(which), 64)
    ]
    ecg: Floats = torch.cat(parts).cpu().numpy()
    return ecg


def reciprocal_rank(left: Floats, right: Floats, group: Ints) -> float:
    """Mean reciprocal rank, both ways, of `left` and what row i of it belongs to, `right[group[i]]`."""
    there = best_ranks(left, right, group, np.arange(len(right)))
    back = best_ranks(right, left, np.arange(len(right)), group)
    return float(((1 / there).mean() + (1 / back).mean()) / 2)
