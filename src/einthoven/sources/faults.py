"""What goes wrong in files and in DuckDB, as the one error a user reads. DuckDB's own messages may quote cells."""

import csv
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb
import pyarrow as pa

from einthoven.errors import EinthovenError


@contextmanager
def reading(file: Path) -> Iterator[None]:
    """A file that is damaged, absent or no text is told by its name, whoever reads it."""
    try:
        yield
    except UnicodeDecodeError:
        raise EinthovenError(f"{file} is not UTF-8 text; export it as UTF-8.") from None
    except duckdb.OutOfMemoryException:
        raise _exhausted(str(file)) from None
    except (OSError, EOFError, zlib.error, csv.Error, pa.ArrowException, duckdb.Error) as error:
        raise EinthovenError(f"{file} cannot be read ({type(error).__name__}); copy it again.") from None


@contextmanager
def making(what: str) -> Iterator[None]:
    """DuckDB makes a table or a file: what it cannot do is told by `what` and the kind of its error."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise _exhausted(what) from None
    except duckdb.Error as error:
        raise EinthovenError(f"{what} could not be made: {type(error).__name__}. The source may be damaged.") from None


def _exhausted(what: str) -> EinthovenError:
    return EinthovenError(f"{what}: out of memory or of disk space; free some.")
