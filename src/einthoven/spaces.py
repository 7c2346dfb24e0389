"""The spaces in which modalities meet: fine for ECG and codes, coarse for ECG and text.

Fine and coarse after *Self-Supervised MultiModal Versatile Networks* (Alayrac 2020, section 3.1), as the article takes
them up: what belongs closely together is compared in the fine space, and the coarse space is reached from there. The
article publishes no dimensions and no layers: those here are our choice.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from einthoven.config import Space


class Head(nn.Module):
    """A small MLP, [b, dim_in] -> unit vectors [b, dim] (article: "an MLP projection head on each")."""

    def __init__(self, dim_in: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(dim_in, hidden), nn.LayerNorm(hidden), nn.GELU(), nn.Linear(hidden, dim))

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(self.layers(features).float(), dim=-1)


@dataclass(frozen=True)
class Views:
    """Unit vectors of a batch, [b, d] each; None where the model has not the modality or no way into the space."""

    ecg_fine: Tensor | None = None
    codes_fine: Tensor | None = None
    ecg_coarse: Tensor | None = None
    codes_coarse: Tensor | None = None
    text_coarse: Tensor | None = None


class Spaces(nn.Module):
    """Features of the encoders -> unit vectors in the spaces.

    `space.arrangement`:
        fac: text meets the ECG in the coarse space, which ECG and codes reach from the fine one by one common head.
        disjoint: two spaces, and the ECG has a head into each; codes have no way to text.
        shared: one space for all; fine and coarse are the same vectors.
    With two modalities there is one space, and the arrangements are the same. An ECG alone has a fine space for itself.
    """

    def __init__(self, space: Space, ecg_dim: int, codes_dim: int | None, text_dim: int | None) -> None:
        super().__init__()
        three = codes_dim is not None and text_dim is not None
        self.arrangement = space.arrangement if three else "shared"
        coarse = space.coarse_dim if self.arrangement != "shared" else space.dim
        self.ecg = Head(ecg_dim, space.hidden, space.dim)
        self.text = None if text_dim is None else Head(text_dim, space.hidden, coarse)
        self.codes = None if codes_dim is None else Head(codes_dim, space.hidden, space.dim)
        self.to_coarse = Head(space.dim, space.hidden, coarse) if self.arrangement == "fac" else None
        self.ecg_to_coarse = Head(ecg_dim, space.hidden, coarse) if self.arrangement == "disjoint" else None

    def forward(self, ecg: Tensor | None, codes: Tensor | None = None, text: Tensor | None = None) -> Views:
        """Features [b, dim] of each modality; None where it is not asked for."""
        ecg_fine = None if ecg is None else self.ecg(ecg)
        codes_fine = None if codes is None or self.codes is None else self.codes(codes)
        if self.ecg_to_coarse is None:
            ecg_coarse = self._coarse(ecg_fine)
        else:
            ecg_coarse = None if ecg is None else self.ecg_to_coarse(ecg)
        return Views(
            ecg_fine=ecg_fine if self.codes is not None or self.text is None else None,
            codes_fine=codes_fine,
            ecg_coarse=ecg_coarse,
            codes_coarse=self._coarse(codes_fine),
            text_coarse=None if text is None or self.text is None else self.text(text),
        )

    def _coarse(self, fine: Tensor | None) -> Tensor | None:
        """What is in the fine space, in the coarse one; None where there is no way, or no coarse space."""
        if fine is None or self.text is None or self.arrangement == "disjoint":
            return None
        return fine if self.to_coarse is None else self.to_coarse(fine)
