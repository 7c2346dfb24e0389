"""Notes -> entities: every distinct text is read once, in blocks that outlive a kill.

Finished blocks lie below `.entities/<fingerprint>/` of the study, each named by its own SHA-256: mentions by the
SHA-256 of their text, and no text.
The fingerprint is that of the lexicon, the context table and this package's code; after new notes only those are read.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from importlib.resources import files
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import duckdb
import ibis
import pyarrow as pa
import pyarrow.parquet as pq

from einthoven import schema
from einthoven.config import Entities
from einthoven.entities.lexicon import Term, load
from einthoven.entities.matcher import Matcher
from einthoven.entities.triggers import ATTRIBUTES
from einthoven.errors import EinthovenError
from einthoven.study import atomic, check_table, remove, sha256

CACHE: Final = ".entities"
BLOCK: Final = 4096
"""Texts that are read, and kept, together."""
ALONE: Final = 2 * BLOCK
"""Texts up to which other processes are not worth their start."""
MAX_PROCESSES: Final = 32

_MENTION: Final = [field for field in schema.ENTITIES.columns if field.name not in ("note_id", "subject_id")]
_BLOCK: Final = pa.schema([pa.field("text", pa.binary()), *(field.with_nullable(True) for field in _MENTION)])
"""`text` is the SHA-256 of one. A text without mentions has one row of nulls."""

Progress = Callable[[int, int], None]


def extract(config: Entities, study: Path, progress: Progress, processes: int | None = None) -> dict[str, Any]:
    """Write `entities` from `notes`; return counts. Notes with supplied mentions take those, where the settings say so.

    `processes` read side by side (default: one per core); few texts are read in this one.
    """
    lexicon = load(config)
    cache = study / CACHE / fingerprint(lexicon)
    cache.mkdir(parents=True, exist_ok=True)
    for left in (*cache.glob(".*.tmp"), *filter(_damaged, cache.glob("*.parquet"))):  # by a killed process; by a disk
        remove(left)
    scratch = study / CACHE / "work"
    remove(scratch)
    scratch.mkdir()
    try:
        with closing(duckdb.connect(str(scratch / "work.duckdb"))) as engine:
            counts = _extract(engine, config, lexicon, study, cache, progress, processes)
    except duckdb.Error:  # its message may quote cells, so it is not passed on
        raise EinthovenError(
            f"{study}: notes.parquet, entities_supplied.parquet or {CACHE} is damaged: delete {study / CACHE} and "
            "repeat; if that does not help, run the ingest again."
        ) from None
    finally:
        remove(scratch)
    for other in (study / CACHE).iterdir():
        if other != cache:
            remove(other)
    return counts


def _damaged(block: Path) -> bool:
    """Its name is the SHA-256 of its bytes; texts of a block that goes are read again."""
    return sha256(block) != block.stem


_RULES: Final = ("context.tsv", "words.py", "triggers.py", "context.py", "matcher.py")


def fingerprint(lexicon: Sequence[Term]) -> str:
    """What the mentions of a text depend on, as 16 hexadecimal digits."""
    digest = _hashed(_RULES)
    for term in lexicon:
        digest.update(repr(term).encode())
    return digest.hexdigest()[:16]


def edition() -> str:
    """What the shipped lexicon, the rules and this package's code are, as 16 hexadecimal digits."""
    return _hashed((*_RULES, "lexicon.tsv", "lexicon.py", "extract.py")).hexdigest()[:16]


def _hashed(names: Sequence[str]) -> Any:
    digest = hashlib.sha256()
    for name in names:
        digest.update((files("einthoven.entities") / name).read_bytes())
    return digest


def _extract(
    engine: Any, config: Entities, lexicon: Sequence[Term], study: Path, cache: Path, progress: Progress,
    processes: int | None,
) -> dict[str, Any]:  # fmt: skip
    engine.execute("SET enable_progress_bar = false")
    supplied = schema.SUPPLIED_ENTITIES.at(study)
    with_supplied = config.use_supplied and supplied.exists()
    _tables(engine, study, cache, check_table(schema.SUPPLIED_ENTITIES, study) if with_supplied else None)
    (todo,) = engine.execute("SELECT count(*) FROM todo").fetchone()
    batches = _batches(engine)
    if todo <= ALONE or processes == 1:
        _alone(Matcher(lexicon), batches, cache, todo, progress)
    else:
        _together(config, batches, cache, todo, progress, processes or len(os.sched_getaffinity(0)))
    mentions = _write(engine, study, cache)
    (notes, texts, given) = engine.execute(
        "SELECT count(*), count(DISTINCT text) FILTER (NOT given), count(*) FILTER (given) FROM note"
    ).fetchone()
    return {"notes": notes, "distinct_texts": texts, "texts_read": todo, "supplied_notes": given, **mentions}


def _tables(engine: Any, study: Path, cache: Path, supplied: Path | None) -> None:
    """`note`: row, note_id, hash of its text, whether its mentions are given; `todo`: a row of each text to be read."""
    engine.read_parquet(str(check_table(schema.NOTES, study)), file_row_number=True).create_view("source")
    empty = pa.Table.from_pylist([], schema=schema.SUPPLIED_ENTITIES.columns)
    given = engine.read_parquet(str(supplied)) if supplied else engine.from_arrow(empty)
    given.create_view("given")
    engine.execute(
        "CREATE TABLE note AS SELECT file_row_number AS row, note_id, subject_id, unhex(sha256(text)) AS text, "
        "note_id IN (SELECT note_id FROM given) AS given FROM source"
    )
    known = _known(engine, cache)
    engine.execute(
        f"CREATE TABLE todo AS SELECT min(row) AS row, text FROM note WHERE NOT given "
        f"AND text NOT IN (SELECT text FROM ({known})) GROUP BY text"
    )


def _known(engine: Any, cache: Path) -> str:
    """A query of all rows of the cache."""
    blocks = sorted(map(str, cache.glob("*.parquet")))
    if not blocks:
        engine.register("no_block", pa.Table.from_pylist([], schema=_BLOCK))
        return "SELECT * FROM no_block"
    listed = ", ".join("'" + block.replace("'", "''") + "'" for block in blocks)
    return f"SELECT * FROM read_parquet([{listed}])"


def _batches(engine: Any) -> Iterator[tuple[list[bytes], list[str]]]:
    """Hashes and texts to be read, a BLOCK at a time."""
    query = "SELECT todo.text AS hash, source.text FROM source JOIN todo ON file_row_number = todo.row"
    cursor = engine.cursor()
    for batch in cursor.execute(query).to_arrow_reader(BLOCK):
        for start in range(0, batch.num_rows, BLOCK):
            part = batch.slice(start, BLOCK)
            yield part.column(0).to_pylist(), part.column(1).to_pylist()


def read_block(matcher: Matcher, hashes: list[bytes], texts: list[str], cache: Path) -> int:
    """Read some texts and keep their mentions as one file of the cache; return how many texts."""
    columns: dict[str, list[Any]] = {name: [] for name in _BLOCK.names}
    for digest, mentions in zip(hashes, matcher.find_all(texts), strict=True):
        rows: list[tuple[Any, ...]] = [
            (m.start, m.end, m.term.preferred, m.term.label, m.term.code, *m.flags) for m in mentions
        ]
        for row in rows or [(None,) * (len(_BLOCK) - 1)]:
            for column, value in zip(columns.values(), (digest, *row), strict=True):
                column.append(value)
    content = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_BLOCK), content, compression="zstd")
    block = content.getvalue().to_pybytes()
    with atomic(cache / f"{hashlib.sha256(block).hexdigest()}.parquet") as temporary:
        temporary.write_bytes(block)
    return len(texts)


def _alone(
    matcher: Matcher, batches: Iterator[tuple[list[bytes], list[str]]], cache: Path, todo: int, progress: Progress
) -> None:
    done = 0
    for hashes, texts in batches:
        done += read_block(matcher, hashes, texts, cache)
        progress(done, todo)


_worker: Matcher | None = None


def _begin(config: Entities) -> None:
    global _worker
    _worker = Matcher(load(config))


def _work(hashes: list[bytes], texts: list[str], cache: Path) -> int:
    assert _worker is not None
    return read_block(_worker, hashes, texts, cache)


def _together(
    config: Entities, batches: Iterator[tuple[list[bytes], list[str]]], cache: Path, todo: int,
    progress: Progress, processes: int,
) -> None:  # fmt: skip
    """Read in several processes; at most two blocks each are under way, so memory is bounded.

    Each loads the lexicon itself: more than a pipe holds could not be handed to a process that dies while it starts,
    and this one would wait for ever.
    """
    workers = min(processes, MAX_PROCESSES)
    done = 0
    pending: set[Future[int]] = set()
    try:
        with ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(config,)) as pool:
            for hashes, texts in batches:
                pending.add(pool.submit(_work, hashes, texts, cache))
                if len(pending) >= 2 * workers:
                    finished, pending = wait(pending, return_when=FIRST_COMPLETED)
                    done += sum(future.result() for future in finished)
                    progress(done, todo)
            for future in pending:
                done += future.result()
                progress(done, todo)
    except BrokenProcessPool:
        raise EinthovenError(
            "a process that read notes was killed, perhaps for want of memory. What was read is kept: repeat."
        ) from None


def _write(engine: Any, study: Path, cache: Path) -> dict[str, int]:
    """Join notes with the mentions of their texts, by note and place, and write them; the counts of mentions."""
    query = (
        "SELECT * EXCLUDE (row) FROM ("
        f"SELECT row, note_id, subject_id, k.* EXCLUDE (text) FROM note JOIN ({_known(engine, cache)}) k USING (text) "
        "WHERE NOT given AND k.start IS NOT NULL "
        "UNION ALL BY NAME SELECT row, subject_id, g.* FROM given g JOIN note USING (note_id)"
        ') ORDER BY row, start, "end", term'
    )
    names = schema.ENTITIES.columns.names
    counts = dict.fromkeys(("mentions", *ATTRIBUTES), 0)
    with atomic(schema.ENTITIES.at(study)) as temporary, pq.ParquetWriter(temporary, schema.ENTITIES.columns) as writer:
        for batch in engine.execute(query).to_arrow_reader(1 << 16):
            try:
                rows = pa.Table.from_batches([batch]).select(names).cast(schema.ENTITIES.columns)
            except ValueError:  # an empty cell where none may be; Arrow's errors are ValueErrors
                raise EinthovenError(f"{study}: the notes are damaged: run `einthoven ingest` again.") from None
            writer.write_table(rows)
            counts["mentions"] += len(rows)
            for attribute in ATTRIBUTES:
                counts[attribute] += rows[attribute].to_numpy().sum().item()
    return counts


def rendered(entities: Any, config: Entities) -> Any:
    """Ibis: columns subject_id, note_id, start, words: how each mention of ENTITIES enters the entity concatenation.

    The preferred term; "possible …" if it is uncertain, "history of …" if it is historical, both in this order. What is
    denied, said of the family or imagined has no row, nor has a label that is not in `config.labels`, nor what is
    uncertain or historical where the settings exclude it.
    """
    said = ~(entities.negated | entities.family | entities.hypothetical) & entities.label.isin(config.labels)
    said = said if config.uncertain else said & ~entities.uncertain
    said = said if config.historical else said & ~entities.historical
    kept = entities.filter(said)
    possible = ibis.ifelse(kept.uncertain, "possible ", "")
    past = ibis.ifelse(kept.historical, "history of ", "")
    return kept.select("subject_id", "note_id", "start", words=possible + past + kept.term)
