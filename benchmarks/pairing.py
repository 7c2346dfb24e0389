"""Pairing: the stage against one hand-written DuckDB query that gives the same codes, and a larger study alone.

`make bench-pairing`. Each run is a process of its own, so that memory is its own; the two alternate. Recordings and
events are drawn as in the article: 3.75 recordings per patient, over eight years, with Zipf-distributed codes.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.config import Recipe
from einthoven.pairing.pairs import pair

DRAWN = """
SELECT {columns} FROM (
  SELECT (hash({seed} * {rows} + i) % {subjects})::BIGINT AS subject_id,
         TIMESTAMP '2012-01-01' + to_seconds((hash({seed} * {rows} + i + 0.5) % (8 * 365 * 86400))::BIGINT) AS time, i,
         power(20000, (hash(i + 0.25) % 1000000) / 1000000.0)::BIGINT AS k
  FROM range({rows}) t(i)
) ORDER BY subject_id, time
"""
PREFIXES = "['DIAGNOSIS//ICD//10//C', 'MEDICATION//START//C', 'PROCEDURE//ICD//10//C']"
CODED = f"subject_id, time, {PREFIXES}[1 + k % 3] || k AS code"
SENTENCE = "normal sinus rhythm with occasional premature ventricular complexes and left axis deviation "
NOTED = f"""lpad(i::VARCHAR, 9, '0') AS note_id, subject_id, time, 'clinical' AS kind,
            repeat('{SENTENCE}', 10) || i AS text"""
MENTIONED = """
SELECT note_id, subject_id, j::INT AS start, (j + 1)::INT AS end, 'term ' || hash(note_id || j) % 5000 AS term,
       'disease' AS label, j = 7 AS negated, j = 8 AS uncertain, false AS historical, false AS family,
       false AS hypothetical
FROM read_parquet('{study}/notes.parquet'), range(10) r(j) ORDER BY subject_id, note_id, j
"""
RECORDED = "lpad(i::VARCHAR, 8, '0') AS recording_id, subject_id, time, 'train' AS split, i AS row"

BY_HAND = """
COPY (
  SELECT recording_id, subject_id, time, list(code ORDER BY moment, code) AS codes,
         list(kind ORDER BY moment, code) AS code_kinds,
         list((date_diff('second', time, moment) / 86400.0)::FLOAT ORDER BY moment, code) AS code_days
  FROM (
    SELECT recording_id, subject_id, time, code, kind, min(moment) AS moment
    FROM (
      SELECT r.recording_id, r.subject_id, r.time, e.code, e.time AS moment,
             CASE WHEN e.code LIKE 'DIAGNOSIS//%' THEN 'diagnosis' WHEN e.code LIKE 'PROCEDURE//%' THEN 'procedure'
                  WHEN e.code LIKE 'MEDICATION//%' THEN 'medication' END AS kind
      FROM read_parquet('{study}/recordings.parquet') r JOIN read_parquet('{study}/events.parquet') e USING (subject_id)
      WHERE e.time BETWEEN r.time - INTERVAL 365 DAY AND r.time + INTERVAL 365 DAY
    ) WHERE kind IS NOT NULL
    GROUP BY recording_id, subject_id, time, code, kind, moment::DATE
  ) GROUP BY recording_id, subject_id, time ORDER BY subject_id, time, recording_id
) TO '{study}/by_hand.parquet'
"""


def draw(study: Path, events: int, recordings: int, notes: int = 0) -> None:
    """A study; each of the `notes`, of a kilobyte, has ten mentions."""
    study.mkdir()
    subjects = round(recordings / 3.75)
    for table, rows, seed, columns in (
        (schema.RECORDINGS, recordings, 1, RECORDED),
        (schema.EVENTS, events, 2, CODED),
        (schema.NOTES, notes, 3, NOTED),
    ):
        write(table, study, DRAWN.format(columns=columns, seed=seed, rows=rows, subjects=subjects))
    write(schema.ENTITIES, study, MENTIONED.format(study=study))


def write(table: schema.Table, study: Path, query: str) -> None:
    """The rows of a query, and null in the columns that it does not give."""
    with pq.ParquetWriter(table.at(study), table.columns) as writer:
        for batch in duckdb.sql(query).to_arrow_reader(1 << 17):
            drawn = {name: batch[name] for name in batch.schema.names}
            absent = {f.name: pa.nulls(len(batch), f.type) for f in table.columns if f.name not in drawn}
            writer.write_table(pa.table({**drawn, **absent}).select(table.columns.names).cast(table.columns))


def measure(what: str, study: Path) -> None:
    """Seconds and peak memory of one run, as JSON."""
    began = time.perf_counter()
    if what == "pair":
        recipe = Recipe()
        pair(recipe.pairing, recipe.entities, recipe.text, study)
    else:
        connection = duckdb.connect()
        connection.sql("SET enable_progress_bar = false")
        connection.sql(BY_HAND.format(study=study))
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": round(seconds, 2), "peak_gb": round(peak_memory() / 1e9, 2)}))


def peak_memory() -> int:
    """Bytes of this process alone: `ru_maxrss` would begin with those of the process it was started from."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def timed(what: str, study: Path) -> dict[str, float]:
    run = [sys.executable, __file__, "--measure", what, "--study", str(study)]
    found: dict[str, float] = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return found


def same(study: Path) -> bool:
    """Whether both gave every recording the same codes, kinds and days."""
    order = "ORDER BY recording_id"
    columns = "recording_id, codes, code_kinds, code_days"
    mine = f"SELECT {columns} FROM read_parquet('{study}/pairs.parquet') WHERE len(codes) > 0 {order}"
    theirs = f"SELECT {columns} FROM read_parquet('{study}/by_hand.parquet') {order}"
    return duckdb.sql(f"SELECT count(*) FROM (({mine}) EXCEPT ALL ({theirs}))").fetchone() == (0,)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", choices=["pair", "by-hand"])
    parser.add_argument("--study", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure, arguments.study)
        return
    with tempfile.TemporaryDirectory() as scratch:
        small, half, large = (Path(scratch) / name for name in ("small", "half", "large"))
        draw(small, 2_000_000, 200_000)
        runs = [{what: timed(what, small) for what in ("by-hand", "pair")} for _ in range(arguments.repeats)]
        ratios = [run["pair"]["seconds"] / run["by-hand"]["seconds"] for run in runs]
        print(f"2 M events x 200 k recordings, {len(runs)} runs of each, the same lists: {same(small)}")
        print(f"  pair / by hand: {median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
        draw(half, 20_000_000, 1_000_000)
        draw(large, 40_000_000, 2_000_000)
        halves, wholes = timed("pair", half), timed("pair", large)
        print(f"20 M x 1 M: {halves}\n40 M x 2 M: {wholes}, {wholes['seconds'] / halves['seconds']:.2f} times as long")
        noted = Path(scratch) / "noted"
        draw(noted, 2_000_000, 200_000, notes=1_000_000)
        with_notes = timed("pair", noted)
        print(f"2 M events, 1 M notes, 10 M mentions x 200 k: {with_notes}")
        found = {
            "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
            "versions": {"duckdb": duckdb.__version__, "pyarrow": pa.__version__},
            "small": {"runs": runs, "ratio": round(median(ratios), 3), "same": same(small)},
            "20Mx1M": halves,
            "40Mx2M": wholes,
            "1M notes x200k": with_notes,
        }
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
