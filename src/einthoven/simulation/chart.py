"""The chart around recordings: dated codes over two years, and notes that state, deny, doubt and remember findings.

Works on simulated recordings and, for semi-synthetic studies, on the statements read from real ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, TypeVar

import numpy as np
import pyarrow as pa

from einthoven.schema import CODES, EVENTS, NOTE_KINDS, NOTES
from einthoven.simulation.findings import ALIASES, CATALOGUE, RHYTHMS, SINUS, Coded, Finding

T = TypeVar("T")

YEAR: Final = 365.0  # days before and after a recording in which its chart lies
GERMAN: Final = 0.2  # share of ECG reports
_UNREPORTED: Final = 0.05  # share of recordings without an ECG report
_ECG: Final = ("PROCEDURE//CPT//93000", "Electrocardiogram, 12 leads, with interpretation and report")


@dataclass(frozen=True)
class Recorded:
    """A recording to write a chart around. `findings` are SCP statements, of the catalogue or any others."""

    recording_id: str
    subject_id: int
    time: datetime
    age: float | None  # years
    sex: str | None
    findings: frozenset[str]


@dataclass(frozen=True)
class Chart:
    """Tables in the columns of the schema; `unknown` counts statements of which nothing was known and nothing said."""

    events: pa.Table  # sorted by subject, time, code
    notes: pa.Table
    codes: pa.Table  # every code of `events`
    unknown: int


@dataclass(frozen=True)
class Condition:
    """A disease that has nothing to do with the ECG."""

    icd: str
    title: str
    name: str
    young: float  # prevalence at 40 years
    old: float  # prevalence at 80 years
    medications: tuple[str, ...] = ()


_CONDITIONS: Final = (
    Condition("I10", "Essential (primary) hypertension", "hypertension", 0.15, 0.65, ("lisinopril", "amlodipine")),
    Condition("E785", "Hyperlipidemia, unspecified", "HLD", 0.12, 0.50, ("atorvastatin",)),
    Condition("E119", "Type 2 diabetes mellitus without complications", "T2DM", 0.04, 0.25, ("metformin", "insulin")),
    Condition("N1830", "Chronic kidney disease, stage 3 unspecified", "CKD stage 3", 0.01, 0.20),
    Condition("J449", "Chronic obstructive pulmonary disease, unspecified", "COPD", 0.02, 0.12, ("tiotropium",)),
    Condition("J45909", "Unspecified asthma, uncomplicated", "asthma", 0.08, 0.06, ("albuterol",)),
    Condition("K219", "Gastro-esophageal reflux disease without esophagitis", "GERD", 0.12, 0.22, ("pantoprazole",)),
    Condition("E039", "Hypothyroidism, unspecified", "hypothyroidism", 0.04, 0.13, ("levothyroxine",)),
    Condition("F32A", "Depression, unspecified", "depression", 0.10, 0.10, ("sertraline",)),
    Condition("M1990", "Unspecified osteoarthritis, unspecified site", "osteoarthritis", 0.05, 0.35, ("naproxen",)),
    Condition("M5450", "Low back pain, unspecified", "low back pain", 0.15, 0.15, ("ibuprofen",)),
    Condition("N390", "Urinary tract infection, site not specified", "UTI", 0.04, 0.15, ("ciprofloxacin",)),
    Condition("J189", "Pneumonia, unspecified organism", "pneumonia", 0.02, 0.10, ("ceftriaxone",)),
    Condition("H269", "Unspecified cataract", "cataract", 0.01, 0.30),
    Condition("Z87891", "Personal history of nicotine dependence", "ex-smoker", 0.20, 0.30),
)

Stated = list[Finding]
Past = list[Condition]

_NEGATED: Final = ("No evidence of {}.", "No {}.", "Negative for {}.", "There is no {}.", "{} is absent.")
_NEGATED_DE: Final = ("Kein Hinweis auf {}.", "Ohne Anhalt für {}.", "{} nicht nachweisbar.")
_DOUBTED: Final = ("possible {}", "probable {}", "{}, borderline", "cannot rule out {}", "suspected {}")
_DOUBTED_DE: Final = ("V. a. {}", "möglicherweise {}", "{} nicht auszuschließen")
_HISTORY: Final = ("history of {}", "h/o {}", "known {}", "s/p {}", "previous {}")
_FAMILY: Final = ("Family history: father with {}.", "FHx of {} (mother).", "Brother had {} at age 52.")
_SEEN: Final = ("ECG shows {}.", "ECG: {}.", "EKG on admission with {}.", "Tracing reviewed: {}.")
_REASONS: Final = ("chest pain", "palpitations", "preoperative assessment", "dyspnea", "syncope", "routine follow-up")
_HEREDITARY: Final = ("AFIB", "AMI", "IMI", "LNGQT", "LVH")
_COMES_AND_GOES: Final = ("AFIB", "AFLT", "PVC")
_OPERATIONS: Final = ("laparoscopic cholecystectomy", "total hip arthroplasty", "cataract extraction", "hernia repair")
_SHARES: Final = {"echo": 0.4, "radiology": 0.4, "microbiology": 0.2, "clinical": 0.75, "surgical": 0.12}


class _Dice:
    """Random choices in the words of this module."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng

    def chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def pick(self, among: Sequence[T]) -> T:
        return among[int(self._rng.random() * len(among))]

    def some(self, among: Sequence[T], count: int) -> list[T]:
        return [among[int(i)] for i in self._rng.permutation(len(among))[:count]]

    def near(self, time: datetime, before: float, after: float) -> datetime:
        """A whole minute, from `before` days before `time` to `after` days after it."""
        return time + timedelta(minutes=int((float(self._rng.random()) * (before + after) - before) * 1440))


def write_chart(
    recordings: Sequence[Recorded], rng: np.random.Generator, descriptions: Mapping[str, str] | None = None
) -> Chart:
    """Write the chart of every recording: events at most a year away, notes of the six kinds.

    `descriptions` maps SCP statements to words, for those the catalogue does not hold; one found in neither is ignored
    and counted.
    """
    dice = _Dice(rng)
    events: list[tuple[int, datetime, str]] = []
    notes: list[tuple[int, datetime, str, str, str | None]] = []
    titles: dict[str, str] = {}
    conditions: dict[int, list[Condition]] = {}
    unknown = 0
    for recorded in recordings:
        stated, ignored = _known(recorded.findings, descriptions or {})
        unknown += ignored
        past = conditions.setdefault(recorded.subject_id, _draw_conditions(recorded.age, dice))
        old = _remembered(stated, dice)
        for time, (code, title) in _events(recorded, stated, old, past, dice):
            titles[code] = title
            events.append((recorded.subject_id, time, code))
        for time, kind, text in _notes(recorded, stated, old, past, dice):
            notes.append((recorded.subject_id, time, kind, text, recorded.recording_id if kind == "ecg" else None))
    return Chart(_event_table(events), _note_table(notes), code_table(titles), unknown)


def code_table(titles: Mapping[str, str], parents: Mapping[str, str] | None = None) -> pa.Table:
    """Codes with their descriptions, in the columns of schema.CODES; `parents` gives a code one parent."""
    codes = sorted(titles)
    above = [[parents[code]] if parents and code in parents else [] for code in codes]
    columns = {"code": codes, "description": [titles[code] for code in codes], "parent_codes": above}
    return pa.table(columns, schema=CODES.columns)


def _event_table(events: list[tuple[int, datetime, str]]) -> pa.Table:
    events.sort()
    rows = [{"subject_id": subject, "time": time, "code": code} for subject, time, code in events]
    return pa.Table.from_pylist(rows, schema=EVENTS.columns)


def _note_table(notes: list[tuple[int, datetime, str, str, str | None]]) -> pa.Table:
    notes.sort(key=lambda note: note[:3])
    names = NOTES.columns.names[:6]  # the rest is null
    rows = [dict(zip(names, (f"note-{i:07d}", *note), strict=True)) for i, note in enumerate(notes)]
    return pa.Table.from_pylist(rows, schema=NOTES.columns)


def _known(statements: frozenset[str], descriptions: Mapping[str, str]) -> tuple[list[Finding], int]:
    """What can be said of the statements, rhythm first, and how many were ignored."""
    found, ignored = [], 0
    for code in sorted(statements, key=lambda code: (code not in RHYTHMS, code)):
        words, near = descriptions.get(code), CATALOGUE.get(ALIASES.get(code, code))
        if code in CATALOGUE:
            found.append(CATALOGUE[code])
        elif words:  # the words of the statement, the codes and drugs of its relative in the catalogue, if any
            found.append(_worded(code, words, near or CATALOGUE["SR"]))  # SR brings no codes
        elif near:
            found.append(near)
        else:
            ignored += 1
    return found, ignored


def _worded(code: str, words: str, like: Finding) -> Finding:
    said = (words,)
    return replace(like, code=code, description=words, term=words, term_de=words, phrases=said, phrases_de=said)


def _draw_conditions(age: float | None, dice: _Dice) -> list[Condition]:
    """Prevalence by age: a straight line through 40 and 80 years."""
    share = ((60.0 if age is None else min(max(age, 20.0), 90.0)) - 40) / 40
    return [each for each in _CONDITIONS if dice.chance(max(0.0, each.young + share * (each.old - each.young)))]


def _absent(stated: Sequence[Finding]) -> list[Finding]:
    """What may be denied: neither stated nor the catalogue's relative of something stated."""
    present = {ALIASES.get(each.code, each.code) for each in stated}
    return [each for each in CATALOGUE.values() if each.code not in present and each.code not in ("NORM", "SR")]


def _remembered(stated: Sequence[Finding], dice: _Dice) -> list[Finding]:
    """A finding of the past that this recording does not show, now and then: paroxysmal arrhythmia."""
    return dice.some([each for each in _absent(stated) if each.code in _COMES_AND_GOES], int(dice.chance(0.1)))


def _events(
    recorded: Recorded, stated: Stated, old: Stated, past: Past, dice: _Dice
) -> Iterator[tuple[datetime, Coded]]:
    time = recorded.time
    if dice.chance(0.8):
        yield time, _ECG
    for each in stated:
        if each.diagnoses and dice.chance(0.8):  # the others were never coded
            coded = dice.pick(each.diagnoses)
            first = dice.near(time, YEAR, 0) if dice.chance(0.55) else dice.near(time, 0, dice.pick((1.0, YEAR)))
            yield first, coded
            if dice.chance(0.3):
                yield dice.near(time, 0, YEAR), coded
        if each.procedures and dice.chance(0.4):
            yield dice.near(time, YEAR, YEAR), dice.pick(each.procedures)
        for name in each.medications:
            if dice.chance(0.45):
                yield dice.near(time, YEAR / 2, YEAR), (f"MEDICATION//{name}", name)
    for each in old:
        yield dice.near(time, YEAR, 0), each.diagnoses[0]
    for condition in past:
        if dice.chance(0.7):
            yield dice.near(time, YEAR, YEAR), (f"DIAGNOSIS//ICD//10//{condition.icd}", condition.title)
        if condition.medications and dice.chance(0.6):
            name = dice.pick(condition.medications)
            yield dice.near(time, YEAR, YEAR), (f"MEDICATION//{name}", name)


def _notes(
    recorded: Recorded, stated: Stated, old: Stated, past: Past, dice: _Dice
) -> Iterator[tuple[datetime, str, str]]:
    if not dice.chance(_UNREPORTED):
        yield recorded.time, "ecg", _report(stated, dice.chance(GERMAN), dice) or "ECG recorded."
    for kind in NOTE_KINDS[1:]:
        said = [dice.pick(each.elsewhere[kind]) for each in stated if kind in each.elsewhere and dice.chance(0.85)]
        if not dice.chance(_SHARES[kind] * (3 if said and kind == "surgical" else 1)):
            continue
        days = 30.0 if dice.chance(0.7) else YEAR
        text = _clinical(recorded, stated, old, past, dice) if kind == "clinical" else _other(kind, said, past, dice)
        yield dice.near(recorded.time, days, days), kind, text


def _report(stated: Stated, german: bool, dice: _Dice) -> str:
    """The ECG report, in English or German: what is seen (a little is overlooked), doubted and denied."""
    doubts, denials = (_DOUBTED_DE, _NEGATED_DE) if german else (_DOUBTED, _NEGATED)
    sentences = [] if german or dice.chance(0.7) else [f"Indication: {dice.pick(_REASONS)}."]
    for each in stated:
        words = dice.pick(each.phrases_de if german else each.phrases)
        if each.code not in ("NORM", *SINUS) and dice.chance(0.12):
            words = dice.pick(doubts).format(words)
        if len(stated) == 1 or not dice.chance(0.06):
            sentences.append(_sentence(words))
    for each in dice.some(_absent(stated), dice.pick((0, 1, 1, 2, 3))):
        sentences.append(_sentence(dice.pick(denials).format(each.term_de if german else each.term)))
    if not german and dice.chance(0.2):
        sentences.append(dice.pick(("No significant change from previous tracing.", "No prior ECG for comparison.")))
    return " ".join(sentences)


def _clinical(recorded: Recorded, stated: Stated, old: list[Finding], past: Past, dice: _Dice) -> str:
    age = f"{recorded.age:.0f} y/o" if recorded.age is not None else "Adult"
    sentences = [f"{age} {recorded.sex or 'patient'} presenting with {dice.pick(_REASONS)}."]
    lasting = [each for each in stated if each.persists and dice.chance(0.6)] + old
    history = [dice.pick(_HISTORY).format(each.term) for each in lasting] + [each.name for each in past]
    sentences.append(f"PMH: {', '.join(history)}." if history else "No relevant past medical history.")
    if dice.chance(0.35):
        sentences.append(dice.pick(_FAMILY).format(CATALOGUE[dice.pick(_HEREDITARY)].term))
    seen = [dice.pick(each.phrases) for each in stated if dice.chance(0.7)]
    sentences += [dice.pick(_SEEN).format(", ".join(seen))] if seen else []
    for each in dice.some(_absent([*stated, *old]), dice.pick((0, 1, 2))):
        sentences.append(_sentence(dice.pick(_NEGATED).format(each.term)))
    drugs = sorted({name for each in stated for name in each.medications if dice.chance(0.5)})
    if drugs:
        sentences.append(f"{dice.pick(('Meds', 'Continue', 'Discharged on'))}: {', '.join(drugs)}.")
    return " ".join(sentences)


_PLAIN: Final[Mapping[str, tuple[str, ...]]] = {
    "echo": ("Normal LV size and function, EF 60%.", "TTE: EF 55%. No wall motion abnormality.", "No effusion."),
    "radiology": ("No pneumothorax. Lungs clear.", "CXR: no acute process.", "No pleural effusion or consolidation."),
    "microbiology": ("Blood culture: no growth after 5 days.", "MRSA screen negative.", "Urine culture: mixed flora."),
}
_INFECTIONS: Final = {
    ("radiology", "pneumonia"): "Right lower lobe consolidation, possible pneumonia.",
    ("microbiology", "UTI"): "Urine culture: E. coli > 100,000 CFU/mL.",
}


def _other(kind: str, said: list[str], past: Past, dice: _Dice) -> str:
    """An echo, radiology, microbiology or surgical note: what it says of the findings, or something unrelated."""
    sentences = [_sentence(words) for words in said]
    sentences += [_INFECTIONS[kind, each.name] for each in past if (kind, each.name) in _INFECTIONS]
    if kind == "surgical" and not sentences:
        sentences.append(f"Operation: {dice.pick(_OPERATIONS)}. No intraoperative complications.")
    if kind in _PLAIN and not sentences:
        sentences.append(dice.pick(_PLAIN[kind]))
    return " ".join(sentences)


def _sentence(words: str) -> str:
    return words[0].upper() + words[1:].rstrip(".") + "."
