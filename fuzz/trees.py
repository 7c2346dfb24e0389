"""What valid sources are made of: tables, WFDB records, an archive; and the ingest of one."""

import csv
import io
import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven import pipeline
from einthoven.config import Source
from einthoven.schema import LEADS
from fuzz.mutations import Tree
from fuzz.target import Run, written

Rows = list[dict[str, Any]]


def table(rows: Rows, upper: bool = False) -> bytes:
    """CSV."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows: Rows, columns: pa.Schema | None = None) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=columns), out)
    return out.getvalue()


def record(name: str, rate: int = 100, seconds: int = 10, *comments: str) -> Tree:
    """A WFDB record of twelve leads below a name."""
    values = np.cumsum(np.random.default_rng(len(name)).integers(-9, 10, (12, rate * seconds)), axis=1).astype(np.int16)
    short = name.rpartition("/")[2]
    lines = [f"{short} 12 {rate} {rate * seconds}", *(f"{short}.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in LEADS)]
    sums = values.astype(np.int64).sum(axis=1) & 0xFFFF
    lines = [line.replace(" 0 0 0 0 ", f" 0 0 {sums[i - 1]} 0 ") for i, line in enumerate(lines)]
    return {f"{name}.hea": "\n".join([*lines, *comments]).encode(), f"{name}.dat": values.T.astype("<i2").tobytes()}


def ingested(
    name: str, trees: list[Tree], folder: Path, recordings: str | None = None, kind: str = "source"
) -> tuple[list[Tree], Run]:
    """A source's valid trees, and an ingest into a new study. The list of recordings lies beside the source."""

    def run(tree: Tree) -> None:
        shutil.rmtree(folder / "study", ignore_errors=True)
        place = written(tree, folder / "made")
        (place / kind).mkdir(exist_ok=True)
        listed = None if recordings is None else str(place / recordings)
        pipeline.ingest(Source(name=name, recordings=listed), place / kind, folder / "study")

    return trees, run


LIST: Final = (
    "recording_id,subject_id,time,file,split,age,sex,device,site\n"
    "a,11,2020-01-31 12:00:00,a,,56,female,CS,1\nb,12,,b.csv,train,,male,,\nc,12,2020-02-01,,,,,,\n"
)


def archive() -> Tree:
    """A list of recordings with its signals."""
    cells = "\n".join(",".join(str((i * lead) % 97) for lead in range(12)) for i in range(500))
    return {
        "ecgs.csv": LIST.encode(),
        **record("a"),
        "b.csv": f"# sampling_rate: 100\n# unit: uV\n{','.join(LEADS)}\n{cells}\n".encode(),
    }
