"""The evaluation of a model on one split of a study: retrieval, zero-shot, probes, each beside an untrained control."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from einthoven.config import Evaluation, Pairing
from einthoven.contrast import inverse_temperature
from einthoven.embed import Rows, embed_rows, matrix, table_of
from einthoven.encoders.code_records import code_sets, encode_records
from einthoven.errors import EinthovenError
from einthoven.evaluation import report
from einthoven.evaluation.intervals import Floats
from einthoven.evaluation.leads import measure_subsets
from einthoven.evaluation.measures import CodeSide, Represented, frequent_findings, measures, text_ranks
from einthoven.evaluation.retrieval import Ranked
from einthoven.evaluation.split import Split, counts, read_split
from einthoven.evaluation.zeroshot import PROMPTS, prompt_scores
from einthoven.model import FINE, Model
from einthoven.model_directory import load
from einthoven.pairing.kinds import kinds_of
from einthoven.search.rows import codes_of, descriptions
from einthoven.study import data_kind, read_manifest, read_table, stage_manifest
from einthoven.training.probes import FILE, load_probes
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import millivolts

EXAMPLES = 4
"""Text queries whose best ECG is drawn in the report."""


def evaluate_model(
    directory: Path,
    study: Path,
    split: str,
    out: Path,
    options: Evaluation,
    command: str,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Write `metrics.json` and `report.html` to `out`; return the counts."""
    model = load(directory)
    data = read_split(study, split, model.card.get("concatenation", "report"))
    embedded = read_table(table_of(directory), study)
    order = pc.index_in(pa.array(data.ids, pa.string()), embedded["recording_id"].combine_chunks())
    if order.null_count:
        raise EinthovenError(f"{study}: pairs and embeddings name different recordings; run pair and embed again.")
    mine = embedded.take(order)
    fine = None if model.codes is None else matrix(mine["fine"])
    encoded = {"model": Rows(matrix(mine["embedding"]), matrix(mine["features"]), fine)}
    store = Store.open(study)
    encoders = {"model": model}
    if options.control:
        encoders["random_init"] = model.untrained(options.seed)
        encoded["random_init"] = embed_rows(
            encoders["random_init"], store, data.rows, lambda i, n: progress(i, n, "untrained control")
        )
    metrics: dict[str, Any] = {
        "data_kind": data_kind(study),
        "trained_on": model.card.get("data_kind"),
        "command": command,
        "seed": options.seed,
        "split": split,
        "counts": counts(data, study),
        "concatenation": None if model.text is None else model.card.get("concatenation", "report"),
    }
    paired = read_manifest(stage_manifest(study, "pair")) or {"counts": {}}
    if paired["counts"].get("tokens"):
        metrics["tokens"] = paired["counts"]["tokens"]
    figures: dict[str, Any] = {}

    seen = {name: represent(encoder, encoded[name], data, directory, name) for name, encoder in encoders.items()}

    def measured(series: str, rows: Rows) -> dict[str, Any]:
        of = seen_as(seen[series], rows)
        return measures(of, data, options, text_ranks(of, data))

    for series, of in seen.items():
        ranks = text_ranks(of, data)
        metrics[series] = measures(of, data, options, ranks)
        collect(figures, of, ranks, data, series)
    if options.lead_subsets:
        metrics["leads"] = measure_subsets(measured, encoders, store, data.rows, progress)
    manifest = read_manifest(directory / "manifest.json") or {"counts": {}}
    figures["history"] = tuple(manifest["counts"].get("history", ()))
    figures["examples"] = examples(model, encoded["model"].vectors, data, study, store)
    report.write_report(out, metrics, report.ReportFigures(**figures))
    return dict(metrics["counts"])


def represent(model: Model, encoded: Rows, data: Split, directory: Path, series: str) -> Represented:
    """A split as a model directory sees it, or its untrained control."""
    classes, probes = load_probes(directory / FILE) or ((), {})
    kept = tuple(probes.get(series, ()))
    codes = _code_side(model, encoded, data)
    if model.text is None:
        return Represented(encoded.features, codes=codes, probe_classes=classes, probes=kept)
    texts = model.encode_text([text for text in data.texts if text is not None])
    prompts = prompt_embeddings(model, [name for name in data.classes if name in PROMPTS])
    return Represented(encoded.features, encoded.vectors, texts, prompts, codes, classes, kept)


def seen_as(of: Represented, rows: Rows) -> Represented:
    """The same texts, prompts, codes and probes beside other embeddings of the ECGs."""
    codes = None if of.codes is None or rows.fine is None else replace(of.codes, ecg=rows.fine)
    return replace(of, features=rows.features, ecg=None if of.ecg is None else rows.vectors, codes=codes)


def _code_side(model: Model, encoded: Rows, data: Split) -> CodeSide | None:
    if model.codes is None or model.vocabulary is None or encoded.fine is None:
        return None
    ages = data.coded["age"].to_numpy().astype(np.float32)
    records = encode_records(data.coded, ages, model.vocabulary, model.codes.kinds)
    known = np.diff(records.offsets) > 0
    kinds = Pairing(code_kinds={kind: tuple(patterns) for kind, patterns in model.card["code_kinds"].items()})
    frequent = kinds_of(frequent_findings(data), kinds).codes.to_pylist()  # `encode_codes` refuses others
    return CodeSide(
        ecg=encoded.fine,
        known=known,
        records=model.encode_records(records)[known],
        sets=code_sets(records)[known],
        classes={
            name: model.encode_codes([[code] for code in codes]) for name, codes in data.codes_of.items() if codes
        },
        temperature=1 / float(inverse_temperature(model.log_scale.detach())[FINE]),
        queries={code: model.encode_codes([[code]]) for code in frequent},
    )


def prompt_embeddings(model: Model, classes: list[str]) -> dict[str, Floats]:
    """The unit vectors of each class's prompts, all languages together."""
    return {name: model.encode_text([p for language in PROMPTS[name].values() for p in language]) for name in classes}


def collect(
    figures: dict[str, Any],
    of: Represented,
    ranks: dict[str, dict[str, Ranked]] | None,
    data: Split,
    series: str,
) -> None:
    """The arrays behind the figures; `ranks` are the `text_ranks`."""
    if of.ecg is None:
        return
    if ranks is not None:
        name = "ranks" if series == "model" else "control_ranks"
        figures[name] = {direction: galleries["distinct"].best for direction, galleries in ranks.items()}
    prompted = [name for name in data.classes if name in of.prompts]
    if series == "model" and data.labelled.any() and prompted:
        figures["classes"] = tuple(prompted)
        figures["labels"] = data.labels[data.labelled][:, [data.classes.index(name) for name in prompted]]
        prompts = {name: of.prompts[name] for name in prompted}
        figures["zero_shot_scores"] = prompt_scores(of.ecg[data.labelled], prompts)


def examples(model: Model, vectors: Floats, data: Split, study: Path, store: Store) -> tuple[report.Example, ...]:
    """For a few classes, the ECG nearest to the class's first English prompt, drawn with its findings."""
    if model.text is None:
        return ()
    prompts = [PROMPTS[name]["english"][0] for name in data.classes if name in PROMPTS][:EXAMPLES]
    nearest = [int(np.argmax(vectors @ vector)) for vector in model.encode_text(prompts)]
    codes, meaning = codes_of(study, [data.ids[i] for i in nearest]), descriptions(study)
    signals = millivolts(store.read(data.rows[nearest]))
    named = {name: tuple(meaning.get(code, code) for code in found) for name, found in codes.items()}
    return tuple(
        report.Example(prompt, data.ids[i], signal, store.sampling_rate, named.get(data.ids[i], ()))
        for prompt, i, signal in zip(prompts, nearest, signals, strict=True)
    )
