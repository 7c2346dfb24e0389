"""The stages, each between files it names: what a command runs, and what `einthoven run` runs in a row.

They are imported when first asked for: `einthoven --help` does not pay for tables and arrays.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from einthoven.pipeline.measuring import MODEL_FILES, check, embed, embed_to_file, evaluate, model_inputs, outliers
    from einthoven.pipeline.stage import Progress, beside, check_split, outside, refuse_stale_pairs, silent, train_stage
    from einthoven.pipeline.tables import SOURCE_TABLES, SOURCES, entities, export_meds, ingest, pair, rechart
    from einthoven.pipeline.training import TRAINED_FILES, align, calibrate, pretrain

__all__ = [
    "MODEL_FILES",
    "SOURCES",
    "SOURCE_TABLES",
    "TRAINED_FILES",
    "Progress",
    "align",
    "beside",
    "calibrate",
    "check",
    "check_split",
    "embed",
    "embed_to_file",
    "entities",
    "evaluate",
    "export_meds",
    "ingest",
    "model_inputs",
    "outliers",
    "outside",
    "pair",
    "pretrain",
    "rechart",
    "refuse_stale_pairs",
    "silent",
    "train_stage",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in ("stage", "tables", "training", "measuring"):
            found = import_module(f"einthoven.pipeline.{module}")
            if hasattr(found, name):
                return getattr(found, name)
    raise AttributeError(f"module 'einthoven.pipeline' has no attribute {name!r}")
