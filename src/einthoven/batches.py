"""From the pairs of a study to the batches of an epoch. Every random choice is a function of (seed, epoch or step),
so a resumed run sees what an uninterrupted one would have seen."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from einthoven.config import Augmentation
from einthoven.errors import EinthovenError
from einthoven.waveforms.strips import Floats, millivolts

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Paired strips and texts; row i of one belongs to row i of the other."""

    strip: Tensor  # float32 [b, 12, t], millivolts
    tokens: Tensor  # int64 [b, l]
    mask: Tensor  # int64 [b, l], 0 where padding
    text: Tensor  # int64 [b]; equal numbers: equal text
    subject: Tensor  # int64 [b]

    def to(self, device: torch.device) -> "Batch":
        return Batch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))

    def split(self, rows: int) -> list["Batch"]:
        """Parts of at most `rows` rows and about equal size (views); 0: one part."""
        parts = max(1, -(-len(self.text) // rows)) if rows else 1
        columns = (getattr(self, name).tensor_split(parts) for name in self.__dataclass_fields__)
        return [Batch(*part) for part in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Pairs:
    """The training pairs in memory, but for the waveforms, which stay on disk."""

    rows: Ints  # [n] rows of the waveform store
    subjects: Ints  # [n]
    texts: Ints  # [n] index into `tokens`
    tokens: Tensor  # [distinct texts, l]
    mask: Tensor
    read: Callable[[Ints], npt.NDArray[np.int16]]  # store rows -> microvolts [b, 12, samples] at the model's rate
    mask_token: int
    content: Tensor  # bool [vocabulary]; False for special tokens, which are never dropped

    def __len__(self) -> int:
        return len(self.rows)


def batches_per_epoch(pairs: int, batch: int) -> int:
    """How many batches of about `batch` pairs an epoch has."""
    return max(1, round(pairs / batch))


def deal(subjects: Ints, batch: int, seed: int, epoch: int) -> list[Ints]:
    """Split an epoch into batches of about equal size that hold each patient at most once.

    Patients are shuffled, each one's recordings kept together, and the row of recordings dealt out like cards:
    neighbours land in different batches. Only a patient with more recordings than there are batches comes twice.
    """
    generator = np.random.default_rng([seed, epoch])
    _, patient = np.unique(subjects, return_inverse=True)
    place = generator.permutation(patient.max() + 1)[patient]
    order = np.lexsort((generator.permutation(len(subjects)), place))
    hands = batches_per_epoch(len(subjects), batch)
    return [order[hand::hands] for hand in generator.permutation(hands)]


def augment(signal: Floats, length: int, rate: int, options: Augmentation, generator: np.random.Generator) -> Floats:
    """Recordings [b, 12, samples] in mV -> one randomly cropped, distorted strip each, [b, 12, length]."""
    n, leads, samples = signal.shape
    start = generator.integers(0, max(samples - length, 0) + 1, n)
    if samples < length:
        signal = np.pad(signal, ((0, 0), (0, 0), (0, length - samples)))
    strip = np.stack([signal[i, :, s : s + length] for i, s in enumerate(start)])
    present = np.abs(strip).max(axis=-1, keepdims=True) > 0
    gain = generator.uniform(1 - options.scale, 1 + options.scale, (n, 1, 1)).astype(np.float32)
    strip *= gain
    if options.noise_mv:
        level = generator.uniform(0, options.noise_mv, (n, leads, 1)).astype(np.float32)
        strip += level * generator.standard_normal(strip.shape, np.float32)
    if options.wander_mv:
        hertz = generator.uniform(0.05, 0.5, (n, 1, 1)).astype(np.float32)
        phase = generator.uniform(0, 2 * np.pi, (n, leads, 1)).astype(np.float32)
        level = generator.uniform(0, options.wander_mv, (n, leads, 1)).astype(np.float32)
        strip += level * np.sin(2 * np.pi * hertz * np.arange(length, dtype=np.float32) / rate + phase)
    kept = generator.random((n, leads, 1)) >= options.lead_dropout
    kept[:, :2] |= ~kept.any(axis=1, keepdims=True)  # a strip without any lead would teach nothing
    return strip * (present & kept)


def drop_words(tokens: Tensor, pairs: Pairs, share: float, generator: np.random.Generator) -> Tensor:
    """Mask a share of the word pieces, never the special tokens."""
    dropped = torch.from_numpy(generator.random(tokens.shape) < share) & pairs.content[tokens]
    return tokens.masked_fill(dropped, pairs.mask_token)


def make_batch(pairs: Pairs, index: Ints, length: int, rate: int, options: Augmentation, seed: Sequence[int]) -> Batch:
    """The augmented batch of the pairs at `index`; the same seed gives the same batch."""
    generator = np.random.default_rng(seed)
    signal = millivolts(pairs.read(pairs.rows[index]))
    strip = augment(signal, length, rate, options, generator)
    text = torch.from_numpy(pairs.texts[index])
    mask = pairs.mask[text]
    mask = mask[:, : int(mask.sum(dim=1).max())]
    tokens = drop_words(pairs.tokens[text][:, : mask.shape[1]], pairs, options.word_dropout, generator)
    return Batch(torch.from_numpy(strip), tokens, mask, text, torch.from_numpy(pairs.subjects[index]))


def epoch_batches(
    pairs: Pairs,
    *,
    batch: int,
    length: int,
    rate: int,
    options: Augmentation,
    seed: int,
    epoch: int,
    rank: int = 0,
    world: int = 1,
    ahead: bool = False,
) -> Iterator[Batch]:
    """The batches of one epoch. With `ahead` a thread makes each while the one before it is trained on: right where
    another device trains; on the processor's own cores the two would fight, at a loss of a tenth.

    Of every batch each rank gets an equal share; the remainder of a division by `world` is left out.
    """
    hands = deal(pairs.subjects, batch, seed, epoch)
    shares = [hand[: len(hand) // world * world][rank::world] for hand in hands]
    if not all(len(share) for share in shares):
        raise EinthovenError(f"batches of {batch} cannot be shared by {world} processes; set a larger training.batch.")

    def made(i: int) -> Batch:
        return make_batch(pairs, shares[i], length, rate, options, [seed, epoch, i, rank])

    if not ahead:
        yield from map(made, range(len(shares)))
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(made, 0)
        for i in range(1, len(shares)):
            ready, coming = coming, thread.submit(made, i)
            yield ready.result()
        yield coming.result()
