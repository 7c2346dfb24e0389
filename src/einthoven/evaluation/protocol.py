"""The evaluation of a model on one split of a study: retrieval, zero-shot, probes, each beside an untrained control."""

from collections.abc import Callable, Mapping
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
from einthoven.evaluation.calibration import calibrated
from einthoven.evaluation.figures import Example, Map, ReportFigures, Scored, embedding_map
from einthoven.evaluation.intervals import Floats, Integers, bootstrap, weighted_mean
from einthoven.evaluation.labels import codes_of
from einthoven.evaluation.leads import measure_subsets
from einthoven.evaluation.measures import (
    CodeSide,
    Represented,
    code_ranks,
    frequent_findings,
    measures,
    scores_of,
    text_ranks,
)
from einthoven.evaluation.outliers import FILE as OUTLIERS
from einthoven.evaluation.outliers import Outliers, load_outliers
from einthoven.evaluation.scores import Scores, write_scores
from einthoven.evaluation.split import Split, counts, read_split
from einthoven.evaluation.subgroups import attributes, subgroups
from einthoven.evaluation.zeroshot import PROMPTS
from einthoven.model import FINE, Model
from einthoven.model_card import WITH_RESULTS, write_card
from einthoven.model_directory import load
from einthoven.pairing.kinds import kinds_of
from einthoven.search.rows import descriptions
from einthoven.study import data_kind, read_manifest, read_table, sha256, stage_manifest
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
    """Write `metrics.json`, `report.html`, `scores.parquet` and the model's card to `out`; return the counts."""
    model = load(directory)
    data = read_split(study, split, model.card.get("concatenation", "report"))
    encoded = {"model": rows_of(model, directory, study, data)}
    store = Store.open(study)
    encoders = {"model": model}
    if options.control:
        encoders["random_init"] = model.untrained(options.seed)
        encoded["random_init"] = embed_rows(
            encoders["random_init"], store, data.rows, lambda i, n: progress(i, n, "untrained control")
        )
    manifest = read_manifest(directory / "manifest.json") or {}
    metrics: dict[str, Any] = {
        **about(model, directory, manifest),
        **about_study(study, split, options, command),
        "counts": counts(data, study),
    }
    figures: dict[str, Any] = {"history": tuple(manifest.get("counts", {}).get("history", ()))}
    kept: dict[str, Scores] = {}

    seen = {name: represent(encoder, encoded[name], data, directory, name) for name, encoder in encoders.items()}

    def measured(series: str, rows: Rows) -> dict[str, Any]:
        of = seen_as(seen[series], rows)
        return measures(of, data, options, text_ranks(of, data))

    for series, of in seen.items():
        metrics[series], kept[series] = with_scores(of, data, options)
        collect(figures, kept[series], series)
    if options.lead_subsets:
        metrics["leads"] = measure_subsets(measured, encoders, store, data.rows, progress)
    metrics["subgroups"] = by_group(kept["model"], study, options)
    if (directory / OUTLIERS).exists():
        found = load_outliers(directory)
        figures["outlying"] = found.scores(encoded["model"])
        metrics["model"]["outliers"] = flagged(found, figures["outlying"], data.subjects, options)
    figures["map"] = mapped(encoded["model"].vectors, data)
    figures["examples"] = examples(model, encoded["model"].vectors, data, study, store)
    write_scores(out, kept)
    if manifest:
        write_card(out / WITH_RESULTS, manifest["config"], manifest["counts"], metrics)
    report.write_report(out, metrics, ReportFigures(**figures))
    return dict(metrics["counts"])


def rows_of(model: Model, directory: Path, study: Path, data: Split) -> Rows:
    """The embeddings of a split, as `embed` wrote them."""
    embedded = read_table(table_of(directory), study)
    order = pc.index_in(pa.array(data.ids, pa.string()), embedded["recording_id"].combine_chunks())
    if order.null_count:
        raise EinthovenError(f"{study}: pairs and embeddings name different recordings; run pair and embed again.")
    mine = embedded.take(order)
    fine = None if model.codes is None else matrix(mine["fine"])
    return Rows(matrix(mine["embedding"]), matrix(mine["features"]), matrix(mine["early"]), fine)


def about(model: Model, directory: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What the metrics say of the model."""
    return {
        "trained_on": model.card.get("data_kind"),
        "weights": sha256(directory / "model.safetensors"),
        "recipe": manifest.get("config"),
        "trained_from": manifest.get("inputs"),
        "concatenation": None if model.text is None else model.card.get("concatenation", "report"),
    }


def about_study(study: Path, split: str, options: Evaluation, command: str) -> dict[str, Any]:
    """What the metrics say of the study, and of how it was measured."""
    paired = read_manifest(stage_manifest(study, "pair")) or {"counts": {}}
    tokens = paired["counts"].get("tokens")
    return {
        "data_kind": data_kind(study),
        "command": command,
        "seed": options.seed,
        "resamples": options.resamples,
        "split": split,
        **({"tokens": tokens} if tokens else {}),
    }


def with_scores(of: Represented, data: Split, options: Evaluation) -> tuple[dict[str, Any], Scores]:
    """All metrics of one model on one split, and what they rest on."""
    ranks, by_codes = text_ranks(of, data), code_ranks(of)
    kept = scores_of(of, data, ranks, by_codes)
    return measures(of, data, options, ranks, by_codes) | calibrated(kept, options.resamples, options.seed), kept


def by_group(kept: Scores, study: Path, options: Evaluation) -> list[dict[str, Any]]:
    """The results by sex, age, device and site."""
    groups = attributes(study, kept.recording_ids)
    return subgroups(kept, groups, resamples=options.resamples, seed=options.seed)


def flagged(found: Outliers, scores: Floats, subjects: Integers, options: Evaluation) -> dict[str, Any]:
    """How many recordings the model's detector calls outliers, scores [n] from its threshold."""
    above = (scores > 0).astype(np.float64)
    share = bootstrap(subjects, lambda w: {"flagged": weighted_mean(above, w)}, options.resamples, options.seed)
    return {"detector": found.chosen, "false_alarm": found.false_alarm, **share}


def mapped(vectors: Floats, data: Split) -> Map | None:
    """The figure's map of embeddings [n, d]; None where there are too few of them for a plane."""
    return embedding_map(vectors, data.labels, data.classes) if min(vectors.shape) > 2 else None


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


def collect(figures: dict[str, Any], kept: Scores, series: str) -> None:
    """The arrays behind the figures."""
    places = [place for place in kept.ranks if place.startswith("retrieval/") and place.endswith("/distinct")]
    if places:
        name = "ranks" if series == "model" else "control_ranks"
        figures[name] = {place.split("/")[1]: kept.queries(place)[1].best for place in places}
    if series != "model":
        return
    probe = kept.whole_probe()
    for name, part in [("zero_shot", "zeroshot"), *([("probe", probe[1])] if probe else [])]:
        if (found := kept.matrix(part)) is not None:
            classes, _, labels, scores = found
            figures[name] = Scored(classes, labels, scores)


def examples(model: Model, vectors: Floats, data: Split, study: Path, store: Store) -> tuple[Example, ...]:
    """For a few classes, the ECG nearest to the class's first English prompt, drawn with its findings."""
    if model.text is None:
        return ()
    prompts = [PROMPTS[name]["english"][0] for name in data.classes if name in PROMPTS][:EXAMPLES]
    nearest = [int(np.argmax(vectors @ vector)) for vector in model.encode_text(prompts)]
    codes, meaning = codes_of(study, [data.ids[i] for i in nearest]), descriptions(study)
    signals = millivolts(store.read(data.rows[nearest]))
    named = {name: tuple(meaning.get(code, code) for code in found) for name, found in codes.items()}
    return tuple(
        Example(prompt, data.ids[i], signal, store.sampling_rate, named.get(data.ids[i], ()))
        for prompt, i, signal in zip(prompts, nearest, signals, strict=True)
    )
