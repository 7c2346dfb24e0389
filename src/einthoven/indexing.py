"""The stage that makes an index of a study's embeddings, and the archive that is opened on it."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from einthoven import schema
from einthoven.pipeline import Progress, embed, silent
from einthoven.study import Outcome, completed, lock, run_stage, stage_manifest

if TYPE_CHECKING:
    from einthoven.search.archive import Archive


def index(model_directory: Path, study: Path, progress: Progress = silent) -> Outcome:
    """Embeddings and tables -> an index. Does nothing where it is there; embeds first where that was not done."""
    from einthoven.search.exact import ExactIndex
    from einthoven.search.rows import rows_of

    embed(model_directory, study, progress)
    place = place_of(model_directory, study)
    stage = _stage(model_directory, study)
    done = completed(place / "manifest.json", **stage)
    if done is not None:  # asked before the lock: a finished study may be read-only, and searched by many
        return Outcome(done, fresh=False)

    def work() -> dict[str, Any]:
        found = ExactIndex(place)
        found.add(rows_of(model_directory, study))
        return {"recordings": len(found), "spaces": list(found.spaces)}

    with lock(place):
        return run_stage(place / "manifest.json", **stage, work=work)


def open_archive(model_directory: Path, study: Path, progress: Progress = silent) -> "Archive":
    """The archive of a study, indexed first where that was not done; in memory alone where it may not be written."""
    from einthoven.search.archive import Archive
    from einthoven.search.exact import ExactIndex
    from einthoven.search.rows import rows_of

    try:
        index(model_directory, study, progress)
        found = ExactIndex.open(place_of(model_directory, study))
    except PermissionError:
        found = ExactIndex()
        found.add(rows_of(model_directory, study))
    return Archive.open(model_directory, study, found)


def place_of(model_directory: Path, study: Path) -> Path:
    """Where the index of a study by this model lies: its name carries the hash of the weights."""
    from einthoven.embed import table_of

    return study / "index" / table_of(model_directory).at(study).parent.name


def _stage(model_directory: Path, study: Path) -> dict[str, Any]:
    from einthoven.embed import table_of
    from einthoven.evaluation.outliers import FILE

    inputs = {
        "embeddings": table_of(model_directory).at(study),
        "ingest": stage_manifest(study, "ingest"),
        "weights": model_directory / "model.safetensors",
    }
    if (model_directory / FILE).exists():
        inputs["outliers"] = model_directory / FILE
    outputs = {"index": schema.INDEX.at(place_of(model_directory, study))}
    return {"config": {"backend": "exact"}, "inputs": inputs, "outputs": outputs}
