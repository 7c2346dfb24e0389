from pathlib import Path

import torch
from tests.processes import every_rank
from torch import nn

from einthoven.encoders.batch_norm import BatchNorm

RANKS = """
import sys, torch, torch.distributed as dist
from torch import nn
from einthoven.encoders.batch_norm import BatchNorm
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
torch.manual_seed(0)
b, c, t = 4, 5, 7
whole = 3 + torch.randn(b * world, c, t) * torch.arange(1, c + 1)[:, None]
weight, bias, upstream = torch.rand(c), torch.randn(c), torch.randn(b * world, c, t)
ours, theirs = BatchNorm(c), nn.BatchNorm1d(c)
images = lambda x: x.unsqueeze(2).contiguous(memory_format=torch.channels_last)
for norm in (ours, theirs):
    norm.load_state_dict({**norm.state_dict(), "weight": weight, "bias": bias})
mine = slice(rank * b, rank * b + b)
for dtype, near in ((torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
    here, there = (x.clone().to(dtype).requires_grad_() for x in (whole[mine], whole))
    got, expected = ours(images(here)).squeeze(2) if rank else ours(here), theirs(there)  # any layout
    assert got.dtype == dtype and torch.allclose(got, expected[mine], atol=near)
    (got.float() * upstream[mine]).square().sum().backward()
    (expected.float() * upstream).square().sum().backward()
    assert torch.allclose(here.grad, there.grad[mine], atol=10 * near)
    assert expected.grad_fn is not None and there.grad.abs().max() > 0.1
    for p, q in zip(ours.parameters(), theirs.parameters()):
        dist.all_reduce(p.grad)  # as DDP adds them
        assert torch.allclose(p.grad, q.grad, rtol=near), (dtype, p.grad, q.grad)
        p.grad = q.grad = None
    for name, value in theirs.state_dict().items():
        assert torch.allclose(ours.state_dict()[name].float(), value.float(), rtol=1e-2 if near > 1e-3 else 1e-5), name
before = {name: value.clone() for name, value in ours.state_dict().items()}
ours.track_running_stats = False  # as gradient caching has it in its first pass
ours(whole[mine])
assert all(torch.equal(before[name], value) for name, value in ours.state_dict().items())
dist.barrier()
dist.destroy_process_group()
"""


def test_over_ranks_it_is_batch_normalisation_of_all_rows(tmp_path: Path) -> None:
    """Forward, backward by rows and parameters, and running statistics, in both precisions."""
    every_rank(RANKS, 3, tmp_path)


def test_in_one_process_it_is_batch_normalisation() -> None:
    ours, theirs, x = BatchNorm(5), nn.BatchNorm1d(5), torch.randn(4, 5, 7)
    assert torch.equal(ours(x), theirs(x)) and torch.equal(ours.running_var, theirs.running_var)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))
