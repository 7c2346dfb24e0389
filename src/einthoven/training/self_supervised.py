"""The baselines that see ECGs alone: strips that belong together, and strips with hidden patches (docs/baselines.md).

All use every recording with a signal, the encoder, the loop and the settings of the aligned models.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor, nn

from einthoven.batches import Batch, Ints
from einthoven.config import Training
from einthoven.contrast import equal, gather, inverse_temperature, nt_xent
from einthoven.encoders.ecg import centred
from einthoven.model import FINE, Model
from einthoven.training.aligned_pairs import Held
from einthoven.training.caching import Embeddings, backward_in_chunks
from einthoven.training.objective import Objective, embedded, reciprocal_rank
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import from_store

Choose = Callable[[Ints, np.random.Generator], Ints]

PATCH_SECONDS: Final = 0.3
"""Length of a patch: 75 samples at 250 Hz (Na 2024, ST-MEM); about one step of the map that a ResNet-18 makes."""

FLAT_MV: Final = 0.02
"""A lead that varies less (standard deviation) is noise: its error is not blown up."""


@dataclass(frozen=True)
class Siblings:
    """For each recording another one of the same patient, at random; itself where the patient has no other."""

    order: Ints  # [n] the recordings, patient by patient
    place: Ints  # [n] of each recording in `order`, from its patient's first
    first: Ints  # [n] where in `order` its patient begins
    count: Ints  # [n] recordings of its patient

    @classmethod
    def of(cls, subjects: Ints) -> "Siblings":
        order = np.argsort(subjects, kind="stable")
        _, starts, patient, counts = np.unique(
            subjects[order], return_index=True, return_inverse=True, return_counts=True
        )
        place, first, count = (np.empty(len(order), np.int64) for _ in range(3))
        first[order], count[order] = starts[patient], counts[patient]
        place[order] = np.arange(len(order)) - starts[patient]
        return cls(order, place, first, count)

    def __call__(self, index: Ints, generator: np.random.Generator) -> Ints:
        """Another recording of the same patient for those at `index`."""
        return self.after(index, 1 + generator.integers(0, np.maximum(self.count[index] - 1, 1)))

    def after(self, index: Ints, steps: Ints | int) -> Ints:
        """The recording so many places further among those of the patient, round and round."""
        return self.order[self.first[index] + (self.place[index] + steps) % self.count[index]]


def second_strips(objective: str, subjects: Ints) -> Choose | None:
    """From which recordings the second strips of a batch come; None: the objective has none."""
    if objective == "simclr":
        return lambda index, generator: index
    return Siblings.of(subjects) if objective == "patient" else None


def held_views(table: pa.Table, store: Store, model: Model, objective: str) -> Held | None:
    """Two strips [n, 2, 12, t] for each patient of the validation recordings; None for fewer than two patients.

    The beginning of the patient's first recording and the end of the same, or for "patient" of the next if there is
    one.
    """
    subjects = table["subject_id"].to_numpy()
    _, first = np.unique(subjects, return_index=True)
    if len(first) < 2:
        return None
    second = Siblings.of(subjects).after(first, 1) if objective == "patient" else first
    rows, rate = table["row"].to_numpy(), model.ecg_config.sampling_rate
    strips = [
        from_store(store.read(rows[chosen]), store.sampling_rate, rate, model.strip_samples, 2)[:, end]
        for chosen, end in ((first, 0), (second, -1))
    ]
    return Held(np.stack(strips, axis=1), [None] * len(first))


class MatchingViews(Objective):
    """NT-Xent (Chen 2020, SimCLR) between two strips of each row; other recordings of the patient are no negatives.

    "simclr": both are augmented from one recording. "patient": one is from another recording of the same patient, as in
    PCLR (Diamant 2022); a patient with a single recording has two crops of it, as in CLOCS (Kiyasseh 2021).
    """

    def backward(self, wrapped: nn.Module, batch: Batch, options: Training, kind: str) -> Tensor:
        def encode(part: Batch) -> tuple[Embeddings, Tensor | None]:
            assert part.other is not None  # `Pairs.other` is set for this objective
            with torch.autocast(part.strip.device.type, torch.bfloat16, enabled=kind == "bf16"):
                out = wrapped(torch.cat([part.strip, part.other]))  # in one pass: normalised together
            return tuple(out.views.ecg_fine.chunk(2)), None

        def loss(first: Tensor, second: Tensor) -> Tensor:
            scale = inverse_temperature(self.model.log_scale)[FINE]
            return nt_xent(gather(first), gather(second), scale, equal(gather(batch.subject)))

        return backward_in_chunks(wrapped, batch.split(options.chunk), encode, loss)

    def score(self, held: Held) -> float:
        """Mean reciprocal rank of the matching strip among those of all held-out patients, both ways."""
        everyone = np.arange(len(held.strips))
        left, right = (embedded(self.model, held.strips[:, view, None], "fine", everyone) for view in range(2))
        return reciprocal_rank(left, right, everyone)


class Decoder(nn.Module):
    """The encoder's map over time [b, c, t'] -> strips [b, 12, t' * stride]: two small convolutions."""

    def __init__(self, channels: int, stride: int, width: int = 128) -> None:
        super().__init__()
        self.stride = stride
        self.layers = nn.Sequential(
            nn.Conv1d(channels, width, 3, padding=1), nn.GELU(), nn.Conv1d(width, 12 * stride, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, _, t = x.shape
        return self.layers(x).view(b, 12, self.stride, t).transpose(2, 3).reshape(b, 12, t * self.stride)


class MaskedStrips(Objective):
    """A masked autoencoder (He 2022) with the ResNet as its encoder; the decoder lives in training alone.

    Patches of time are hidden in all leads at once: a lead could else be computed from the others.
    Nothing trains the attention pooling, which stays the plain mean that it starts as, nor the projection head:
    features are what is learnt, embeddings are a random projection of them.
    """

    measure: ClassVar[str] = "validation_score"

    def __init__(self, model: Model, options: Training) -> None:
        super().__init__(model)
        self.share = options.mask
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(options.seed)
            self.decoder = Decoder(model.ecg.dim, model.ecg.stride)

    def forward(self, *inputs: Any) -> Any:
        """Strips [b, 12, t] in mV, what of them is hidden, bool [b, t] -> strips [b, 12, t], each lead standardised."""
        strip, hidden = inputs
        seen = self.model.ecg.scaled(strip).masked_fill(hidden[:, None], 0.0)
        return self.decoder(self.model.ecg.map(seen))[:, :, : strip.shape[-1]]

    def hide(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """What is hidden of each row, bool [rows, t]."""
        size = max(1, round(PATCH_SECONDS * self.model.ecg_config.sampling_rate))
        return hidden_patches(rows, self.model.strip_samples, size, self.share, self.model.device, generator)

    def backward(self, wrapped: nn.Module, batch: Batch, options: Training, kind: str) -> Tensor:
        def encode(part: Batch) -> tuple[Embeddings, Tensor | None]:
            hidden = self.hide(len(part.strip))  # by the state that the loop sets for each step
            with torch.autocast(part.strip.device.type, torch.bfloat16, enabled=kind == "bf16"):
                made = wrapped(part.strip, hidden)
            return (masked_error(made, part.strip, hidden),), None

        return backward_in_chunks(wrapped, batch.split(options.chunk), encode, lambda errors: gather(errors).mean())

    @torch.inference_mode()
    def score(self, held: Held) -> float:
        """Minus the loss on all held-out strips, with patches hidden that are the same every time."""
        generator = torch.Generator(self.model.device).manual_seed(0)
        errors = []
        for start in range(0, len(held.strips), 32):
            part = torch.from_numpy(held.strips[start : start + 32]).flatten(0, 1).to(self.model.device)
            hidden = self.hide(len(part), generator)
            errors.append(masked_error(self(part, hidden), part, hidden))
        return -float(torch.cat(errors).mean())


def hidden_patches(
    rows: int, samples: int, size: int, share: float, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Hide this share of the patches of `size` samples, at least one and never all, at random: bool [rows, samples]."""
    patches = math.ceil(samples / size)
    count = min(max(1, round(share * patches)), max(1, patches - 1))
    order = torch.rand(rows, patches, device=device, generator=generator).argsort(dim=1)
    hidden = torch.zeros(rows, patches, dtype=torch.bool, device=device).scatter_(1, order[:, :count], True)
    return hidden.repeat_interleave(size, dim=1)[:, :samples]


def masked_error(made: Tensor, strip: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error of the hidden samples of the recorded leads, for each strip: float32 [b].

    Each lead of the target is standardised by its mean and deviation over the strip (He 2022 does so with each patch):
    in millivolts the chest leads would outweigh the others.

    Args:
        made: [b, 12, t], standardised.
        strip: [b, 12, t], mV.
        hidden: bool [b, t].
    """
    deviation = strip.std(dim=-1, keepdim=True, correction=0).clamp(min=FLAT_MV)
    asked = hidden[:, None] & (strip != 0).any(dim=-1, keepdim=True)
    squared = (made.float() - centred(strip) / deviation).square().masked_fill(~asked, 0.0)
    return squared.sum(dim=(1, 2)) / asked.sum(dim=(1, 2)).clamp(min=1)
