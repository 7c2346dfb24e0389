"""Contrastive losses: pure functions of two batches of embeddings, `a` and `b`, row i of one paired with row i
of the other. Which further pairs are positives, and which are no negatives, is told by matrices, not by the model.
Rows may lack either modality.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

MAX_SCALE = 100.0
"""Bound of the inverse temperature, for training to stay stable (Radford 2021, section 2.5)."""


class _Gather(torch.autograd.Function):
    """All ranks' rows, forward; backward, the sum of all ranks' gradients of this rank's rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        whole = gradient.clone(memory_format=torch.contiguous_format)  # autograd may use the gradient elsewhere, too
        dist.all_reduce(whole)
        return whole.chunk(dist.get_world_size())[dist.get_rank()]


def gather(x: Tensor) -> Tensor:
    """Stack `x` [n, ...] of all ranks in rank order, with gradients; the identity in one process.

    Every rank must hold the same n, and want a gradient of `x` where another does: ranks wait for each other.
    Each rank computes the whole loss, so the mean of its gradients over ranks, which DDP takes, is the gradient of one
    process.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return x
    gathered: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return gathered


def equal(groups: Tensor) -> Tensor:
    """Rows of one group, bool [n, n], from int64 numbers of groups [n].

    Equal texts or equal sets of codes are positives; recordings of one patient are ignored. What number a row has that
    lacks the modality does not matter: the losses leave it out by `present`.
    """
    return groups[:, None] == groups[None, :]


def multi_hot(tokens: Tensor, content: Tensor) -> Tensor:
    """Which words a text has, or which codes a record: int64 [n, l] -> bool [n, v]; special tokens are none.

    content: bool [v]; False for special tokens.
    """
    found = torch.zeros(len(tokens), len(content), dtype=torch.bool, device=tokens.device)
    return found.scatter_(1, tokens, True) & content


def answers(has: Tensor, asked: Tensor, query: Tensor, positives: Tensor) -> Tensor:
    """Positives of a batch in which some rows are queries: a row belongs to every query for a part of what it has.

    Were only its own row the answer to a query, all others that have what it asks for would be its negatives.

    Args:
        has: bool [n, v]; the words or codes of each row.
        asked: bool [n, v]; those that are shown of it.
        query: bool [n]; the rows of which a part is shown.
        positives: bool [n, n]; between the rows that are shown whole.

    Returns:
        bool [n, n]; entry i, j: ECG i belongs to what is shown of row j.
    """
    missing = (~has).to(torch.float32) @ asked.to(torch.float32).T  # how much of j's question i has not
    return torch.where(query[None, :], missing < 0.5, positives)


class _Bounded(torch.autograd.Function):
    """Clamp from above; a gradient that would lead further above is dropped, one that leads back passes."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, bound: float) -> Tensor:
        ctx.save_for_backward(x >= bound)
        return x.clamp(max=bound)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (at_bound,) = ctx.saved_tensors
        return torch.where(at_bound, gradient.clamp(min=0.0), gradient), None


def inverse_temperature(log_scale: Tensor) -> Tensor:
    """exp(`log_scale`), at most `MAX_SCALE`.

    A parameter that has run over the bound comes back as soon as the loss falls that way; under a plain clamp it would
    have no gradient and stay there for ever.
    """
    bounded: Tensor = _Bounded.apply(log_scale.exp(), MAX_SCALE)  # type: ignore[no-untyped-call]
    return bounded


def info_nce(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    positives: Tensor,
    ignored: Tensor | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE with several positives per row (van den Oord 2018, eq. 4; Khosla 2020, eq. 2).

    Computed in float32, also from bfloat16 and inside of autocast.

    Args:
        a: [n, d], unit length.
        b: [n, d], unit length.
        scale: the inverse temperature, a scalar.
        positives: bool [n, n]; `positives[i, j]`: a_i and b_j belong together. The diagonal counts as set.
        ignored: bool [n, n]; pairs that are neither positive nor negative (another recording of the same
            patient); they leave the denominator. Positives win over ignored.
        present: bool [n]; rows that have both a and b. The others are neither anchor nor positive nor negative, and
            may hold anything.

    Returns:
        The mean over both directions and all present rows of -mean_{j in positives(i)} log softmax_j(scale * a_i . b).
        With fewer than two present rows it is 0, and so are its gradients.
    """
    logits, positives, kept, rows = _pairs(a, b, scale, positives, ignored, present)
    # a row that is not present keeps only itself: a loss and a gradient of exactly 0, and no row without a softmax
    itself = torch.eye(len(a), dtype=torch.bool, device=a.device)
    positives = positives | itself
    logits = logits.masked_fill(~(kept | itself), -torch.inf)
    return (_one_way(logits, positives) + _one_way(logits.T, positives.T)) / (2 * rows.clamp(min=1))


def _one_way(logits: Tensor, positives: Tensor) -> Tensor:
    log_p = F.log_softmax(logits, dim=1).masked_fill(~positives, 0.0)
    return -(log_p.sum(dim=1) / positives.sum(dim=1)).sum()


def nt_xent(a: Tensor, b: Tensor, scale: Tensor, ignored: Tensor | None = None) -> Tensor:
    """NT-Xent (Chen 2020, eq. 1): of the 2n views of n rows each must find the other one of its row.

    Computed in float32, also from bfloat16 and inside of autocast.

    Args:
        a: [n, d], unit length: the first view of each row.
        b: [n, d], unit length: the second.
        scale: the inverse temperature, a scalar.
        ignored: bool [n, n]; rows whose views are no negatives of each other's (another recording of the same patient).
            The two views of one row are a positive pair whatever it says of the diagonal.

    Returns:
        The mean over all 2n views i, with j the other view of the row, of -log(exp(scale * z_i . z_j) / the sum of
        exp(scale * z_i . z_k) over all k but i and the ignored). Of a single row it is 0, and so are its gradients.
    """
    z, rows = torch.cat([a, b]).float(), torch.arange(2 * len(a), device=a.device)
    with torch.autocast(a.device.type, enabled=False):
        logits = scale.float() * z @ z.T
    target = rows.roll(len(a))
    out = rows[:, None] == rows
    if ignored is not None:
        out = out | (ignored.repeat(2, 2) & (target[:, None] != rows))
    return F.cross_entropy(logits.masked_fill(out, -torch.inf), target)


def sigmoid_loss(
    a: Tensor,
    b: Tensor,
    scale: Tensor,
    bias: Tensor,
    positives: Tensor,
    ignored: Tensor | None = None,
    present: Tensor | None = None,
) -> Tensor:
    """Every pair a yes-or-no question by itself (Zhai 2023, eq. 1, with the sign of the bias as in algorithm 1).

    Arguments are those of `info_nce`, and `bias`, a scalar that starts at about -log n, or -10 as published, because
    most pairs are negatives.

    Returns:
        The sum over the pairs that are left of -log sigmoid(±(scale * a_i . b_j + bias)), + for positives, divided by
        the number of present rows (not of pairs). With fewer than two present rows it is 0, and so are its gradients.
    """
    logits, positives, kept, rows = _pairs(a, b, scale, positives, ignored, present)
    logits = logits + bias.float()
    terms = F.softplus(torch.where(positives, -logits, logits))
    return terms.masked_fill(~(kept & (rows > 1)), 0.0).sum() / rows.clamp(min=1)


def _pairs(
    a: Tensor, b: Tensor, scale: Tensor, positives: Tensor, ignored: Tensor | None, present: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scaled cosines, which pairs are positives, which are any of both, all [n, n], and how many rows are present.

    Masked, not selected: shapes stay those of the batch, and no device waits for a count.
    """
    if present is None:
        present = torch.ones(len(a), dtype=torch.bool, device=a.device)
    a, b = (x.float().masked_fill(~present[:, None], 0.0) for x in (a, b))
    with torch.autocast(a.device.type, enabled=False):
        logits = scale.float() * a @ b.T
    both = present[:, None] & present[None, :]
    positives = (positives | torch.eye(len(a), dtype=torch.bool, device=a.device)) & both
    kept = both if ignored is None else both & (positives | ~ignored)
    return logits, positives, kept, present.sum()


def word_loss(logits: Tensor, tokens: Tensor, content: Tensor, weight: Tensor | None = None) -> Tensor:
    """Cross-entropy between predicted words and the words of a text, each once (Joulin 2016, section 3.1).

    What InfoNCE must push apart, two wordings of one finding, share most of their words here.

    Args:
        logits: [n, vocabulary].
        tokens: int64 [n, l].
        content: bool [vocabulary]; False for special tokens, which are no words.
        weight: [n], of each row in the sum; by default 1 / n. Rows that lack the text or the ECG get 0, and the rows
            of a part of a batch get 1 / the rows of the whole, so that the parts add up.
    """
    target = torch.zeros_like(logits, dtype=torch.float32).scatter_(1, tokens, 1.0) * content
    target = target / target.sum(dim=1, keepdim=True).clamp(min=1.0)
    each = -(target * F.log_softmax(logits.float(), dim=1)).sum(dim=1)
    return each.mean() if weight is None else (weight * each).sum()
