"""The weights of a module in a directory of ours, `model.safetensors`: no pickle, and read strictly."""

from pathlib import Path

import torch
from safetensors import SafetensorError
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
