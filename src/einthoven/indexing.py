"""The index of a study: made as a stage, opened for queries, and rid of patients."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.embed import matrix, table_of
from einthoven.evaluation.outliers import FILE, load_outliers
from einthoven.model_directory import load
from einthoven.pipeline import Progress, embed, silent
from einthoven.search.archive import Archive
from einthoven.search.exact import ExactIndex
from einthoven.search.index import VectorIndex
from einthoven.study import Outcome, lock, read_table, run_stage, stage_manifest

EXACT = "exact"


def index(model_directory: Path, study: Path, backend: str = EXACT, progress: Progress = silent) -> Outcome:
    """Embeddings and tables -> an index; does nothing where it is there. Embeds first where that was not done."""
    embed(model_directory, study, progress)
    place = place_of(model_directory, study)
    inputs = {
        "embeddings": table_of(model_directory).at(study),
        "ingest": stage_manifest(study, "ingest"),
        "weights": model_directory / "model.safetensors",
    }
    if (model_directory / FILE).exists():
        inputs["outliers"] = model_directory / FILE

    def work() -> dict[str, Any]:
        found = ExactIndex(place)
        found.add(rows_of(model_directory, study))
        return {"recordings": len(found), "spaces": list(found.spaces)}

    with lock(place):
        manifest = place / "manifest.json"
        config = {"backend": backend}
        return run_stage(manifest, config=config, inputs=inputs, outputs={"index": schema.INDEX.at(place)}, work=work)


def place_of(model_directory: Path, study: Path) -> Path:
    """Where the index of a study by this model lies: its name carries the hash of the weights."""
    return study / "index" / table_of(model_directory).at(study).parent.name


def open_archive(model_directory: Path, study: Path, backend: str = EXACT, progress: Progress = silent) -> Archive:
    """The archive of a study, indexed first where that was not done."""
    index(model_directory, study, backend, progress)
    found: VectorIndex = ExactIndex.open(place_of(model_directory, study))
    return Archive.open(model_directory, study, found)


def rows_of(model_directory: Path, study: Path) -> pa.Table:
    """What an index holds of each embedded recording, with the columns of schema.INDEX."""
    seen = read_table(table_of(model_directory), study)
    wanted = ["recording_id", "time", "sex", "age", "device", "site", "quality"]
    about = read_table(schema.RECORDINGS, study, wanted)
    about = about.take(pc.index_in(seen["recording_id"], value_set=about["recording_id"].combine_chunks()))
    columns: dict[str, Any] = {name: seen[name] for name in ("recording_id", "subject_id", "split")}
    columns |= {name: about[name] for name in wanted[1:]}
    columns["findings"] = _findings(study, seen["recording_id"])
    columns["outlier"] = pa.nulls(len(seen), pa.float32())
    if (model_directory / FILE).exists() and len(seen):
        scores = load_outliers(model_directory).scores(matrix(seen["features"]), matrix(seen["embedding"]))
        columns["outlier"] = pa.array(scores, pa.float32())
    of = load(model_directory).space_config.modalities
    empty = pa.nulls(len(seen), schema.INDEX.columns.field("coarse").type)
    columns["coarse"] = seen["embedding"] if "text" in of else empty
    columns["fine"] = seen["fine"]
    return pa.table({name: columns[name] for name in schema.INDEX.columns.names}).cast(schema.INDEX.columns)


def _findings(study: Path, recording_ids: pa.ChunkedArray) -> pa.Array:
    """The codes read from each recording."""
    events = read_table(schema.EVENTS, study, ["code", "recording_id"])
    events = events.filter(pc.is_valid(events["recording_id"]))
    found: dict[str, list[str]] = {name: [] for name in recording_ids.to_pylist()}
    for code, name in zip(events["code"].to_pylist(), events["recording_id"].to_pylist(), strict=True):
        if name in found:
            found[name].append(code)
    return pa.array(list(found.values()), pa.list_(pa.string()))
