"""Several processes that train one model, as `torchrun` starts them: they join, and share what they find."""

import os
from datetime import timedelta

import torch
from accelerate import Accelerator, PartialState
from torch import Tensor

LONGEST_WAIT = timedelta(days=1)
"""Of a process for the first one, which resamples and validates alone."""


def joined() -> PartialState:
    """This process among all; joins them the first time."""
    return PartialState(cpu=_processors_only(), timeout=LONGEST_WAIT)


def parted() -> bool:
    """Ends what the processes do together; whether this is the first one, whose alone the rest is."""
    process = joined()
    first = process.is_main_process
    process.destroy_process_group()
    return first


def accelerated() -> Accelerator:
    """What wraps model and optimiser for the device and the processes there are."""
    joined()
    return Accelerator(cpu=_processors_only())


def mean_loss(accelerator: Accelerator, losses: list[Tensor]) -> float:
    """The mean of the losses of an epoch's steps over all processes, each of which must call this."""
    return float(accelerator.reduce(torch.stack(losses).mean(), "mean"))


def _processors_only() -> bool:
    """Several processes without a GPU: Accelerate joins them (by gloo) only if it is told so."""
    return "LOCAL_RANK" in os.environ and not torch.cuda.is_available()
