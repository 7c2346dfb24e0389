"""The tables of a study, opened to be checked: which are there, and what a finding about them says."""

import glob
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.checking.scan import SHOWN, Scan, scan
from einthoven.errors import EinthovenError
from einthoven.study import read_manifest

ERROR, WARNING, NOTE = "error", "warning", "note"

INGEST_AGAIN: Final = "Run `einthoven ingest` again; if it comes back, correct the source."
PAIR_AGAIN: Final = "Run `einthoven pair` again."
ENTITIES_AGAIN: Final = "Run `einthoven entities` again."
EMBED_AGAIN: Final = "Run `einthoven embed` again."


@dataclass(frozen=True)
class Finding:
    """Where a rule does not hold. It names places, never what stands there."""

    file: str  # relative to the study
    column: str  # "": the table as a whole
    count: int  # rows; 0: the table as a whole
    rows: tuple[int, ...]  # the first few, from 1
    expected: str  # what should be
    remedy: str
    severity: str = ERROR


@dataclass(frozen=True)
class Tables:
    """A study's tables as views of a DuckDB engine, each with a column `place`: the row, from 1.

    A table that is missing, damaged or not of the schema is not among `names`; `broken` says why.
    """

    study: Path
    engine: duckdb.DuckDBPyConnection
    manifests: Mapping[str, dict[str, Any]]  # of the stages that completed
    there: set[str] = field(default_factory=set)  # what a rule may need: views, "signals", "manifests/pair.json"
    names: dict[str, schema.Table] = field(default_factory=dict)  # view -> table
    scans: dict[str, Scan] = field(default_factory=dict)  # view -> what one pass saw
    broken: list[Finding] = field(default_factory=list)

    @classmethod
    @contextmanager
    def of(cls, study: Path, progress: Callable[[int, int], None] | None = None) -> Iterator["Tables"]:
        """Open and scan every table of the study; the engine spills into a scratch directory that goes at the end."""
        with TemporaryDirectory(prefix="einthoven-check-") as scratch:
            engine = duckdb.connect(config={"temp_directory": scratch})
            engine.execute("SET enable_progress_bar = false")
            try:
                tables = cls(study, engine, _manifests(study))
                tables.there.update(f"{schema.MANIFESTS}/{stage}.json" for stage in tables.manifests)
                known = (*schema.TABLES.values(), *_embeddings(study))
                for number, table in enumerate(known, start=1):
                    tables._open(table)
                    if progress is not None:
                        progress(number, len(known))
                yield tables
            finally:
                engine.close()

    def ask(self, query: str, values: list[Any] | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query. EinthovenError where it cannot run; DuckDB's own message may quote cells."""
        try:
            return self.engine.execute(query, values or []).fetchall()
        except duckdb.Error as error:
            raise EinthovenError(
                f"{self.study}: the tables could not be read through ({type(error).__name__}). Is a stage writing "
                "them, or the disk for temporary files full? Check again."
            ) from None

    def places(self, query: str, values: list[Any] | None = None) -> tuple[int, tuple[int, ...]]:
        """How many rows a query for `place` gives, and the first few."""
        ((count, rows),) = self.ask(f"SELECT count(*), min(place, {SHOWN}) FROM ({query})", values)
        return int(count), tuple(rows or ())

    def embeddings(self) -> list[str]:
        """The views of the embeddings, one for each model."""
        return [name for name, table in self.names.items() if table.columns is schema.EMBEDDINGS.columns]

    def _open(self, table: schema.Table) -> None:
        path = table.at(self.study)
        finding = self._absent(table) if not path.exists() else _columns(table, path)
        if path.exists() and finding is None:
            try:
                seen = scan(table, path)
            except (pa.ArrowException, OSError):
                finding = _broken(table, "", "a table that can be read: this one is damaged")
            else:
                self._view(table, path, seen)
        if finding is not None:
            self.broken.append(finding)

    def _absent(self, table: schema.Table) -> Finding | None:
        """A table that is not there is one that was not made yet, unless its stage completed."""
        made = any(manifest["outputs"].get(table.path) for manifest in self.manifests.values())
        return _broken(table, "", "a table, since the stage that writes it completed") if made else None

    def _view(self, table: schema.Table, path: Path, seen: Scan) -> None:
        name = table.path.removesuffix(f"/{schema.EMBEDDINGS.path}").removesuffix(".parquet")
        source = glob.escape(str(path)).replace("'", "''")
        columns = ", ".join(f'"{column}"' for column in table.columns.names)
        self.engine.execute(
            f'CREATE VIEW "{name}" AS SELECT {columns}, file_row_number + 1 AS place '
            f"FROM read_parquet('{source}', file_row_number = true, hive_partitioning = false)"
        )
        self.names[name], self.scans[name] = table, seen
        self.there.update((name, name.partition("/")[0]))


def _manifests(study: Path) -> dict[str, dict[str, Any]]:
    found = {path.stem: read_manifest(path) for path in sorted((study / schema.MANIFESTS).glob("*.json"))}
    return {stage: manifest for stage, manifest in found.items() if manifest is not None}


def _embeddings(study: Path) -> list[schema.Table]:
    """The embeddings of each model whose stage completed."""
    folders = sorted(path.parent for path in study.glob("embeddings/*/manifest.json"))
    places = [folder.relative_to(study) / schema.EMBEDDINGS.path for folder in folders]
    return [schema.Table(place.as_posix(), schema.EMBEDDINGS.columns) for place in places]


def _columns(table: schema.Table, path: Path) -> Finding | None:
    try:
        found = pq.read_schema(path)
    except (pa.ArrowException, OSError):
        return _broken(table, "", "a Parquet file")
    for column in table.columns:
        if column.name not in found.names or found.field(column.name).type != column.type:
            return _broken(table, column.name, f"a column of type {column.type}")
    return None


def _broken(table: schema.Table, column: str, expected: str) -> Finding:
    return Finding(table.path, column, 0, (), expected, again(table))


def again(table: schema.Table) -> str:
    """What makes a table anew."""
    if table.columns is schema.EMBEDDINGS.columns:
        return EMBED_AGAIN
    return {schema.PAIRS.path: PAIR_AGAIN, schema.ENTITIES.path: ENTITIES_AGAIN}.get(table.path, INGEST_AGAIN)
