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


def train_patients(study: Path) -> dict[str, NDArray[np.int64]]:
    """Of each code in the sequences of PAIRS, the subjects of the train split who have it, in order.

    Read in batches; what is held is one row for each patient and code, 16 bytes: 2 GB at 10^8 of them.
    """
    found = []
    with pq.ParquetFile(check_table(schema.PAIRS, study)) as file:
        for batch in file.iter_batches(columns=["subject_id", "split", "codes"]):
            train = batch.filter(pc.equal(batch["split"], SPLIT))
            places = pc.list_parent_indices(train["codes"])
            rows = pa.table({"subject_id": train["subject_id"].take(places), "code": pc.list_flatten(train["codes"])})
            found.append(_distinct(rows))
    none = pa.table({"subject_id": pa.array([], pa.int64()), "code": pa.array([], pa.string())})
    return patients_of(pa.concat_tables(found) if found else none)


def patients_of(rows: pa.Table) -> dict[str, NDArray[np.int64]]:
    """Of each `code` the different `subject_id` (int64) of the rows, both in order."""
    ordered = _distinct(rows).sort_by([("code", "ascending"), ("subject_id", "ascending")])
    runs = pc.run_end_encode(ordered["code"].combine_chunks())
    ends = runs.run_ends.to_numpy()
    subjects = ordered["subject_id"].to_numpy()
    return dict(zip(runs.values.to_pylist(), np.split(subjects, ends[:-1]), strict=True)) if len(ends) else {}


def _distinct(rows: pa.Table) -> pa.Table:
    return rows.group_by(["subject_id", "code"]).aggregate([])
