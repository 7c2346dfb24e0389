"""The table of docs/security.md: how often the ECG nearest to an ECG is the same patient's.

python results/reidentification.py --study STUDY --model MODEL
python results/reidentification.py              # the table from the committed JSON

Asked are the recordings of the validation split whose patient has another one there; sought among that split, and among
it and the train split together, whose patients are others. Nothing of the test split is looked at.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from runs import replaced

from einthoven import schema
from einthoven.embed import Floats, embed_rows, matrix, table_of
from einthoven.evaluation.intervals import Integers, interval, resampled, weighted_mean
from einthoven.model_directory import load
from einthoven.study import data_kind, read_table, write_json
from einthoven.waveforms.store import Store

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "reidentification.json", HERE.parent / "docs" / "security.md"
START, END = "<!-- reidentification: made by results/reidentification.py -->", "<!-- end of reidentification -->"
RESAMPLES, SEED = 1000, 0
FIRST = (1, 10)
"""A link is found if the patient is among so many."""


def linked(
    asked: Floats, patients: Integers, sought: Floats, whose: Integers, own: Integers
) -> dict[str, dict[str, float]]:
    """Of each recording asked, is one of its patient's others among the nearest by cosine? And by chance?

    Args:
        asked: [n, d]
        patients: [n]
        sought: [m, d]
        whose: [m]
        own: [n], the place of each among those sought, which does not count.

    Returns:
        by name a share with its patient-bootstrap interval.
    """
    asked, sought = (of / np.linalg.norm(of, axis=1, keepdims=True) for of in (asked, sought))
    cosines = asked @ sought.T
    cosines[np.arange(len(own)), own] = -np.inf
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, : max(FIRST)]
    hits = whose[nearest] == patients[:, None]
    values = {f"among {first}": hits[:, :first].any(axis=1).astype(float) for first in FIRST}
    others = np.array([(whose == patient).sum() - 1 for patient in patients])
    values["by chance, among 1"] = others / (len(whose) - 1)
    whole, samples = resampled(patients, lambda w: {k: weighted_mean(v, w) for k, v in values.items()}, RESAMPLES, SEED)
    return {name: interval(whole[name], samples[name]) for name in values}


def measure(study: Path, directory: Path) -> None:
    """By the embedding, by the features that probes read, and by the embedding of the same encoder untrained."""
    rows = read_table(table_of(directory), study)
    places = read_table(schema.RECORDINGS, study, ["recording_id", "row"])
    store_rows = dict(zip(*(places[name].to_pylist() for name in ("recording_id", "row")), strict=True))
    fold, known = (rows.filter(pc.is_in(rows["split"], splits)) for splits in _splits())
    patients = fold["subject_id"].to_numpy()
    counts = dict(zip(*np.unique(patients, return_counts=True), strict=True))
    asked = np.flatnonzero([counts[patient] > 1 for patient in patients])
    at = {name: place for place, name in enumerate(known["recording_id"].to_pylist())}
    in_all = np.array([at[name] for name in fold["recording_id"].to_pylist()])
    untrained = load(directory).untrained(SEED)
    store = np.array([store_rows[name] for name in fold["recording_id"].to_pylist()])
    control = embed_rows(untrained, Store.open(study), store, lambda done, total: None)

    def within(vectors: Floats) -> dict[str, dict[str, float]]:
        return linked(vectors[asked], patients[asked], vectors, patients, asked)

    def among_all(name: str) -> dict[str, dict[str, float]]:
        mine, every = matrix(fold[name]), matrix(known[name])
        return linked(mine[asked], patients[asked], every, known["subject_id"].to_numpy(), in_all[asked])

    names = {"embedding": "embedding", "features": "features"}
    write_json(
        RESULTS,
        {
            "command": "python results/reidentification.py --study STUDY --model MODEL",
            "data_kind": data_kind(study),
            "split": "validation",
            "seed": SEED,
            "resamples": RESAMPLES,
            "asked": {"recordings": len(asked), "patients": len(set(patients[asked].tolist()))},
            "sought": {"validation": len(fold), "train and validation": len(known)},
            "validation": {of: within(matrix(fold[name])) for of, name in names.items()}
            | {"untrained embedding": within(control.vectors), "untrained features": within(control.features)},
            "train and validation": {of: among_all(name) for of, name in names.items()},
        },
    )


def _splits() -> tuple[object, object]:
    import pyarrow as pa

    return pa.array(["validation"]), pa.array(["validation", "train"])


def rendered(results: dict) -> str:
    """The table, with 95 % intervals."""
    asked, sought = results["asked"], results["sought"]
    lines = [
        f"**{results['data_kind'].capitalize()}** data: PTB-XL at 100 Hz, {results['split']} split; asked with "
        f"{asked['recordings']} recordings of {asked['patients']} patients who have another there. Per cent, brackets "
        f"are 95 % patient-bootstrap intervals, seed {results['seed']}. Made by `{results['command']}`.",
        "",
        "| by | sought among | patient is the nearest | among the ten nearest | nearest by chance |",
        "| --- | --- | --- | --- | --- |",
    ]
    for gallery in ("validation", "train and validation"):
        for of, found in results[gallery].items():
            chance = f"{100 * found['by chance, among 1']['value']:.2f}"
            cells = (_percent(found[f"among {first}"]) for first in FIRST)
            lines.append(f"| {of} | {sought[gallery]:,} ({gallery}) | {' | '.join(cells)} | {chance} |")
    return "\n".join(lines)


def _percent(figure: dict[str, float]) -> str:
    return f"{100 * figure['value']:.1f} ({100 * figure['low']:.1f}–{100 * figure['high']:.1f})"


def with_table(page: str, results: dict) -> str:
    """The page with its table replaced."""
    return replaced(page, START, END, rendered(results))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", type=Path)
    parser.add_argument("--model", type=Path)
    arguments = parser.parse_args()
    if arguments.study is not None and arguments.model is not None:
        measure(arguments.study, arguments.model)
    found = json.loads(RESULTS.read_text(encoding="utf-8"))
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
