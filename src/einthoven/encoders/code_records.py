"""Coded records as tensors: from lists of codes to a padded batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from einthoven.errors import EinthovenError
from einthoven.pairing.kinds import STATIC_KIND
from einthoven.vocabulary.vocabulary import CLS, PAD, Vocabulary

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.floating[Any]]

NO_KIND, STATIC = 0, 1
"""Numbers of the kind of [CLS] and padding, and of codes without a time. The kinds of a recipe follow, in its order."""

PART: Final = 1 << 16
"""Records that are put in order, or compared, at a time."""

VISIT_GAP: Final = 1.0
"""Days without a code after which another visit begins."""


@dataclass(frozen=True)
class CodeSequence:
    """One encoded record: static codes first, the others in the order of time."""

    tokens: Ints  # [n]
    kinds: Ints  # [n]
    days: Floats  # [n] from the ECG, or whatever moment the record is seen from; 0 where static
    age: float  # years at that moment; NaN: unknown


@dataclass(frozen=True)
class CodeBatch:
    """Records padded to the longest; place 0 of each is [CLS], so an empty record is one token long."""

    tokens: Tensor  # int64 [b, l]
    kinds: Tensor  # int64 [b, l]
    days: Tensor  # float32 [b, l]; 0 where static, [CLS] or padding
    visits: Tensor  # int64 [b, l]; 1, 2, 1, … by visit, 0 for what belongs to none
    mask: Tensor  # bool [b, l], False where padding
    age: Tensor  # float32 [b]; NaN: unknown

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> "CodeBatch":
        return CodeBatch(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def to(self, device: torch.device) -> "CodeBatch":
        return CodeBatch(*(getattr(self, name).to(device, non_blocking=True) for name in self.__dataclass_fields__))

    def part(self, rows: Tensor, width: int) -> "CodeBatch":
        """Some rows, cut at `width` places."""
        tokens, kinds, days, visits, mask = (
            each[rows, :width] for each in (self.tokens, self.kinds, self.days, self.visits, self.mask)
        )
        return CodeBatch(tokens, kinds, days, visits, mask, self.age[rows])


def kind_numbers(kinds: Sequence[str]) -> dict[str, int]:
    """The number of each kind of a recipe's pairing, and of the static codes."""
    return {STATIC_KIND: STATIC} | {kind: STATIC + 1 + place for place, kind in enumerate(kinds)}


@dataclass(frozen=True)
class Records:
    """Encoded records one after the other, in memory: 9 bytes a code."""

    tokens: npt.NDArray[np.int32]  # [codes]
    kinds: npt.NDArray[np.int8]  # [codes]
    days: npt.NDArray[np.float32]  # [codes]
    offsets: Ints  # [records + 1]
    ages: npt.NDArray[np.float32]  # [records]

    def __len__(self) -> int:
        return len(self.ages)

    def __getitem__(self, record: int) -> CodeSequence:
        if not 0 <= record < len(self):
            raise IndexError(record)
        part = slice(self.offsets[record], self.offsets[record + 1])
        tokens, kinds = self.tokens[part].astype(np.int64), self.kinds[part].astype(np.int64)
        return CodeSequence(tokens, kinds, self.days[part], float(self.ages[record]))

    @classmethod
    def joined(cls, parts: Sequence["Records"]) -> "Records":
        """The records of all parts, one after the other."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        return cls(
            tokens=np.concatenate([part.tokens for part in parts]),
            kinds=np.concatenate([part.kinds for part in parts]),
            days=np.concatenate([part.days for part in parts]),
            offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
            ages=np.concatenate([part.ages for part in parts]),
        )

    def take(self, records: Ints) -> "Records":
        """Some records, in the order given."""
        lengths = np.diff(self.offsets)[records]
        offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        size, kinds = offsets[-1], np.empty(offsets[-1], np.int8)
        tokens, days = np.empty(size, np.int32), np.empty(size, np.float32)
        for start in range(0, len(records), PART):  # or the places of all codes would take as much as the codes
            part = slice(start, start + PART)
            first, last = offsets[start], offsets[min(start + PART, len(records))]
            shift = self.offsets[records[part]] - offsets[part][: len(records[part])]
            places = np.arange(first, last) + np.repeat(shift, lengths[part])
            tokens[first:last], kinds[first:last] = self.tokens[places], self.kinds[places]
            days[first:last] = self.days[places]
        return Records(tokens, kinds, days, offsets, self.ages[records])

    def batch(self, records: Sequence[int] | Ints, max_codes: int) -> CodeBatch:
        return code_batch([self[int(record)] for record in records], max_codes)


def encode_records(
    pairs: pa.Table, ages: Sequence[float] | Floats, vocabulary: Vocabulary, kinds: Sequence[str]
) -> Records:
    """The columns codes, code_kinds and code_days of PAIRS, and `ages` (years, NaN: unknown), one of each pair.

    `kinds` are those the encoder knows; EinthovenError names another.
    """
    codes, names, days = (pairs[name].combine_chunks() for name in ("codes", "code_kinds", "code_days"))
    lengths = pc.fill_null(pc.list_value_length(codes), 0).to_numpy(zero_copy_only=False)
    spelled = codes.flatten().dictionary_encode()
    tokens = vocabulary.encode(spelled.dictionary.to_pylist()).astype(np.int32)[spelled.indices.to_numpy()]
    called = names.flatten().dictionary_encode()
    numbers = kind_numbers(kinds)
    unknown = set(called.dictionary.to_pylist()) - set(numbers)
    if unknown:
        raise EinthovenError(
            f"pairs have codes of the kind {min(unknown)!r}; the encoder of codes knows {', '.join(numbers)}. Pair and "
            "pretrain with the same [pairing] code_kinds."
        )
    by_name = np.array([numbers[name] for name in called.dictionary.to_pylist()], np.int8)
    return Records(
        tokens=tokens,
        kinds=by_name[called.indices.to_numpy()],
        days=pc.fill_null(days.flatten(), 0.0).to_numpy(zero_copy_only=False),
        offsets=np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]),
        ages=np.asarray(ages, np.float32),
    )


def code_sets(records: Records) -> Ints:
    """A number for each record [n]; equal numbers: the same codes, whenever they were.

    A set is told by the sums of two random 63-bit numbers for each code in it: that any two of 10^7 sets are confused
    has a probability below 10^-23.
    """
    random = np.random.default_rng(0).integers(1 << 63, size=(2, records.tokens.max(initial=0) + 1), dtype=np.uint64)
    keys = [_sums(records, start, random) for start in range(0, len(records), PART)]
    found = np.concatenate([np.zeros((0, 2), np.uint64), *keys])
    return np.unique(found, axis=0, return_inverse=True)[1].reshape(-1)


def _sums(records: Records, start: int, random: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Of PART records the sums, modulo 2^64, of the numbers `random` [2, tokens] of their different codes: [n, 2]."""
    offsets = records.offsets[start : start + PART + 1]
    tokens, of = records.tokens[offsets[0] : offsets[-1]], np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((tokens, of))
    tokens, of = tokens[order], of[order]
    new = np.append(True, (of[1:] != of[:-1]) | (tokens[1:] != tokens[:-1]))[: len(of)]
    tokens, of = tokens[new], of[new]
    ends = np.searchsorted(of, np.arange(len(offsets)))
    sums = np.zeros((len(tokens) + 1, 2), np.uint64)
    np.cumsum(random[:, tokens].T, axis=0, out=sums[1:])
    result: npt.NDArray[np.uint64] = sums[ends[1:]] - sums[ends[:-1]]
    return result


def nearest(record: CodeSequence, most: int) -> CodeSequence:
    """At most `most` codes in their order: static ones, then those nearest in time, of two the earlier."""
    if len(record.tokens) <= most:
        return record
    distance = np.where(record.kinds == STATIC, -1.0, np.abs(record.days))
    kept = np.sort(np.argsort(distance, kind="stable")[:most])
    return CodeSequence(record.tokens[kept], record.kinds[kept], record.days[kept], record.age)


def visits_of(record: CodeSequence) -> Ints:
    """1 for the codes of the first, third, … visit, 2 for the others (BEHRT's segments), 0 for static codes [n].

    A visit ends where for more than a day nothing follows. So a stay in hospital with daily prescriptions is one.
    """
    dated = record.kinds != STATIC
    visits = np.zeros(len(record.tokens), np.int64)
    days = record.days[dated]
    gaps = np.zeros(len(days), np.int64)
    gaps[1:] = days[1:] - days[:-1] > VISIT_GAP
    visits[dated] = 1 + np.cumsum(gaps) % 2
    return visits


def code_batch(records: Sequence[CodeSequence], max_codes: int) -> CodeBatch:
    """Pad records to the longest, each cut to the `max_codes` codes nearest to its moment."""
    records = [nearest(record, max_codes) for record in records]
    shape = (len(records), 1 + max((len(record.tokens) for record in records), default=0))
    tokens, kinds, visits = np.full(shape, PAD), np.full(shape, NO_KIND), np.zeros(shape, np.int64)
    days, mask = np.zeros(shape, np.float32), np.zeros(shape, np.bool_)
    tokens[:, 0], mask[:, 0] = CLS, True
    for row, record in enumerate(records):
        part = slice(1, 1 + len(record.tokens))
        tokens[row, part], kinds[row, part], days[row, part] = record.tokens, record.kinds, record.days
        visits[row, part], mask[row, part] = visits_of(record), True
    ages = torch.tensor([record.age for record in records], dtype=torch.float32)
    return CodeBatch(
        torch.from_numpy(tokens),
        torch.from_numpy(kinds),
        torch.from_numpy(days),
        torch.from_numpy(visits),
        torch.from_numpy(mask),
        ages,
    )
