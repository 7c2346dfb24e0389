"""One recipe in TOML <-> frozen dataclasses. An unknown key, a wrong type or a bad value is an error."""

from einthoven.config.architecture import CodeEncoder, EcgEncoder, Space, TextEncoder
from einthoven.config.data import CODE_KINDS, MAX_RATE, Entities, Pairing, Source, Vocabulary
from einthoven.config.learning import OBJECTIVES, Augmentation, CodePretraining, FineTuning, Training
from einthoven.config.recipe import OUTLIER_DETECTORS, Evaluation, Recipe, load_recipe
from einthoven.config.values import from_dict, to_dict

__all__ = [
    "CODE_KINDS",
    "MAX_RATE",
    "OBJECTIVES",
    "OUTLIER_DETECTORS",
    "Augmentation",
    "CodeEncoder",
    "CodePretraining",
    "EcgEncoder",
    "Entities",
    "Evaluation",
    "FineTuning",
    "Pairing",
    "Recipe",
    "Source",
    "Space",
    "TextEncoder",
    "Training",
    "Vocabulary",
    "from_dict",
    "load_recipe",
    "to_dict",
]
