"""A study directory and its stages: outputs appear whole or not at all, the manifest last."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.errors import EinthovenError, short_of_space

if TYPE_CHECKING:
    import pyarrow.compute as pc


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary name beside `path`; it takes the place of `path` only if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".{path.name}.{os.getpid()}.tmp"
    remove(temporary)
    try:
        yield temporary
        if temporary.is_dir():  # a directory cannot be replaced in one step: only the manifest makes it valid
            remove(path)
        os.replace(temporary, path)
    except Exception as error:
        if isinstance(error, OSError) or not short_of_space(error):
            raise
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error
    finally:
        remove(temporary)


def refuse_foreign(path: Path, mark: str) -> None:
    """Refuse to replace what is neither absent, nor an empty directory, nor one that holds the file `mark`."""
    if path.exists() and not (path / mark).is_file() and not (path.is_dir() and not any(path.iterdir())):
        raise EinthovenError(f"{path} exists and holds no {mark}: name a new directory, nothing was written.")


def remove(path: Path) -> None:
    """Delete a file or a directory, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path, value: object) -> None:
    with atomic(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def write_table(table: schema.Table, study: Path, rows: pa.Table) -> Path:
    """Write a table of the schema atomically; columns are cast to the schema, and a difference is an error."""
    path = table.at(study)
    with atomic(path) as temporary:
        pq.write_table(rows.select(table.columns.names).cast(table.columns), temporary)
    return path


def read_table(
    table: schema.Table, study: Path, columns: list[str] | None = None, rows: "pc.Expression | None" = None
) -> pa.Table:
    """Read a table of a study, or those of its `rows` that satisfy it, checking that its columns are the schema's."""
    path = check_table(table, study)
    try:
        if rows is not None:
            read = pq.read_table(path, columns=columns, filters=rows)
        else:
            with pq.ParquetFile(path) as file:  # `read_table` imports pandas where it is installed
                read = file.read(columns=columns)
    except (pa.ArrowException, OSError):  # OSError: what Arrow calls damage within a page
        raise EinthovenError(f"{path} is damaged: run the stage that writes it again.") from None
    for name in set(read.column_names) & set(table.columns.names):  # a source may have kept others beside them
        if read[name].null_count and not table.columns.field(name).nullable:
            raise EinthovenError(f"{path}: column {name!r} has empty cells: run the stage that writes it again.")
    return read


def check_table(table: schema.Table, study: Path) -> Path:
    """The path of a table that is there, has the schema's columns, and is as the stage wrote it that completed last."""
    path = table.at(study)
    if not path.exists():
        raise EinthovenError(f"{path} is missing: run the stage that writes it first (see `einthoven --help`).")
    _refuse_altered_table(table, study)
    try:
        found = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise EinthovenError(f"{path} is not a readable Parquet file ({error}); run its stage again.") from None
    for name in table.columns.names:
        if name not in found.names or found.field(name).type != table.columns.field(name).type:
            raise EinthovenError(f"{path}: column {name!r} should be {table.columns.field(name).type}.")
    return path


def _refuse_altered_table(table: schema.Table, study: Path) -> None:
    """What is damaged or was edited does not enter results."""
    for manifest in sorted((study / schema.MANIFESTS).glob("*.json")):
        found = read_manifest(manifest)
        if found is None or table.path not in found["outputs"]:
            continue
        recall(found, {table.path: table.at(study)})
        written = found["outputs"][table.path]
        if written and written != fingerprint(table.at(study)):
            raise EinthovenError(
                f"{table.at(study)} is not as the stage {manifest.stem} wrote it: it is damaged or was edited. "
                "Repeat the command that made it."
            )


def refuse_altered(directory: Path) -> None:
    """Refuse a directory of weights of which a file is not as the stage wrote it that completed there last.

    One without manifests, such as from the Hub, is not refused, nor one without a file: who needs it says so.
    """
    for name in ("manifest.json", "calibration.json"):
        found = read_manifest(directory / name)
        for file, written in ({} if found is None else found["outputs"]).items():
            path = directory / file
            if not written or not path.exists():
                continue
            now = sha256(path) if path.is_file() else fingerprint(path)  # read anew, whatever its size and time say
            if now != written:
                raise EinthovenError(
                    f"{path} is not as it was written: copy {directory} again from where it is whole, or repeat the "
                    "command that made it."
                )


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


SMALL = 1 << 20
"""Bytes up to which a file is read for its fingerprint every time."""

_KNOWN: dict[str, tuple[int, int, str]] = {}
"""By the paths of larger files: size, time of modification and SHA-256, as this process or a manifest found them."""


def fingerprint(path: Path, times: bool = False) -> str:
    """SHA-256 of a file; of a directory, the names and sizes of all its files, and the contents of small ones.

    A large file of known size and time of modification is not read again. With `times` those take the place of the
    contents in a directory, too: right for sources of very many files, but a copy of them counts as changed.
    """
    if path.is_file():
        status, place = path.stat(), str(path.absolute())
        if status.st_size <= SMALL:
            return sha256(path)
        mark = (status.st_size, status.st_mtime_ns)
        if place not in _KNOWN or _KNOWN[place][:2] != mark:
            _KNOWN[place] = (*mark, sha256(path))
        return _KNOWN[place][2]
    if not path.is_dir():
        raise EinthovenError(f"{path} is missing: run the stage that writes it first (see `einthoven --help`).")
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(path):
        folders.sort()
        for name in sorted(files):
            file = Path(folder) / name
            status = file.stat()
            content = str(status.st_mtime_ns) if times else sha256(file) if status.st_size <= SMALL else ""
            digest.update(f"{file.relative_to(path)} {status.st_size} {content}\n".encode())
    return digest.hexdigest()


def recall(manifest: Mapping[str, Any], paths: Mapping[str, Path]) -> None:
    """Take from a manifest what the large files among its `paths` were: gigabytes are not hashed to open a study."""
    digests = manifest["inputs"] | manifest["outputs"]
    for name, (size, changed) in manifest["marks"].items():
        if name in paths and isinstance(digests.get(name), str):
            _KNOWN.setdefault(str(paths[name].absolute()), (size, changed, digests[name]))


def _marks(paths: Mapping[str, Path]) -> dict[str, tuple[int, int]]:
    """Size and time of modification of the large files, as they were when they were hashed."""
    known = {name: _KNOWN.get(str(path.absolute())) for name, path in paths.items()}
    return {name: found[:2] for name, found in known.items() if found is not None}


@dataclass(frozen=True)
class Outcome:
    """What a stage did: its counts, and whether it had anything to do."""

    counts: dict[str, Any]
    fresh: bool


def run_stage(
    manifest: Path,
    *,
    config: Mapping[str, Any],
    inputs: Mapping[str, Path],
    outputs: Mapping[str, Path],
    work: Callable[[], dict[str, Any]],
    inside: bool = False,
    again: bool = False,
) -> Outcome:
    """Run `work` unless `manifest` shows it completed with the same inputs, configuration and outputs.

    `work` writes the outputs (atomically, one by one) and returns counts. The old manifest is removed before
    the first output changes and the new one is written last, so a kill at any point leaves a stage that re-runs.
    `inside`: the manifest lies in the one directory that is the output, and goes when that is replaced.
    `again`: run in any case, since an input (a database) has no fingerprint.
    """
    done = None if again else completed(manifest, config=config, inputs=inputs, outputs=outputs)
    if done is not None:
        return Outcome(done, fresh=False)
    wanted = _wanted(config, inputs)
    beside = [left for path in outputs.values() for left in path.parent.glob(f".{path.name}.*.tmp")]
    for left in (*beside, *manifest.parent.glob(".*.tmp")):  # by a killed process: the caller's lock says it is gone
        remove(left)
    if not inside:
        manifest.unlink(missing_ok=True)
    counts = work()
    results = _found(outputs)
    marks = _marks({**inputs, **outputs})
    write_manifest(manifest, {**wanted, "outputs": results, "counts": counts, "marks": marks})
    return Outcome(counts, fresh=True)


def completed(
    manifest: Path, *, config: Mapping[str, Any], inputs: Mapping[str, Path], outputs: Mapping[str, Path]
) -> dict[str, Any] | None:
    """The counts of a stage that need not run again: nothing differs from what its manifest says; else None."""
    before = read_manifest(manifest)
    if before is None:
        return None
    recall(before, {**inputs, **outputs})
    if any(before.get(key) != value for key, value in _wanted(config, inputs).items()):
        return None
    return dict(before["counts"]) if before["outputs"] == _found(outputs) else None


def _found(outputs: Mapping[str, Path]) -> dict[str, str | None]:
    return {name: fingerprint(path) if path.exists() else None for name, path in outputs.items()}


def _wanted(config: Mapping[str, Any], inputs: Mapping[str, Path]) -> dict[str, Any]:
    return {
        "version": version("einthoven"),
        "schema": schema.DIGEST,
        "config": json.loads(json.dumps(config)),
        "inputs": {name: fingerprint(path, times=path.is_dir()) for name, path in inputs.items()},
    }


PARTS: Final = ("config", "inputs", "outputs", "counts", "marks")
"""Of a manifest, each with values by name; beside them it has `version`, `schema` and a digest of all."""


def write_manifest(manifest: Path, content: Mapping[str, Any]) -> None:
    """Write a manifest, with its digest."""
    plain = json.loads(json.dumps(content))  # as it will be read: keys are strings
    write_json(manifest, {**plain, "digest": _digest(plain)})


def read_manifest(manifest: Path) -> dict[str, Any] | None:
    """The manifest with all PARTS, or None where there is none or it is damaged (then its stage counts as not done)."""
    found = read_object(manifest)
    if found is None or not all(isinstance(found.get(part, {}), dict) for part in PARTS):
        return None
    digest = found.pop("digest", None)  # an earlier version wrote none
    if set(found) - {"version", "schema", *PARTS} or digest not in (None, _digest(found)):
        return None
    return {part: {} for part in PARTS} | found


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_object(path: Path) -> dict[str, Any] | None:
    """A file of one JSON object, or None where there is none or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def stage_manifest(study: Path, stage: str) -> Path:
    return study / schema.MANIFESTS / f"{stage}.json"


def data_kind(study: Path) -> str:
    """real, semi-synthetic or simulated, as the ingest stage wrote it."""
    manifest = read_manifest(stage_manifest(study, "ingest"))
    kind = None if manifest is None else manifest["counts"].get("data_kind")
    if kind not in schema.DATA_KINDS:
        raise EinthovenError(f"{study}: not a complete study. Run `einthoven ingest NAME SRC {study}` first.")
    return str(kind)


@contextmanager
def lock(study: Path) -> Iterator[None]:
    """Hold a study for writing; a second writer is refused. The lock dies with its process."""
    import fcntl

    study.mkdir(parents=True, exist_ok=True)
    with (study / ".lock").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EinthovenError(f"{study} is being written by another process. Wait for it, then retry.") from None
        yield
