"""Projection heads into the space in which modalities meet."""

import torch.nn.functional as F
from torch import Tensor, nn

from einthoven.config import Space


class Head(nn.Module):
    """A small MLP, [b, dim_in] -> unit vectors [b, space.dim] (article: "an MLP projection head on each")."""

    def __init__(self, dim_in: int, space: Space) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(dim_in, space.hidden), nn.LayerNorm(space.hidden), nn.GELU(), nn.Linear(space.hidden, space.dim)
        )

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.layers(features).float(), dim=-1)
