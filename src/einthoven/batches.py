"""From the pairs of a study to the batches of an epoch. Every random choice is a function of (seed, epoch or step),
so a resumed run sees what an uninterrupted one would have seen."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from einthoven.augment import augment
from einthoven.config import Augmentation
from einthoven.encoders.code_records import CodeBatch, Records
from einthoven.errors import EinthovenError
from einthoven.vocabulary.vocabulary import MASK, SPECIAL
from einthoven.waveforms.strips import millivolts

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """Strips, texts and coded records; row i of one belongs to row i of the others. None: the model lacks the modality.

    A row without a text holds the empty text, one without codes the empty record; `has_text` and `has_codes` tell.
    """

    strip: Tensor  # float32 [b, 12, t], millivolts
    subject: Tensor  # int64 [b]
    tokens: Tensor | None = None  # int64 [b, l]
    mask: Tensor | None = None  # int64 [b, l], 0 where padding
    text: Tensor | None = None  # int64 [b]; equal numbers: equal text
    has_text: Tensor | None = None  # bool [b]
    text_features: Tensor | None = None  # float32 [b, c], of a frozen encoder: it is not run
    codes: CodeBatch | None = None
    code_set: Tensor | None = None  # int64 [b]; equal numbers: the same codes
    has_codes: Tensor | None = None  # bool [b]

    def to(self, device: torch.device) -> "Batch":
        parts: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        moved: dict[str, Any] = {name: None if part is None else _moved(part, device) for name, part in parts.items()}
        return Batch(**moved)

    def split(self, rows: int) -> list["Batch"]:
        """Parts of at most `rows` rows and about equal size; 0: one part."""
        parts = max(1, -(-len(self.strip) // rows)) if rows else 1
        pieces = {name: self._pieces(getattr(self, name), parts) for name in self.__dataclass_fields__}
        made: list[dict[str, Any]] = [{name: of[i] for name, of in pieces.items()} for i in range(parts)]
        return [Batch(**piece) for piece in made]

    def _pieces(self, whole: Tensor | CodeBatch | None, parts: int) -> Sequence[Tensor | CodeBatch | None]:
        if isinstance(whole, CodeBatch):
            rows = torch.arange(len(whole), device=whole.tokens.device).tensor_split(parts)
            return [whole.part(part, whole.tokens.shape[1]) for part in rows]
        return [None] * parts if whole is None else whole.tensor_split(parts)


def _moved(part: Tensor | CodeBatch, device: torch.device) -> Tensor | CodeBatch:
    return part.to(device) if isinstance(part, CodeBatch) else part.to(device, non_blocking=True)


@dataclass(frozen=True)
class Texts:
    """The distinct texts of the training pairs, as tokens; the last row is the empty text if any pair has none."""

    of_pair: Ints  # [n] row of `tokens`; -1: no text
    tokens: Tensor  # int64 [texts, l]
    mask: Tensor
    mask_token: int
    content: Tensor  # bool [vocabulary]; False for special tokens, which are never dropped
    features: Tensor | None = None  # float32 [texts, c], of a frozen encoder


@dataclass(frozen=True)
class Codes:
    """The coded records of the training pairs."""

    records: Records  # of each pair
    sets: Ints  # [n] equal numbers: the same codes
    max_codes: int


@dataclass(frozen=True)
class Pairs:
    """The training pairs in memory, but for the waveforms, which stay on disk."""

    rows: Ints  # [n] rows of the waveform store
    subjects: Ints  # [n]
    read: Callable[[Ints], npt.NDArray[np.int16]]  # store rows -> microvolts [b, 12, samples] at the model's rate
    texts: Texts | None = None
    codes: Codes | None = None

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


def drop_words(tokens: Tensor, texts: Texts, share: float, generator: np.random.Generator) -> Tensor:
    """Mask a share of the word pieces, never the special tokens."""
    dropped = torch.from_numpy(generator.random(tokens.shape) < share) & texts.content[tokens]
    return tokens.masked_fill(dropped, texts.mask_token)


def drop_codes(codes: CodeBatch, share: float, generator: np.random.Generator) -> CodeBatch:
    """Mask a share of the codes: what happened then is unknown, that something did is not."""
    dropped = torch.from_numpy(generator.random(codes.tokens.shape) < share) & (codes.tokens >= len(SPECIAL))
    return replace(codes, tokens=codes.tokens.masked_fill(dropped, MASK))


def make_batch(pairs: Pairs, index: Ints, length: int, rate: int, options: Augmentation, seed: Sequence[int]) -> Batch:
    """The augmented batch of the pairs at `index`; the same seed gives the same batch."""
    generator = np.random.default_rng(seed)
    signal = millivolts(pairs.read(pairs.rows[index]))
    strip = augment(signal, length, rate, options, generator)
    batch = Batch(torch.from_numpy(strip), torch.from_numpy(pairs.subjects[index]))
    if pairs.texts is not None:
        text = torch.from_numpy(pairs.texts.of_pair[index])
        mask = pairs.texts.mask[text]
        mask = mask[:, : int(mask.sum(dim=1).max())]
        tokens = pairs.texts.tokens[text][:, : mask.shape[1]]
        if pairs.texts.features is None:
            tokens = drop_words(tokens, pairs.texts, options.word_dropout, generator)
        else:
            batch = replace(batch, text_features=pairs.texts.features[text])
        batch = replace(batch, tokens=tokens, mask=mask, text=text, has_text=text >= 0)
    if pairs.codes is not None:
        codes = pairs.codes.records.batch(index, pairs.codes.max_codes)
        batch = replace(
            batch,
            codes=drop_codes(codes, options.code_dropout, generator),
            code_set=torch.from_numpy(pairs.codes.sets[index]),
            has_codes=codes.mask.sum(dim=1) > 1,
        )
    return batch


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
