"""How models learn: pretraining of codes, augmentation, alignment, fine-tuning."""

from dataclasses import dataclass
from typing import Final

from einthoven.config.values import require


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
        require(
            min(self.epochs, self.batch, self.validate_every) > 0, "pretraining: epochs, batch, validate_every above 0"
        )
        require(0 < self.mask < 1 and self.window_days > 0, "pretraining: mask between 0 and 1, window_days above 0")
        require(self.learning_rate > 0 and self.clip_norm > 0, "pretraining: learning_rate and clip_norm above 0")
        require(0 <= self.warmup < 1 and 0 <= self.ema < 1, "pretraining: warmup and ema from 0 to below 1")
        require(self.weight_decay >= 0 and self.seed >= 0, "pretraining: weight_decay and seed zero or more")
        require(self.precision in ("auto", "bf16", "fp32"), "pretraining: precision one of auto, bf16, fp32")


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
        require(min(amounts) >= 0, "augmentation: noise_mv, wander_mv and mains_mv zero or more")
        require(0 <= self.scale < 1 and 0 <= self.time_mask < 1, "augmentation: scale, time_mask from 0 to below 1")
        dropouts = (self.lead_subset, self.lead_dropout, self.word_dropout, self.code_dropout)
        shares = (*dropouts, self.text_queries, self.code_queries)
        require(0 <= min(shares) <= max(shares) <= 1, "augmentation: lead_subset, dropouts and queries from 0 to 1")


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
    sharding: str = "none"  # among processes; "fsdp": each holds a part of weights and optimiser (docs/scale.md)
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
        require(
            min(self.epochs, self.batch, self.validate_every) > 0, "training: epochs, batch, validate_every above 0"
        )
        require(min(self.fine, self.coarse, self.codes_text) >= 0, "training: fine, coarse, codes_text zero or more")
        require(self.objective in OBJECTIVES, f"training: objective among {', '.join(OBJECTIVES)}")
        require(0 < self.mask < 1, "training: mask between 0 and 1")
        require(self.loss in ("info_nce", "sigmoid"), "training: loss info_nce or sigmoid")
        between = self.objective == "contrast" or self.loss == "info_nce"
        require(between, "training: loss info_nce where `objective` is not contrast, which alone has another")
        require(self.chunk >= 0, "training: chunk zero or more")
        require(self.sharding in ("none", "fsdp"), "training: sharding none or fsdp")
        require(self.concatenation in ("report", "entity"), "training: concatenation report or entity")
        require(self.learning_rate > 0 and self.clip_norm > 0, "training: learning_rate and clip_norm above 0")
        require(0 <= self.warmup < 1 and 0 <= self.ema < 1, "training: warmup and ema from 0 to below 1")
        weights = (self.words, self.code_words, self.weight_decay)
        require(min(weights) >= 0, "training: words, code_words and weight_decay zero or more")
        require(self.precision in ("auto", "bf16", "fp32"), "training: precision one of auto, bf16, fp32")
        require(self.seed >= 0, "training: seed zero or more")


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
        require(min(counts) > 0, "finetuning: epochs, min_steps, batch and validations above 0")
        rates = (self.learning_rate, self.new_learning_rate, self.clip_norm)
        require(min(rates) > 0, "finetuning: learning_rate, new_learning_rate and clip_norm above 0")
        shares = (self.warmup, self.ema, self.dropout)
        require(0 <= min(shares) <= max(shares) < 1, "finetuning: warmup, ema and dropout from 0 to below 1")
        require(self.weight_decay >= 0 and self.seed >= 0, "finetuning: weight_decay and seed zero or more")
        require(self.precision in ("auto", "bf16", "fp32"), "finetuning: precision one of auto, bf16, fp32")
