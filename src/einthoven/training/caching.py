"""Gradient caching (Gao 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup"): the gradient
of a batch whose activations do not fit into memory, for a third more computation."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Chunk = TypeVar("Chunk")

Embeddings = tuple[Tensor | None, ...]
"""One [rows, ...] tensor for each modality; None where no row of the chunk has it."""

RandomState = tuple[Tensor, Tensor | None]
"""Of the processor and of the GPU."""

Encode = Callable[[Chunk], tuple[Embeddings, Tensor | None]]


def backward_in_chunks(
    model: nn.Module, chunks: Sequence[Chunk], encode: Encode[Chunk], loss: Callable[..., Tensor]
) -> Tensor:
    """Add the gradient of a batch's loss to `.grad` of the model's parameters.

    The chunks are encoded without a graph; the loss of all their embeddings is differentiated as far as these; then
    each chunk is encoded once more, with a graph, from the same state of the random numbers, and takes its part of the
    gradient on. Memory holds one chunk's activations. A single chunk is encoded once.

    Every trained parameter gets a gradient, be it 0: DDP waits for all of them, also where a batch lacks a modality (so
    it need not, and must not, look for unused ones itself). Gradients go over the ranks once, with the last chunk.

    Batch normalisation sees one chunk at a time: the gradient is that of the chunks' embeddings, not of those that one
    pass over the batch would have given. Running statistics follow each chunk once.

    Args:
        model: what `encode` calls; wrapped in DDP where there are ranks. May be in autocast, inside `encode` or around.
        chunks: the batch, split; into as many on all ranks.
        encode: a chunk -> its embeddings and, where there is one, its share of a loss that needs no other rows: the
            shares must add up to the batch's.
        loss: all rows' embeddings, one argument for each modality -> a scalar. Rows of a chunk with None are 0 beside
            other chunks' rows; an argument is None where no chunk has the modality. With ranks that `gather` it,
            a rank without it must give zeros in place of None, else the others wait for it. The loss may use parameters
            of the model, a temperature.

    Returns:
        The whole loss, detached.
    """
    only = encode(chunks[0]) if len(chunks) == 1 else None
    parts, states = ([only[0]], []) if only else _without_graph(model, chunks, encode)
    # FSDP waits for no gradient, and at this point a shard takes none
    trained = [p for p in model.parameters() if p.requires_grad and not hasattr(p, "device_mesh")]
    total, gradients, aside = _differentiate(loss, parts, trained)
    for i, chunk in enumerate(chunks):
        last = i + 1 == len(chunks)
        with nullcontext() if last else _unsynchronised(model):
            if only is None:
                _restore(model, states[i])
            embeddings, own = only or encode(chunk)
            roots = [(x, g[i]) for x, g in zip(embeddings, gradients, strict=True) if x is not None and g is not None]
            if own is not None:
                roots.append((own, torch.ones_like(own)))
                total = total + own.detach()
            roots = [(x, gradient) for x, gradient in roots if x.requires_grad]
            roots += aside if last else []
            if roots:
                torch.autograd.backward([x for x, _ in roots], [gradient for _, gradient in roots])
    return total


def _without_graph(
    model: nn.Module, chunks: Sequence[Chunk], encode: Encode[Chunk]
) -> tuple[list[Embeddings], list[RandomState]]:
    """Each chunk's embeddings, and the state of the random numbers before it."""
    parts: list[Embeddings] = []
    states: list[RandomState] = []
    with torch.no_grad(), _running_statistics_kept(model):
        for chunk in chunks:
            states.append(_random_state(model))
            parts.append(encode(chunk)[0])
    torch.clear_autocast_cache()  # before 2026 torch kept weights there that were cast without a graph
    return parts, states


def _differentiate(
    loss: Callable[..., Tensor], parts: list[Embeddings], trained: list[nn.Parameter]
) -> tuple[Tensor, list[tuple[Tensor, ...] | None], list[tuple[Tensor, Tensor]]]:
    """The loss, its gradient by each modality's embeddings in chunks, and by the parameters that it uses itself.

    The latter as roots of a backward pass, with a gradient of 0 for each of the other parameters. Nothing is added to
    `.grad` here, so DDP notices nothing: a parameter may come to it once.
    """
    rows = [next(len(x) for x in part if x is not None) for part in parts]
    leaves = [_leaf([part[k] for part in parts], rows) for k in range(len(parts[0]))]
    total = loss(*leaves)
    inputs = [x for x in leaves if x is not None]
    found = torch.autograd.grad(total, [*inputs, *trained], allow_unused=True)
    by_leaf = iter(found[: len(inputs)])
    gradients = [None if x is None or (g := next(by_leaf)) is None else torch.split(g, rows) for x in leaves]
    aside: list[tuple[Tensor, Tensor]] = []
    for parameter, gradient in zip(trained, found[len(inputs) :], strict=True):
        if gradient is None:
            unused = parameter.sum()  # its zeros are not laid out in memory as those of the parameter would be
            aside.append((unused, torch.zeros_like(unused)))
        else:
            aside.append((parameter, gradient))
    return total.detach(), gradients, aside


def _leaf(parts: list[Tensor | None], rows: list[int]) -> Tensor | None:
    """One modality's rows of all chunks, to be differentiated by; zeros where a chunk has none."""
    some = next((x for x in parts if x is not None), None)
    if some is None:
        return None
    filled = [some.new_zeros(n, *some.shape[1:]) if x is None else x for x, n in zip(parts, rows, strict=True)]
    return torch.cat(filled).detach().requires_grad_()


def _unsynchronised(model: nn.Module) -> AbstractContextManager[Any]:
    """Keep gradients on this rank, where `model` is distributed (DDP and FSDP name it so)."""
    return model.no_sync() if hasattr(model, "no_sync") else nullcontext()  # type: ignore[operator]


@contextmanager
def _running_statistics_kept(model: nn.Module) -> Iterator[None]:
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.track_running_stats]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _random_state(model: nn.Module) -> RandomState:
    device = next(model.parameters()).device
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(model: nn.Module, state: RandomState) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], next(model.parameters()).device)
