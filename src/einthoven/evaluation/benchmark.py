"""Zero-shot classification of label sets by a model: each rule of labelling beside each way of asking."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from einthoven import schema
from einthoven.config import Evaluation
from einthoven.embed import embed_rows
from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import LEAST_POSITIVES
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.label_sets import LabelSet, Place, Prompts, recordings_by_file, scp_sets
from einthoven.evaluation.merl import MERL_PROMPT, merl_sets
from einthoven.evaluation.per_class import by_class
from einthoven.evaluation.report import finite
from einthoven.evaluation.zeroshot import prompt_scores
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.study import data_kind, read_table, write_json
from einthoven.waveforms.store import Store

FILE: Final = "benchmark.json"
ENSEMBLES: Final = ("mean", "contrast")
"""Of several prompts: CLIP's mean of unit vectors, and ours, which holds a class against the others."""


def benchmark(
    directory: Path,
    studies: Sequence[Path],
    split: str,
    merl: Path | None,
    prompts: Path | None,
    out: Path,
    options: Evaluation,
    command: str,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Write `benchmark.json` to `out`; return its counts.

    With `merl`, the sets of MERL's tables of that split, wherever their recordings are among the studies; without, the
    four sets of PTB-XL from the studies' own statements. EinthovenError: a model without text, or no set to measure.
    """
    model = load(directory)
    if model.text is None:
        raise EinthovenError(f"{directory} was trained without text, so it cannot read prompts.")
    absent: list[str] = []
    if merl is None:
        sets = [one for study in studies for one in scp_sets(study, split)]
    else:
        sets, absent = merl_sets(merl, prompts, split, recordings_by_file(list(studies)))
    if not sets:
        why = "; ".join(absent) or f"no recording of the {split} split has SCP statements"
        raise EinthovenError(f"There is nothing to classify: {why}.")
    seen = _Recordings(model, sets, progress)
    result: dict[str, Any] = {
        "command": command,
        "data_kind": ", ".join(sorted({data_kind(study) for study in studies})),
        "trained_on": model.card.get("data_kind"),
        "split": split,
        "seed": options.seed,
        "least_positives": LEAST_POSITIVES,
        "absent": absent,
        "sets": {},
    }
    for number, one in enumerate(sets):
        progress(number, len(sets), "label sets")
        name = one.name if one.name not in result["sets"] else f"{one.name}, {one.places[0].study.name}"
        result["sets"][name] = measured(one, model, seen, options)
    result["average"] = average(result["sets"])
    write_json(out / FILE, finite(result))
    return {"sets": {name: part["recordings"] for name, part in result["sets"].items()}, "absent": len(absent)}


class _Recordings:
    """The recordings of all sets, embedded once."""

    def __init__(self, model: Model, sets: Sequence[LabelSet], progress: Callable[[int, int, str], None]) -> None:
        wanted = dict.fromkeys(place for one in sets for place in one.places)
        self.facts: dict[Place, tuple[int, str, Floats]] = {}  # subject, split, vector
        columns = ["recording_id", "subject_id", "split", "row"]
        for i, study in enumerate(dict.fromkeys(place.study for place in wanted)):
            ids = {place.recording_id for place in wanted if place.study == study}
            everyone = read_table(schema.RECORDINGS, study, columns).to_pylist()
            rows = [row for row in everyone if row["recording_id"] in ids]
            places = np.array([row["row"] for row in rows], np.int64)

            def report(done: int, total: int, number: int = i + 1) -> None:
                progress(done, total, f"recordings of study {number}")

            vectors = embed_rows(model, Store.open(study), places, report).vectors
            for row, vector in zip(rows, vectors, strict=True):
                # a patient of one study is not the patient of the same number of another
                subject = (i << 48) ^ row["subject_id"]
                self.facts[Place(study, row["recording_id"])] = (subject, row["split"], vector)

    def of(self, one: LabelSet) -> tuple[Integers, list[str], Floats]:
        """Subjects [n], splits and vectors [n, d] of a set."""
        facts = [self.facts[place] for place in one.places]
        return np.array([f[0] for f in facts], np.int64), [f[1] for f in facts], np.stack([f[2] for f in facts])


def measured(one: LabelSet, model: Model, seen: _Recordings, options: Evaluation) -> dict[str, Any]:
    """Every way of asking, measured by every rule of labelling."""
    subjects, splits, ecg = seen.of(one)
    result: dict[str, Any] = {
        **one.counts,
        "recordings": len(one.places),
        "patients": len(np.unique(subjects)),
        "in_a_train_split": splits.count("train"),
        "classes": len(one.classes),
        "prompts": {whose: sum(map(len, of.values())) for whose, of in one.prompts.items()},
        "labels": {rule: {} for rule in one.labels},
    }
    for whose, prompts in one.prompts.items():
        vectors = _encoded(model, prompts)
        for ensemble in ENSEMBLES if whose != MERL_PROMPT else ENSEMBLES[:1]:
            scores = prompt_scores(ecg, vectors, ensemble)
            way = whose if whose == MERL_PROMPT else f"{whose}, {ensemble}"
            for rule, labels in one.labels.items():
                settings = {"resamples": options.resamples, "seed": options.seed}
                if (labels.any(axis=0) & ~labels.all(axis=0)).any():
                    result["labels"][rule][way] = by_class(labels, scores, one.classes, subjects, **settings)
    return result


def _encoded(model: Model, prompts: Prompts) -> dict[str, Floats]:
    """Class -> its prompts' vectors [k, d]; every text is encoded once."""
    texts = list(dict.fromkeys(text for of in prompts.values() for text in of))
    vectors = dict(zip(texts, model.encode_text(texts), strict=True))
    return {name: np.stack([vectors[text] for text in of]) for name, of in prompts.items()}


def average(sets: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Rule and way -> mean over sets of the macro AUROC, as MERL reports it; a set without a rule enters by its own."""
    rules = list(dict.fromkeys(rule for part in sets.values() for rule in part["labels"]))
    found: dict[str, dict[str, Any]] = {}
    for rule in rules:
        chosen = [part["labels"].get(rule) or next(iter(part["labels"].values())) for part in sets.values()]
        for way in dict.fromkeys(way for part in chosen for way in part):
            values = [part[way]["macro"]["auroc"]["value"] for part in chosen if way in part]
            found.setdefault(rule, {})[way] = {"auroc": float(np.mean(values)), "sets": len(values)}
    return found
