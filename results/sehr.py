"""How well sEHR-BERT tells hidden codes of held-out patients, beside two baselines (docs/sehr-bert.md).

python results/sehr.py ../shared/data    # results/sehr.json, and the table of docs/sehr-bert.md
"""

import argparse
import csv
import gzip
import hashlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import torch

from einthoven import schema
from einthoven.config import CodeEncoder, CodePretraining, Recipe, Source
from einthoven.encoders.code_records import CodeSequence, nearest
from einthoven.encoders.codes import MaskedCodes, create, load
from einthoven.evaluation import masked_codes as baselines
from einthoven.sources import mimic, omop, simulated
from einthoven.sources.codes import VOCABULARIES
from einthoven.study import write_json, write_table
from einthoven.training.codes import Told, pretrain, tell_all
from einthoven.training.masking import ask_all
from einthoven.training.timelines import Timelines, Windows, read_timelines, unknown_share
from einthoven.vocabulary.vocabulary import MASK, SPECIAL, Vocabulary

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "sehr-bert.md"
START, END = "<!-- results: made by results/sehr.py -->", "<!-- end of results -->"
ENCODINGS: Final = ("sinusoidal", "buckets")
DAMPINGS: Final = (0.0, 0.5, 1.0)
COUNTED: Final = 3  # draws of training windows that the baselines count
RESAMPLES: Final = 1000


@dataclass(frozen=True)
class Setup:
    """A study and how long to train on it: minutes of one core, not the best that could be had."""

    make: Callable[[Path, Path], None]  # shared data, study directory
    kind: str
    epochs: int
    train: int  # patients at most, so that an epoch of whole lives is not an hour
    held: int
    batch: int = 64


def of_mimic(data: Path, study: Path) -> None:
    mimic.ingest(Source(name="mimic"), data / "mimic-iv-demo-2.2", study)


def of_gibleed(data: Path, study: Path) -> None:
    recordings = study.with_name("gibleed.csv")
    recordings.write_text("recording_id,subject_id,time\na,6,2000-01-01 10:00:00\n", encoding="utf-8")
    omop.ingest(Source(name="omop", recordings=str(recordings)), data / "omop-eunomia-gibleed", study)


def of_simulated(data: Path, study: Path) -> None:
    simulated.ingest(Source(name="simulated", subjects=1500, seed=0), study)


def of_synthea(data: Path, study: Path) -> None:
    """Synthea, its codes named as `einthoven ingest fhir` names them."""
    prefixes = {"Condition": "DIAGNOSIS", "Procedure": "PROCEDURE", "MedicationRequest": "MEDICATION//START"}
    systems = {"sct": VOCABULARIES["http://snomed.info/sct"], "rxnorm": "RxNorm"}
    folder = data / "synthea-r4-code-events"
    rows, names = [], {}
    for row in _rows(folder / "events.csv.gz"):
        if row["resource"] in prefixes and row["start"]:
            code = f"{prefixes[row['resource']]}//{systems[row['code_system']]}//{row['code']}"
            names[code] = row["display"]
            rows.append({"subject_id": _number(row), "time": datetime.fromisoformat(row["start"][:10]), "code": code})
    for row in _rows(folder / "patients.csv.gz"):
        born = datetime.fromisoformat(row["birth_date"])
        rows.append({"subject_id": _number(row), "time": born, "code": "MEDS_BIRTH"})
    order = [(name, "ascending") for name in ("subject_id", "time", "code")]
    events = pa.Table.from_pylist(rows, schema=schema.EVENTS.columns).sort_by(order)
    codes = [{"code": code, "description": name, "parent_codes": []} for code, name in sorted(names.items())]
    write_table(schema.EVENTS, study, events)
    write_table(schema.CODES, study, pa.Table.from_pylist(codes, schema=schema.CODES.columns))
    write_table(schema.RECORDINGS, study, schema.RECORDINGS.columns.empty_table())


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _number(row: dict[str, str]) -> int:
    return int.from_bytes(hashlib.sha256(row["patient_id"].encode()).digest()[:7], "big")


STUDIES: Final = {
    "MIMIC-IV demo": Setup(of_mimic, schema.REAL, epochs=40, train=1000, held=1000, batch=16),
    "Synthea": Setup(of_synthea, schema.SIMULATED, epochs=10, train=200, held=60),
    "GiBleed": Setup(of_gibleed, schema.SIMULATED, epochs=3, train=400, held=60),
    "simulated": Setup(of_simulated, schema.SIMULATED, epochs=16, train=2000, held=1000),
}


def first(lines: Timelines, most: int) -> Timelines:
    """The first `most` patients."""
    offsets = lines.offsets[: most + 1]
    end = int(offsets[-1])
    parts = (lines.tokens[:end], lines.kinds[:end], lines.seconds[:end])
    return Timelines(lines.subjects[:most], lines.births[:most], offsets, *parts)


def recipe_of(setup: Setup, encoding: str) -> Recipe:
    codes = CodeEncoder(hidden=96, layers=2, time=encoding)
    options = CodePretraining(
        epochs=setup.epochs, batch=setup.batch, precision="fp32", validate_every=max(1, setup.epochs // 6)
    )
    return replace(Recipe(), codes=codes, pretraining=options)


def known(record: CodeSequence) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Tokens and kinds of a window's codes that are no [UNK]."""
    kept = record.tokens >= len(SPECIAL)
    return record.tokens[kept], record.kinds[kept]


@dataclass(frozen=True)
class Answers:
    """Of every hidden code: its place with each baseline, and whether it is seen again in the rest of its window."""

    windows: np.ndarray[Any, Any]
    answers: np.ndarray[Any, Any]
    again: np.ndarray[Any, Any]
    ranks: dict[str, np.ndarray[Any, Any]]


def answer(recipe: Recipe, train: Timelines, held: Windows, vocabulary: Vocabulary) -> Answers:
    """Let the baselines answer the questions of `ask_all`. They know the kind of a hidden code, as the model does."""
    options, most = recipe.pretraining, recipe.codes.max_codes
    draws = (train.windows(options.window_days, options.seed, epoch) for epoch in range(COUNTED))
    seen = (known(nearest(windows[i], most)) for windows in draws for i in range(len(windows)))
    counts = baselines.count(seen, len(vocabulary), 2 + len(recipe.pairing.code_kinds))
    prior, evidence = baselines.frequency(counts), baselines.co_occurrence(counts)
    prior = np.maximum(prior, np.log(0.01 / counts.codes.sum()))  # never seen: behind all others, yet told apart
    ranks: dict[str, list[int]] = {"frequency": [], "frequency, kind known": []}
    ranks |= {f"co-occurrence {damping}": [] for damping in DAMPINGS}
    windows, answers, again = [], [], []
    for question in ask_all(held, most, options.mask, options.seed):
        tokens = question.batch.tokens.numpy()
        kinds = question.batch.kinds.numpy()
        for row, column, code in zip(*(p.numpy() for p in question.places), question.answers.numpy(), strict=True):
            there = tokens[row]
            rest = there[(there >= len(SPECIAL)) & (there != MASK)]
            among = counts.kinds[kinds[row, column]]
            ranks["frequency"].append(baselines.rank(prior, code))
            ranks["frequency, kind known"].append(baselines.rank(prior, code, among))
            for damping in DAMPINGS:
                score = baselines.scores(prior, evidence, rest, damping)
                ranks[f"co-occurrence {damping}"].append(baselines.rank(score, code, among))
            windows.append(question.windows[row])
            answers.append(code)
            again.append(code in rest)
    arrays = {name: np.array(each) for name, each in ranks.items()}
    return Answers(np.array(windows), np.array(answers), np.array(again), arrays)


def measure(setup: Setup, data: Path, folder: Path) -> dict[str, Any]:
    study = folder / "study"
    setup.make(data, study)
    recipe = recipe_of(setup, ENCODINGS[0])
    lines, vocabulary = read_timelines(study, recipe.pairing, recipe.vocabulary, folder / "scratch")
    train, validation = first(lines["train"], setup.train), first(lines["validation"], setup.held)
    held = validation.windows(recipe.pretraining.window_days, recipe.pretraining.seed)
    began = time.process_time()
    given = answer(recipe, train, held, vocabulary)
    subjects = held.subjects[given.windows]
    best = max(DAMPINGS, key=lambda d: (given.ranks[f"co-occurrence {d}"] <= 1).mean())
    ranks = {name: given.ranks[name] for name in ("frequency", "frequency, kind known")}
    ranks["co-occurrence, kind known"] = given.ranks[f"co-occurrence {best}"]
    result: dict[str, Any] = {
        "data_kind": setup.kind,
        "patients": {"train": len(train), "validation": len(np.unique(subjects))},
        "windows": {"train": len(train.windows(recipe.pretraining.window_days, 0, 0)), "validation": len(held)},
        "tokens": len(vocabulary) - len(SPECIAL),
        "unknown": round(unknown_share(validation), 4),
        "epochs": setup.epochs,
        "damping": best,
        "baseline_cpu_seconds": round(time.process_time() - began, 1),
        "cpu_seconds": {},
    }
    for encoding in ENCODINGS:
        began = time.process_time()
        told = trained(recipe_of(setup, encoding), vocabulary, train, validation, held, folder / encoding)
        result["cpu_seconds"][encoding] = round(time.process_time() - began, 1)
        assert (told.windows == given.windows).all() and (told.answers == given.answers).all()
        ranks[f"sEHR-BERT, {encoding}"] = told.ranks
    result["ways"] = {
        name: {
            "all": _rounded(baselines.hits(each, subjects, RESAMPLES, 0)),
            "new": _rounded(baselines.hits(each, subjects, RESAMPLES, 0, ~given.again)),
        }
        for name, each in ranks.items()
    }
    base, model = ranks["co-occurrence, kind known"], ranks[f"sEHR-BERT, {ENCODINGS[0]}"]
    result["over_co_occurrence"] = _rounded(baselines.advantage(model, base, subjects, RESAMPLES, 0))
    other = ranks[f"sEHR-BERT, {ENCODINGS[1]}"]
    result["sinusoidal_over_buckets"] = _rounded(baselines.advantage(model, other, subjects, RESAMPLES, 0))
    return result


def trained(
    recipe: Recipe, vocabulary: Vocabulary, train: Timelines, validation: Timelines, held: Windows, workshop: Path
) -> Told:
    torch.manual_seed(recipe.pretraining.seed)
    model = MaskedCodes(create(recipe.codes, vocabulary, tuple(recipe.pairing.code_kinds)))
    pretrain(recipe, model, vocabulary, train, validation, workshop)
    best = load(workshop / "best")[0]
    return tell_all(best, held, recipe.codes.max_codes, recipe.pretraining.mask, recipe.pretraining.seed)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _rounded(value) if isinstance(value, dict) else round(value, 4) if isinstance(value, float) else value
        for name, value in values.items()
    }


def rendered(results: dict[str, Any]) -> str:
    """The tables of the page, between its marks."""
    lines = [START]
    for name, one in results["studies"].items():
        patients, windows = one["patients"], one["windows"]
        codes = next(iter(one["ways"].values()))
        lines += [
            "",
            f"**{name}, {one['data_kind']}**: {patients['train']:,} patients and {windows['train']:,} windows to learn "
            f"from, {patients['validation']:,} patients and {windows['validation']:,} windows asked about; "
            f"{codes['all']['codes']:,} hidden codes, {codes['new']['codes']:,} of them new in their window; "
            f"{one['tokens']:,} tokens, {100 * one['unknown']:.1f} % of codes unknown; {one['epochs']} epochs.",
            "",
            "| way | top-1 | top-5 | top-1, new codes | top-5, new codes |",
            "| --- | ---: | ---: | ---: | ---: |",
        ]
        for way, found in one["ways"].items():
            cells = (_cell(found[which].get(k)) for which in ("all", "new") for k in ("top1", "top5"))
            lines.append(f"| {way} | {' | '.join(cells)} |")
        lines += [
            "",
            f"sEHR-BERT (sinusoidal) over co-occurrence, top-1: {_cell(one['over_co_occurrence']['top1'], '+')}; "
            f"sinusoidal over buckets, top-1: {_cell(one['sinusoidal_over_buckets']['top1'], '+')}.",
        ]
    return "\n".join([*lines, "", END])


def _cell(found: dict[str, float] | None, sign: str = "") -> str:
    if found is None:
        return "–"
    return f"{found['value']:{sign}.3f} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the shared public data")
    data = parser.parse_args().data
    torch.set_num_threads(1)  # so small a model is slower on two
    results: dict[str, Any] = {"command": "make results-sehr DATA=path/to/data", "studies": {}}
    for name, setup in STUDIES.items():
        with tempfile.TemporaryDirectory() as folder:
            results["studies"][name] = measure(setup, data, Path(folder))
        sys.stderr.write(f"{name}: {results['studies'][name]['cpu_seconds']} seconds of a processor\n")
    write_json(HERE / "sehr.json", results)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.split(START)[0] + rendered(results) + page.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
