"""Make the tables of docs/scale.md from the measured rates: python results/scale.py

Reads the JSON of MEASURED beside it, which `make bench-…` writes. Every cell of the projection is a product of a
measured rate and a size of the article, or of one of ASSUMED; nothing is typed in.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runs import replaced

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "scale.md"
RATES = "<!-- rates: made by results/scale.py -->", "<!-- end of rates -->"
PROJECTION = "<!-- projection: made by results/scale.py -->", "<!-- end of projection -->"
MEASURED = ("ingest", "store", "million", "pairing", "compute", "search", "startup", "evaluation")

ECGS, PATIENTS, TRIPLETS = 9_000_000, 2_400_000, 4_500_000
"""Of the article."""

SECONDS, LEADS, BYTES = 10, 12, 2
ASSUMED = {
    "cores": 64,  # of the machine that ingests, and of each that trains
    "gpus": 8,
    "peak_tflops": 312,  # an A100's dense bf16, by its maker
    "share_of_peak": 0.10,  # that small convolutions reach; a guess, on the low side
    "epochs": 30,  # [training] epochs' default
    "shards": 8,  # machines of an index on a cluster
}


def rows_of(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table: what, how long or how large, and from which figures."""
    return [*rows_of_data(measured), *rows_of_training(measured), *rows_of_search(measured)]


def rows_of_data(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    ingest, million, pairing = (measured[name] for name in ("ingest", "million", "pairing"))
    cores, rate = ASSUMED["cores"], ingest["records_per_processor_second"]
    stored = {hertz: ECGS * LEADS * SECONDS * hertz * BYTES / 1e12 for hertz in (500, 100)}
    ingested = ECGS / rate / 3600
    tables = million["tables_mb"] / million["recordings"] * ECGS / 1e3
    paired = pairing["40Mx2M"]["seconds"] * ECGS / 2e6 / 60
    held = million["train"]["anonymous_mb"] / million["recordings"] * TRIPLETS / 1e3
    return [
        (
            "waveforms, 12 leads, 10 s, int16",
            f"{stored[500]:.2f} TB at 500 Hz, {stored[100]:.2f} TB at 100 Hz",
            "sizes",
        ),
        (
            "ingest from WFDB",
            f"{ingested:.1f} processor hours: {60 * ingested / cores:.1f} minutes of {cores} cores, which then ask "
            f"{cores * rate * 0.12 / 1e3:.0f} GB/s of the disk",
            "ingest.json",
        ),
        ("tables: recordings, events, notes, pairs", f"{tables:.0f} GB", "million.json, by the recording"),
        ("pairing of codes, one machine", f"{paired:.1f} minutes", "pairing.json, 40 M events x 2 M recordings"),
        (
            "memory of a training process",
            f"at most {held:.1f} GB beside the weights",
            "million.json, by the recording, libraries included",
        ),
    ]


def rows_of_training(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    compute, reading = measured["compute"], measured["store"]["strips_per_processor_second"]["100"]
    cores, gpus = ASSUMED["cores"], ASSUMED["gpus"]
    flops = TRIPLETS * ASSUMED["epochs"] * compute["training_gflop_per_triplet"] * 1e9
    speed = ASSUMED["peak_tflops"] * 1e12 * ASSUMED["share_of_peak"]
    trained = flops / (gpus * speed) / 3600
    alone = TRIPLETS * ASSUMED["epochs"] / compute["triplets_per_processor_second"] / cores / 3600
    wanted = speed / (compute["training_gflop_per_triplet"] * 1e9)
    embedded = ECGS * compute["embedding_gflop_per_recording"] * 1e9 / (gpus * speed) / 60
    vectors = ECGS * (2 * compute["dim"] + compute["features"]) * 4 / 1e9
    return [
        (
            f"training, {gpus} GPUs, {ASSUMED['epochs']} epochs of {TRIPLETS / 1e6:.1f} M triplets",
            f"{trained:.2f} hours (estimated: {flops / 1e18:.2f} x 10^18 operations)",
            "compute.json, and the assumptions below",
        ),
        (
            f"the same on {cores} cores without a GPU",
            f"{alone:.0f} hours, if all scale as one does",
            "compute.json",
        ),
        (
            "strips a second that each of these GPUs would take",
            f"{wanted:,.0f}: {wanted / reading['plain']:.1f} cores reading at 100 Hz, "
            f"{wanted / reading['augmented']:.1f} with augmentation",
            "compute.json, store.json",
        ),
        ("embedding all, the same GPUs", f"{embedded:.1f} minutes (estimated); {vectors:.0f} GB", "compute.json"),
    ]


def rows_of_search(measured: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    search, shards = measured["search"], ASSUMED["shards"]
    exact, lance = (search["indexes"][name] for name in ("exact", "LanceDB"))
    per = ECGS / search["recordings"]
    query = exact["all"]["p50_ms"] * per  # ms
    return [
        (
            "exact index in memory, one machine",
            f"{ECGS * search['dim'] * 4 / 1e9:.1f} GB of vectors, {query / 1e3:.2f} s for a query",
            "search.json, in proportion",
        ),
        (
            f"exact on {shards} machines",
            f"{query / shards:.0f} ms for a query, and the network",
            "search.json, in proportion",
        ),
        ("LanceDB, building", f"{lance['build_s'] * per / 60:.0f} minutes of two cores", "search.json, in proportion"),
    ]


def rates(measured: Mapping[str, Any]) -> str:
    """What one processor did, as Markdown."""
    ingest, store, million, startup, report = (
        measured[name] for name in ("ingest", "store", "million", "startup", "evaluation")
    )
    strips, opened, train = store["strips_per_processor_second"], million["open"], million["train"]
    rows = [
        ("ingest", "WFDB, 12 leads x 5000 samples, format 16, from and to the page cache",
         f"{ingest['records_per_processor_second']:,} records a processor second", "ingest"),
        *((f"reading for training, {hertz} Hz", "rows in random order; cut and converted; and augmented",
           f"{of['read']:,.0f}; {of['plain']:,.0f}; {of['augmented']:,.0f} strips a processor second", "store")
          for hertz, of in strips.items()),
        (f"a study of {million['recordings']:,}", f"{million['tables_mb']:,} MB of tables: opened",
         f"{opened['open_s']} s, {opened['anonymous_mb']} MB", "million"),
        ("", f"trained for {train['steps']} steps: largest memory (RssAnon; with mapped files)",
         f"{train['anonymous_mb']:,} MB; {train['with_files_mb']:,} MB", "million"),
        (f"a report of {report['recordings']:,} ECGs", "all parts, 1,000 resamples",
         f"{report['processor_s']:.0f} processor seconds, {report['peak_mb']:,} MB", "evaluation"),
        ("`--help`", f"a bare interpreter takes {startup['bare']['processor_s']} s",
         f"{startup['help']['processor_s']} processor seconds", "startup"),
        ("first answer of a search", f"importing PyTorch and a BERT takes {startup['libraries']['processor_s']} s",
         f"{startup['search']['processor_s']} processor seconds", "startup"),
    ]  # fmt: skip
    said = ["| stage | what | rate | command |", "| --- | --- | --- | --- |"]
    return "\n".join([*said, *(f"| {a} | {b} | {c} | `make bench-{name}` |" for a, b, c, name in rows)])


def table(measured: Mapping[str, Any]) -> str:
    """The sizes, the rows and what was assumed, as Markdown."""
    said = [f"{ECGS / 1e6:.0f} M ECGs, {PATIENTS / 1e6:.1f} M patients, {TRIPLETS / 1e6:.1f} M triplets. Made by "
            "`python results/scale.py`.", "", "| what | projected | from |", "| --- | --- | --- |"]  # fmt: skip
    said += [f"| {' | '.join(row)} |" for row in rows_of(measured)]
    a = ASSUMED
    said += [
        "",
        f"Assumed, not measured: machines of {a['cores']} cores; {a['gpus']} GPUs of {a['peak_tflops']} teraflops in "
        f"bf16, of which training reaches {100 * a['share_of_peak']:.0f} %; {a['epochs']} epochs; the encoders of "
        f"`{measured['compute']['recipe']}` ({measured['compute']['parameters'] / 1e6:.1f} M parameters, "
        f"{measured['compute']['hertz']} Hz, {measured['compute']['training_gflop_per_triplet']} GFLOP a triplet). "
        "GatorTron in place of the small BERT is another bill: frozen, each text goes through it once.",
    ]
    return "\n".join(said)


def load() -> dict[str, Any]:
    return {name: json.loads((HERE / f"{name}.json").read_text(encoding="utf-8")) for name in MEASURED}


def with_projection(page: str, measured: Mapping[str, Any]) -> str:
    return replaced(replaced(page, *RATES, rates(measured)), *PROJECTION, table(measured))


if __name__ == "__main__":
    PAGE.write_text(with_projection(PAGE.read_text(encoding="utf-8"), load()), encoding="utf-8")
