"""Embed every recording of a study that has a signal: model x waveforms -> embeddings."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.model import STRIPS, Model
from einthoven.schema import Table
from einthoven.study import atomic, read_table, remove, sha256, stage_manifest, write_table
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import from_store, lead_mask

Floats = np.ndarray[Any, np.dtype[np.float32]]

PARTS = "parts"
"""Directory beside the embeddings, while there is more to do."""

PART = 4096
"""Recordings of a part: what a kill can cost, and what is in memory at a time."""


def table_of(model_directory: Path) -> Table:
    """The embeddings table of one model: its place in the study carries the hash of the model's weights."""
    weights = model_directory / "model.safetensors"
    if not weights.is_file():
        raise EinthovenError(f"{weights} is missing, so {model_directory} is no model. `einthoven align` makes one.")
    mark = sha256(weights)[:16]
    return Table(f"embeddings/{mark}/{schema.EMBEDDINGS.path}", schema.EMBEDDINGS.columns)


class Signals(Protocol):
    """A waveform store, or what stands for one."""

    @property
    def sampling_rate(self) -> int: ...

    def read(self, rows: np.ndarray[Any, np.dtype[np.integer[Any]]]) -> np.ndarray[Any, np.dtype[np.int16]]: ...


@dataclass(frozen=True)
class Rows:
    """Embeddings of rows of the waveform store."""

    vectors: Floats  # unit length [n, d]: where text is or, without text, where codes are
    features: Floats  # [n, c]
    early: Floats  # [n, e], what the first layers say of the signal
    fine: Floats | None  # unit length [n, d]: where codes are; None for a model without codes


def embed_rows(
    model: Model,
    store: Signals,
    rows: np.ndarray[Any, np.dtype[np.integer[Any]]],
    progress: Callable[[int, int], None],
    leads: Sequence[str] = schema.LEADS,
    batch: int = 64,
) -> Rows:
    """Embed rows of the waveform store, from these leads only."""
    absent = ~lead_mask(leads)
    rate, length = model.ecg_config.sampling_rate, model.strip_samples
    model.eval()
    parts: list[list[Floats]] = [[], [], [], []]
    for start in range(0, len(rows), batch):
        strips = from_store(store.read(rows[start : start + batch]), store.sampling_rate, rate, length, STRIPS)
        strips[:, :, absent] = 0
        seen = model.encode_strips(torch.from_numpy(strips))
        for part, found in zip(parts, (seen.vectors(), seen.features, seen.early, seen.fine), strict=True):
            if found is not None:
                part.append(found.float().cpu().numpy())
        progress(min(start + batch, len(rows)), len(rows))
    dims = (model.space_config.dim, model.ecg.dim, model.ecg.early_dim, model.space_config.dim)
    vectors, features, early, fine = (
        np.concatenate(part) if part else np.empty((0, dim), np.float32) for part, dim in zip(parts, dims, strict=True)
    )
    return Rows(vectors, features, early, None if model.codes is None else fine)


def embed(
    model: Model, table: Table, study: Path, progress: Callable[[int, int], None], rank: int = 0, world: int = 1
) -> int:
    """Write every `world`th part of the embeddings of a study, from the `rank`th on; return the number of all parts.

    A part that is there is kept: a killed run goes on. `join` makes the table of all.
    """
    kept = _with_signal(study)
    parts = [part_of(table, study, first) for first in range(0, len(kept), PART)]
    store = Store.open(study)
    for number in range(rank, len(parts), world):
        first = number * PART
        if not parts[number].at(study).exists():
            rows = kept.slice(first, PART)
            told = lambda done, _, first=first: progress(first + done, len(kept))  # noqa: E731
            found = embed_rows(model, store, rows["row"].to_numpy(), told)
            columns = {name: rows[name] for name in ("recording_id", "subject_id", "split")}
            columns |= {
                "embedding": lists(found.vectors),
                "features": lists(found.features),
                "early": lists(found.early),
            }
            kind = schema.EMBEDDINGS.columns.field("fine").type
            columns["fine"] = pa.nulls(len(rows), kind) if found.fine is None else lists(found.fine)
            write_table(parts[number], study, pa.table(columns))
    return len(parts)


def join(table: Table, study: Path, parts: int) -> dict[str, Any]:
    """Put the parts together to the embeddings of a study, one at a time in memory; return counts."""
    with atomic(table.at(study)) as temporary, pq.ParquetWriter(temporary, table.columns) as writer:
        for number in range(parts):
            writer.write_table(read_table(part_of(table, study, number * PART), study))
    remove(table.at(study).with_name(PARTS))
    everything = read_table(schema.RECORDINGS, study, ["row"])
    return {"embedded": len(everything) - everything["row"].null_count, "without_signal": everything["row"].null_count}


def part_of(table: Table, study: Path, first: int) -> Table:
    """The part that begins with the `first` recording with a signal; its place tells the study it was made of."""
    made_of = f"{version('einthoven')} {schema.DIGEST} {sha256(stage_manifest(study, 'ingest'))}"
    mark = hashlib.sha256(made_of.encode()).hexdigest()[:16]
    return Table(str(Path(table.path).with_name(PARTS) / mark / f"{first:010}.parquet"), table.columns)


def _with_signal(study: Path) -> pa.Table:
    recordings = read_table(schema.RECORDINGS, study, ["recording_id", "subject_id", "split", "row"])
    return recordings.filter(pc.is_valid(recordings["row"]))


def lists(matrix: np.ndarray[Any, np.dtype[np.float32]]) -> pa.ListArray:
    """A matrix as a column of lists."""
    offsets = np.arange(len(matrix) + 1, dtype=np.int32) * matrix.shape[1]
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(matrix.ravel()))


def matrix(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float32]]:
    """A column of equally long lists as a matrix."""
    flat = column.combine_chunks().flatten().to_numpy()
    return flat.reshape(len(column), -1) if len(column) else np.empty((0, 0), np.float32)
