"""What a user writes: recipes, `--set`, filters, and tables of terms, drugs and labels."""

import tempfile
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from einthoven import schema
from einthoven.config import Entities, load_recipe, to_dict
from einthoven.entities import lexicon
from einthoven.search.filters import parse
from einthoven.vocabulary import medications
from fuzz.mutations import Tree
from fuzz.target import FindingError, Run, Target, written

ROOT: Final = Path(__file__).parents[1]
SETTINGS: Final = (
    "pairing.codes_after=0",
    'space.modalities=["ecg","codes"]',
    "training.epochs=3",
    "ecg.blocks=[1,1]",
    'pairing.code_kinds.procedure=["A"]',
    "evaluation.label_fractions=[0.5,1.0]",
    'text.pretrained="a/b"',
)
FILTERS: Final = (
    "sex = female and age >= 60 and finding = SCP//AFIB and split != train",
    'device in ("CS 12", b) and outlier = no',
    "time >= 2020-01-31T08:00 and outlier_score < 0.5",
    "quality != 'flat:V1' and age in (1, 2.5, 1e3)",
)


def recipes(folder: Path) -> tuple[list[Tree], Run]:
    trees: list[Tree] = [{"a.toml": path.read_bytes()} for path in sorted((ROOT / "recipes").rglob("*.toml"))]
    trees = [tree for tree in trees if b"extends" not in tree["a.toml"]]
    trees.append({"a.toml": b'extends = "b.toml"\n[ecg]\nwidth = 8\n', "b.toml": b"[training]\nepochs = 2\n"})

    def run(tree: Tree) -> None:
        to_dict(load_recipe(written(tree, folder / "recipe") / "a.toml"))

    return trees, run


def settings(folder: Path) -> tuple[list[Tree], Run]:
    def run(tree: Tree) -> None:
        load_recipe(None, [content.decode("utf-8", "surrogateescape") for content in tree.values()])

    return [{"a.set": one.encode()} for one in SETTINGS], run


def index_rows(count: int = 40) -> pa.Table:
    """Rows of an index with something in every column, and nulls."""
    random = np.random.default_rng(0)
    columns = {field.name: pa.nulls(count, field.type) for field in schema.INDEX.columns}
    some = lambda values: pa.array([values[i % len(values)] for i in range(count)])  # noqa: E731
    columns |= {
        "recording_id": pa.array([f"r{i}" for i in range(count)]),
        "subject_id": pa.array(range(count), pa.int64()),
        "split": some(["train", "test"]),
        "sex": some(["female", None, "male"]),
        "age": some([61.0, None, 2.5]),
        "device": some(["CS 12", "b", None, "it's"]),
        "findings": some([["SCP//AFIB"], [], None]),
        "quality": some([["flat:V1"], None]),
        "outlier": some([0.5, -0.5, None]),
        "coarse": pa.array(
            list(random.normal(size=(count, 4)).astype(np.float32)), schema.INDEX.columns.field("coarse").type
        ),
    }
    return pa.table(columns).cast(schema.INDEX.columns)


def filters(folder: Path) -> tuple[list[Tree], Run]:
    """What is parsed must be answered, and in memory as on disk."""
    from einthoven.search.exact import ExactIndex
    from einthoven.search.lance import LanceIndex

    rows = index_rows()
    exact, lance = ExactIndex(table=rows), LanceIndex(tempfile.mkdtemp(dir=folder))
    lance.add(rows)
    ones = np.ones(4, np.float32)

    def run(tree: Tree) -> None:
        where = parse(next(iter(tree.values()), b"").decode("utf-8", "replace"))
        found = [{name for name, _ in index.query(ones, len(rows), "coarse", where)} for index in (exact, lance)]
        if found[0] != found[1]:
            raise FindingError("exact and LanceDB differ")

    return [{"a.where": one.encode()} for one in FILTERS], run


def lexicons(folder: Path) -> tuple[list[Tree], Run]:
    head = "\t".join(lexicon.COLUMNS)
    lines = "AF\tatrial fibrillation\tCONDITION\tICD//10//I48\ten\texact\n"
    lines += "Vorhofflimmern\tatrial fibrillation\tCONDITION\t\tde\t\n"
    kind = schema.ENTITY_LABELS[0]

    def run(tree: Tree) -> None:
        path = written(tree, folder / "lexicon") / "a.tsv"
        lexicon.load(Entities(lexicon=str(path), replace=True))

    return [{"a.tsv": f"{head}\n{lines.replace('CONDITION', kind)}".encode()}], run


def drugs(folder: Path) -> tuple[list[Tree], Run]:
    head = "\t".join(medications.COLUMNS)
    lines = "lopressor\tmetoprolol\tC07AB\nzestoretic\thydrochlorothiazide + lisinopril\tC09BA\nasa\taspirin\t\n"

    def run(tree: Tree) -> None:
        medications.read(written(tree, folder / "drugs") / "a.tsv")

    return [{"a.tsv": f"{head}\n{lines}".encode()}], run


TARGETS: Final = (
    Target("recipe", recipes, 700),
    Target("set", settings, 700),
    Target("where", filters, 700),
    Target("lexicon", lexicons, 400),
    Target("medications", drugs, 400),
)
