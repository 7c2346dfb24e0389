"""One recipe in TOML: everything a run depends on besides its input files."""

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from einthoven.config.architecture import CodeEncoder, EcgEncoder, Space, TextEncoder
from einthoven.config.data import Entities, Pairing, Source, Vocabulary
from einthoven.config.learning import Augmentation, CodePretraining, FineTuning, Training
from einthoven.config.values import from_dict, require, told
from einthoven.errors import EinthovenError

OUTLIER_DETECTORS: Final = (
    "exposure",
    "early",
    "mahalanobis",
    "relative-mahalanobis",
    "neighbours",
    "energy",
    "vim",
    "prompts",
)
"""Those of evaluation/outliers.py."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How results are measured: intervals, label budgets, outliers."""

    resamples: int = 1000  # patient bootstrap
    label_fractions: tuple[float, ...] = (0.01, 0.1, 1.0)
    subsets: int = 5  # seeded label subsets per fraction below 1
    control: bool = True  # measure the same encoders with random weights too
    lead_subsets: bool = False  # measure with 6, 2 and 1 leads too (evaluation/leads.py)
    detector: str = "exposure"  # of outliers, that search and the page ask (docs/outliers.md)
    false_alarm: float = 0.05  # share of the validation recordings that a detector may flag
    seed: int = 0

    def __post_init__(self) -> None:
        require(min(self.resamples, self.subsets) > 0, "evaluation: resamples and subsets above 0")
        require(all(0 < f <= 1 for f in self.label_fractions), "evaluation: label_fractions above 0, up to 1")
        require(self.detector in OUTLIER_DETECTORS, f"evaluation: detector among {', '.join(OUTLIER_DETECTORS)}")
        require(0 < self.false_alarm < 1, "evaluation: false_alarm between 0 and 1")
        require(self.seed >= 0, "evaluation: seed zero or more")


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
        require(heard, "augmentation: mains_mv 0 where ecg.sampling_rate is 100 Hz or less, which cannot carry 50 Hz")
        alone, between = set(self.space.modalities) == {"ecg"}, self.training.objective == "contrast"
        require(
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
        raise EinthovenError(f"--set {setting[:200]}: expected section.key=value, for example pairing.codes_after=0.")
    for text in (value, json.dumps(value)):
        try:
            return tomllib.loads(f"{name.strip()} = {text}")
        except (ValueError, RecursionError):  # of tomllib; a number of 5,000 digits is one that int refuses
            pass
    raise EinthovenError(f"--set {setting[:200]}: expected section.key=value, for example pairing.codes_after=0.")


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
    except (ValueError, OSError) as error:  # a number of 5,000 digits is one that int refuses
        raise EinthovenError(f"{path}: not a readable TOML file: {str(error)[:200]}") from None
    except RecursionError:
        raise EinthovenError(f"{path}: not a readable TOML file: lists within lists beyond measure.") from None
    parent = tree.pop("extends", None)
    if parent is None:
        return tree
    if not isinstance(parent, str):
        raise EinthovenError(f"{path}: `extends` must be the file name of another recipe, not {told(parent)}.")
    return _over(_read(path.parent / parent, (*seen, path.resolve())), tree)
