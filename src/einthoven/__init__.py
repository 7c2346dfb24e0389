"""Contrastive learning between a patient's ECG, coded record and clinical text.

>>> import einthoven
>>> model = einthoven.load("runs/ptbxl/model")                                    # doctest: +SKIP
>>> ecg = model.encode_ecg(array, sampling_rate=500, leads=["I", "II", "V1"])     # doctest: +SKIP
>>> text = model.encode_text(["atrial fibrillation", "sinus rhythm"])             # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from einthoven.errors import EinthovenError as EinthovenError

if TYPE_CHECKING:
    from einthoven.classifier import load_classifier as load_classifier
    from einthoven.embedder import EcgEmbedder as EcgEmbedder
    from einthoven.model import Model as Model
    from einthoven.model_directory import load as load

__all__ = ["EcgEmbedder", "EinthovenError", "Model", "load", "load_classifier"]


def __getattr__(name: str) -> Any:
    # lazy, so that `einthoven --help` and the stages above the pairs line do not pay for torch
    if name in ("Model", "load"):
        from einthoven import model_directory

        return getattr(model_directory, name)
    if name == "EcgEmbedder":
        from einthoven.embedder import EcgEmbedder

        return EcgEmbedder
    if name == "load_classifier":
        from einthoven.classifier import load_classifier

        return load_classifier
    raise AttributeError(f"module 'einthoven' has no attribute {name!r}")
