"""What einthoven writes and reads again: model directories, studies with manifests, files of embeddings, labels."""

import io
import shutil
from pathlib import Path
from typing import Final

import numpy as np

from einthoven import pipeline, schema
from einthoven.config import Recipe, load_recipe
from einthoven.study import data_kind, read_table
from fuzz.mutations import Tree
from fuzz.target import Run, Target, tree_of, written

SETTINGS: Final = (
    "source.subjects=40",
    'space.modalities=["ecg","codes","text"]',
    "training.epochs=1",
    "evaluation.control=false",
    "evaluation.label_fractions=[0.5,1.0]",
    "evaluation.subsets=2",
)


def trained(folder: Path) -> tuple[Path, Path]:
    """A small three-way model and its simulated study, made where they are not there: targets of one run share them."""
    place = folder.parent / "trained"
    if not (place / "model" / "manifest.json").exists():
        recipe = load_recipe(Path(__file__).parents[1] / "tests" / "tiny.toml", SETTINGS)
        pipeline.ingest(recipe.source, None, place / "study")
        pipeline.pair(recipe, place / "study")
        pipeline.align(recipe, place / "study", place / "model")
    return place / "model", place / "study"


def models(folder: Path) -> tuple[list[Tree], Run]:
    from einthoven.evaluation.outliers import load_outliers
    from einthoven.model_directory import load
    from einthoven.training.probes import FILE, load_probes

    def run(tree: Tree) -> None:
        place = written(tree, folder / "model")
        model = load(place)
        model.encode_text(["atrial fibrillation", ""])
        load_outliers(place)
        load_probes(place / FILE)

    return [tree_of(trained(folder)[0])], run


def configs(folder: Path) -> tuple[list[Tree], Run]:
    """The small files of a model, which say how large it is; the others are links."""
    from einthoven.model_directory import load

    model = trained(folder)[0]
    small = ("config.json", "vocabulary.json")

    def run(tree: Tree) -> None:
        place = written(tree, folder / "model")
        for path in model.iterdir():
            if path.name not in small:
                (place / path.name).symlink_to(path)
        load(place)

    return [
        {name: (model / name).read_bytes()} | {other: (model / other).read_bytes()}
        for name, other in (small, small[::-1])
    ], run


def studies(folder: Path) -> tuple[list[Tree], Run]:
    """A whole study, damaged anywhere: opened, paired again where its manifest no longer holds, and shown."""
    from einthoven.serve.charts import Charts
    from einthoven.waveforms.store import Store

    kept = (schema.RECORDINGS, schema.EVENTS, schema.CODES, schema.NOTES, schema.ENTITIES, schema.PAIRS)
    whole = {
        name: content for name, content in tree_of(trained(folder)[1]).items() if not name.startswith(("index", "."))
    }

    def run(tree: Tree) -> None:
        place = written(tree, folder / "study")
        data_kind(place)
        for table in kept:
            read_table(table, place)
        charts = Charts(place, Store.open(place), show_notes=True)
        for name in charts.recordings["recording_id"].to_pylist()[:2]:
            charts.recording(str(name))
            charts.drawing(str(name))
        pipeline.entities(Recipe().entities, place)

    return [whole], run


def embeddings(folder: Path) -> tuple[list[Tree], Run]:
    from einthoven.evaluation.foreign import read_npz

    random, names = np.random.default_rng(0), np.array([f"r{i}" for i in range(40)])
    arrays = {
        "recording_id": names,
        "features": random.normal(size=(40, 6)),
        "ecg": random.normal(size=(40, 4)).astype("f4"),
        "text": random.normal(size=(40, 4)),
        "text_recording_id": names,
        "prompt_MI": random.normal(size=(2, 4)),
    }
    packed, plain = io.BytesIO(), io.BytesIO()
    np.savez_compressed(packed, **arrays)
    np.savez(plain, **arrays, concatenation=np.array("entity"))

    def run(tree: Tree) -> None:
        foreign = read_npz(written(tree, folder / "npz") / "a.npz")
        foreign.rows(["r1", "r2"], "recordings")

    return [{"a.npz": packed.getvalue()}, {"a.npz": plain.getvalue()}], run


def labels(folder: Path) -> tuple[list[Tree], Run]:
    from einthoven.evaluation.targets import read_targets

    study = trained(folder)[1]
    ids = read_table(schema.RECORDINGS, study, ["recording_id"])["recording_id"].to_pylist()
    lines = "".join(f"{name},{i % 2},{i / 7:.2f}\n" for i, name in enumerate(ids))

    def run(tree: Tree) -> None:
        read_targets(str(written(tree, folder / "labels") / "a.csv"), study)

    plain = f"recording_id,af\n{ids[0]},1\n{ids[1]},\n{ids[2]},0\n"
    return [
        {"a.csv": f"recording_id,lvef,ef\n{lines.replace(',0,', ',0.3,')}".encode()},
        {"a.csv": plain.encode()},
    ], run


def manifests(folder: Path) -> tuple[list[Tree], Run]:
    """Of a model's stages and a study's: what is asked before anything is done again."""
    from einthoven.indexing import backend_of, without_forgotten
    from einthoven.pipeline.stage import refuse_stale_pairs
    from einthoven.pipeline.tables import refuse_other_use
    from einthoven.study import completed

    study = trained(folder)[1]
    whole = {f"study/{name}": content for name, content in tree_of(study).items() if name.startswith("manifests")}
    whole |= {
        "study/index/forgotten.json": b'{"salt": "a", "patients": ["b"]}',
        "study/index/x/backend.json": b'{"backend": "exact", "name": "n"}',
    }
    rows = read_table(schema.RECORDINGS, study)
    for table in (schema.RECORDINGS, schema.EVENTS, schema.NOTES, schema.ENTITIES, schema.PAIRS):
        shutil.copytree(study, folder / "kept", dirs_exist_ok=True, ignore=shutil.ignore_patterns("index", "waveforms"))
        assert table.at(folder / "kept").exists()

    def run(tree: Tree) -> None:
        place = written(tree, folder / "made") / "study"
        for table in (schema.RECORDINGS, schema.EVENTS, schema.NOTES, schema.ENTITIES, schema.PAIRS):
            table.at(place).symlink_to(table.at(folder / "kept"))
        data_kind(place)
        refuse_other_use(place, "simulated")
        backend_of(place / "index" / "x")
        without_forgotten(rows, place)
        completed(place / "manifests" / "pair.json", config={}, inputs={}, outputs={})
        refuse_stale_pairs(place)

    return [whole], run


TARGETS: Final = (
    Target("npz", embeddings, 500),
    Target("labels", labels, 150),
    Target("manifests", manifests, 500),
    Target("model", models, 300),
    Target("model-config", configs, 400),
    Target("study", studies, 200),
)
