"""Which patients have which code: what a vocabulary is counted from."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from einthoven import schema
from einthoven.study import check_table

SPLIT = "train"
BATCH = 16_384  # rows read at a time


def train_patients(study: Path) -> dict[str, NDArray[np.int64]]:
    """Of each code in the sequences of PAIRS, the subjects of the train split who have it, in order.

    Read in batches; what is held is a number for each patient and code, 8 bytes: 1 GB at 10^8 of them.
    """
    spelled: dict[str, int] = {}
    number: dict[int, int] = {}
    held = [np.zeros(0, np.int64)]
    with pq.ParquetFile(check_table(schema.PAIRS, study), pre_buffer=False, buffer_size=1 << 20) as file:
        for batch in file.iter_batches(BATCH, columns=["subject_id", "split", "codes"]):
            train = batch.filter(pc.equal(batch["split"], SPLIT))
            subjects = [number.setdefault(subject, len(number)) for subject in train["subject_id"].to_pylist()]
            codes = pc.list_flatten(train["codes"]).dictionary_encode()
            known = [spelled.setdefault(code, len(spelled)) for code in codes.dictionary.to_pylist()]
            place = pc.list_parent_indices(train["codes"]).to_numpy()
            of = np.array(subjects, np.int64)[place]
            held.append(_distinct(np.array(known, np.int64)[codes.indices.to_numpy()] << 32 | of))
    everyone = np.fromiter(number, np.int64, len(number))
    found = _distinct(np.concatenate(held))
    ends = np.searchsorted(found >> 32, np.arange(1, len(spelled)))
    parts = np.split(everyone[found & 0xFFFFFFFF], ends) if spelled else []
    return {code: np.sort(part) for code, part in sorted(zip(spelled, parts, strict=True), key=lambda one: one[0])}


def patients_of(rows: pa.Table) -> dict[str, NDArray[np.int64]]:
    """Of each `code` the different `subject_id` (int64) of the rows, both in order."""
    distinct = rows.group_by(["subject_id", "code"]).aggregate([])
    ordered = distinct.sort_by([("code", "ascending"), ("subject_id", "ascending")])
    runs = pc.run_end_encode(ordered["code"].combine_chunks())
    ends = runs.run_ends.to_numpy()
    subjects = ordered["subject_id"].to_numpy()
    return dict(zip(runs.values.to_pylist(), np.split(subjects, ends[:-1]), strict=True)) if len(ends) else {}


def _distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64]:
    """In order. By sorting: `np.unique` hashes, which took four times as long and as much memory."""
    ordered = np.sort(numbers)
    return ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
