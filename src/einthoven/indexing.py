"""The stage that makes an index of a study's embeddings, the archive that is opened on it, and patients taken out."""

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.pipeline import Progress, embed, silent
from einthoven.study import Outcome, completed, lock, read_manifest, remove, run_stage, stage_manifest, write_json

if TYPE_CHECKING:
    import pyarrow as pa

    from einthoven.search.archive import Archive
    from einthoven.search.index import VectorIndex

EXACT, LANCE = "exact", "lance"
FORGOTTEN: Final = "forgotten.json"
"""Beside the indexes of a study: who was taken out, as salted hashes, so that no later index brings them back."""

BATCH: Final = 20_000  # recordings added at a time


def index(model_directory: Path, study: Path, backend: str | None = None, progress: Progress = silent) -> Outcome:
    """Embeddings and tables -> an index. Does nothing where it is there; embeds first where that was not done.

    `backend`: "exact"; "lance", beside the exact one's place; s3://…, gs://…, az://… or file://… for LanceDB there;
    http(s)://… of a Qdrant server. None: the one the study's index has, else exact.
    """
    from einthoven.search.rows import rows_of

    embed(model_directory, study, progress)
    place = place_of(model_directory, study)
    backend = backend or backend_of(place)
    stage = _stage(model_directory, study, backend)
    done = completed(place / "manifest.json", **stage)
    if done is not None:  # asked before the lock: a finished study may be read-only, and searched by many
        return Outcome(done, fresh=False)

    def work() -> dict[str, Any]:
        found = _empty(backend, place)
        rows = without_forgotten(rows_of(model_directory, study), study)
        for start in range(0, len(rows), BATCH) if backend != EXACT else (0,):
            found.add(rows.slice(start, BATCH) if backend != EXACT else rows)
            progress(min(start + BATCH, len(rows)), len(rows), "recordings")
        counts = {"backend": backend, "recordings": len(found), "spaces": list(found.spaces)}
        found.close()
        return counts

    with lock(place):
        return run_stage(place / "manifest.json", **stage, work=work)


def open_archive(model_directory: Path, study: Path, progress: Progress = silent) -> "Archive":
    """The archive of a study, indexed first where that was not done; in memory alone where it may not be written."""
    from einthoven.search.archive import Archive
    from einthoven.search.exact import ExactIndex
    from einthoven.search.rows import rows_of

    try:
        index(model_directory, study, None, progress)
        place = place_of(model_directory, study)
        found = open_index(backend_of(place), place)
    except PermissionError:
        found = ExactIndex()
        found.add(without_forgotten(rows_of(model_directory, study), study))
    return Archive.open(model_directory, study, found)


def forget(model_directory: Path, study: Path, subject_ids: Sequence[int]) -> Outcome:
    """Take patients out of the index of a study for good: no later index of it, by whatever model, has them.

    Of the study's own tables nothing is changed: see docs/search.md for what remains there.
    """
    place = place_of(model_directory, study)
    index(model_directory, study)
    backend = backend_of(place)

    def work() -> dict[str, Any]:
        found = open_index(backend, place)
        deleted = found.delete_patients(subject_ids)
        counts = {"backend": backend, "deleted": deleted, "recordings": len(found), "spaces": list(found.spaces)}
        found.close()
        return counts

    with lock(place):
        _note_forgotten(study, subject_ids)
        return run_stage(place / "manifest.json", **_stage(model_directory, study, backend), work=work)


def place_of(model_directory: Path, study: Path) -> Path:
    """Where the index of a study by this model lies: its name carries the hash of the weights."""
    from einthoven.embed import table_of

    return study / "index" / table_of(model_directory).at(study).parent.name


def backend_of(place: Path) -> str:
    """The backend of the index that is there, else the exact one."""
    manifest = read_manifest(place / "manifest.json")
    return str(manifest["config"]["backend"]) if manifest is not None else EXACT


def open_index(backend: str, place: Path) -> "VectorIndex":
    """The index that a backend keeps; one that has nothing yet is empty."""
    from einthoven.search.exact import ExactIndex
    from einthoven.search.lance import LanceIndex
    from einthoven.search.qdrant import QdrantIndex, connect

    if backend == EXACT:
        return ExactIndex.open(place)
    if backend == LANCE:
        return LanceIndex(str(place / LANCE))
    if backend.startswith(("http://", "https://")):
        return QdrantIndex(connect(backend), f"einthoven-{place.name}")
    if "://" in backend and "@" not in backend:
        return LanceIndex(backend)
    raise EinthovenError(f"--backend {backend}: expected exact, lance, s3://…, gs://…, az://…, file://… or http(s)://…")


def _empty(backend: str, place: Path) -> "VectorIndex":
    """An index to be filled: what a killed run or another version of the study left there goes."""
    schema.INDEX.at(place).unlink(missing_ok=True)
    if (place / LANCE).exists():
        remove(place / LANCE)
    found = open_index(backend, place)
    found.clear()
    return found


def _stage(model_directory: Path, study: Path, backend: str) -> dict[str, Any]:
    from einthoven.embed import table_of
    from einthoven.evaluation.outliers import FILE

    place = place_of(model_directory, study)
    inputs = {
        "embeddings": table_of(model_directory).at(study),
        "ingest": stage_manifest(study, "ingest"),
        "weights": model_directory / "model.safetensors",
    }
    for name, path in {"outliers": model_directory / FILE, "forgotten": place.with_name(FORGOTTEN)}.items():
        if path.exists():
            inputs[name] = path
    outputs = {EXACT: {"index": schema.INDEX.at(place)}, LANCE: {"index": place / LANCE}}.get(backend, {})
    return {"config": {"backend": backend}, "inputs": inputs, "outputs": outputs}


def without_forgotten(rows: "pa.Table", study: Path) -> "pa.Table":
    """Rows of an index without the patients who were taken out."""
    import numpy as np
    import pyarrow as pa

    noted = _forgotten(study)
    if noted is None:
        return rows
    gone = set(noted["patients"])
    kept = [_hashed(subject, noted["salt"]) not in gone for subject in rows["subject_id"].to_pylist()]
    return rows.filter(pa.array(np.array(kept, bool)))


def _forgotten(study: Path) -> Mapping[str, Any] | None:
    path = study / "index" / FORGOTTEN
    if not path.exists():
        return None
    try:
        noted = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(noted, dict) and isinstance(noted["salt"], str) and isinstance(noted["patients"], list):
            return noted
    except (ValueError, KeyError):
        pass
    raise EinthovenError(f"{path} is damaged: restore it from a copy, or forget its patients again after deleting it.")


def _note_forgotten(study: Path, subject_ids: Sequence[int]) -> None:
    noted = _forgotten(study) or {"salt": secrets.token_hex(16), "patients": []}
    hashed = {_hashed(subject, noted["salt"]) for subject in subject_ids}
    write_json(study / "index" / FORGOTTEN, {**noted, "patients": sorted({*noted["patients"], *hashed})})


def _hashed(subject_id: int, salt: str) -> str:
    return hashlib.sha256(f"{salt}{subject_id}".encode()).hexdigest()
