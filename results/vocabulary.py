"""What vocabularies hold of the codes of held-out patients (docs/vocabulary.md).

python results/vocabulary.py ../shared/data    # results/vocabulary.json, and the tables of docs/vocabulary.md

The train split is `pairing.splits.split_of`; the coded events of the validation and test splits together are measured.
"""

import argparse
import csv
import gzip
import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from einthoven import config, schema
from einthoven.pairing.kinds import kinds_of
from einthoven.pairing.splits import split_of
from einthoven.sources import mimic, omop
from einthoven.sources.fhir_elements import SYSTEMS
from einthoven.study import write_json
from einthoven.vocabulary.patients import patients_of
from einthoven.vocabulary.rules import rules_of
from einthoven.vocabulary.vocabulary import SPECIAL, build

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "vocabulary.md"
START, END = "<!-- results: made by results/vocabulary.py -->", "<!-- end of results -->"
FLOORS: Final = (1, 5, 20)
STEPS: Final = ("code", "ingredient", "category", "group", "section", "chapter", "class", "parent")


@dataclass(frozen=True)
class Coded:
    """The coded events of a source: those of [pairing]'s default kinds."""

    events: pa.Table  # subject_id, code
    codes: pa.Table  # schema.CODES


def _entering(events: pa.Table, codes: pa.Table) -> Coded:
    kinds = kinds_of(events["code"].unique().to_pylist(), config.Pairing())
    rows = events.filter(pc.is_in(events["code"], value_set=kinds.codes)).select(["subject_id", "code"])
    return Coded(rows, codes)


def of_mimic(data: Path) -> Coded:
    """MIMIC-IV demo, as `einthoven ingest mimic` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        mimic.ingest(config.Source(name="mimic"), data / "mimic-iv-demo-2.2", Path(folder))
        return _entering(*(pq.read_table(table.at(Path(folder))) for table in (schema.EVENTS, schema.CODES)))


def of_gibleed(data: Path) -> Coded:
    """Eunomia GiBleed, as `einthoven ingest omop` writes it."""
    with tempfile.TemporaryDirectory() as folder:
        recordings = Path(folder) / "ecgs.csv"
        recordings.write_text("recording_id,subject_id,time\na,6,2000-01-01 10:00:00\n", encoding="utf-8")
        study = Path(folder) / "study"
        omop.ingest(config.Source(name="omop", recordings=str(recordings)), data / "omop-eunomia-gibleed", study)
        return _entering(*(pq.read_table(table.at(study)) for table in (schema.EVENTS, schema.CODES)))


def of_synthea(data: Path) -> Coded:
    """Synthea, named as `einthoven ingest fhir` names it."""
    prefixes = {"Condition": "DIAGNOSIS", "Procedure": "PROCEDURE", "MedicationRequest": "MEDICATION//START"}
    systems = {"sct": SYSTEMS["http://snomed.info/sct"], "rxnorm": "RxNorm"}
    subjects, codes, names = [], [], {}
    for row in _rows(data / "synthea-r4-code-events" / "events.csv.gz"):
        if row["resource"] in prefixes:
            code = f"{prefixes[row['resource']]}//{systems[row['code_system']]}//{row['code']}"
            names[code] = row["display"]
            subjects.append(int.from_bytes(hashlib.sha256(row["patient_id"].encode()).digest()[:7], "big"))
            codes.append(code)
    listed = [{"code": code, "description": name, "parent_codes": []} for code, name in sorted(names.items())]
    events = pa.table({"subject_id": pa.array(subjects, pa.int64()), "code": codes})
    return _entering(events, pa.Table.from_pylist(listed, schema=schema.CODES.columns))


def _rows(path: Path) -> Iterator[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


SOURCES: Final = {
    "MIMIC-IV demo": (of_mimic, schema.REAL),
    "Synthea": (of_synthea, schema.SIMULATED),
    "GiBleed": (of_gibleed, schema.SIMULATED),
}


def measured(coded: Coded, floor: int, **settings: Any) -> dict[str, Any]:
    """The vocabulary of the train split at one floor, and the coverage of the others' events by kind."""
    rules = rules_of(config.Vocabulary(floor=floor, **settings), coded.codes)
    splits = {subject: split_of(subject) for subject in coded.events["subject_id"].unique().to_pylist()}
    train = pa.array([splits[s] == "train" for s in coded.events["subject_id"].to_pylist()])
    seen = patients_of(coded.events.filter(train))
    vocabulary = build(seen, floor, rules)
    held_out = Counter(coded.events.filter(pc.invert(train))["code"].to_pylist())
    return {
        "patients": dict(sorted(Counter(splits.values()).items())),
        "distinct_codes": len(seen),
        "distinct_spelled": len(set(map(rules.canonical, seen))),
        "tokens": len(vocabulary) - len(SPECIAL),
        "held_out": {
            kind: {name: round(value, 4) for name, value in shares.items()}
            for kind, shares in vocabulary.coverage(held_out).items()
        },
    }


def names(coded: Coded) -> dict[str, Any]:
    """How many medication codes or names became how many ingredients, and the share of orders the table knows."""
    rules = rules_of(config.Vocabulary(), coded.codes)
    counts = Counter(code for code in coded.events["code"].to_pylist() if code.startswith("MEDICATION//"))
    spelled = {code: rules.canonical(code).removeprefix("MEDICATION//") for code in counts}
    known = sum(times for code, times in counts.items() if rules.medications.knows(spelled[code]))
    return {
        "distinct": len(counts),
        "ingredients": len(set(spelled.values())),
        "known": round(known / counts.total(), 4),
    }


def rendered(results: dict[str, Any]) -> str:
    """The tables of the page, between its marks."""
    lines = [START, "| source | floor | codes | one spelling | tokens | exact | backed off | unknown |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, one in results["sources"].items():
        for floor, found in one["floors"].items():
            lines.append(_line(f"{name} ({one['data_kind']})", floor, found, "all"))
    lines += ["", "By kind at floor 5, and how what is backed off is told:", ""]
    lines += [
        "| source | kind | events | exact | backed off, to | unknown |",
        "| --- | --- | ---: | ---: | --- | ---: |",
    ]
    for name, one in results["sources"].items():
        for kind, shares in one["floors"]["5"]["held_out"].items():
            if kind != "all":
                told = ", ".join(f"{step} {shares[step]:.3f}" for step in STEPS if shares.get(step))
                ends = f"{shares['exact']:.3f} | {told or '–'} | {shares['unknown']:.3f} |"
                lines.append(f"| {name} ({one['data_kind']}) | {kind} | {shares['codes']:,} | {ends}")
    lines += ["", "| source | names or codes of drugs | ingredients | orders with a known ingredient |"]
    lines.append("| --- | ---: | ---: | ---: |")
    for name, one in results["sources"].items():
        drugs = one["medications"]
        cells = f"{drugs['distinct']} | {drugs['ingredients']} | {drugs['known']:.3f} |"
        lines.append(f"| {name} ({one['data_kind']}) | {cells}")
    return "\n".join([*lines, END])


def _line(name: str, floor: str, found: dict[str, Any], kind: str) -> str:
    shares = found["held_out"][kind]
    off = abs(1 - shares["exact"] - shares["unknown"])
    cells = (f"{found[key]:,}" for key in ("distinct_codes", "distinct_spelled", "tokens"))
    return f"| {name} | {floor} | {' | '.join(cells)} | {shares['exact']:.3f} | {off:.3f} | {shares['unknown']:.3f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the shared public data")
    data = parser.parse_args().data
    results: dict[str, Any] = {"command": "make results-vocabulary DATA=path/to/data", "sources": {}}
    for name, (read, kind) in SOURCES.items():
        coded = read(data)
        floors = {str(floor): measured(coded, floor) for floor in FLOORS}
        results["sources"][name] = {"data_kind": kind, "floors": floors, "medications": names(coded)}
        if name == "MIMIC-IV demo":
            mapped = {f"{floor}, ICD-9 as ICD-10": measured(coded, floor, icd9_as_icd10=True) for floor in FLOORS}
            results["sources"][name]["floors"] |= mapped
    write_json(HERE / "vocabulary.json", results)
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(page.split(START)[0] + rendered(results) + page.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
