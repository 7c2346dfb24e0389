"""Parquet files and zip archives, damaged from within: what they hold is another thing, and they are sound."""

import io
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fuzz.mutations import BOMB, NUMBERS, TEXTS, Generator, of_bytes, picked, replaced


def of_parquet(content: bytes, rng: Generator) -> bytes:
    """A column: gone, twice, null, of another type or of other values; rows: none, or many."""
    rows = pq.read_table(io.BytesIO(content))
    names = rows.column_names
    at = int(rng.integers(len(names)))
    match int(rng.integers(9)):
        case 0:
            rows = rows.remove_column(at)
        case 1:
            rows = rows.rename_columns([*names[:at], names[int(rng.integers(len(names)))].upper(), *names[at + 1 :]])
        case 2:
            rows = rows.set_column(at, names[at], pa.nulls(len(rows), rows.schema.types[at]))
        case 3:
            rows = rows.set_column(
                at, names[at], pa.array([picked((*TEXTS, *NUMBERS), rng).decode() for _ in range(len(rows))])
            )
        case 4:
            kinds = [
                pa.int8(),
                pa.float64(),
                pa.large_string(),
                pa.binary(),
                pa.timestamp("ns"),
                pa.bool_(),
                pa.null(),
                pa.date32(),
            ]
            kind = kinds[rng.integers(len(kinds))]
            rows = rows.set_column(
                at, names[at], rows[at].cast(kind) if rng.random() < 0.3 else pa.nulls(len(rows), kind)
            )
        case 5:
            extreme = pa.array(rng.choice([-(2**63), 2**63 - 1, 0, -1, 10**15], len(rows)), pa.int64())
            rows = rows.set_column(at, names[at], extreme)
        case 6:
            rows = rows.slice(0, 0) if rng.random() < 0.3 else pa.concat_tables([rows] * int(rng.choice([2, 50])))
        case 7:
            nested = pa.array([[float("nan")]] * len(rows)) if rng.random() < 0.5 else pc.list_slice(rows[at], 0, 1)
            rows = rows.set_column(at, names[at], nested)
        case _:
            rows = rows.set_column(at, names[at], pa.array(rng.choice([np.nan, np.inf, -1e300, 1e-300], len(rows))))
    out = io.BytesIO()
    pq.write_table(rows, out)
    return out.getvalue()


def of_zip(content: bytes, rng: Generator) -> bytes:
    """A member: damaged, renamed, twice, gone, or a bomb."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(name, archive.read(name)) for name in archive.namelist()]
    at = int(rng.integers(len(members)))
    name, data = members[at]
    match int(rng.integers(6)):
        case 0:
            members[at] = (name, of_bytes(data[:128], rng) + data[128:])
        case 1:
            members[at] = (
                name,
                replaced(
                    rb"(?<=\()\d+|(?<= )\d+(?=\))|<f8|<f4|<U\d+",
                    data[:128],
                    picked((*NUMBERS, "|O", "<c16", "(2,)"), rng),
                    rng,
                )
                + data[128:],
            )
        case 2:
            members[at] = (picked(TEXTS[:30], rng).decode("utf-8", "replace")[:60].replace("\0", "") + ".npy", data)
        case 3:
            members.append((name, data))
        case 4:
            del members[at]
        case _:
            members[at] = (name, data[:128] + bytes(BOMB if rng.random() < 0.1 else 1000))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()
