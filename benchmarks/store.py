"""Strips a second from the waveform store to a batch, for a model that takes no time: does reading limit a GPU?

python benchmarks/store.py [--out results/store.json] [--rows 8192] [--seconds 4]

A study's store of simulated signals is read in the random order of training, through the same code: rows read as they
are, the same cut and converted to millivolts (`plain`), and with the augmentation of a recipe (`augmented`), each by
one thread, a second of its processor time. `copy` is the least that could be: the bytes of the same rows copied in
memory in their order. The store is in the page cache: a disk is measured by its maker.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import numpy as np
from machine import facts

from einthoven.batches import Pairs, deal, make_batch
from einthoven.config import Augmentation
from einthoven.schema import LEADS
from einthoven.study import write_json
from einthoven.waveforms.store import Store, StoreWriter

BATCH, SECONDS, STRIP = 256, 10, 5
PLAIN = Augmentation(scale=0, noise_mv=0, wander_mv=0, lead_dropout=0)


def rate_of(work: Callable[[np.ndarray], object], hands: Iterator[np.ndarray], seconds: float) -> float:
    """Rows a second of processor time, after a tenth of the time that is not counted."""
    work(next(hands))
    done, began, stop = 0, time.process_time(), time.process_time() + seconds
    while time.process_time() < stop:
        hand = next(hands)
        work(hand)
        done += len(hand)
    return round(done / (time.process_time() - began), 1)


def measured(rate: int, rows: int, seconds: float) -> dict[str, float]:
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as scratch:
        study = Path(scratch)
        shape = (256, len(LEADS), SECONDS * rate)
        with StoreWriter(study, rate, shape[-1], rows) as writer:
            for first in range(0, rows, shape[0]):
                writer.write(first, random.integers(-1000, 1000, shape, np.int16)[: rows - first])
        store = Store.open(study)
        pairs = Pairs(np.arange(rows), np.arange(rows), store.read)
        numbers = count()

        def hands() -> Iterator[np.ndarray]:
            for epoch in count():
                yield from deal(pairs.subjects, BATCH, 0, epoch)

        def batch(options: Augmentation) -> Callable[[np.ndarray], object]:
            return lambda hand: make_batch(pairs, hand, STRIP * rate, rate, options, [0, next(numbers)])

        whole, target = store.read(np.arange(BATCH)), np.empty((BATCH, *shape[1:]), np.int16)
        return {
            "copy": rate_of(lambda hand: np.copyto(target[: len(hand)], whole[: len(hand)]), hands(), seconds),
            "read": rate_of(store.read, hands(), seconds),
            "plain": rate_of(batch(PLAIN), hands(), seconds),
            "augmented": rate_of(batch(Augmentation()), hands(), seconds),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--rows", type=int, default=8192)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each measurement")
    options = parser.parse_args()
    about = {"command": "make bench-store", "data_kind": "simulated", "rows": options.rows, "batch": BATCH}
    found = {f"{rate}": measured(rate, options.rows, options.seconds) for rate in (100, 500)}
    result = {**about, **facts("numpy", "torch"), "strips_per_processor_second": found}
    print(json.dumps(result, indent=2))
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    main()
