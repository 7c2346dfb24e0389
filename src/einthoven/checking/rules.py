"""What must hold in the tables of a study: splits, ids, values, order, references between tables."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from einthoven import schema
from einthoven.checking.tables import EMBED_AGAIN, ERROR, WARNING, Finding, Tables, again
from einthoven.study import fingerprint, read_manifest, stage_manifest


@dataclass(frozen=True)
class Rule:
    """One claim about a study, and how it is tried. `look` is asked only where the tables it `needs` can be read."""

    name: str
    claim: str
    needs: tuple[str, ...]
    look: Callable[[Tables], list[Finding]]


def found(
    tables: Tables,
    view: str,
    column: str,
    query: str,
    expected: str,
    remedy: str | None = None,
    severity: str = ERROR,
) -> list[Finding]:
    """A finding if the query for `place` (a row of `view`) gives any row."""
    count, rows = tables.places(query)
    table = tables.names[view]
    return [Finding(table.path, column, count, rows, expected, remedy or again(table), severity)] if count else []


def one_of(column: str, values: tuple[str, ...]) -> tuple[str, str]:
    """The condition that a cell breaks, and what is expected."""
    return f'"{column}" NOT IN ({", ".join(map(quoted, values))})', f"one of {', '.join(values)}"


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def patient_across_splits(tables: Tables) -> list[Finding]:
    return found(
        tables,
        "recordings",
        "split",
        "SELECT place FROM recordings WHERE subject_id IN "
        "(SELECT subject_id FROM recordings GROUP BY subject_id HAVING count(DISTINCT split) > 1)",
        "one split for all recordings of a patient",
        "Correct the source's splits, or leave them out: then a hash of the patient decides. Then ingest again.",
    )


def recording_twice(tables: Tables) -> list[Finding]:
    return _repeated(tables, "recordings", "recording_id")


def repeated_ids(tables: Tables) -> list[Finding]:
    keys = {"notes": "note_id", "codes": "code", "pairs": "recording_id"}
    keys |= dict.fromkeys(tables.embeddings(), "recording_id")
    return [finding for view, key in keys.items() if view in tables.names for finding in _repeated(tables, view, key)]


def _repeated(tables: Tables, view: str, key: str) -> list[Finding]:
    query = f'SELECT place FROM "{view}" WHERE {key} IN (SELECT {key} FROM "{view}" GROUP BY {key} HAVING count(*) > 1)'
    return found(tables, view, key, query, "no value twice")


def columns(tables: Tables) -> list[Finding]:
    return tables.broken


def empty_cells(tables: Tables) -> list[Finding]:
    return [
        Finding(table.path, column, places.count, places.rows, "a value in every row", again(table))
        for view, table in tables.names.items()
        for column, places in tables.scans[view].empty.items()
    ]


_SPLIT: Final = one_of("split", schema.SPLITS)
_SPAN: Final = ('start < 0 OR "end" <= start', "start from 0 on, end after it")
_LABEL: Final = one_of("label", schema.ENTITY_LABELS)
VALUES: Final = (
    ("recordings", "split", *_SPLIT),
    ("recordings", "sex", *one_of("sex", ("female", "male"))),
    ("recordings", "age", "NOT isfinite(age) OR NOT age BETWEEN 0 AND 130", "years from 0 to 130"),
    ("recordings", "leads", f"NOT leads BETWEEN 1 AND {(1 << len(schema.LEADS)) - 1}", "a bit for some of 12 leads"),
    ("recordings", "source_rate", "NOT isfinite(source_rate) OR NOT source_rate > 0", "hertz above 0"),
    ("notes", "kind", *one_of("kind", schema.NOTE_KINDS)),
    ("entities", "label", *_LABEL),
    ("entities", "end", *_SPAN),
    ("entities_supplied", "label", *_LABEL),
    ("entities_supplied", "end", *_SPAN),
    ("pairs", "split", *_SPLIT),
)
"""View, column, the condition of a cell that is wrong, what is expected. A comparison alone misses NaN: the file's
statistics leave it out, and DuckDB skips what they exclude."""


def values(tables: Tables) -> list[Finding]:
    wanted = [*VALUES, *((view, "split", *_SPLIT) for view in tables.embeddings())]
    return [
        finding
        for view, column, wrong, expected in wanted
        if view in tables.names
        for finding in found(tables, view, column, f'SELECT place FROM "{view}" WHERE {wrong}', expected)
    ]


def order(tables: Tables) -> list[Finding]:
    findings = []
    for view, table in tables.names.items():
        seen = tables.scans[view]
        if seen.disorder.count:
            places = seen.disorder
            expected = "rows sorted as schema.py says; these belong before the row above them"
            findings.append(Finding(table.path, "", places.count, places.rows, expected, again(table)))
        if seen.runs:
            ((notes,),) = tables.ask(f'SELECT count(DISTINCT note_id) FROM "{view}"')
            if (extra := seen.runs - notes) > 0:
                findings.append(
                    Finding(table.path, "note_id", extra, (), "all mentions of a note together", again(table))
                )
    return findings


REFERENCES: Final = (
    ("events", "recording_id", "recordings", "recording_id, subject_id", "a recording of the same patient"),
    ("notes", "recording_id", "recordings", "recording_id, subject_id", "a recording of the same patient"),
    ("entities", "note_id", "notes", "note_id, subject_id", "a note of the same patient"),
    ("entities_supplied", "note_id", "notes", "note_id", "a note of the study"),
)
"""View, column, the view it points to, the columns equal in both, what is expected."""


def references(tables: Tables) -> list[Finding]:
    findings = []
    for view, column, target, keys, expected in REFERENCES:
        if view in tables.names and target in tables.names:
            rows = f"(SELECT * FROM {view} WHERE {column} IS NOT NULL)"
            query = f"SELECT place FROM {rows} ANTI JOIN {target} USING ({keys})"
            findings += found(tables, view, column, query, expected)
    for view in ("entities", "entities_supplied"):
        if view in tables.names and "notes" in tables.names:
            sizes = "(SELECT note_id, length(text) AS size FROM notes)"
            query = f'SELECT e.place FROM {view} e JOIN {sizes} USING (note_id) WHERE e."end" > size'
            findings += found(tables, view, "end", query, "an end inside of the note's text")
    return findings


def stale(tables: Tables) -> list[Finding]:
    """Tables made of others that have changed since, and tables of no completed stage."""
    now = {table.path: fingerprint(table.at(tables.study)) for view, table in tables.names.items() if "/" not in view}
    findings = []
    for view, table in tables.names.items():
        if "/" in view:
            if _older(tables, table):
                expected = "of the recordings as they are now; `embed`, `search` and `evaluate` will make them anew"
                findings.append(Finding(table.path, "", 0, (), expected, EMBED_AGAIN, WARNING))
            continue
        stage = next((m for m in tables.manifests.values() if m["outputs"].get(table.path)), None)
        inputs = {} if stage is None else stage["inputs"]
        if stage is None:
            expected = "a completed stage that wrote it: was it interrupted?"
            findings.append(Finding(table.path, "", 0, (), expected, again(table), WARNING))
        elif any(inputs[name] != now[name] for name in inputs.keys() & now.keys()):
            expected = "made of the tables as they are now; one has changed since"
            findings.append(Finding(table.path, "", 0, (), expected, again(table)))
        elif stage["outputs"][table.path] != now[table.path]:
            findings.append(Finding(table.path, "", 0, (), "as its stage wrote it", again(table)))
    return findings


def _older(tables: Tables, table: schema.Table) -> bool:
    """Whether embeddings were made before the study's last ingest."""
    manifest = read_manifest(table.at(tables.study).with_name("manifest.json"))
    made_of = None if manifest is None else manifest["inputs"].get("ingest")
    return made_of != fingerprint(stage_manifest(tables.study, "ingest"))


def embeddings(tables: Tables) -> list[Finding]:
    """One row for each recording with a signal, of its patient and split; vectors of one length, of norm 1."""
    findings = []
    for view in tables.embeddings():
        if _older(tables, tables.names[view]):
            continue  # `stale` says so
        keys = "recording_id, subject_id, split"
        with_signal = '(SELECT * FROM recordings WHERE "row" IS NOT NULL)'
        stranger = f'SELECT place FROM "{view}" ANTI JOIN {with_signal} USING ({keys})'
        findings += found(tables, view, "recording_id", stranger, "a recording with a signal, of its patient and split")
        absent = f'SELECT place FROM {with_signal} ANTI JOIN "{view}" USING (recording_id)'
        findings += [
            Finding(tables.names[view].path, "recording_id", f.count, (), f.expected, again(tables.names[view]))
            for f in found(tables, "recordings", "recording_id", absent, "a row for every recording with a signal")
        ]
        for column in ("embedding", "features"):
            lengths = f'SELECT max(len({column})) FROM "{view}"'
            query = f'SELECT place FROM "{view}" WHERE coalesce(len({column}), 0) <> ({lengths})'
            findings += found(tables, view, column, query, "lists of one length")
        query = f'SELECT place FROM "{view}" WHERE NOT abs(list_inner_product(embedding, embedding) - 1) < 0.01'
        findings += found(tables, view, "embedding", query, "vectors of length 1")
    return findings


TABLE_RULES: Final = (
    Rule("patient-across-splits", "No patient is in more than one split.", ("recordings",), patient_across_splits),
    Rule("recording-twice", "No recording is there twice, so none is in two splits.", ("recordings",), recording_twice),
    Rule("columns", "Every table of a completed stage is there, whole, and has the schema's columns.", (), columns),
    Rule("empty-cells", "No cell is empty that must have a value.", (), empty_cells),
    Rule("values", "Splits, kinds, labels, sexes, ages, leads and rates are such as the schema allows.", (), values),
    Rule("repeated-ids", "Notes, codes, pairs and embeddings have each their own id.", (), repeated_ids),
    Rule("order", "Events, notes, entities and pairs are sorted as the schema says.", (), order),
    Rule("references", "Events and notes name recordings of their own patient, entities notes of theirs.",
         (), references),
    Rule("stale", "Every table was made of the tables as they are now.", (), stale),
    Rule("embeddings", "Embeddings are of the recordings with a signal, each a unit vector.",
         ("recordings", "embeddings"), embeddings),
)  # fmt: skip
