"""The engines that run the expressions of pairing: DuckDB in this process, or a Spark cluster."""

import re
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa

from einthoven.errors import EinthovenError
from einthoven.study import remove

DUCKDB: Final = "duckdb"
LOCAL_SPARK: Final = "local[*]"
RECORDINGS_AT_ONCE: Final = {DUCKDB: 125_000, "spark": 1_000_000}
"""Recordings paired in one query: what bounds memory, whatever the size of the study."""


@dataclass(frozen=True)
class Engine:
    """An Ibis backend and how much of a study it takes at once."""

    backend: Any
    at_once: int

    def read(self, file: Path) -> Any:
        """A Parquet file as an ibis.Table. A cluster's workers must see the file under the same path."""
        with _translated():
            return self.backend.read_parquet(str(file.absolute()))

    def table(self, rows: pa.Table) -> Any:
        return ibis.memtable(rows)

    def run(self, rows: Any) -> pa.Table:
        with _translated():
            return self.backend.to_pyarrow(rows)


@contextmanager
def _translated() -> Iterator[None]:
    """Messages of an engine may quote cells, and Spark's bring a page of Java: neither is passed on."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "toPandas attempted Arrow")  # with its page of Java, before it raises
            yield
    except duckdb.OutOfMemoryException:
        raise EinthovenError("pairing: out of memory or of disk space. Free some, or give more by --memory.") from None
    except Exception as error:
        raise EinthovenError(
            f"pairing: the engine stopped ({type(error).__name__}). If it is not out of memory or disk, a table of the "
            "study is damaged: `einthoven check` says which."
        ) from None


@contextmanager
def connected(engine: str, scratch: Path, memory: str | None = None) -> Iterator[Engine]:
    """`engine` is "duckdb", "spark" (this machine) or a Spark master: "local[2]", "spark://host:7077", "yarn", "k8s://…".

    DuckDB spills to `scratch`, which is deleted at the end, when it needs more than `memory` ("4GB", "500MB"; None:
    80 % of the machine's). For Spark `memory` is the driver's.
    """
    if memory is not None and not re.fullmatch(r"[1-9][0-9]*(MB|GB)", memory):
        raise EinthovenError(f"--memory {memory}: expected a whole number of MB or GB, such as 4GB.")
    if engine == DUCKDB:
        with _duckdb(scratch, memory) as backend:
            yield Engine(backend, RECORDINGS_AT_ONCE[DUCKDB])
    elif engine in ("spark", "yarn") or engine.startswith(("local", "spark://", "k8s://")):
        with _spark(LOCAL_SPARK if engine == "spark" else engine, memory) as backend:
            yield Engine(backend, RECORDINGS_AT_ONCE["spark"])
    else:
        raise EinthovenError(f"--engine {engine}: expected duckdb, spark, or a Spark master such as spark://host:7077.")


@contextmanager
def _duckdb(scratch: Path, memory: str | None) -> Iterator[Any]:
    remove(scratch)
    scratch.mkdir(parents=True)
    try:
        limits = {} if memory is None else {"memory_limit": memory}
        backend = ibis.duckdb.connect(temp_directory=str(scratch), preserve_insertion_order=False, **limits)
        backend.raw_sql("SET enable_progress_bar = false")
        # DuckDB 1.5 makes a filter of a join that it cannot apply to rows in Arrow's memory, and then refuses the query
        backend.raw_sql("SET disabled_optimizers = 'join_filter_pushdown'")
        yield backend
        backend.disconnect()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def _spark(master: str, memory: str | None) -> Iterator[Any]:
    try:
        from pyspark.sql import SparkSession
    except ImportError:
        raise EinthovenError("--engine spark needs PySpark: pip install 'einthoven[spark]', and Java 17.") from None
    builder = (
        SparkSession.builder.master(master)
        .appName("einthoven pair")
        .config("spark.sql.session.timeZone", "UTC")  # times have no zone; another would shift them
        .config("spark.sql.execution.arrow.pyspark.enabled", "true")
        .config("spark.sql.execution.arrow.pyspark.fallback.enabled", "false")  # it would warn with a page of Java
        .config("spark.ui.enabled", "false")
        .config("spark.ui.showConsoleProgress", "false")
    )
    if master.startswith("local"):  # 200 partitions, Spark's default, are for a cluster
        builder = builder.config("spark.sql.shuffle.partitions", "8")
    if memory is not None:
        builder = builder.config("spark.driver.memory", memory.removesuffix("B").lower())
    try:
        session = builder.getOrCreate()
        session.sparkContext.setLogLevel("ERROR")
    except Exception as error:  # py4j and Java raise nothing more precise
        raise EinthovenError(
            f"--engine {master}: Spark did not start ({type(error).__name__}). It needs Java 17 and a reachable master."
        ) from None
    try:
        yield ibis.pyspark.connect(session)
    finally:
        session.stop()
