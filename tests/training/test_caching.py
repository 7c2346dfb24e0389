from collections.abc import Callable

import pytest
import torch
from tests.processes import every_rank
from torch import Tensor, nn

from einthoven.contrast import equal, info_nce, inverse_temperature
from einthoven.training.caching import Embeddings, backward_in_chunks

ROWS = 11


class Towers(nn.Module):
    """Two small encoders; `middle` is what is tested in one of them."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.left = nn.Sequential(nn.Linear(6, 8), middle or nn.Identity(), nn.Tanh(), nn.Linear(8, 5))
        self.right = nn.Linear(4, 5)
        self.words = nn.Linear(5, 3)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        left = self.left(x)
        return (
            nn.functional.normalize(left.float(), dim=1),
            nn.functional.normalize(self.right(y).float(), dim=1),
            self.words(left).float().square().sum() / ROWS,
        )


def made(middle: nn.Module | None = None) -> tuple[Towers, Tensor, Tensor]:
    torch.manual_seed(0)
    towers = Towers(middle).train()
    return towers, torch.randn(ROWS, 6), torch.randn(ROWS, 4)


def contrast_of(model: Towers) -> Callable[..., Tensor]:
    present = torch.arange(ROWS) != 4

    def contrast(left: Tensor, right: Tensor, third: Tensor | None = None) -> Tensor:
        groups = torch.arange(ROWS) // 2
        return info_nce(left, right, inverse_temperature(model.log_scale), equal(groups), None, present)

    return contrast


def direct(model: Towers, x: Tensor, y: Tensor, size: int, seed: int = 1) -> tuple[Tensor, list[Tensor]]:
    """One graph over all chunks."""
    torch.manual_seed(seed)
    parts = [model(u, v) for u, v in zip(x.split(size), y.split(size), strict=True)]
    left, right = (torch.cat([part[k] for part in parts]) for k in range(2))
    loss = contrast_of(model)(left, right) + sum(part[2] for part in parts)
    return loss.detach(), list(torch.autograd.grad(loss, list(model.parameters())))


def cached(model: Towers, x: Tensor, y: Tensor, size: int) -> tuple[Tensor, list[Tensor]]:
    def encode(chunk: tuple[Tensor, Tensor]) -> tuple[Embeddings, Tensor | None]:
        left, right, own = model(*chunk)
        return (left, right, None), own

    torch.manual_seed(1)
    chunks = list(zip(x.split(size), y.split(size), strict=True))
    loss = backward_in_chunks(model, chunks, encode, contrast_of(model))
    return loss, [p.grad for p in model.parameters() if p.grad is not None]


def agree(got: tuple[Tensor, list[Tensor]], expected: tuple[Tensor, list[Tensor]], **tolerance: float) -> bool:
    assert len(got[1]) == len(expected[1])
    assert max(float(g.abs().max()) for g in expected[1]) > 1e-3
    return torch.allclose(got[0], expected[0], **tolerance) and all(
        torch.allclose(g, e, **tolerance) for g, e in zip(got[1], expected[1], strict=True)
    )


@pytest.mark.parametrize("size", [1, 3, 10, 11])
def test_gradients_equal_those_of_the_whole_batch(size: int) -> None:
    model, x, y = made()
    assert agree(cached(model, x, y, size), direct(model, x, y, ROWS), atol=1e-6)


@pytest.mark.parametrize("middle", [nn.Dropout(0.4), nn.BatchNorm1d(8)], ids=["dropout", "batch norm"])
def test_gradients_equal_those_of_one_graph_over_the_chunks(middle: nn.Module) -> None:
    model, x, y = made(middle)
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    got = cached(model, x, y, 4)
    statistics = {name: buffer.clone() for name, buffer in model.named_buffers()}
    after = torch.rand(3)
    model.load_state_dict(buffers, strict=False)
    assert agree(got, direct(model, x, y, 4), atol=1e-6)
    assert torch.equal(torch.rand(3), after)  # what is drawn next is the same, too
    for name, buffer in model.named_buffers():  # every chunk counted once
        assert torch.equal(statistics[name], buffer)


def test_another_seed_gives_other_gradients() -> None:
    """That the comparison above can tell one dropout from another."""
    model, x, y = made(nn.Dropout(0.4))
    got = cached(model, x, y, 4)
    assert not agree(got, direct(model, x, y, 4, seed=2), atol=1e-3)


@pytest.mark.parametrize("around", [True, False])
def test_autocast(around: bool) -> None:
    model, x, y = made(nn.Dropout(0.4))

    class Inside(nn.Module):
        def forward(self, *chunk: Tensor) -> tuple[Tensor, ...]:
            with torch.autocast("cpu", torch.bfloat16):
                return Towers.forward(model, *chunk)

    with torch.autocast("cpu", torch.bfloat16):
        expected = direct(model, x, y, 4)
    torch.clear_autocast_cache()
    if around:
        with torch.autocast("cpu", torch.bfloat16):
            got = cached(model, x, y, 4)
    else:
        model.forward = Inside().forward  # type: ignore[method-assign]
        got = cached(model, x, y, 4)
    assert agree(got, expected, atol=2e-2)


def test_a_chunk_or_a_batch_may_lack_a_modality() -> None:
    model, x, y = made()
    seen = []

    def encode(chunk: tuple[Tensor, Tensor]) -> tuple[Embeddings, Tensor | None]:
        left, right, own = model(*chunk)
        return (left, None if len(seen) else right, None), own

    def contrast(left: Tensor, right: Tensor | None, third: Tensor | None) -> Tensor:
        seen.append((right, third))
        if right is None:
            return left.sum()
        return (left * right).sum()

    chunks = list(zip(x.split(4), y.split(4), strict=True))
    backward_in_chunks(model, chunks, encode, contrast)
    backward_in_chunks(model, chunks, encode, contrast)
    assert seen[0][0].shape == (ROWS, 5) and seen[0][1] is None
    assert seen[1] == (None, None)
    model.zero_grad()
    backward_in_chunks(model, chunks, encode, contrast)
    for parameter in (*model.right.parameters(), model.log_scale):  # not used, yet there
        assert parameter.grad is not None and not parameter.grad.any()


def test_rows_without_a_modality_are_zeros_beside_the_others() -> None:
    model, x, y = made()

    def encode(chunk: tuple[Tensor, Tensor]) -> tuple[Embeddings, Tensor | None]:
        left, right, _ = model(*chunk)
        return (left, right if len(left) == 4 else None), None

    def contrast(left: Tensor, right: Tensor) -> Tensor:
        assert right.shape == left.shape and not right[8:].any() and right[:8].any()
        return (left * right).sum()

    backward_in_chunks(model, list(zip(x.split(4), y.split(4), strict=True)), encode, contrast)
    got = [p.grad.clone() for p in model.right.parameters() if p.grad is not None]
    model.zero_grad()
    left, right, _ = model(x[:8], y[:8])
    (left * right).sum().backward()
    for gradient, parameter in zip(got, model.right.parameters(), strict=True):
        assert parameter.grad is not None and torch.allclose(gradient, parameter.grad, atol=1e-6)


DDP = """
import sys, torch, torch.distributed as dist
from torch import nn
from einthoven.contrast import equal, gather, info_nce
from einthoven.training.caching import backward_in_chunks
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
torch.manual_seed(0)
n = 5
rows = torch.arange(n * world)
x, y, group = torch.randn(n * world, 6), torch.randn(n * world, 4), rows % 7
present = (rows < n) | (rows < 2 * n) & (rows % n < 3)  # the second rank has three, a third none

class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Linear(6, 3), nn.Linear(4, 3)
        self.log_scale = nn.Parameter(torch.tensor(1.0))

    def forward(self, x, y):
        return self.left(x), None if y is None else self.right(y)

def step(wrapped, bare, chunks, here, g, count):
    def encode(chunk):
        left, right = wrapped(*chunk)
        if right is None and rank > 1:
            right = torch.zeros_like(left)
        return (left, right), left.square().sum() / count
    def loss(left, right):
        left, right, to, there = (g(v) for v in (left, right, group[here], present[here]))
        return info_nce(left, right, bare.log_scale.exp(), equal(to), None, there)
    backward_in_chunks(wrapped, chunks, encode, loss)

bare = Towers()
ddp = nn.parallel.DistributedDataParallel(bare)
here = slice(rank * n, rank * n + n)
mine, other = x[here], y[here]
whole = [(mine, other if rank < 2 else None)]
parts = [(mine[:3], other[:3] if rank < 2 else None), (mine[3:], other[3:] if rank < 1 else None)]
for chunks in (whole, parts):
    for _ in range(2):  # a second step: DDP is ready again
        ddp.zero_grad()
        step(ddp, bare, chunks, here, gather, n)
    got = [p.grad.clone() for p in bare.parameters()]
    bare.zero_grad()
    left, right = bare(x, y)
    loss = info_nce(left, right, bare.log_scale.exp(), equal(group), None, present)
    (loss + left.square().sum() / len(x)).backward()
    for gradient, p in zip(got, bare.parameters()):
        assert torch.allclose(gradient, p.grad, atol=1e-5), (len(chunks), gradient - p.grad)
        assert p.grad.abs().max() > 1e-4
dist.barrier()
dist.destroy_process_group()
"""


def test_gradients_over_ranks_equal_those_of_one_process(tmp_path) -> None:
    every_rank(DDP, 3, tmp_path)
