import math
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from einthoven.contrast import info_nce, word_loss


def unit(n: int, d: int, seed: int) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1)


def naive(a: Tensor, b: Tensor, scale: float, positives: Tensor, ignored: Tensor) -> float:
    """The definition, written out as loops."""

    def one_way(x: Tensor, y: Tensor, pos: Tensor, ign: Tensor) -> float:
        total = 0.0
        for i in range(len(x)):
            kept = [j for j in range(len(y)) if pos[i, j] or not ign[i, j]]
            denominator = sum(math.exp(scale * float(x[i] @ y[j])) for j in kept)
            terms = [-math.log(math.exp(scale * float(x[i] @ y[j])) / denominator) for j in range(len(y)) if pos[i, j]]
            total += sum(terms) / len(terms)
        return total / len(x)

    return (one_way(a, b, positives, ignored) + one_way(b, a, positives.T, ignored.T)) / 2


@pytest.mark.parametrize("seed", range(5))
def test_info_nce_equals_the_naive_loop(seed: int) -> None:
    generator = torch.Generator().manual_seed(100 + seed)
    a, b = unit(7, 5, seed), unit(7, 5, seed + 50)
    positives = (torch.rand(7, 7, generator=generator) < 0.3) | torch.eye(7, dtype=torch.bool)
    ignored = torch.rand(7, 7, generator=generator) < 0.3
    expected = naive(a, b, 9.0, positives, ignored)
    got = info_nce(a, b, torch.tensor(9.0), positives, ignored)
    assert float(got) == pytest.approx(expected, rel=1e-5)


def test_single_positives_are_symmetric_cross_entropy() -> None:
    a, b = unit(6, 4, 1).float(), unit(6, 4, 2).float()
    logits, target = 5.0 * a @ b.T, torch.arange(6)
    expected = (
        torch.nn.functional.cross_entropy(logits, target) + torch.nn.functional.cross_entropy(logits.T, target)
    ) / 2
    assert torch.allclose(info_nce(a, b, torch.tensor(5.0), torch.eye(6, dtype=torch.bool)), expected)


def test_ignored_pairs_get_no_gradient() -> None:
    a, b = unit(3, 4, 3).requires_grad_(), unit(3, 4, 4).requires_grad_()
    ignored = torch.ones(3, 3, dtype=torch.bool)
    loss = info_nce(a, b, torch.tensor(3.0), torch.eye(3, dtype=torch.bool), ignored)
    loss.backward()
    assert float(loss.detach()) == 0.0  # every row is left with its own positive alone
    assert a.grad is not None and float(a.grad.abs().max()) == 0.0


def test_word_loss_equals_the_naive_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 9, generator=generator)
    tokens = torch.tensor([[1, 5, 6, 5, 2], [1, 7, 2, 0, 0], [1, 2, 0, 0, 0]])  # 0-2 special; the last has no word
    content = torch.arange(9) > 2
    total = 0.0
    for row, ids in zip(logits.double(), tokens.tolist(), strict=True):
        words = {i for i in ids if i > 2}
        denominator = sum(math.exp(float(v)) for v in row)
        total += sum(-math.log(math.exp(float(row[w])) / denominator) for w in words) / max(len(words), 1)
    assert float(word_loss(logits, tokens, content)) == pytest.approx(total / 3, rel=1e-5)


GLOO = """
import sys, torch, torch.distributed as dist
from einthoven.contrast import gather, info_nce
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
torch.manual_seed(0)
n, x, y = 4, torch.randn(4 * world, 6), torch.randn(4 * world, 6)
subject = torch.arange(4 * world) // 3
w = torch.nn.Linear(6, 5)

def loss_of(x, y, g, subject):
    a, b = (torch.nn.functional.normalize(w(v), dim=1) for v in (x, y))
    a, b, subject = g(a), g(b), g(subject)
    same = subject[:, None] == subject[None]
    return info_nce(a, b, torch.tensor(4.0), torch.eye(len(a), dtype=torch.bool), same)

part = slice(rank * n, rank * n + n)
loss = loss_of(x[part], y[part], gather, subject[part]); loss.backward()
for p in w.parameters():  # what DDP does: the mean over ranks
    dist.all_reduce(p.grad); p.grad /= world
mine = w.weight.grad.clone(); w.zero_grad()
loss_of(x, y, lambda v: v, subject).backward()
assert torch.allclose(mine, w.weight.grad, atol=1e-5), (mine - w.weight.grad).abs().max()
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_over_ranks_equal_those_of_one_process(world: int, tmp_path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", GLOO, str(rank), str(world), str(tmp_path / "store")],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    for process in ranks:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
