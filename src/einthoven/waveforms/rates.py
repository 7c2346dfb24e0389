"""A study's signals at another rate: resampled once, kept beside the study's own store."""

from pathlib import Path

import numpy as np

from einthoven import schema
from einthoven.schema import MICROVOLT, MISSING_SAMPLE
from einthoven.study import lock, run_stage, stage_manifest
from einthoven.waveforms.store import Store, StoreWriter
from einthoven.waveforms.strips import millivolts, resample

CHUNK = 256


def at_rate(study: Path, rate: int) -> Store:
    """The study's waveform store at `rate` hertz; made on first use, below `derived/<rate>hz/`."""
    store = Store.open(study)
    if store.sampling_rate == rate:
        return store
    derived = study / "derived" / f"{rate}hz"

    def work() -> dict[str, int]:
        samples = len(resample(np.zeros(store.samples, np.float32), store.sampling_rate, rate))
        with StoreWriter(derived, rate, samples, store.rows) as writer:
            for first in range(0, store.rows, CHUNK):
                block = store.read(np.arange(first, min(first + CHUNK, store.rows)))
                signal = resample(millivolts(block), store.sampling_rate, rate) / np.float32(MICROVOLT)
                missing = (block == MISSING_SAMPLE).all(axis=-1, keepdims=True)  # a lead that was not recorded
                whole = np.clip(np.rint(signal), MISSING_SAMPLE + 1, 32767).astype(np.int16)
                writer.write(first, np.where(missing, np.int16(MISSING_SAMPLE), whole))
        return {"rows": store.rows}

    with lock(derived):
        run_stage(
            stage_manifest(derived, "resample"),
            config={"rate": rate},
            inputs={"ingest": stage_manifest(study, "ingest")},
            outputs={"waveforms": derived / schema.WAVEFORMS},
            work=work,
        )
    return Store.open(derived)
