"""PAIRS as training reads them: what is small in one table, texts and coded records batch by batch.

A million texts as Python strings, or tokenised at once, are tens of gigabytes; as tokens some hundred megabytes.
"""

import functools
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.batches import Ints
from einthoven.encoders.code_records import Records, encode_records
from einthoven.study import check_table, read_table
from einthoven.vocabulary.vocabulary import Vocabulary

BATCH: Final = 16_384  # rows read at a time
CODED: Final = ("codes", "code_kinds", "code_days")
DIGEST: Final = pa.binary(16)


def training_pairs(study: Path, concatenation: str, modalities: Sequence[str]) -> pa.Table:
    """The pairs with a signal and, where the model has others, at least one other modality; by recording, with its age.

    `digest` is of the text, the concatenation asked for; null where there is none. `place` is the row in PAIRS.
    """
    column = schema.CONCATENATIONS[concatenation]
    plain = ["recording_id", "subject_id", "split", "row"]
    parts: list[pa.Table] = []
    place = 0
    for rows in _batches(study, [*plain, "codes", column]):
        coded, digests = pc.greater(pc.list_value_length(rows["codes"]), 0), _digests(rows[column])
        has = {"text": pc.is_valid(digests), "codes": coded}
        other = [has[name] for name in modalities if name in has]
        signal = pc.is_valid(rows["row"])
        wanted = pc.and_(signal, functools.reduce(pc.or_, other)) if other else signal
        kept = rows.select(plain).append_column("digest", digests)
        parts.append(kept.append_column("place", pa.array(np.arange(place, place + len(rows)))).filter(wanted))
        place += len(rows)
    table = pa.concat_tables(parts).sort_by("recording_id")
    ages = read_table(schema.RECORDINGS, study, ["recording_id", "age"])
    found = pc.index_in(table["recording_id"], value_set=ages["recording_id"].combine_chunks())
    return table.append_column("age", ages["age"].take(found))


def _digests(texts: pa.ChunkedArray) -> pa.Array:
    made = [
        None if text is None else hashlib.blake2b(text.encode(), digest_size=DIGEST.byte_width).digest()
        for text in texts.to_pylist()
    ]
    return pa.array(made, DIGEST)


def _batches(study: Path, columns: Sequence[str]) -> Iterator[pa.Table]:
    # without `pre_buffer` a row group, which may be the whole file, is not read at once
    with pq.ParquetFile(check_table(schema.PAIRS, study), pre_buffer=False, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(BATCH, columns=list(columns)):
            yield pa.Table.from_batches([batch])


def rows_at(study: Path, columns: Sequence[str], places: Ints) -> Iterator[pa.Table]:
    """Some rows of PAIRS, batch by batch; `places` ascend."""
    first = 0
    for rows in _batches(study, columns):
        start, stop = np.searchsorted(places, [first, first + len(rows)])
        if stop > start:
            yield rows.take(pa.array(places[start:stop] - first))
        first += len(rows)


def distinct_texts(pairs: pa.Table) -> tuple[Ints, Ints]:
    """A number for the text of each pair [n], -1: none; and where in PAIRS each text first is [texts], ascending."""
    numbers = pc.fill_null(pairs["digest"].combine_chunks().dictionary_encode().indices, -1).to_numpy()
    told, places = numbers >= 0, pairs["place"].to_numpy()
    first = np.full(numbers.max(initial=-1) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, numbers[told], places[told])
    order = np.argsort(first)
    rank = np.empty(len(order) + 1, np.int64)
    rank[order], rank[-1] = np.arange(len(order)), -1  # the last is where -1 points to
    return rank[numbers], first[order]


def texts_at(study: Path, concatenation: str, places: Ints) -> Iterator[list[str]]:
    """The texts at ascending places, in lists."""
    column = schema.CONCATENATIONS[concatenation]
    for rows in rows_at(study, [column], places):
        yield from (rows[column].slice(i, 1024).to_pylist() for i in range(0, len(rows), 1024))


def records_at(pairs: pa.Table, study: Path, vocabulary: Vocabulary, kinds: Sequence[str]) -> Records:
    """The coded records of pairs, in their order."""
    places, ages = pairs["place"].to_numpy(), pairs["age"].to_numpy().astype(np.float32)
    order = np.argsort(places)
    parts, start = [encode_records(_no_codes(), [], vocabulary, kinds)], 0
    for rows in rows_at(study, CODED, places[order]):
        parts.append(encode_records(rows, ages[order[start : start + len(rows)]], vocabulary, kinds))
        start += len(rows)
    whole = Records.joined(parts)
    parts.clear()
    return whole.take(np.argsort(order))


def _no_codes() -> pa.Table:
    return pa.schema([schema.PAIRS.columns.field(name) for name in CODED]).empty_table()
