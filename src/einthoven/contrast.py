"""Contrastive losses: pure functions of two batches of embeddings, `a` and `b`, row i of one paired with row i
of the other. Which further pairs are positives, and which are no negatives, is told by matrices, not by the model.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor


class _Gather(torch.autograd.Function):
    """All ranks' rows, forward; backward, the sum of all ranks' gradients of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.contiguous()
        dist.all_reduce(whole)
        return whole.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """Stack `x` [n, ...] of all ranks in rank order, with gradients; the identity in one process.

    Every rank must hold the same n. Each rank computes the whole loss, so the mean of its gradients over ranks, which
    DDP takes, is the gradient of one process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


def info_nce(a: Tensor, b: Tensor, scale: Tensor, positives: Tensor, ignored: Tensor | None = None) -> Tensor:
    """Symmetric InfoNCE with several positives per row (van den Oord 2018, eq. 4; Khosla 2020, eq. 2).

    Args:
        a: [n, d], unit length.
        b: [n, d], unit length.
        scale: the inverse temperature, a scalar.
        positives: bool [n, n]; `positives[i, j]`: a_i and b_j belong together. The diagonal must be set.
        ignored: bool [n, n]; pairs that are neither positive nor negative (another recording of the same
            patient); they leave the denominator. Positives win over ignored.

    Returns:
        The mean over both directions of -mean_{j in positives(i)} log softmax_j(scale * a_i . b).
    """
    logits = scale * a.float() @ b.float().T
    if ignored is not None:
        logits = logits.masked_fill(ignored & ~positives, -torch.inf)
    return (_one_way(logits, positives) + _one_way(logits.T, positives.T)) / 2


def _one_way(logits: Tensor, positives: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1).masked_fill(~positives, 0.0)
    return -(log_p.sum(dim=1) / positives.sum(dim=1)).mean()


def word_loss(logits: Tensor, tokens: Tensor, content: Tensor) -> Tensor:
    """Cross-entropy between predicted words and the words of a text, each once (Joulin 2016, section 3.1).

    What InfoNCE must push apart, two wordings of one finding, share most of their words here.

    Args:
        logits: [n, vocabulary].
        tokens: int64 [n, l].
        content: bool [vocabulary]; False for special tokens, which are no words.
    """
    target = torch.zeros_like(logits, dtype=torch.float32).scatter_(1, tokens, 1.0) * content
    target = target / target.sum(dim=1, keepdim=True).clamp(min=1.0)
    return -(target * F.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
