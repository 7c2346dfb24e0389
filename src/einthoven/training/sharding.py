"""Weights, gradients, their average and the optimiser's moments shared among processes: for encoders that one device
does not hold (Zhao 2023, "PyTorch FSDP"; here `fully_shard`, on any device)."""

import copy
from typing import Any

import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from einthoven.config import Training
from einthoven.encoders.text import layers_of
from einthoven.training.loop import State, adamw
from einthoven.training.objective import Objective

PARTS = ("model", "average", "optimizer")


def shard(whole: State[Objective], options: Training, device: str) -> State[Objective]:
    """This process's part of a state. What `whole` holds is the same in all processes, and is copied.

    The layers of transformers are gathered one at a time when they compute; what else there is, small beside them, is
    gathered for a whole step, so that the loss can use parameters of the model.
    """
    mesh = init_device_mesh(device, (dist.get_world_size(),))
    modules = [copy.deepcopy(module) for module in (whole.model, whole.average)]
    for module in modules:
        for layer in _layers(module):
            fully_shard(layer, mesh=mesh)
        fully_shard(module, mesh=mesh, reshard_after_forward=False)
    model, average = modules
    optimizer = adamw(model, options.learning_rate, options.weight_decay)
    before = (parameter for group in whole.optimizer.param_groups for parameter in group["params"])
    for old, new in zip(before, (p for group in optimizer.param_groups for p in group["params"]), strict=True):
        for name, value in whole.optimizer.state[old].items():  # empty in a new run
            alike = value.shape == new.shape
            optimizer.state[new][name] = distribute_tensor(value, mesh, new.placements) if alike else value
    return State(model, average, optimizer, whole.best, whole.epoch, whole.step, whole.history, whole.sealed)


def collect(part: State[Objective], whole: State[Objective] | None) -> None:
    """Put the parts of all processes together in the first one's `whole`. All must call this; the others give None."""
    for name in PARTS:
        values = _gathered(getattr(part, name).state_dict())
        if whole is not None:
            getattr(whole, name).load_state_dict(values)
    if whole is not None:
        whole.epoch, whole.step = part.epoch, part.step


def _layers(module: Objective) -> list[nn.Module]:
    bodies = [part.body for part in (module.model.text, module.model.codes) if part is not None]
    return [layer for body in bodies for layer in layers_of(body)]


def _gathered(values: Any) -> Any:
    """Nested dictionaries and lists with whole tensors in place of shards."""
    if isinstance(values, dict):
        return {name: _gathered(value) for name, value in values.items()}
    if isinstance(values, list):
        return [_gathered(value) for value in values]
    return values.full_tensor() if isinstance(values, DTensor) else values
