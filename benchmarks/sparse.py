"""A waveform store of any size that takes no room: shards are sparse files, and read as zeros."""

import json
from pathlib import Path

import numpy as np

from einthoven import schema


def sparse_store(study: Path, rate: int, samples: int, rows: int, shard_rows: int = 4096) -> None:
    """A store as `waveforms.store.StoreWriter` leaves it, of `rows` recordings [12, samples] at `rate` hertz."""
    folder = study / schema.WAVEFORMS
    folder.mkdir(parents=True)
    for shard in range(-(-rows // shard_rows)):
        shape = (min(shard_rows, rows - shard * shard_rows), len(schema.LEADS), samples)
        np.lib.format.open_memmap(folder / f"{shard:05d}.npy", mode="w+", dtype="<i2", shape=shape)
    settings = {"sampling_rate": rate, "samples": samples, "shard_rows": shard_rows, "rows": rows}
    (folder / "store.json").write_text(json.dumps(settings) + "\n")
