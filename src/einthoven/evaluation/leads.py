"""The evaluation again, with fewer leads: what is left for a device that has not all ten electrodes?

Protocol. The recordings, texts, prompts and metrics are those of the twelve-lead evaluation; of each recording only the
named leads reach the encoder, the others are zero, as a lead that was not recorded. The linear probes are the ones
saved with the model, fitted on features of *all* the leads of the training recordings: the figure is what happens when
a classifier that was made for twelve leads meets fewer, not the best that could be fitted for so few. The untrained
control goes the same way.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from einthoven.embed import Rows, embed_rows
from einthoven.evaluation.intervals import Integers
from einthoven.model import Model
from einthoven.schema import LEADS
from einthoven.waveforms.store import Store

SUBSETS: Final = {"6": LEADS[:6], "2": ("I", "II"), "1": ("I",)}
"""The limb leads; two of them, from which the other four follow; what a watch records."""


def measure_subsets(
    measure: Callable[[str, Rows], dict[str, Any]],
    encoders: Mapping[str, Model],
    store: Store,
    rows: Integers,
    progress: Callable[[int, int, str], None],
) -> dict[str, dict[str, Any]]:
    """Metrics of each series of encoders on rows of the waveform store, with the leads of each subset only.

    `measure` turns a series and its embeddings into metrics. Returns
    {"6": {"leads": [names], "model": measure(...), "random_init": measure(...)}, "2": …, "1": …}.
    """
    result: dict[str, dict[str, Any]] = {}
    total, done = len(SUBSETS) * len(encoders) * len(rows), 0
    for count, leads in SUBSETS.items():
        result[count] = {"leads": list(leads)}
        for series, encoder in encoders.items():

            def told(i: int, n: int, before: int = done) -> None:
                progress(before + i, total, "fewer leads")

            result[count][series] = measure(series, embed_rows(encoder, store, rows, told, leads))
            done += len(rows)
    return result
