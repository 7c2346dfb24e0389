"""The evaluation of a model on one split of a study: retrieval, zero-shot, probes, each beside an untrained control."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from einthoven import schema
from einthoven.config import Evaluation
from einthoven.embed import Rows, embed_rows, matrix, table_of
from einthoven.encoders.code_records import code_sets, encode_records
from einthoven.errors import EinthovenError
from einthoven.evaluation import report
from einthoven.evaluation.calibration import calibrated
from einthoven.evaluation.figures import embedding_map
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.labels import super_classes
from einthoven.evaluation.leads import measure_subsets
from einthoven.evaluation.retrieval import all_ranks, retrieval
from einthoven.evaluation.scores import Scores, write_scores
from einthoven.evaluation.subgroups import attributes, subgroups
from einthoven.evaluation.transfer import probe_metrics
from einthoven.evaluation.zeroshot import PROMPTS, REFERENCE, prompt_scores, zero_shot
from einthoven.model import Model
from einthoven.model_directory import load
from einthoven.search.query import findings
from einthoven.study import data_kind, read_manifest, read_table, sha256, stage_manifest
from einthoven.training.probes import FILE, load_probes
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import millivolts

EXAMPLES = 4
"""Text queries whose best ECG is drawn in the report."""


@dataclass(frozen=True)
class Split:
    """One split of a study as arrays; row i of all is recording i."""

    ids: list[str]
    rows: Integers
    subjects: Integers
    texts: list[str | None]
    labelled: np.ndarray[Any, np.dtype[np.bool_]]
    labels: np.ndarray[Any, np.dtype[np.bool_]]  # [n, classes], all False where not labelled
    classes: tuple[str, ...]
    coded: pa.Table  # columns codes, code_kinds, code_days and age
    codes_of: Mapping[str, tuple[str, ...]]  # the codes of each class


def evaluate_model(
    directory: Path,
    study: Path,
    split: str,
    out: Path,
    options: Evaluation,
    command: str,
    progress: Callable[[int, int, str], None],
) -> dict[str, Any]:
    """Write `metrics.json`, `scores.parquet` and `report.html` to `out`; return the counts."""
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
    manifest = read_manifest(directory / "manifest.json") or {"config": None, "counts": {}}
    metrics: dict[str, Any] = {
        "data_kind": data_kind(study),
        "trained_on": model.card.get("data_kind"),
        "weights": sha256(directory / "model.safetensors"),
        "recipe": manifest["config"],
        "command": command,
        "seed": options.seed,
        "resamples": options.resamples,
        "split": split,
        "counts": counts(data, study),
        "concatenation": model.card.get("concatenation", "report"),
    }
    paired = read_manifest(stage_manifest(study, "pair")) or {"counts": {}}
    if paired["counts"].get("tokens"):
        metrics["tokens"] = paired["counts"]["tokens"]
    figures: dict[str, Any] = {}
    kept: dict[str, Scores] = {}

    def measured(series: str, rows: Rows) -> dict[str, Any]:
        return measure(encoders[series], rows, data, options, directory, series)

    for series, encoder in encoders.items():
        metrics[series] = measured(series, encoded[series])
        kept[series] = scores_of(encoder, encoded[series], data, directory, series)
        metrics[series] |= calibrated(kept[series], options.resamples, options.seed)
        _collect(figures, kept[series], series)
    if options.lead_subsets:
        metrics["leads"] = measure_subsets(measured, encoders, store, data.rows, progress)
    groups = attributes(study, data.ids)
    metrics["subgroups"] = subgroups(kept["model"], groups, resamples=options.resamples, seed=options.seed)
    figures["history"] = tuple(manifest["counts"].get("history", ()))
    if len(data.ids) > 2:
        figures["map"] = embedding_map(encoded["model"].vectors, data.labels, data.classes)
    figures["examples"] = examples(model, encoded["model"].vectors, data, study, store)
    write_scores(out, kept)
    report.write_report(out, metrics, report.ReportFigures(**figures))
    return dict(metrics["counts"])


def read_split(study: Path, split: str, concatenation: str = "report") -> Split:
    """The recordings of a split that have a signal, by recording; their texts are that concatenation of notes."""
    column = schema.CONCATENATIONS[concatenation]
    coded = ["codes", "code_kinds", "code_days"]
    pairs = read_table(schema.PAIRS, study, ["recording_id", "subject_id", "split", "row", *coded, column])
    ages = read_table(schema.RECORDINGS, study, ["recording_id", "age"])
    places = pc.index_in(pairs["recording_id"], value_set=ages["recording_id"].combine_chunks())
    pairs = pairs.append_column("age", ages["age"].take(places)).sort_by("recording_id")
    pairs = pairs.filter(pc.and_(pc.equal(pairs["split"], split), pc.is_valid(pairs["row"])))
    if not len(pairs):
        raise EinthovenError(f"{study}: the {split} split has no recording with a signal. Choose another --split.")
    found = super_classes(study)
    place = {name: i for i, name in enumerate(found.recording_ids)}
    ids = pairs["recording_id"].to_pylist()
    labels = np.zeros((len(ids), len(found.classes)), bool)
    labelled = np.array([name in place for name in ids])
    labels[labelled] = found.labels[[place[name] for name in ids if name in place]]
    return Split(
        ids,
        pairs["row"].to_numpy(),
        pairs["subject_id"].to_numpy(),
        pairs[column].to_pylist(),
        labelled,
        labels,
        found.classes,
        pairs.select([*coded, "age"]),
        found.codes_of,
    )


def counts(data: Split, study: Path) -> dict[str, int]:
    """How many recordings each part of the evaluation rests on."""
    return {
        "recordings": len(data.ids),
        "patients": len(np.unique(data.subjects)),
        "with_text": sum(text is not None for text in data.texts),
        "distinct_texts": len({text for text in data.texts if text is not None}),
        "with_class": int(data.labelled.sum()),
        "excluded_from_study": len(read_table(schema.EXCLUDED, study, ["reason"])),
    }


def measure(
    model: Model, encoded: Rows, data: Split, options: Evaluation, directory: Path, series: str
) -> dict[str, Any]:
    """All metrics of one model on one split; a part without data to rest on is left out."""
    result: dict[str, Any] = {}
    told = np.array([text is not None for text in data.texts])
    if model.text is not None and told.sum() >= 2:
        texts = [text for text in data.texts if text is not None]
        result["retrieval"] = retrieval(
            encoded.vectors[told],
            model.encode_text(texts),
            groups_of(texts),
            data.subjects[told],
            resamples=options.resamples,
            seed=options.seed,
        )
    seen = data.labelled
    told_apart = [0 < int(data.labels[seen, i].sum()) < int(seen.sum()) for i in range(len(data.classes))]
    prompted = [i for i, name in enumerate(data.classes) if name in PROMPTS]
    if model.text is not None and any(told_apart[i] for i in prompted):
        result["zeroshot"] = zero_shot(
            encoded.vectors[seen],
            prompt_embeddings(model, [data.classes[i] for i in prompted]),
            data.labels[seen][:, prompted],
            data.subjects[seen],
            resamples=options.resamples,
            seed=options.seed,
        )
    result |= _by_codes(model, encoded, data, options)
    fitted = load_probes(directory / FILE)
    shared = [name for name in data.classes if fitted is not None and name in fitted[0]]
    columns = [data.classes.index(name) for name in shared]
    if fitted is not None and series in fitted[1] and any(told_apart[i] for i in columns):
        result["probe"] = probe_metrics(
            [probe.only([fitted[0].index(name) for name in shared]) for probe in fitted[1][series]],
            encoded.features[seen],
            data.labels[seen][:, columns],
            data.subjects[seen],
            tuple(shared),
            resamples=options.resamples,
            seed=options.seed,
        )
    return result


def _by_codes(model: Model, encoded: Rows, data: Split, options: Evaluation) -> dict[str, Any]:
    """Retrieval between ECGs and coded records, and zero-shot classes by their codes, in the space of the codes."""
    if model.codes is None or model.vocabulary is None or encoded.fine is None:
        return {}
    result: dict[str, Any] = {}
    ages = data.coded["age"].to_numpy().astype(np.float32)
    records = encode_records(data.coded, ages, model.vocabulary, model.codes.kinds)
    known = np.diff(records.offsets) > 0
    settings: dict[str, Any] = {"resamples": options.resamples, "seed": options.seed}
    if known.sum() >= 2:
        vectors, sets = model.encode_records(records), code_sets(records)
        result["retrieval_codes"] = retrieval(
            encoded.fine[known], vectors[known], sets[known], data.subjects[known], **settings
        )
    seen = data.labelled
    prompts = {name: model.encode_codes([[code] for code in codes]) for name, codes in data.codes_of.items() if codes}
    columns = [i for i, name in enumerate(data.classes) if name in prompts]
    if REFERENCE in prompts and any(0 < int(data.labels[seen, i].sum()) < int(seen.sum()) for i in columns):
        chosen = {data.classes[i]: prompts[data.classes[i]] for i in columns}
        labels = data.labels[seen][:, columns]
        result["zeroshot_codes"] = zero_shot(encoded.fine[seen], chosen, labels, data.subjects[seen], **settings)
    return result


def groups_of(texts: list[str]) -> Integers:
    """Equal texts get equal numbers."""
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    return np.array([number[text] for text in texts], np.int64)


def prompt_embeddings(model: Model, classes: list[str]) -> dict[str, Floats]:
    """The unit vectors of each class's prompts, all languages together."""
    return {name: model.encode_text([p for language in PROMPTS[name].values() for p in language]) for name in classes}


def scores_of(model: Model, encoded: Rows, data: Split, directory: Path, series: str) -> Scores:
    """What `measure` rests on, recording by recording."""
    seen, told = data.labelled, np.array([text is not None for text in data.texts])
    kept = Scores.of(data.ids, data.subjects, data.classes, data.labels, seen)
    if model.text is not None and told.sum() >= 2:
        texts = [text for text in data.texts if text is not None]
        groups = groups_of(texts)
        kept.add_ranks("retrieval", told, all_ranks(encoded.vectors[told], model.encode_text(texts), groups), groups)
    prompted = [name for name in data.classes if name in PROMPTS]
    if model.text is not None and prompted and seen.any():
        scores = prompt_scores(encoded.vectors[seen], prompt_embeddings(model, prompted))
        kept.add_scores("zeroshot", seen, prompted, scores)
    if model.codes is not None and model.vocabulary is not None and encoded.fine is not None:
        ages = data.coded["age"].to_numpy().astype(np.float32)
        records = encode_records(data.coded, ages, model.vocabulary, model.codes.kinds)
        known, sets = np.diff(records.offsets) > 0, code_sets(records)
        if known.sum() >= 2:
            ranks = all_ranks(encoded.fine[known], model.encode_records(records)[known], sets[known])
            kept.add_ranks("retrieval_codes", known, ranks, sets[known])
        by_code = {name: model.encode_codes([[c] for c in codes]) for name, codes in data.codes_of.items() if codes}
        if REFERENCE in by_code and seen.any():
            kept.add_scores("zeroshot_codes", seen, list(by_code), prompt_scores(encoded.fine[seen], by_code))
    classes, probes = load_probes(directory / FILE) or ((), {})
    shared = [name for name in data.classes if name in classes]
    for probe in probes.get(series, ()) if seen.any() else ():
        scores = probe.only([classes.index(name) for name in shared]).scores(encoded.features[seen])
        kept.add_scores(f"probe/{probe.fraction:g}/{probe.subset}", seen, shared, scores)
    return kept


def _collect(figures: dict[str, Any], kept: Scores, series: str) -> None:
    """The arrays behind the figures."""
    places = [place for place in kept.ranks if place.startswith("retrieval/") and place.endswith("/distinct")]
    if places:
        name = "ranks" if series == "model" else "control_ranks"
        figures[name] = {place.split("/")[1]: kept.ranks_of_queries(place)[1] for place in places}
    found = kept.matrix("zeroshot")
    if series == "model" and found is not None:
        figures["classes"], _, figures["labels"], figures["zero_shot_scores"] = found


def examples(model: Model, vectors: Floats, data: Split, study: Path, store: Store) -> tuple[report.Example, ...]:
    """For a few classes, the ECG nearest to the class's first English prompt, drawn with its findings."""
    if model.text is None:
        return ()
    prompts = [PROMPTS[name]["english"][0] for name in data.classes if name in PROMPTS][:EXAMPLES]
    nearest = [int(np.argmax(vectors @ vector)) for vector in model.encode_text(prompts)]
    names = findings(study, [data.ids[i] for i in nearest])
    signals = millivolts(store.read(data.rows[nearest]))
    return tuple(
        report.Example(prompt, data.ids[i], signal, store.sampling_rate, tuple(names.get(data.ids[i], ())))
        for prompt, i, signal in zip(prompts, nearest, signals, strict=True)
    )
