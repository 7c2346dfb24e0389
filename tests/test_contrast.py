import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.processes import every_rank
from torch import Tensor

from einthoven.contrast import (
    MAX_SCALE,
    answers,
    equal,
    info_nce,
    inverse_temperature,
    multi_hot,
    nt_xent,
    sigmoid_loss,
    word_loss,
)


def unit(n: int, d: int, seed: int) -> Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.nn.functional.normalize(x, dim=1)


def naive_info_nce(a: Tensor, b: Tensor, scale: float, pos: Tensor, ign: Tensor, present: Tensor) -> float:
    """The definition, written out as loops over the rows that are present."""
    rows = [i for i in range(len(a)) if present[i]]
    if len(rows) < 2:
        return 0.0

    def one_way(x: Tensor, y: Tensor, pos: Tensor, ign: Tensor) -> float:
        total = 0.0
        for i in rows:
            kept = [j for j in rows if pos[i, j] or not ign[i, j]]
            denominator = sum(math.exp(scale * float(x[i] @ y[j])) for j in kept)
            terms = [-math.log(math.exp(scale * float(x[i] @ y[j])) / denominator) for j in rows if pos[i, j]]
            total += sum(terms) / len(terms)
        return total / len(rows)

    return (one_way(a, b, pos, ign) + one_way(b, a, pos.T, ign.T)) / 2


def naive_sigmoid(a: Tensor, b: Tensor, scale: float, bias: float, pos: Tensor, ign: Tensor, present: Tensor) -> float:
    rows = [i for i in range(len(a)) if present[i]]
    total = 0.0
    for i in rows:
        for j in rows:
            if pos[i, j] or not ign[i, j]:
                z = 1.0 if pos[i, j] else -1.0
                total += math.log(1 + math.exp(-z * (scale * float(a[i] @ b[j]) + bias)))
    return total / len(rows) if len(rows) > 1 else 0.0


@st.composite
def masks(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Positives, ignored and present of up to 7 rows, any of them."""
    n = draw(st.integers(1, 7))

    def bits(count: int) -> Tensor:
        return torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool)

    return bits(n * n).view(n, n) | torch.eye(n, dtype=torch.bool), bits(n * n).view(n, n), bits(n)


@given(masks(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_losses_equal_the_naive_loops(case: tuple[Tensor, Tensor, Tensor], seed: int) -> None:
    positives, ignored, present = case
    a, b = unit(len(present), 5, seed), unit(len(present), 5, seed + 5000)
    got = info_nce(a, b, torch.tensor(9.0), positives, ignored, present)
    assert float(got) == pytest.approx(naive_info_nce(a, b, 9.0, positives, ignored, present), rel=1e-4, abs=1e-6)
    got = sigmoid_loss(a, b, torch.tensor(9.0), torch.tensor(-2.0), positives, ignored, present)
    assert float(got) == pytest.approx(naive_sigmoid(a, b, 9.0, -2.0, positives, ignored, present), rel=1e-4, abs=1e-6)


Loss = Callable[..., Tensor]


def sigmoid(a: Tensor, b: Tensor, scale: Tensor, *rest: Tensor | None) -> Tensor:
    return sigmoid_loss(a, b, scale, torch.tensor(-2.0), *rest)


@pytest.mark.parametrize("loss", [info_nce, sigmoid])
@given(case=masks(), seed=st.integers(0, 1000))
@settings(max_examples=40, deadline=None)
def test_rows_not_present_are_as_if_left_out(loss: Loss, case: tuple[Tensor, Tensor, Tensor], seed: int) -> None:
    positives, ignored, present = case
    whole = [unit(len(present), 5, seed + k).float() for k in range(2)]
    for x in whole:
        x[~present] = torch.nan  # whatever the encoder made of nothing
    x, y = (v.clone().requires_grad_() for v in whole)
    got = loss(x, y, torch.tensor(9.0), positives, ignored, present)
    got.backward()
    u, v = (w[present].clone().requires_grad_() for w in whole)
    square = present.nonzero()[:, 0]
    expected = loss(u, v, torch.tensor(9.0), positives[square][:, square], ignored[square][:, square])
    expected.backward()
    assert torch.allclose(got, expected, atol=1e-6)
    assert x.grad is not None and y.grad is not None and u.grad is not None and v.grad is not None
    assert torch.allclose(x.grad[present], u.grad, atol=1e-5) and torch.allclose(y.grad[present], v.grad, atol=1e-5)
    assert not x.grad[~present].any() and not y.grad[~present].any()


@pytest.mark.parametrize("rows", [0, 1])
@pytest.mark.parametrize("loss", [info_nce, sigmoid])
def test_fewer_than_two_rows_give_zero_and_zero_gradients(loss: Loss, rows: int) -> None:
    a, b = unit(3, 4, 1).float().requires_grad_(), unit(3, 4, 2).float().requires_grad_()
    scale = torch.tensor(5.0, requires_grad=True)
    got = loss(a, b, scale, torch.eye(3, dtype=torch.bool), None, torch.arange(3) < rows)
    got.backward()
    assert float(got.detach()) == 0.0
    for x in (a, b, scale):  # there, for DDP, which waits for them
        assert x.grad is not None and not x.grad.any()


def test_closed_forms() -> None:
    n, group, s, bias = 6, 2, 5.0, -3.0
    # each group one direction, the groups orthogonal
    x = torch.eye(n // group).repeat_interleave(group, dim=0)
    positives = equal(torch.arange(n) // group)
    scale = torch.tensor(s)
    expected = math.log(group + (n - group) * math.exp(-s))
    assert float(info_nce(x, x, scale, positives)) == pytest.approx(expected, rel=1e-5)
    expected = group * math.log(1 + math.exp(-(s + bias))) + (n - group) * math.log(1 + math.exp(bias))
    assert float(sigmoid_loss(x, x, scale, torch.tensor(bias), positives)) == pytest.approx(expected, rel=1e-5)
    # what knows nothing
    same, single = torch.ones(n, 1), torch.eye(n, dtype=torch.bool)
    assert float(info_nce(same, same, scale, single)) == pytest.approx(math.log(n), rel=1e-5)
    none = torch.tensor(0.0)
    assert float(sigmoid_loss(same, same, none, none, single)) == pytest.approx(n * math.log(2), rel=1e-5)


def test_equal_is_equality_of_groups() -> None:
    groups = [3, 7, 3, -2, -2]
    expected = [[x == y for y in groups] for x in groups]
    assert equal(torch.tensor(groups)).tolist() == expected


@given(st.lists(st.tuples(st.sets(st.integers(5, 9)), st.integers(0, 31), st.booleans()), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_a_query_belongs_to_all_rows_that_have_it(rows: list[tuple[set[int], int, bool]]) -> None:
    whole = [sorted(codes) for codes, _, _ in rows]
    shown = [
        [c for i, c in enumerate(codes) if not query or kept >> i & 1]
        for codes, (_, kept, query) in zip(whole, rows, strict=True)
    ]
    content = torch.arange(10) >= 5
    padded = [torch.tensor([[2, *codes, *[0] * (6 - len(codes))] for codes in part]) for part in (whole, shown)]
    has, asked = (multi_hot(tokens, content) for tokens in padded)
    assert [row.nonzero().flatten().tolist() for row in has] == whole
    query, groups = torch.tensor([query for _, _, query in rows]), torch.arange(len(rows)) // 2
    found = answers(has, asked, query, equal(groups))
    for i in range(len(rows)):
        for j in range(len(rows)):
            assert bool(found[i, j]) == (set(shown[j]) <= set(whole[i]) if query[j] else i // 2 == j // 2)


@pytest.mark.parametrize("loss", [info_nce, sigmoid])
def test_bfloat16_is_computed_in_float32(loss: Loss) -> None:
    a, b = unit(40, 16, 1).bfloat16(), unit(40, 16, 2).bfloat16()
    positives = torch.eye(40, dtype=torch.bool)
    expected = loss(a.float(), b.float(), torch.tensor(50.0), positives)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(a, b, torch.tensor(50.0), positives)
    assert got.dtype == torch.float32 and torch.equal(got, expected)


def test_the_scale_stops_at_its_bound_and_comes_back() -> None:
    log_scale = torch.tensor(math.log(MAX_SCALE) + 0.5, requires_grad=True)
    scale = inverse_temperature(log_scale)
    assert float(scale.detach()) == MAX_SCALE
    (-scale).backward()  # a loss that falls with a larger scale
    assert log_scale.grad is not None and float(log_scale.grad) == 0.0
    inverse_temperature(log_scale).backward()
    assert float(log_scale.grad) > 0.0
    below = torch.tensor(1.3, requires_grad=True)
    inverse_temperature(below).backward()
    assert below.grad is not None and float(below.grad) == pytest.approx(math.exp(1.3))


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
    third = torch.full((3,), 1 / 3)
    parts = [word_loss(logits[part], tokens[part], content, third[part]) for part in (slice(2), slice(2, 3))]
    assert float(sum(parts)) == pytest.approx(total / 3, rel=1e-5)
    alone = word_loss(logits, tokens, content, torch.tensor([0.0, 1.0, 0.0]))
    assert torch.allclose(alone, word_loss(logits[1:2], tokens[1:2], content))


GLOO = """
import sys, torch, torch.distributed as dist
from einthoven.contrast import equal, gather, info_nce, nt_xent, sigmoid_loss
rank, world, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method="file://" + store, rank=rank, world_size=world)
torch.manual_seed(0)
n, x, y = 4, torch.randn(4 * world, 6), torch.randn(4 * world, 6)
subject, text = torch.arange(4 * world) // 3, torch.arange(4 * world) % 5
everyone = torch.ones(4 * world, dtype=torch.bool)
some = torch.rand(4 * world) < 0.6
one_rank = torch.arange(4 * world) < 4
w = torch.nn.Linear(6, 5)
scale, bias = torch.tensor(4.0, requires_grad=True), torch.tensor(-1.0, requires_grad=True)
learned = [*w.parameters(), scale, bias]

def loss_of(kind, present, g, part):
    a, b = (torch.nn.functional.normalize(w(v[part]), dim=1) for v in (x, y))
    a, b, t, s, p = (g(v) for v in (a, b, text[part], subject[part], present[part]))
    if kind == "info_nce":
        return info_nce(a, b, scale, equal(t), equal(s), p) + 0 * bias
    if kind == "nt_xent":
        return nt_xent(a, b, scale, equal(s)) + 0 * bias
    return sigmoid_loss(a, b, scale, bias, equal(t), equal(s), p)

part = slice(rank * n, rank * n + n)
for kind in ("info_nce", "sigmoid", "nt_xent"):
    for present in (everyone, some, one_rank):
        mine = torch.autograd.grad(loss_of(kind, present, gather, part), learned)
        whole = torch.autograd.grad(loss_of(kind, present, lambda v: v, slice(None)), learned)
        for got, expected in zip(mine, whole):  # what DDP does: the mean over ranks
            dist.all_reduce(got)
            assert torch.allclose(got / world, expected, atol=1e-5), (kind, got / world - expected)
        assert any(v.abs().max() > 1e-3 for v in whole)

v = torch.ones(2, requires_grad=True)  # a gradient that autograd shares between two gathers
(1.0 * (gather(v) + gather(v))).sum().backward()
assert v.grad.tolist() == [2.0 * world] * 2
dist.barrier()
dist.destroy_process_group()
"""


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_over_ranks_equal_those_of_one_process(world: int, tmp_path) -> None:
    every_rank(GLOO, world, tmp_path)


def naive_nt_xent(a: Tensor, b: Tensor, scale: float, ignored: Tensor) -> float:
    """Chen 2020, eq. 1, over 2n views."""
    n, views = len(a), [*a, *b]
    total = 0.0
    for i, view in enumerate(views):
        mate = (i + n) % (2 * n)
        others = [k for k in range(2 * n) if k == mate or (k != i and not ignored[i % n, k % n])]
        total -= math.log(
            math.exp(scale * float(view @ views[mate])) / sum(math.exp(scale * float(view @ views[k])) for k in others)
        )
    return total / (2 * n)


@given(masks(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_nt_xent_equals_the_naive_loop(case: tuple[Tensor, Tensor, Tensor], seed: int) -> None:
    _, ignored, _ = case
    a, b = unit(len(ignored), 5, seed), unit(len(ignored), 5, seed + 5000)
    got = nt_xent(a, b, torch.tensor(9.0), ignored)
    assert float(got) == pytest.approx(naive_nt_xent(a, b, 9.0, ignored), rel=1e-4, abs=1e-6)
    nothing = torch.zeros_like(ignored)
    got = nt_xent(a, b, torch.tensor(9.0))
    assert float(got) == pytest.approx(naive_nt_xent(a, b, 9.0, nothing), rel=1e-4, abs=1e-6)


def test_nt_xent_in_closed_form() -> None:
    n, s = 5, 4.0
    x, scale = torch.eye(n), torch.tensor(s, requires_grad=True)
    # one at cosine 1, the 2n - 2 others at 0
    assert float(nt_xent(x, x, scale.detach())) == pytest.approx(math.log(1 + (2 * n - 2) * math.exp(-s)), rel=1e-5)
    alone = nt_xent(x[:1], x[:1], scale)
    alone.backward()
    assert float(alone.detach()) == 0.0 and scale.grad is not None and float(scale.grad) == 0.0
    with torch.autocast("cpu", torch.bfloat16):
        a, b = unit(8, 4, 1).bfloat16(), unit(8, 4, 2).bfloat16()
        got = nt_xent(a, b, scale)
    assert got.dtype == torch.float32 and torch.equal(got, nt_xent(a.float(), b.float(), scale))
