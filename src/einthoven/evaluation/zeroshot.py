"""Zero-shot classification: an ECG is scored by its similarity to prompts, written as the reports are written.

The prompts are ours. Their style was taken from PTB-XL's training reports (folds 1 to 8) only; no test report and no
test metric was looked at when they were written.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from einthoven.errors import EinthovenError
from einthoven.evaluation.discrimination import discrimination
from einthoven.evaluation.intervals import Floats, Integers
from einthoven.evaluation.retrieval import unit

PROMPTS: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "NORM": {
        "german": (
            "sinusrhythmus normales ekg",
            "sinusrhythmus lagetyp normal normales ekg",
            "sinusrhythmus linkstyp sonst normales ekg",
            "sinusrhythmus rechtstyp sonst normales ekg",
            "sinus arrhythmie lagetyp normal sonst normales ekg",
            "sinusbradykardie sonst normales ekg",
            "sinustachykardie lagetyp normal sonst normales ekg",
            "sinusrhythmus steiltyp normales ekg",
        ),
        "english": (
            "sinus rhythm. normal ecg.",
            "sinus rhythm. no definite pathology.",
            "sinus rhythm. within normal limits.",
            "sinus arrhythmia. normal ecg.",
            "sinus bradycardia. otherwise normal ecg.",
            "sinus tachycardia. otherwise normal ecg.",
            "premature atrial contraction(s). sinus rhythm. otherwise normal ecg.",
            "normal ecg.",
        ),
    },
    "MI": {
        "german": (
            "sinusrhythmus lagetyp normal qrs(t) abnorm inferiorer infarkt alter unbest.",
            "sinusrhythmus linkstyp qrs(t) abnorm inferiorer infarkt wahrscheinlich alt",
            "sinusrhythmus lagetyp normal qrs(t) abnorm inferiorer myokardschaden möglich",
            "sinusrhythmus lagetyp normal qrs(t) abnorm anteroseptaler infarkt wahrscheinlich alt",
            "sinusrhythmus linkstyp qrs(t) abnorm anteroseptaler myokardschaden nicht auszuschliessen",
            "sinusrhythmus lagetyp normal qrs(t) abnorm anteriorer infarkt alter unbest.",
            "sinusrhythmus ueberdrehter linkstyp qrs(t) abnorm anteriorer infarkt möglich",
            "sinusrhythmus linkstyp qrs(t) abnorm lateraler infarkt wahrscheinlich alt",
            "sinusrhythmus lagetyp normal qrs(t) abnorm hochlateraler infarkt möglich",
            "sinusrhythmus qrs(t) abnorm anterolateraler infarkt alter unbest.",
            "sinusrhythmus linkstyp qrs(t) abnorm inferolateraler infarkt alter unbest.",
            "infero-posteriorer infarkt q in ii,iii,avf",
            "qrs(t) abnorm inferiorer infarkt mögl. akut",
        ),
        "english": (
            "sinus rhythm. q waves in ii, iii, avf consistent with old inferior myocardial infarction.",
            "sinus rhythm. possible old inferior myocardial infarction.",
            "consistent with ischaemic heart disease with old inferior myocardial infarction.",
            "sinus rhythm. qs complexes in v2,3 consistent with old anteroseptal myocardial infarction.",
            "sinus rhythm. tiny r waves in v2,3 suggesting old anteroseptal infarct.",
            "sinus rhythm. qs complexes in v2,3,4 consistent with old anterior myocardial infarction.",
            "sinus rhythm. anterolateral myocardial infarction of uncertain age.",
            "sinus rhythm. q waves in i, avl consistent with old high lateral myocardial infarction.",
            "sinus rhythm. q waves in ii, iii, avf, v5,6 consistent with old inferolateral myocardial infarction.",
            "sinus rhythm. probable infero-posterior infarct of uncertain age.",
            "st elevation in v2,3,4 consistent with acute anterior myocardial infarction.",
            "st elevation in ii, iii, avf consistent with acute inferior myocardial infarction.",
        ),
    },
    "STTC": {
        "german": (
            "sinusrhythmus lagetyp normal unspezifisches abnormes t",
            "sinusrhythmus linkstyp unspezifisches abnormales t",
            "sinusrhythmus lagetyp normal unspezifische abnormale st-senkung",
            "sinusrhythmus lagetyp normal t abnorm in inferioren ableitungen",
            "sinusrhythmus linkstyp t abnorm in lateralen ableitungen",
            "sinusrhythmus lagetyp normal t abnorm in anterioren ableitungen",
            "st & t abnorm, wahrscheinlich anterolaterale ischämie oder linksbelastung",
            "st & t abnorm, wahrscheinlich inferolaterale ischämie oder linksbelastung",
            "st & t abnorm, wahrscheinlich inferiore ischämie oder linksbelastung",
            "vorhofflimmern/-flattern st & t abnorm, wahrscheinlich laterale ischämie oder linksbelastung",
            "sinusrhythmus lagetyp normal qt-verlängerung",
            "vorhofflimmern st-senkung in i,ii,avl,v5-6 digitalisveränderung",
            "sinusrhythmus repolarisationsstörung t flach- bis neg lateral",
        ),
        "english": (
            "sinus rhythm. non-specific st-t wave changes.",
            "sinus rhythm. minor non-specific t wave flattening in i, avl, v5,6.",
            "sinus rhythm. t waves are low or flat throughout.",
            "sinus rhythm. t waves are inverted in i, avl, v5,6. myocardial ischaemia is likely.",
            "sinus rhythm. t waves are inverted in ii, iii, avf. consistent with myocardial ischaemia.",
            "sinus rhythm. st segments are depressed in i, ii, avl, v4,5,6. this may be due to lv strain or ischaemia.",
            "sinus rhythm. st segments are depressed in ii, iii, avf, v5,6.",
            "sinus rhythm. t wave inversion in v2,3,4 consistent with anterior myocardial ischaemia.",
            "findings are likely to be due to ischaemic heart disease and digitalis effect.",
            "atrial fibrillation. widespread non-specific st-t wave changes. digitalis effect.",
            "sinus rhythm. prolonged qt, this may be due to a drug effect or an electrolyte disturbance.",
            "sinus rhythm. minor non-specific st segment depression in v4,5,6.",
        ),
    },
    "CD": {
        "german": (
            "sinusrhythmus linkstyp linksschenkelblock",
            "sinusrhythmus lagetyp normal unvollständiger linksschenkelblock",
            "sinusrhythmus lagetyp normal rechtsschenkelblock",
            "sinusrhythmus lagetyp normal unvollständiger rechtsschenkelblock",
            "sinusrhythmus ueberdrehter linkstyp linksanteriorer hemiblock",
            "sinusrhythmus ueberdrehter linkstyp linksanteriorer hemiblock rechtsschenkelblock bifaszikulärer block",
            "sinusrhythmus rechtstyp linksposteriorer hemiblock",
            "sinusrhythmus a-v block i lagetyp normal",
            "av-dissoziation a-v block iii kammerbradykardie",
            "sinusrhythmus lagetyp normal unspezifischer intraventrikulärer block",
            "sinusrhythmus linkstyp unspezifische intraventrikuläre leitungsstörung",
            "sinusrhythmus möglicherweise wpw",
        ),
        "english": (
            "sinus rhythm. left bundle branch block.",
            "sinus rhythm. left bundle branch block, this is most commonly due to ischaemic heart disease.",
            "sinus rhythm. incomplete left bundle branch block.",
            "sinus rhythm. right bundle branch block.",
            "sinus rhythm. incomplete right bundle branch block.",
            "sinus rhythm. left axis deviation. left anterior fascicular block.",
            "sinus rhythm. left anterior fascicular block. right bundle branch block. bifascicular block.",
            "sinus rhythm. right axis deviation. possible left posterior fascicular block.",
            "sinus rhythm. prolonged pr interval.",
            "complete heart block. third degree av block.",
            "sinus rhythm. non-specific intraventricular block.",
            "sinus rhythm. wolff-parkinson-white syndrome.",
        ),
    },
    "HYP": {
        "german": (
            "sinusrhythmus lagetyp normal mässige amplitudenkriterien für linkshypertrophie",
            "sinusrhythmus linkstyp mässige amplitudenkriterien für linkshypertrophie",
            "sinusrhythmus lagetyp normal amplitudenkriterien für linkshypertrophie",
            "sinusrhythmus linkstyp linkshypertrophie",
            "sinusrhythmus lagetyp normal linkshypertrophie möglich",
            "sinusrhythmus linkstyp linkshypertrophie st & t abnorm, linksbelastung",
            "sinusrhythmus ueberdrehter rechtstyp rechtshypertrophie",
            "sinusrhythmus p-sinistrocardiale lagetyp normal",
            "sinusrhythmus verdacht auf p-sinistrocardiale linkstyp",
            "sinusrhythmus vorhofsüberlastung links",
            "sinusrhythmus ueberdrehter rechtstyp vorhofsüberlastung rechts",
        ),
        "english": (
            "sinus rhythm. voltages are high in chest leads suggesting lvh.",
            "sinus rhythm. voltages are high in limb leads suggesting lvh.",
            "sinus rhythm. voltages are high in chest leads suggesting lvh. otherwise normal ecg.",
            "sinus rhythm. left ventricular hypertrophy.",
            "sinus rhythm. left axis deviation. left ventricular hypertrophy. this may be due to lv strain.",
            "sinus rhythm. possible right ventricular hypertrophy. right axis deviation.",
            "sinus rhythm. left atrial enlargement.",
            "sinus rhythm. possible left atrial enlargement. voltages are high in chest leads suggesting lvh.",
            "sinus rhythm. right atrial enlargement.",
            "sinus rhythm. deep but narrow q waves in i, avl, v4,5,6 may indicate septal hypertrophy.",
        ),
    },
}
"""Class -> language -> prompts: PTB-XL's super-classes, with a prompt or more for each common sub-class."""

ENSEMBLES = ("contrast", "logsumexp", "mean", "max")
TEMPERATURE = 0.5  # of "logsumexp" among texts: chosen on the train split of PTB-XL (LOG.md, 2026-11-25)
REFERENCE = "NORM"
"""The class a finding is held against: what its prompts say where nothing is found."""


def prompt_scores(
    ecg: Floats,
    prompt_embeddings: Mapping[str, Floats],
    ensemble: str = "contrast",
    temperature: float = TEMPERATURE,
) -> Floats:
    """Score of each ECG for each class: ecg [n, d], per class prompts [k, d] -> float32 [n, classes], mapping's order.

    `temperature` says how close a prompt must be to the best one to count.

    mean: cosine with the normalised mean of the unit prompts (CLIP's prompt ensemble); max: cosine with the nearest
    prompt; logsumexp: smooth maximum of the cosines, normalised by the number of prompts.

    contrast: logsumexp against that of `REFERENCE`, and `REFERENCE` against the mean of the others (Tiu 2022 hold each
    finding against its negation). Cosines also tell how usual an ECG is and in which language its device reports;
    that part, which is common to all classes, drops out. Without `REFERENCE`, each against the mean of the others.
    """
    if ensemble not in ENSEMBLES:
        raise EinthovenError(f"Unknown prompt ensemble {ensemble!r}. Known: {', '.join(ENSEMBLES)}.")
    ecg = unit(ecg)
    columns = [_score(ecg, unit(prompts), ensemble, temperature) for prompts in prompt_embeddings.values()]
    scores = np.stack(columns, axis=1)
    if ensemble != "contrast" or len(columns) < 2:
        return scores
    return contrasted(scores, list(prompt_embeddings))


def contrasted(scores: Floats, names: Sequence[str]) -> Floats:
    """Scores [n, classes] of two classes or more against `REFERENCE`, as `prompt_scores` says: [n, classes]."""
    others = (scores.sum(axis=1, keepdims=True) - scores) / (len(names) - 1)
    if REFERENCE not in names:
        return np.asarray(scores - others)
    usual = names.index(REFERENCE)
    contrast = scores - scores[:, [usual]]
    contrast[:, usual] = scores[:, usual] - others[:, usual]
    return np.asarray(contrast)


def _score(ecg: Floats, prompts: Floats, ensemble: str, temperature: float) -> Floats:
    if ensemble == "mean":
        return np.asarray(ecg @ unit(prompts.mean(axis=0, keepdims=True))[0])
    cosine = ecg @ prompts.T
    return np.asarray(cosine.max(axis=1)) if ensemble == "max" else smooth_maximum(cosine, temperature)


def smooth_maximum(cosine: Floats, temperature: float = TEMPERATURE) -> Floats:
    """Of cosines with prompts [n, k], normalised by their number: [n]."""
    best = cosine.max(axis=1)
    return np.asarray(best + temperature * np.log(np.exp((cosine - best[:, None]) / temperature).mean(axis=1)))


def zero_shot(
    ecg: Floats,
    prompt_embeddings: Mapping[str, Floats],
    labels: NDArray[np.bool_],
    subjects: Integers,
    *,
    ensemble: str = "contrast",
    temperature: float = TEMPERATURE,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """AUROC and AUPRC of each class and their means, with 95 % patient-bootstrap intervals.

    ecg [n, d]; prompt_embeddings class -> [k, d], in the order of the columns of `labels` bool [n, classes]; subjects
    [n]. Returns what `discrimination` does, with {"ensemble": str, "recordings": int}.
    """
    return {
        **discrimination(
            labels,
            prompt_scores(ecg, prompt_embeddings, ensemble, temperature),
            tuple(prompt_embeddings),
            subjects,
            resamples,
            seed,
        ),
        "ensemble": ensemble,
        "recordings": len(ecg),
    }
