"""Everything that is measured of a split, from its embeddings: whichever model made them, and wherever."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from einthoven.config import Evaluation
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.precision import LEAST, precision_at_k
from einthoven.evaluation.retrieval import Ranked, all_ranked, retrieval
from einthoven.evaluation.scores import Scores
from einthoven.evaluation.split import Bools, Split
from einthoven.evaluation.transfer import Probe, probe_metrics
from einthoven.evaluation.zeroshot import prompt_scores, zero_shot

Found = dict[str, dict[str, Ranked]]
"""What `all_ranked` returns: by direction and gallery."""


@dataclass(frozen=True)
class CodeSide:
    """The coded records of a split, and queries by code, in the space where ECGs meet codes."""

    ecg: Floats  # [n, d]
    known: Bools  # [n]: the recordings with codes
    records: Floats  # [known, d]
    sets: Integers  # [known]: equal sets of codes have equal numbers
    classes: Mapping[str, Floats]  # class -> its codes [k, d]
    temperature: float  # how sure the model was trained to be
    queries: Mapping[str, Floats]  # a finding's code -> [1, d]

    @property
    def ensemble(self) -> dict[str, Any]:
        """How `prompt_scores` takes the codes of a class together.

        An ECG has a class if it has any of its codes, each as sure as the model was trained to be. Codes have no
        wording and no language that a contrast with the normal ECG would have to take away.
        """
        return {"ensemble": "logsumexp", "temperature": self.temperature}


@dataclass(frozen=True)
class Represented:
    """A split as one model sees it; row i of [n, …] is recording i. What a model has not is None or empty."""

    features: Floats  # [n, f]
    ecg: Floats | None = None  # [n, d], where text is
    texts: Floats | None = None  # [told, d], of the recordings that have a text
    prompts: Mapping[str, Floats] = field(default_factory=dict)  # class -> its prompts [k, d]
    codes: CodeSide | None = None
    probe_classes: tuple[str, ...] = ()
    probes: tuple[Probe, ...] = ()  # for `probe_classes`


def text_ranks(of: Represented, data: Split) -> Found | None:
    """What ECGs and texts find of each other; None where there are fewer than two texts. The longest part of it all."""
    if of.ecg is None or of.texts is None or data.told.sum() < 2:
        return None
    return all_ranked(of.ecg[data.told], of.texts, data.text_groups())


def code_ranks(of: Represented) -> Found | None:
    """The same of ECGs and coded records."""
    if of.codes is None or of.codes.known.sum() < 2:
        return None
    return all_ranked(of.codes.ecg[of.codes.known], of.codes.records, of.codes.sets)


def measures(
    of: Represented, data: Split, options: Evaluation, ranks: Found | None, by_codes: Found | None = None
) -> dict[str, Any]:
    """All metrics of one model on one split, with its `text_ranks`; a part without data to rest on is left out.

    `by_codes` are its `code_ranks`, where they were asked for before.
    """
    result: dict[str, Any] = {}
    settings: dict[str, Any] = {"resamples": options.resamples, "seed": options.seed}
    told = data.told
    if ranks is not None and of.ecg is not None and of.texts is not None:
        groups, findings = data.text_groups(), data.finding_groups()[told]
        result["retrieval"] = retrieval(
            of.ecg[told], of.texts, groups, data.subjects[told], findings=findings, found=ranks, **settings
        )
    if of.ecg is not None:
        result |= _zero_shot("zeroshot", of.ecg, of.prompts, data, settings)
        queries = _of_classes(of.prompts, data)
        positive = data.labels[:, [data.classes.index(name) for name in queries]]
        result |= _precision("precision", of.ecg, queries, positive, data.labelled, data, settings)
    if of.codes is not None:
        result |= _by_codes(of.codes, data, settings, by_codes)
    shared = [name for name in data.classes if name in of.probe_classes]
    if of.probes and told_apart(data, shared):
        seen = data.labelled
        result["probe"] = probe_metrics(
            [probe.only([of.probe_classes.index(name) for name in shared]) for probe in of.probes],
            of.features[seen],
            data.labels[seen][:, [data.classes.index(name) for name in shared]],
            data.subjects[seen],
            tuple(shared),
            **settings,
        )
    return result


def scores_of(of: Represented, data: Split, ranks: Found | None, by_codes: Found | None) -> Scores:
    """What `measures` rest on, recording by recording; arguments as there."""
    seen = data.labelled
    kept = Scores.of(data.ids, data.subjects, data.classes, data.labels, seen)
    if ranks is not None:
        kept.add_ranks("retrieval", data.told, ranks, data.text_groups())
    if of.codes is not None and by_codes is not None:
        kept.add_ranks("retrieval_codes", of.codes.known, by_codes, of.codes.sets)
    if not seen.any():
        return kept
    if of.ecg is not None and (prompts := _of_classes(of.prompts, data)):
        kept.add_scores("zeroshot", seen, tuple(prompts), prompt_scores(of.ecg[seen], prompts))
    if of.codes is not None and (codes := _of_classes(of.codes.classes, data)):
        scores = prompt_scores(of.codes.ecg[seen], codes, **of.codes.ensemble)
        kept.add_scores("zeroshot_codes", seen, tuple(codes), scores)
    shared = [name for name in data.classes if name in of.probe_classes]
    for probe in of.probes if shared else ():
        scores = probe.only([of.probe_classes.index(name) for name in shared]).scores(of.features[seen])
        kept.add_scores(f"probe/{probe.fraction:g}/{probe.subset}", seen, shared, scores)
    return kept


def _of_classes(prompts: Mapping[str, Floats], data: Split) -> dict[str, Floats]:
    """The prompts of the split's classes, in their order."""
    return {name: prompts[name] for name in data.classes if name in prompts}


def told_apart(data: Split, classes: Sequence[str]) -> bool:
    """Whether one of these classes has both a positive and a negative recording."""
    labels = data.labels[data.labelled][:, [data.classes.index(name) for name in classes]]
    return bool((labels.any(axis=0) & ~labels.all(axis=0)).any())


def frequent_findings(data: Split) -> list[str]:
    """The codes that enough recordings of the split have as findings for a precision at k."""
    count = Counter(code for of in data.findings for code in of)
    return sorted(code for code, recordings in count.items() if recordings >= LEAST)


def _by_codes(codes: CodeSide, data: Split, settings: Mapping[str, Any], found: Found | None) -> dict[str, Any]:
    """Retrieval between ECGs and coded records, and queries by code: zero-shot classes, findings."""
    result: dict[str, Any] = {}
    if codes.known.sum() >= 2:
        ecg, who = codes.ecg[codes.known], data.subjects[codes.known]
        findings = data.finding_groups()[codes.known]
        result["retrieval_codes"] = retrieval(
            ecg, codes.records, codes.sets, who, findings=findings, found=found, **settings
        )
    result |= _zero_shot("zeroshot_codes", codes.ecg, codes.classes, data, {**settings, **codes.ensemble})
    known = np.array([bool(of) for of in data.findings], bool)
    positive = data.having(list(codes.queries))
    return result | _precision("precision_codes", codes.ecg, codes.queries, positive, known, data, settings)


def _zero_shot(
    name: str, ecg: Floats, prompts: Mapping[str, Floats], data: Split, settings: Mapping[str, Any]
) -> dict[str, Any]:
    chosen, seen = _of_classes(prompts, data), data.labelled
    if not told_apart(data, list(chosen)):
        return {}
    labels = data.labels[seen][:, [data.classes.index(name) for name in chosen]]
    return {name: zero_shot(ecg[seen], chosen, labels, data.subjects[seen], **settings)}


def _precision(
    name: str,
    ecg: Floats,
    queries: Mapping[str, Floats],
    positive: Bools,
    known: Bools,
    data: Split,
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """Precision at k where one finding allows it; of the recordings whose findings are known."""
    count = positive[known].sum(axis=0)
    if not ((count >= LEAST) & (count < known.sum())).any():
        return {}
    return {name: precision_at_k(ecg[known], queries, positive[known], data.subjects[known], **settings)}
