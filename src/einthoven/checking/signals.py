"""What must hold in the waveform store: every row is one recording's, and no signal is in two splits."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from einthoven import schema
from einthoven.checking.rules import Rule, found
from einthoven.checking.tables import ERROR, INGEST_AGAIN, NOTE, WARNING, Finding, Tables
from einthoven.errors import EinthovenError
from einthoven.waveforms.standardise import recorded_leads
from einthoven.waveforms.store import SETTINGS, Store

DIGEST: Final = 16
"""Bytes of BLAKE2b for each signal: among 10^9 different ones, two of equal digest have a chance of 10^-21."""
CHUNK: Final = 32 << 20  # bytes of signal read at a time
STORE: Final = f"{schema.WAVEFORMS}/{SETTINGS}"

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Signals:
    """What the pass over the store saw, by row."""

    digests: NDArray[np.uint8]  # [rows, DIGEST]
    leads: NDArray[np.int16]  # [rows], as schema.RECORDINGS has them


def read_signals(study: Path, progress: Progress | None = None) -> Signals:
    """Digest every stored signal: int16 of all 12 leads, so equal means equal to the microvolt.

    Memory is bounded by a chunk and 18 bytes a row. Hashing releases the interpreter lock, so threads suffice.
    """
    store = Store.open(study)
    digests = np.empty((store.rows, DIGEST), np.uint8)
    leads = np.empty(store.rows, np.int16)
    step = max(1, CHUNK // (len(schema.LEADS) * store.samples * 2))
    with ThreadPoolExecutor() as pool:
        for start in range(0, store.rows, step):
            block = store.read(np.arange(start, min(start + step, store.rows)))
            stop = start + len(block)
            digests[start:stop] = np.frombuffer(b"".join(pool.map(_digest, block)), np.uint8).reshape(-1, DIGEST)
            leads[start:stop] = recorded_leads(block)
            if progress is not None:
                progress(stop, store.rows)
    return Signals(digests, leads)


def _digest(signal: NDArray[np.int16]) -> bytes:
    return hashlib.blake2b(signal.data, digest_size=DIGEST).digest()


def load_signals(tables: Tables, progress: Progress | None = None) -> None:
    """Read the store into the view `signals`: row, leads, digest. Where there is none to read, `broken` says so."""
    if not (tables.study / schema.WAVEFORMS).exists():
        named = (
            tables.places('SELECT place FROM recordings WHERE "row" IS NOT NULL')
            if "recordings" in tables.there
            else ()
        )
        if named and named[0]:
            tables.broken.append(
                Finding(schema.RECORDINGS.path, "row", *named, "waveforms for these rows", INGEST_AGAIN)
            )
        return
    try:
        signals = read_signals(tables.study, progress)
    except EinthovenError:
        tables.broken.append(Finding(STORE, "", 0, (), "a waveform store that is whole", INGEST_AGAIN))
        return
    flat = pa.py_buffer(signals.digests)
    digests = pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST), len(signals.digests), [None, flat])
    columns = {"row": np.arange(len(signals.leads)), "leads": signals.leads, "digest": digests}
    tables.engine.register("signals", pa.table(columns))
    tables.there.add("signals")


def _rows(tables: Tables) -> list[Finding]:
    ((rows,),) = tables.ask("SELECT count(*) FROM signals")
    outside = f'"row" < 0 OR "row" >= {rows}'
    twice = '"row" IN (SELECT "row" FROM recordings GROUP BY "row" HAVING count(*) > 1)'
    unlike = 'SELECT place FROM recordings r JOIN signals s ON s."row" = r."row" WHERE r.leads <> s.leads'
    wanted = (
        ("row", f"SELECT place FROM recordings WHERE {outside}", f"a row below {rows}, as the store has"),
        ("row", f"SELECT place FROM recordings WHERE {twice}", "a row of its own"),
        ("leads", 'SELECT place FROM recordings WHERE ("row" IS NULL) <> (leads IS NULL)', "leads if there is a row"),
        ("leads", unlike, "the leads that the signal has"),
    )
    findings = [f for column, query, expected in wanted for f in found(tables, "recordings", column, query, expected)]
    unused, _ = tables.places('SELECT "row" AS place FROM signals ANTI JOIN recordings USING ("row")')
    if unused:
        expected = "a recording for every stored signal"
        findings.append(Finding(STORE, "", unused, (), expected, INGEST_AGAIN, WARNING))
    return findings


_GROUPED: Final = (
    'SELECT r.place, r.subject_id, r.split, r."row", s.digest FROM recordings r JOIN signals s ON s."row" = r."row"'
)


def _equal_signals(tables: Tables) -> list[Finding]:
    return _finding(
        tables,
        "count(DISTINCT split) > 1",
        "signals of which none is in another split too ({groups} signals are)",
        "Give these recordings one split, and their patients too if they are one; or leave all but one out. "
        "Then ingest again.",
    )


def _repeated_signals(tables: Tables) -> list[Finding]:
    several = 'count(DISTINCT split) = 1 AND count(DISTINCT "row") > 1 AND count(DISTINCT subject_id) {0}'
    remedy = "Nothing has to be done. If {0}, say so in the source."
    return [
        *_finding(
            tables,
            several.format("> 1"),
            "one patient for one signal ({groups} signals have several, in one split)",
            remedy.format("they are one patient"),
            NOTE,
        ),
        *_finding(
            tables,
            several.format("= 1"),
            "one recording for one signal ({groups} signals have several, of one patient)",
            remedy.format("they are copies"),
            NOTE,
        ),
    ]


def _finding(tables: Tables, having: str, expected: str, remedy: str, severity: str = ERROR) -> list[Finding]:
    groups = f"SELECT digest FROM ({_GROUPED}) GROUP BY digest HAVING {having}"
    ((number,),) = tables.ask(f"SELECT count(*) FROM ({groups})")
    if not number:
        return []
    count, places = tables.places(f"SELECT place FROM ({_GROUPED}) WHERE digest IN ({groups})")
    said = expected.format(groups=number)
    return [Finding(schema.RECORDINGS.path, "row", count, places, said, remedy, severity)]


NEEDS: Final = ("recordings", "signals")
SIGNAL_RULES: Final = (
    Rule("store", "Every recording with leads has a row of the store for itself, and the leads its signal has.",
         NEEDS, _rows),
    Rule("signal-across-splits", "No identical signal is in more than one split.", NEEDS, _equal_signals),
    Rule("signal-repeated", "No identical signal is there twice within a split.", NEEDS, _repeated_signals),
)  # fmt: skip
