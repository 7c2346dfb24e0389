"""The findings a simulated patient can have: what each is called, coded as, treated with and excluded by."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np

Coded = tuple[str, str]
"""A MEDS code and its description."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One SCP-ECG statement, named as in PTB-XL, with everything the chart says about it."""

    code: str
    description: str
    superclass: str | None  # NORM, MI, STTC, CD or HYP; rhythm and ectopy have none
    prevalence: float  # share of the cohort before exclusions
    term: str  # English noun phrase, for negation, history and family
    term_de: str
    phrases: tuple[str, ...]  # English ECG-report wordings
    phrases_de: tuple[str, ...]
    diagnoses: tuple[Coded, ...] = ()
    procedures: tuple[Coded, ...] = ()
    medications: tuple[str, ...] = ()
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # note kind -> wordings in its notes
    persists: bool = False  # seen again in later recordings of the patient


def _icd(code: str, description: str) -> Coded:
    return f"DIAGNOSIS//ICD//10//{code}", description


def _pcs(code: str, description: str) -> Coded:
    return f"PROCEDURE//ICD//10//{code}", description


def _cpt(code: str, description: str) -> Coded:
    return f"PROCEDURE//CPT//{code}", description


_OLD_MI = _icd("I252", "Old myocardial infarction")
_STENT = _pcs("027034Z", "Dilation of coronary artery, one artery with drug-eluting stent, percutaneous")
_CABG = _pcs("0210093", "Bypass coronary artery, one artery, with autologous venous tissue, open")
_CATH = _cpt("93458", "Coronary angiography with left heart catheterisation")
_CARDIOVERSION = _pcs("5A2204Z", "Restoration of cardiac rhythm, single")
_HOLTER = _cpt("93224", "External ECG recording up to 48 hours")
_ECHO = _cpt("93306", "Transthoracic echocardiography, complete")
_INFARCT_DRUGS = ("aspirin", "clopidogrel", "atorvastatin", "metoprolol", "ramipril")

# A table: the formatter would make three times as many lines of it.
# fmt: off
_ALL: Final = (
    Finding(
        code="NORM", description="normal ECG", superclass="NORM", prevalence=0.30, term="normal ECG",
        term_de="Normalbefund",
        phrases=("normal ECG", "ECG within normal limits", "no abnormality detected", "normal tracing", "WNL"),
        phrases_de=("unauffälliges EKG", "Normalbefund", "EKG im Normbereich"),
        diagnoses=(_icd("Z136", "Encounter for screening for cardiovascular disorders"), _icd("Z0000",
            "Encounter for general adult medical examination without abnormal findings")),
        elsewhere={"echo": ("normal left ventricular size and function", "structurally normal heart")},
    ),
    Finding(
        code="SR", description="sinus rhythm", superclass=None, prevalence=0.70, term="sinus rhythm",
        term_de="Sinusrhythmus", phrases=("sinus rhythm", "normal sinus rhythm", "regular sinus rhythm", "NSR"),
        phrases_de=("Sinusrhythmus", "regelmäßiger Sinusrhythmus", "SR"),
    ),
    Finding(
        code="SBRAD", description="sinus bradycardia", superclass=None, prevalence=0.09, term="bradycardia",
        term_de="Bradykardie",
        phrases=("sinus bradycardia", "slow sinus rhythm", "bradycardic sinus rhythm", "sinus brady"),
        phrases_de=("Sinusbradykardie", "bradykarder Sinusrhythmus"),
        diagnoses=(_icd("R001", "Bradycardia, unspecified"), _icd("I495", "Sick sinus syndrome")),
        procedures=(_HOLTER,),
    ),
    Finding(
        code="STACH", description="sinus tachycardia", superclass=None, prevalence=0.09, term="tachycardia",
        term_de="Tachykardie",
        phrases=("sinus tachycardia", "rapid sinus rhythm", "tachycardic sinus rhythm", "sinus tach"),
        phrases_de=("Sinustachykardie", "tachykarder Sinusrhythmus"),
        diagnoses=(_icd("R000", "Tachycardia, unspecified"),), medications=("metoprolol",),
    ),
    Finding(
        code="AFIB", description="atrial fibrillation", superclass=None, prevalence=0.10, term="atrial fibrillation",
        term_de="Vorhofflimmern",
        phrases=("atrial fibrillation", "AF with irregular ventricular response", "afib", "irregularly irregular, AF"),
        phrases_de=("Vorhofflimmern", "Vorhofflimmern mit absoluter Arrhythmie", "VHF"),
        diagnoses=(_icd("I4891", "Unspecified atrial fibrillation"), _icd("I480", "Paroxysmal atrial fibrillation"),
            _icd("I4820", "Chronic atrial fibrillation, unspecified")),
        procedures=(_CARDIOVERSION, _cpt("93656", "Catheter ablation of atrial fibrillation"), _ECHO),
        medications=("apixaban", "metoprolol", "amiodarone", "warfarin"),
        elsewhere={"echo": ("left atrium is dilated", "rhythm irregular during the study, LA enlarged")}, persists=True,
    ),
    Finding(
        code="AFLT", description="atrial flutter", superclass=None, prevalence=0.04, term="atrial flutter",
        term_de="Vorhofflattern",
        phrases=("atrial flutter", "atrial flutter with variable block", "typical flutter waves", "aflutter"),
        phrases_de=("Vorhofflattern", "typisches Vorhofflattern"),
        diagnoses=(_icd("I4892", "Unspecified atrial flutter"), _icd("I483", "Typical atrial flutter")),
        procedures=(_CARDIOVERSION, _cpt("93653", "Catheter ablation of supraventricular arrhythmia")),
        medications=("apixaban", "diltiazem", "metoprolol"),
        elsewhere={"echo": ("left atrium mildly dilated",), "surgical": ("cavotricuspid isthmus ablation performed",)},
    ),
    Finding(
        code="PVC", description="ventricular premature complex", superclass=None, prevalence=0.10,
        term="ventricular ectopy", term_de="ventrikuläre Extrasystolen",
        phrases=("premature ventricular complexes", "PVCs", "frequent ventricular ectopic beats", "VPBs noted"),
        phrases_de=("ventrikuläre Extrasystolen", "VES"),
        diagnoses=(_icd("I493", "Ventricular premature depolarization"),), procedures=(_HOLTER,),
        medications=("metoprolol", "flecainide"),
    ),
    Finding(
        code="1AVB", description="first degree AV block", superclass="CD", prevalence=0.09,
        term="first degree AV block", term_de="AV-Block I. Grades",
        phrases=("first degree AV block", "1st degree atrioventricular block", "prolonged PR interval", "1AVB"),
        phrases_de=("AV-Block I. Grades", "AVB I°", "PQ-Zeit verlängert"),
        diagnoses=(_icd("I440", "Atrioventricular block, first degree"),), persists=True,
    ),
    Finding(
        code="CLBBB", description="(complete) left bundle branch block", superclass="CD", prevalence=0.08,
        term="left bundle branch block", term_de="Linksschenkelblock",
        phrases=("left bundle branch block", "complete LBBB", "LBBB", "wide QRS with LBBB morphology"),
        phrases_de=("Linksschenkelblock", "kompletter LSB", "LSB"),
        diagnoses=(_icd("I447", "Left bundle-branch block, unspecified"), _icd("I5020", "Systolic heart failure")),
        procedures=(_ECHO, _CATH), medications=("sacubitril-valsartan", "bisoprolol", "spironolactone"),
        elsewhere={"echo": ("abnormal septal motion with dyssynchrony", "septal flash, reduced EF 35%")}, persists=True,
    ),
    Finding(
        code="CRBBB", description="(complete) right bundle branch block", superclass="CD", prevalence=0.09,
        term="right bundle branch block", term_de="Rechtsschenkelblock",
        phrases=("right bundle branch block", "complete RBBB", "RBBB", "rSR' in V1 consistent with RBBB"),
        phrases_de=("Rechtsschenkelblock", "kompletter RSB", "RSB"),
        diagnoses=(_icd("I4510", "Unspecified right bundle-branch block"),),
        elsewhere={"echo": ("right ventricle mildly dilated",)}, persists=True,
    ),
    Finding(
        code="AMI", description="anterior myocardial infarction", superclass="MI", prevalence=0.12,
        term="anterior myocardial infarction", term_de="Vorderwandinfarkt",
        phrases=("anterior myocardial infarction", "anterior infarct, age undetermined",
            "Q waves V1-V4 consistent with anterior MI", "anterior MI"),
        phrases_de=("Vorderwandinfarkt", "Z. n. Vorderwandinfarkt", "Q-Zacken V1-V4, VWI"),
        diagnoses=(_OLD_MI, _icd("I2109", "STEMI involving other coronary artery of anterior wall")),
        procedures=(_STENT, _CATH, _CABG), medications=_INFARCT_DRUGS,
        elsewhere={"echo": ("anterior wall akinesis, EF 40%", "hypokinesis of the anterior septum and apex"),
            "surgical": ("PCI to the LAD with drug-eluting stent", "CABG x3 with LIMA to LAD")},
        persists=True,
    ),
    Finding(
        code="IMI", description="inferior myocardial infarction", superclass="MI", prevalence=0.12,
        term="inferior myocardial infarction", term_de="Hinterwandinfarkt",
        phrases=("inferior myocardial infarction", "inferior infarct, probably old",
            "Q waves in II, III, aVF, inferior MI", "inferior MI"),
        phrases_de=("Hinterwandinfarkt", "Z. n. inferiorem Infarkt", "Q in II, III, aVF, HWI"),
        diagnoses=(_OLD_MI, _icd("I2119", "STEMI involving other coronary artery of inferior wall")),
        procedures=(_STENT, _CATH, _CABG), medications=_INFARCT_DRUGS,
        elsewhere={"echo": ("inferior wall hypokinesis", "akinesis of the basal inferior wall"),
            "surgical": ("PCI to the RCA with drug-eluting stent", "CABG x2 with vein graft to RCA")},
        persists=True,
    ),
    Finding(
        code="LVH", description="left ventricular hypertrophy", superclass="HYP", prevalence=0.19,
        term="left ventricular hypertrophy", term_de="Linksherzhypertrophie",
        phrases=("left ventricular hypertrophy", "LVH with strain", "LVH by voltage", "high voltage QRS, LVH"),
        phrases_de=("Linksherzhypertrophie", "LV-Hypertrophiezeichen", "Sokolow-Lyon-Index positiv"),
        diagnoses=(_icd("I119", "Hypertensive heart disease without heart failure"), _icd("I517", "Cardiomegaly"),
            _icd("I350", "Nonrheumatic aortic (valve) stenosis")),
        procedures=(_ECHO,), medications=("amlodipine", "lisinopril", "hydrochlorothiazide"),
        elsewhere={"echo": ("concentric left ventricular hypertrophy", "increased LV wall thickness"),
            "radiology": ("cardiac silhouette is enlarged", "mild cardiomegaly")},
        persists=True,
    ),
    Finding(
        # PTB-XL gives STD_ no class; here it is the cohort's common ST-T change
        code="STD_", description="non-specific ST depression", superclass="STTC", prevalence=0.14, term="ST depression",
        term_de="ST-Senkung",
        phrases=("ST depression", "nonspecific ST depression", "lateral ST segment depression", "STD V4-V6"),
        phrases_de=("ST-Senkung", "unspezifische ST-Senkungen", "ST-Streckensenkung lateral"),
        diagnoses=(_icd("R9431", "Abnormal electrocardiogram"), _icd("I259",
            "Chronic ischemic heart disease, unspecified"), _icd("I209", "Angina pectoris, unspecified")),
        procedures=(_CATH,), medications=("nitroglycerin", "aspirin", "digoxin"),
    ),
    Finding(
        code="LNGQT", description="long QT-interval", superclass="STTC", prevalence=0.08, term="QT prolongation",
        term_de="QT-Verlängerung", phrases=("prolonged QT interval", "QT prolongation", "long QTc", "QTc > 500 ms"),
        phrases_de=("QT-Verlängerung", "verlängerte QT-Zeit", "QTc verlängert"),
        diagnoses=(_icd("I4581", "Long QT syndrome"), _icd("E876", "Hypokalemia")),
        medications=("sotalol", "citalopram", "potassium chloride"),
    ),
    Finding(
        code="PACE", description="normal functioning artificial pacemaker", superclass=None, prevalence=0.05,
        term="pacemaker rhythm", term_de="Schrittmacherrhythmus",
        phrases=("ventricular paced rhythm", "electronic ventricular pacemaker", "V-paced", "paced rhythm"),
        phrases_de=("Schrittmacherrhythmus", "ventrikulär stimulierter Rhythmus", "SM-EKG"),
        diagnoses=(_icd("Z950", "Presence of cardiac pacemaker"), _icd("I442", "Atrioventricular block, complete")),
        procedures=(_pcs("0JH606Z", "Insertion of pacemaker, dual chamber, into chest subcutaneous tissue"),
            _cpt("93280", "Programming evaluation of dual lead pacemaker")),
        elsewhere={"echo": ("pacing wire seen in the right ventricle",),
            "radiology": ("left chest wall pacemaker with leads in situ", "dual lead pacemaker in place"),
            "surgical": ("dual chamber pacemaker implanted via the left subclavian vein",)},
        persists=True,
    ),
)
# fmt: on
CATALOGUE: Final[Mapping[str, Finding]] = {finding.code: finding for finding in _ALL}
CLASSES: Final = {
    "NORM": "Normal ECG",
    "MI": "Myocardial infarction",
    "STTC": "ST/T change",
    "CD": "Conduction disturbance",
    "HYP": "Hypertrophy",
}
SINUS: Final = ("SR", "STACH", "SBRAD")
RHYTHMS: Final = ("PACE", "AFLT", "AFIB", "STACH", "SBRAD", "SR")
"""Mutually exclusive, the first one present wins; no other finding replaces a rhythm."""

_MASKED: Final = ("AMI", "IMI", "LVH", "STD_")
"""Not to be read where the ventricles are activated from one side only (left bundle branch block, pacing)."""
EXCLUSIONS: Final[Mapping[str, tuple[str, ...]]] = {
    "PACE": (*_MASKED, "CLBBB", "CRBBB", "1AVB", "LNGQT", "PVC"),
    "CLBBB": (*_MASKED, "CRBBB"),
    "AFIB": ("1AVB",),
    "AFLT": ("1AVB", "STD_"),
}
"""A finding, and the findings that cannot be stated beside it."""

ALIASES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("ASMI", "ALMI", "INJAS", "INJAL", "LMI", "INJLA"), "AMI"),
    **dict.fromkeys(("ILMI", "IPMI", "IPLMI", "PMI", "INJIN", "INJIL"), "IMI"),
    **dict.fromkeys(("ISC_", "ISCAL", "ISCIN", "ISCIL", "ISCAS", "ISCLA", "ISCAN", "NST_"), "STD_"),
    **{"LPR": "1AVB", "VCLVH": "LVH", "ILBBB": "CLBBB", "IRBBB": "CRBBB", "BIGU": "PVC", "TRIGU": "PVC"},
}
"""Statements of real recordings whose patients are coded and treated as those of a finding in the catalogue."""


def consistent(findings: Iterable[str]) -> frozenset[str]:
    """Remove what cannot be stated together; every set ends with exactly one rhythm, sinus if none was given."""
    kept = set(findings)
    rhythm = next((code for code in RHYTHMS if code in kept), "SR")
    kept = kept - set(RHYTHMS) | {rhythm}
    for code, excluded in EXCLUSIONS.items():
        if code in kept:
            kept -= set(excluded)
    if kept - {"NORM", *SINUS}:
        kept.discard("NORM")
    return frozenset(kept)


def draw_findings(n: int, rng: np.random.Generator) -> list[frozenset[str]]:
    """Draw the findings of `n` recordings: normal or not, then every pathology on its own, then exclusions."""
    return [_draw_one(rng) for _ in range(n)]


def draw_later(before: frozenset[str], rng: np.random.Generator) -> frozenset[str]:
    """Findings of a patient's next recording: mostly the same; scars, blocks and devices stay in any case."""
    if rng.random() < 0.7:
        return before
    kept = {code for code in before if CATALOGUE[code].persists}
    return consistent(kept | _draw_one(rng))


def _draw_one(rng: np.random.Generator) -> frozenset[str]:
    normal = CATALOGUE["NORM"].prevalence
    tachy, brady = (CATALOGUE[code].prevalence for code in ("STACH", "SBRAD"))
    position = float(rng.random())
    rhythm = "STACH" if position < tachy else "SBRAD" if position < tachy + brady else "SR"
    if rng.random() < normal:
        return frozenset({"NORM", rhythm})
    pathologies = [finding for finding in _ALL if finding.code not in ("NORM", *SINUS)]
    while True:
        drawn = {f.code for f in pathologies if rng.random() < f.prevalence / (1 - normal)}
        if drawn:  # an abnormal recording has something abnormal
            return consistent(drawn | ({rhythm} if drawn.isdisjoint(RHYTHMS) else set()))
