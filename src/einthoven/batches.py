"""From the pairs of a study to the batches of an epoch. Every random choice is a function of (seed, epoch or step),
so a resumed run sees what an uninterrupted one would have seen."""

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from einthoven.augment import Share, augment
from einthoven.config import Augmentation
from einthoven.encoders.code_records import CodeBatch, CodeSequence, Records, code_batch
from einthoven.errors import EinthovenError
from einthoven.vocabulary.vocabulary import MASK, SPECIAL

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Strips, texts and coded records; row i of one belongs to row i of the others. None: the model lacks the modality.

    A row without a text holds the empty text, one without codes the empty record; `has_text` and `has_codes` tell.
    A row that is a query shows a part of its text or record, of which `whole_text` and `whole_codes` hold all.
    """

    strip: Tensor  # float32 [b, 12, t], millivolts
    subject: Tensor  # int64 [b]
    other: Tensor | None = None  # float32 [b, 12, t], a second strip: of the recording, or of another of the patient
    tokens: Tensor | None = None  # int64 [b, l]
    mask: Tensor | None = None  # int64 [b, l], 0 where padding
    text: Tensor | None = None  # int64 [b]; equal numbers: equal text
    has_text: Tensor | None = None  # bool [b]
    whole_text: Tensor | None = None  # int64 [b, l], tokens
    text_query: Tensor | None = None  # bool [b]; None: there are none
    text_features: Tensor | None = None  # float32 [b, c], of a frozen encoder: it is not run
    codes: CodeBatch | None = None
    code_set: Tensor | None = None  # int64 [b]; equal numbers: the same codes
    has_codes: Tensor | None = None  # bool [b]
    whole_codes: Tensor | None = None  # int64 [b, l], tokens
    code_query: Tensor | None = None  # bool [b]; None: there are none

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
    tokens: Tensor  # [texts, l], of any type of integer
    mask: Tensor  # [texts, l], 0 where padding
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
    other: Callable[[Ints, np.random.Generator], Ints] | None = None  # pairs [b] -> the pairs of the second strips

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


def stretch(tokens: Tensor, mask: Tensor, chosen: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Of the texts of the `chosen` rows a random stretch of any length between the first and last special token."""
    tokens, mask = tokens.clone(), mask.clone()
    for row in chosen.nonzero().flatten().tolist():
        words = int(mask[row].sum()) - 2
        if words < 2:
            continue
        size = int(generator.integers(1, words))
        start = 1 + int(generator.integers(words - size + 1))
        tokens[row, 1 : size + 2] = torch.cat([tokens[row, start : start + size], tokens[row, words + 1 : words + 2]])
        tokens[row, size + 2 :], mask[row, size + 2 :] = 0, 0
    return tokens, mask


def ask(record: CodeSequence, generator: np.random.Generator) -> CodeSequence:
    """A few codes of a record, one as often as more, as somebody asks for them: without days and age."""
    found = np.unique(record.tokens[record.tokens >= len(SPECIAL)])
    if not len(found):
        return record
    count = min(len(found), int(generator.geometric(0.5)))
    wanted = np.sort(generator.choice(found, count, replace=False))
    first = [int(np.flatnonzero(record.tokens == token)[0]) for token in wanted]
    return CodeSequence(record.tokens[first], record.kinds[first], np.zeros(count, np.float32), math.nan)


def make_batch(
    pairs: Pairs,
    index: Ints,
    length: int,
    rate: int,
    options: Augmentation,
    seed: Sequence[int],
    mine: slice = slice(None),
) -> Batch:
    """The augmented batch of the pairs at `index`, or of it the rows `mine`; the same seed gives the same batch.

    What is drawn at random does not depend on `mine`.
    """
    generator = np.random.default_rng(seed)
    share = Share(generator, len(index), mine)
    own = index[mine]
    parts: dict[str, Any] = {"strip": _strips(pairs, own, length, rate, options, share)}
    if pairs.texts is not None:
        parts |= _rows(_texts(pairs.texts, index, options, generator), mine)
    if pairs.codes is not None:
        parts |= _rows(_codes(pairs.codes, index, options, generator), mine)
    if pairs.other is not None:
        parts["other"] = _strips(pairs, pairs.other(index, generator)[mine], length, rate, options, share)
    return Batch(subject=torch.from_numpy(pairs.subjects[own]), **parts)


def _strips(
    pairs: Pairs, index: Ints, length: int, rate: int, options: Augmentation, generator: np.random.Generator
) -> Tensor:
    return torch.from_numpy(augment(pairs.read(pairs.rows[index]), length, rate, options, generator))


def _rows(parts: dict[str, Tensor | CodeBatch | None], mine: slice) -> dict[str, Tensor | CodeBatch | None]:
    return {name: None if part is None else part[mine] for name, part in parts.items()}


def _texts(
    texts: Texts, index: Ints, options: Augmentation, generator: np.random.Generator
) -> dict[str, Tensor | CodeBatch | None]:
    text = torch.from_numpy(texts.of_pair[index])
    mask = texts.mask[text].long()
    mask = mask[:, : int(mask.sum(dim=1).max())]
    tokens = whole = texts.tokens[text][:, : mask.shape[1]].long()
    query = features = None
    if texts.features is not None:  # of whole texts: none is masked, and none a query
        features = texts.features[text]
    else:
        tokens = drop_words(whole, texts, options.word_dropout, generator)
        if options.text_queries:
            query = torch.from_numpy(generator.random(len(text)) < options.text_queries) & (text >= 0)
            tokens, mask = stretch(torch.where(query[:, None], whole, tokens), mask, query, generator)
    return {
        "tokens": tokens,
        "mask": mask,
        "text": text,
        "has_text": text >= 0,
        "whole_text": whole,
        "text_query": query,
        "text_features": features,
    }


def _codes(
    codes: Codes, index: Ints, options: Augmentation, generator: np.random.Generator
) -> dict[str, Tensor | CodeBatch | None]:
    records = [codes.records[int(i)] for i in index]
    whole = code_batch(records, codes.max_codes)
    query = None
    if options.code_queries:
        query = torch.from_numpy(generator.random(len(index)) < options.code_queries)
        asked = [ask(each, generator) if query[row] else each for row, each in enumerate(records)]
        plain = code_batch(asked, codes.max_codes)
        shown = drop_codes(plain, options.code_dropout, generator)
        shown = replace(shown, tokens=torch.where(query[:, None], plain.tokens, shown.tokens))
    else:
        shown = drop_codes(whole, options.code_dropout, generator)
    return {
        "codes": shown,
        "code_set": torch.from_numpy(codes.sets[index]),
        "has_codes": whole.mask.sum(dim=1) > 1,
        "whole_codes": whole.tokens,
        "code_query": query,
    }


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
    ahead: int = 0,
) -> Iterator[Batch]:
    """The batches of one epoch. So many are made `ahead`, each by a thread, while those before are trained on: right
    where another device trains; on the processor's own cores the two would fight, at a loss of a tenth.

    Of every batch each rank gets an equal share, with what a single process would have drawn for these rows; the
    remainder of a division by `world` is left out.
    """
    hands = deal(pairs.subjects, batch, seed, epoch)
    if min(map(len, hands)) < world:
        raise EinthovenError(f"batches of {batch} cannot be shared by {world} processes; set a larger training.batch.")

    def made(i: int) -> Batch:
        mine = slice(rank, len(hands[i]) // world * world, world)
        return make_batch(pairs, hands[i], length, rate, options, [seed, epoch, i, 0], mine)

    if not ahead:
        yield from map(made, range(len(hands)))
        return
    with ThreadPoolExecutor(ahead) as threads:
        coming = deque(threads.submit(made, i) for i in range(min(ahead, len(hands))))
        for i in range(len(hands)):
            ready = coming.popleft()
            if i + ahead < len(hands):
                coming.append(threads.submit(made, i + ahead))
            yield ready.result()
