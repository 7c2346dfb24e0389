"""The tables of an OMOP CDM: files in a folder, a DuckDB file, or a database that Ibis connects to. Only ever read.

A database is asked for the columns of a table and nothing else, in batches, into the scratch database beside the study
where files go too; so one set of expressions makes the study, whatever the warehouse runs on. A connection string may
hold a password: neither it nor what a driver says about it is ever shown.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

import ibis
import pyarrow as pa

from einthoven.errors import EinthovenError
from einthoven.sources.screening import Screening
from einthoven.sources.tabular import ROWS, SourceTable, Tables

READ_ONLY: Final[dict[str, dict[str, Any]]] = {
    "duckdb": {"read_only": True},
    "postgres": {"options": "-c default_transaction_read_only=on"},
    "snowflake": {"create_object_udfs": False},  # else Ibis creates a database of functions when it connects
}


class Cdm(Screening):
    """An open CDM."""

    def __init__(self, tables: Tables, remote: "Remote | None") -> None:
        super().__init__(tables)
        self.remote = remote

    def load(
        self,
        name: str,
        types: Mapping[str, str],
        required: Sequence[str],
        derived: Mapping[str, Callable[[Any], Any]] = MappingProxyType({}),
    ) -> SourceTable | None:
        """The rows whose cells have their Ibis types, in the scratch table of that name; None where there is no table.

        Columns go by their lower-case names. An absent one is null, unless it is `required`: then it is an
        EinthovenError, and a row that leaves it empty is refused. `derived` ones are whole numbers made from the raw
        cells, which are stripped afterwards.
        """
        table = self._read(name, required, [column for column in types if column not in required])
        if table is None:
            return None
        rows = table.rows.mutate(**{column: make(table.rows) for column, make in derived.items()})
        every = dict(types) | dict.fromkeys(derived, "int64")
        kept = self.check(SourceTable(table.file, rows), every, required, name)
        self.tables.drop(table.rows.get_name())
        return kept

    def _read(self, name: str, required: Sequence[str], optional: Sequence[str]) -> SourceTable | None:
        if self.remote is not None:
            return self.remote.copy(name, required, optional, self.tables.engine)
        found = self.tables.read(name, required=required, optional=optional)
        if found is None:
            return None
        self.exclude(found[1])
        return found[0]

    def need(self, name: str, types: Mapping[str, str], required: Sequence[str]) -> SourceTable:
        """`load`, but EinthovenError where there is no such table."""
        found = self.load(name, types, required)
        if found is None:
            raise self.missing(name)
        return found

    def missing(self, *names: str) -> EinthovenError:
        """What to raise where none of some tables is there."""
        if self.remote is None:
            where, hint = str(self.tables.folder), "Expected CSV or Parquet files named like the tables"
        else:
            where, hint = self.remote.label, "If the CDM is not in the default schema, append ?schema=NAME"
        wanted = " or ".join(name.upper() for name in names)
        return EinthovenError(f"{where}: there is no table {wanted}, which an OMOP CDM has. {hint}.")


@contextmanager
def opened(source: Path | str, study: Path) -> Iterator[Cdm]:
    """Open a folder of tables, a DuckDB file (a Path) or a database (a connection string of Ibis)."""
    folder = source if isinstance(source, Path) and source.is_dir() else None
    remote = None if folder is not None else Remote.connect(source)
    try:
        with Tables.of(folder or study, study) as tables:  # of a database for the scratch database alone
            yield Cdm(tables, remote)
    finally:
        if remote is not None:
            remote.close()


class Remote:
    """A database that is only read. `schemas` are searched in their order; without any, Ibis's current one."""

    def __init__(self, backend: Any, label: str, schemas: Sequence[str]) -> None:
        self.backend, self.label = backend, label
        with _told(f"{label}: its tables could not be listed"):
            self._tables = {
                (place, table.casefold()): table
                for place in (schemas or (None,))
                for table in backend.list_tables(**_within(place))
            }

    @classmethod
    def connect(cls, source: Path | str) -> "Remote":
        """EinthovenError where the kind of database is unknown, its driver is absent or it does not answer."""
        if isinstance(source, Path):
            with _told(f"{source} cannot be read as a DuckDB file"):
                return cls(ibis.duckdb.connect(str(source), read_only=True), source.name, ())
        address, _, query = source.partition("?")
        options = dict(parse_qsl(query))
        schemas = [name for name in options.pop("schema", "").split(",") if name]
        kind = address.partition("://")[0].replace("postgresql", "postgres")
        known = sorted({point.name for point in entry_points(group="ibis.backends")})
        if kind not in known:
            raise EinthovenError(f"connection string: unknown kind of database. Known to Ibis: {', '.join(known)}.")
        url = f"{address}?{urlencode(options)}" if options else address
        fixed = {name: value for name, value in READ_ONLY.get(kind, {}).items() if name not in options}
        with _told(f"{kind} database: no connection; check the connection string", kind):
            backend = ibis.connect(url, **fixed)
        return cls(backend, f"{kind} database", schemas)

    def close(self) -> None:
        self.backend.disconnect()

    def copy(self, name: str, required: Sequence[str], optional: Sequence[str], engine: Any) -> SourceTable | None:
        """Copy columns of a table into the engine, batch by batch. `source_row` is the table's own key, if a number."""
        place = next((key for key in self._tables if key[1] == name), None)
        if place is None:
            return None
        with _told(f"{self.label}: table {name} could not be read; may this account read it?"):
            rows = self.backend.table(self._tables[place], **_within(place[0]))
            found = {column.casefold(): column for column in rows.columns}
        for column in required:
            if column not in found:
                there = ", ".join(sorted(found))
                raise EinthovenError(f"{self.label}, table {name}: column {column!r} is missing. Found: {there}.")
        key = f"{name}_id"
        chosen = {column: rows[found[column]] for column in (key, *required, *optional) if column in found}
        columns = [f"TRY_CAST({key if key in found else 'NULL'} AS BIGINT) AS source_row"]
        columns += [f'"{c}"' if c in found else f'NULL::VARCHAR AS "{c}"' for c in (*required, *optional)]
        with _told(f"{self.label}: table {name} could not be copied"):
            _stream(rows.select(**chosen), engine, f"copy_{name}", f"SELECT {', '.join(columns)} FROM batch")
        return SourceTable(name, engine.table(f"copy_{name}"))


def _stream(rows: Any, engine: Any, table: str, selection: str) -> None:
    """Copy an ibis.Table of another backend into a new table of the engine, a `batch` at a time."""
    reader = rows.to_pyarrow_batches(chunk_size=ROWS)
    engine.con.register("batch", reader.schema.empty_table())
    engine.raw_sql(f"CREATE TABLE {table} AS {selection}")
    for batch in reader:
        engine.con.register("batch", pa.Table.from_batches([batch]))
        engine.raw_sql(f"INSERT INTO {table} {selection}")
    engine.con.unregister("batch")


def _within(place: str | None) -> dict[str, Any]:
    return {} if place is None else {"database": place}


@contextmanager
def _told(what: str, kind: str = "") -> Iterator[None]:
    """Any driver's error as ours, by its type alone: a message may quote cells, a host or a password."""
    try:
        yield
    except EinthovenError:
        raise
    except ImportError:
        raise EinthovenError(
            f'{kind or "this"} database: its driver is not installed; pip install "ibis-framework[{kind}]".'
        ) from None
    except Exception as error:  # every driver has its own
        raise EinthovenError(f"{what} ({type(error).__name__}).") from None
