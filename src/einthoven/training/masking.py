"""Codes hidden from the encoder: at random to learn from, each exactly once to be asked for."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import torch
from torch import Tensor

from einthoven.encoders.code_records import CodeBatch, Ints, code_batch
from einthoven.training.timelines import Windows
from einthoven.vocabulary.vocabulary import MASK, SPECIAL

TO_MASK: Final = 0.8
TO_RANDOM: Final = 0.1
"""Of the codes to be told, as BERT has it: these become [MASK], these another code, the rest stay as they are."""


@dataclass(frozen=True)
class Question:
    """A batch with codes hidden, where they are, and what they were. Their kinds and times stay to be seen."""

    batch: CodeBatch
    places: tuple[Tensor, Tensor]  # rows and columns, each int64 [n]
    answers: Tensor  # int64 [n] tokens
    windows: Ints  # [b] places of the rows in the windows asked about

    def share(self, rank: int, world: int) -> "Question":
        """Of every `world` rows the one that is this rank's."""
        rows, columns = self.places
        own, mine = rows % world == rank, slice(rank, None, world)
        return Question(self.batch[mine], (rows[own] // world, columns[own]), self.answers[own], self.windows[mine])

    def to(self, device: torch.device) -> "Question":
        rows, columns = (place.to(device) for place in self.places)
        return replace(self, batch=self.batch.to(device), places=(rows, columns), answers=self.answers.to(device))


def may_hide(batch: CodeBatch) -> Tensor:
    """bool [b, l]: the codes that a token stands for. Neither [CLS] nor padding nor [UNK]."""
    return batch.tokens >= len(SPECIAL)


def hide_at_random(
    batch: CodeBatch, windows: Ints, share: float, tokens: int, generator: np.random.Generator
) -> Question:
    """Hide each code with probability `share`, and of every record that has any at least one."""
    may = may_hide(batch)
    drawn = torch.from_numpy(generator.random(batch.tokens.shape)).masked_fill(~may, 2.0)
    least = drawn == drawn.min(dim=1, keepdim=True).values
    hidden = ((drawn < share) | least) & may
    rows, columns = hidden.nonzero(as_tuple=True)
    answers = batch.tokens[rows, columns]
    fate = torch.from_numpy(generator.random(len(rows)))
    others = torch.from_numpy(generator.integers(len(SPECIAL), tokens, len(rows)))
    shown = torch.where(fate < TO_MASK, MASK, torch.where(fate < TO_MASK + TO_RANDOM, others, answers))
    return Question(_with(batch, (rows, columns), shown), (rows, columns), answers, windows)


def ask_all(windows: Windows, max_codes: int, share: float, seed: int, batch: int = 64) -> Iterator[Question]:
    """Questions that hide every code of every window exactly once, about `share` of a window's codes at a time.

    Of a window with n codes those of one question are n / round(1 / share), rounded up or down, drawn by `seed`; all
    become [MASK]. Codes that `max_codes` cuts off are not asked for. Windows of like length share a batch.
    """
    turns = round(1 / share)
    generator = np.random.default_rng(seed)
    every = [windows[i] for i in range(len(windows))]
    order = np.argsort([len(each.tokens) for each in every], kind="stable")
    for start in range(0, len(order), batch):
        which = order[start : start + batch]
        whole = code_batch([every[i] for i in which], max_codes)
        may = may_hide(whole)
        drawn = torch.from_numpy(generator.random(whole.tokens.shape)).masked_fill(~may, 2.0)
        turn = drawn.argsort(dim=1).argsort(dim=1) % turns
        for number in range(turns):
            rows, columns = ((turn == number) & may).nonzero(as_tuple=True)
            if len(rows):
                shown = _with(whole, (rows, columns), torch.full_like(rows, MASK))
                yield Question(shown, (rows, columns), whole.tokens[rows, columns], which)


def _with(batch: CodeBatch, places: tuple[Tensor, Tensor], shown: Tensor) -> CodeBatch:
    tokens = batch.tokens.clone()
    tokens[places] = shown
    return replace(batch, tokens=tokens)
