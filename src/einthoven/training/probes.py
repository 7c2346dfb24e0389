"""Linear probes for the classes of the training study, kept with the model so that any later study can be scored."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from einthoven import schema
from einthoven.config import Evaluation
from einthoven.embed import embed_rows
from einthoven.errors import EinthovenError
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.labels import super_classes, without_class
from einthoven.evaluation.transfer import Labels, Probe, fit_probes
from einthoven.model import Model
from einthoven.study import atomic, read_table
from einthoven.training.aligned_pairs import sampled
from einthoven.waveforms.store import Store

FILE = "probes.safetensors"

MOST: Final = 100_000
"""Labelled recordings that probes are fitted on: of more, so many at random. Features of all would fill the memory."""


@dataclass(frozen=True)
class LabelledTraining:
    """The recordings of a study's train split that have a signal and a class: what probes are fitted on."""

    ids: list[str]
    rows: Integers  # [n] of the waveform store
    subjects: Integers  # [n]
    labels: Labels  # bool [n, classes]
    classes: tuple[str, ...]

    def fit(self, features: Floats, options: Evaluation) -> list[Probe]:
        """Probes for features [n, f], at each label fraction."""
        return fit_probes(
            features,
            self.labels,
            self.subjects,
            self.classes,
            fractions=options.label_fractions,
            subsets=options.subsets,
            seed=options.seed,
        )


def labelled_training(study: Path, left_out: str | None = None) -> LabelledTraining:
    """The labelled training recordings, MOST at most, in the order of recordings.parquet; there may be none.

    `left_out`: a super-class whose recordings are not among them.
    """
    found = super_classes(study)
    recordings = read_table(schema.RECORDINGS, study, ["recording_id", "subject_id", "split", "row"])
    wanted = pc.and_(pc.equal(recordings["split"], "train"), pc.is_valid(recordings["row"]))
    labelled = pc.is_in(recordings["recording_id"], pa.array(found.recording_ids, pa.string()))
    rows = sampled(without_class(recordings.filter(pc.and_(wanted, labelled)), study, left_out), MOST, seed=0)
    place = {name: i for i, name in enumerate(found.recording_ids)}
    ids = rows["recording_id"].to_pylist()
    labels = found.labels[np.array([place[name] for name in ids], np.int64)]
    return LabelledTraining(ids, rows["row"].to_numpy(), rows["subject_id"].to_numpy(), labels, found.classes)


def fit_probes_of(
    model: Model, study: Path, out: Path, options: Evaluation, progress: Callable[[int, int, str], None]
) -> list[str]:
    """Fit probes on the train split of `study`, for the model and any untrained control, and write them to `out`.

    Returns the classes; none where the study has no labelled training recording (then nothing is written).
    """
    training = labelled_training(study, model.card.get("without_class"))
    if len(training.ids) < 2:
        return []
    store, probes = Store.open(study), {}
    encoders = {"model": model} | ({"random_init": model.untrained(options.seed)} if options.control else {})
    for series, encoder in encoders.items():

        def report(done: int, total: int, series: str = series) -> None:
            progress(done, total, f"features for probes, {series}")

        probes[series] = training.fit(embed_rows(encoder, store, training.rows, report).features, options)
    save_probes(out / FILE, training.classes, probes)
    return list(training.classes)


def save_probes(path: Path, classes: tuple[str, ...], probes: dict[str, list[Probe]]) -> None:
    """Weights as tensors, everything else as JSON in the header."""
    tensors: dict[str, Any] = {}
    entries = []
    for series, fitted in probes.items():
        for i, probe in enumerate(fitted):
            tensors[f"{series}.{i}.weight"], tensors[f"{series}.{i}.bias"] = probe.weight, probe.bias
            entries.append({"series": series, "number": i, **probe.facts()})
    with atomic(path) as temporary:
        save_file(tensors, temporary, metadata={"probes": json.dumps({"classes": classes, "entries": entries})})


def load_probes(path: Path) -> tuple[tuple[str, ...], dict[str, list[Probe]]] | None:
    """Classes, and the probes of each series; None where the model has none."""
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            described = json.loads(file.metadata()["probes"])
            probes: dict[str, list[Probe]] = {}
            for entry in described["entries"]:
                name = f"{entry.pop('series')}.{entry.pop('number')}"
                weight: Any = np.asarray(file.get_tensor(f"{name}.weight"))
                bias: Any = np.asarray(file.get_tensor(f"{name}.bias"))
                probes.setdefault(name.split(".")[0], []).append(Probe.of(weight, bias, entry))
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise EinthovenError(
            f"{path} is not a readable file of probes ({error}); run `einthoven align` again."
        ) from None
    return tuple(described["classes"]), probes
