"""The recordings of a study that have a signal and a label, by split, and the subset of them that a budget allows."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from einthoven import schema
from einthoven.batches import Ints
from einthoven.errors import EinthovenError
from einthoven.evaluation.targets import Targets
from einthoven.evaluation.transfer import patient_subset
from einthoven.study import read_table


@dataclass(frozen=True)
class Labelled:
    """Recordings of one split with what is known of their labels."""

    ids: tuple[str, ...]
    rows: Ints  # [n] rows of the waveform store
    subjects: Ints  # [n]
    values: NDArray[np.float64]  # [n, labels]; NaN: unknown

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, mask: NDArray[np.bool_]) -> "Labelled":
        ids = tuple(name for name, kept in zip(self.ids, mask, strict=True) if kept)
        return Labelled(ids, self.rows[mask], self.subjects[mask], self.values[mask])

    def subset(self, fraction: float, seed: int, number: int) -> "Labelled":
        """The recordings of a random fraction of the patients: the subsets that linear probes are fitted on."""
        return self.part(patient_subset(self.subjects, fraction, seed, number))

    def counts(self) -> dict[str, int]:
        return {"recordings": len(self), "patients": len(np.unique(self.subjects))}


def labelled_splits(study: Path, targets: Targets) -> dict[str, Labelled]:
    """The labelled recordings of each split, in the study's order. EinthovenError: fewer than two train patients."""
    recordings = read_table(schema.RECORDINGS, study, ["recording_id", "subject_id", "split", "row"])
    recordings = recordings.filter(pc.is_valid(recordings["row"]))
    ids = pa.array(targets.recording_ids, recordings["recording_id"].type)
    places = pc.index_in(recordings["recording_id"], value_set=ids)
    recordings, places = recordings.filter(pc.is_valid(places)), places.drop_null().to_numpy()
    everyone = Labelled(
        tuple(recordings["recording_id"].to_pylist()),
        recordings["row"].to_numpy(),
        recordings["subject_id"].to_numpy(),
        targets.values[places],
    )
    split = np.array(recordings["split"].to_pylist(), dtype=object)
    found = {name: everyone.part(split == name) for name in schema.SPLITS}
    if found["train"].counts()["patients"] < 2:
        raise EinthovenError(
            f"{study}: fewer than two patients of the train split have a label and a signal. Labels belong to the "
            "recording_id of recordings.parquet; do those of your file?"
        )
    return found
