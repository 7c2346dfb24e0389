"""The weights of a module in a directory of ours, `model.safetensors`: no pickle, and read strictly."""

from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from einthoven.errors import EinthovenError

FILE = "model.safetensors"


def save_weights(module: nn.Module, directory: Path) -> None:
    save_file(
        {name: value.detach().cpu().contiguous() for name, value in module.state_dict().items()}, directory / FILE
    )


def load_weights(module: nn.Module, directory: Path, called: str = "directory") -> None:
    """Fill all of `module`. EinthovenError where the file is missing, damaged or of another module."""
    try:
        module.load_state_dict(load_file(directory / FILE), strict=True)
    except FileNotFoundError:
        raise EinthovenError(f"{directory}/{FILE} is missing: the {called} is incomplete.") from None
    except (RuntimeError, SafetensorError) as error:
        raise misfit(directory, error) from None


def refuse_oversize(described: Any, directory: Path) -> None:
    """EinthovenError where a configuration describes more than the weights beside it can be, before it is built.

    A number of layers above that of tensors, or any size above that of all weights, is not of this file; building it
    would take all memory, or for ever.
    """
    try:
        with safe_open(directory / FILE, framework="pt") as file:
            shapes = [file.get_slice(name).get_shape() for name in file.keys()]  # noqa: SIM118
    except (OSError, SafetensorError):
        return  # `load_weights` tells it
    _refuse(described, "", len(shapes), max(sum(map(prod, shapes)), 1 << 16), directory)


def _refuse(described: Any, name: str, tensors: int, weights: int, directory: Path) -> None:
    most = tensors if "layers" in name or "blocks" in name else weights
    if isinstance(described, int) and not -most <= described <= most:
        raise misfit(directory, ValueError(f"{name} is more than the weights are"))
    parts = list(described.items()) if isinstance(described, dict) else []
    parts += [(name, part) for part in described] if isinstance(described, list) else []
    for key, part in parts:
        _refuse(part, str(key), tensors, weights, directory)


def holds_weights(module: nn.Module, directory: Path) -> bool:
    """Whether the file holds exactly the weights that `module` has now."""
    try:
        saved, state = load_file(directory / FILE), module.state_dict()
    except (OSError, SafetensorError):
        return False
    return saved.keys() == state.keys() and all(torch.equal(saved[name], state[name].cpu()) for name in saved)


def misfit(directory: Path, error: Exception) -> EinthovenError:
    """What to raise where the weights and the configuration beside them do not belong together."""
    return EinthovenError(f"{directory}/{FILE} does not fit config.json: {' '.join(str(error).split())[:300]}")
