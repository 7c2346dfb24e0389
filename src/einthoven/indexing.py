"""The stage that makes an index of a study's embeddings, the archive that is opened on it, and patients taken out."""

import errno
import hashlib
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.pipeline import Progress, embed, silent
from einthoven.study import (
    Outcome,
    completed,
    lock,
    read_object,
    read_table,
    remove,
    run_stage,
    stage_manifest,
    write_json,
)

if TYPE_CHECKING:
    import pyarrow as pa

    from einthoven.search.archive import Archive
    from einthoven.search.index import VectorIndex

EXACT, LANCE = "exact", "lance"
LOCAL: Final = (EXACT, LANCE)  # beside the study; the others are where a URI says
SCHEMES: Final = ("file", "s3", "gs", "az", "http", "https")
KEPT: Final = "backend.json"
"""Which backend has the index, and under which name; unlike the manifest it stays while the index is changed."""

FORGOTTEN: Final = "forgotten.json"
"""Beside the indexes of a study: who was taken out, as salted hashes, so that no later index brings them back."""

BATCH: Final = 20_000  # recordings added at a time


def index(model_directory: Path, study: Path, backend: str | None = None, progress: Progress = silent) -> Outcome:
    """Embeddings and tables -> an index. Does nothing where it is there; embeds first where that was not done.

    `backend`: "exact"; "lance", beside the exact one's place; s3://…, gs://…, az://… or file://… for LanceDB there;
    http(s)://… of a Qdrant server. None: the one the study's index has, else exact.
    """
    if backend is not None:
        check_backend(backend)
    embed(model_directory, study, progress)
    place = place_of(model_directory, study)
    kept = backend_of(place)
    backend = backend or kept
    stage = _stage(model_directory, study, backend)
    done = completed(place / "manifest.json", **stage)
    whole = done is not None and (backend in LOCAL or len(open_index(backend, place)) == done["recordings"])
    if done is not None and whole:  # asked before the lock: a finished study may be read-only, and searched by many
        return Outcome(done, fresh=False)
    if backend not in LOCAL:
        open_index(backend, place).close()  # a server that does not answer costs nobody the index there was
    with lock(place):
        _name(place)
        (place / "manifest.json").unlink(missing_ok=True)
        if kept != backend:  # or the old one would keep those who are forgotten later
            open_index(kept, place).clear()
        _note(place, backend)
        return run_stage(
            place / "manifest.json", **stage, work=lambda: _filled(model_directory, study, backend, progress)
        )


def _filled(model_directory: Path, study: Path, backend: str, progress: Progress) -> dict[str, Any]:
    from einthoven.search.rows import rows_of

    found = _empty(backend, place_of(model_directory, study))
    rows = without_forgotten(rows_of(model_directory, study), study)
    batch = max(len(rows), 1) if backend == EXACT else BATCH
    for start in range(0, len(rows), batch) or (0,):
        found.add(rows.slice(start, batch))
        progress(min(start + batch, len(rows)), len(rows), "recordings")
    found.settle()
    counts = {"backend": shown_as(backend), "recordings": len(found), "spaces": list(found.spaces)}
    found.close()
    return counts


def open_archive(model_directory: Path, study: Path, progress: Progress = silent) -> "Archive":
    """The archive of a study, indexed first where that was not done; in memory alone where it may not be written."""
    from einthoven.search.archive import Archive
    from einthoven.search.exact import ExactIndex
    from einthoven.search.rows import rows_of

    try:
        index(model_directory, study, None, progress)
        place = place_of(model_directory, study)
        found = open_index(backend_of(place), place)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        found = ExactIndex()
        found.add(without_forgotten(rows_of(model_directory, study), study))
    return Archive.open(model_directory, study, found)


def forget(model_directory: Path, study: Path, subject_ids: Sequence[int]) -> Outcome:
    """Take patients out of every index of a study for good: no later index of it, by whatever model, has them.

    Of the study's own tables nothing is changed: see docs/search.md for what remains there.
    """
    known = set(read_table(schema.RECORDINGS, study, ["subject_id"])["subject_id"].to_pylist())
    unknown = sum(subject not in known for subject in subject_ids)
    if unknown:
        raise EinthovenError(f"{unknown} of these patients have no recording in {study}: nothing was changed.")
    index(model_directory, study)
    place = place_of(model_directory, study)
    backend = backend_of(place)
    with lock(place):
        _note_forgotten(study, subject_ids)
        deleted = 0
        for other in sorted(place.parent.iterdir()):
            if other.is_dir() and other != place:
                deleted += _taken_out(other, subject_ids)

        def work() -> dict[str, Any]:
            found = open_index(backend, place)
            gone = deleted + found.delete_patients(subject_ids)
            counts = {"deleted": gone, "recordings": len(found), "spaces": list(found.spaces)}
            found.close()
            return {"backend": shown_as(backend), **counts}

        stage = _stage(model_directory, study, backend)
        return run_stage(place / "manifest.json", **stage, work=work, again=True)


def _taken_out(place: Path, subject_ids: Sequence[int]) -> int:
    """Patients taken out of another model's index; it is made anew, without them, when it is next asked."""
    with lock(place):
        (place / "manifest.json").unlink(missing_ok=True)
        found = open_index(backend_of(place), place)
        deleted = found.delete_patients(subject_ids)
        found.close()
    return deleted


def place_of(model_directory: Path, study: Path) -> Path:
    """Where the index of a study by this model lies: its name carries the hash of the weights."""
    from einthoven.embed import table_of

    return study / "index" / table_of(model_directory).at(study).parent.name


def check_backend(backend: str) -> None:
    """EinthovenError unless it is a backend; it is not repeated whole, for it may hold a password."""
    scheme, colon, rest = backend.partition("://")
    if backend in LOCAL or (scheme in SCHEMES and colon and rest and "@" not in rest):
        return
    raise EinthovenError(
        f"--backend {shown_as(backend)}: expected exact, lance, or {', '.join(s + '://…' for s in SCHEMES)} "
        "without a user or password."
    )


def shown_as(backend: str) -> str:
    return backend.partition("://")[0] + "://…" if "://" in backend else backend


def backend_of(place: Path) -> str:
    """The backend of the index that is there or was begun, else the exact one."""
    return str(_kept(place).get("backend", EXACT))


def _kept(place: Path) -> dict[str, Any]:
    path = place / KEPT
    if not path.exists():
        return {}
    found = read_object(path)
    if found is not None and isinstance(found.get("name"), str):
        return found
    raise EinthovenError(f"{path} is damaged: it says where the index lies. Delete it and the index that it named.")


def _name(place: Path) -> str:
    """Of a study's index where several may lie, at a URI or on a server; drawn once."""
    kept = _kept(place)
    if "name" not in kept:
        kept["name"] = f"einthoven-{secrets.token_hex(8)}"
        write_json(place / KEPT, kept)
    return str(kept["name"])


def _note(place: Path, backend: str) -> None:
    """Written before the index is: a kill must not make us forget where patients lie."""
    write_json(place / KEPT, {"name": _name(place), "backend": backend})


def open_index(backend: str, place: Path) -> "VectorIndex":
    """The index that a backend keeps; one that has nothing yet is empty."""
    from einthoven.search.exact import ExactIndex
    from einthoven.search.lance import LanceIndex
    from einthoven.search.qdrant import QdrantIndex, connect

    check_backend(backend)
    if backend == EXACT:
        return ExactIndex.open(place)
    if backend == LANCE:
        return LanceIndex(str(place / LANCE))
    if backend.startswith(("http://", "https://")):
        return QdrantIndex(connect(backend), _name(place))
    return LanceIndex(f"{backend.rstrip('/')}/{_name(place)}")


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
    noted = read_object(path) or {}
    salt, patients = noted.get("salt"), noted.get("patients")
    if isinstance(salt, str) and isinstance(patients, list) and all(isinstance(one, str) for one in patients):
        return noted
    raise EinthovenError(f"{path} is damaged: restore it from a copy, or forget its patients again after deleting it.")


def _note_forgotten(study: Path, subject_ids: Sequence[int]) -> None:
    noted = _forgotten(study) or {"salt": secrets.token_hex(16), "patients": []}
    hashed = {_hashed(subject, noted["salt"]) for subject in subject_ids}
    write_json(study / "index" / FORGOTTEN, {**noted, "patients": sorted({*noted["patients"], *hashed})})


def _hashed(subject_id: int, salt: str) -> str:
    return hashlib.sha256(f"{salt}{subject_id}".encode()).hexdigest()
