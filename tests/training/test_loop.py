import pytest
import torch

from einthoven.errors import EinthovenError
from einthoven.training.loop import learning_rate, precision, update_average


def test_the_schedule_warms_up_and_ends_near_zero() -> None:
    rates = [learning_rate(step, 100, 1.0, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


def test_the_average_is_the_exponential_one() -> None:
    average, model = torch.nn.Linear(1, 1, bias=False), torch.nn.Linear(1, 1, bias=False)
    average.weight.data.fill_(1.0)
    model.weight.data.fill_(3.0)
    update_average(average, model, 0.9, step=10_000)
    assert float(average.weight.detach()) == pytest.approx(0.9 * 1 + 0.1 * 3)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(EinthovenError, match="precision"):
        precision("fp8", torch.device("cpu"))
