"""A fine-tuned classifier: the ECG encoder and a linear head, which says labels of an ECG; read strictly.

>>> import einthoven
>>> classifier = einthoven.load_classifier("runs/ptbxl/finetuned")                    # doctest: +SKIP
>>> dict(zip(classifier.head.labels, classifier.predict(array, 500, ["I", "V1"])))    # doctest: +SKIP
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from einthoven import schema
from einthoven.config import EcgEncoder, from_dict, to_dict
from einthoven.encoders.ecg import ResNet1d
from einthoven.errors import EinthovenError
from einthoven.evaluation.targets import CLASSES, REGRESSION
from einthoven.model import STRIPS
from einthoven.study import atomic, refuse_altered, refuse_foreign
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import Floats, from_millivolts, from_store, several
from einthoven.weights import load_weights, refuse_oversize, save_weights

FORMAT: Final = 1
"""Version of the directory; one of another version is refused."""

KIND: Final = "classifier"


@dataclass(frozen=True, kw_only=True)
class Head:
    """What a classifier says: probabilities of classes, or numbers in the labels' own units."""

    task: str  # "classes" or "regression"
    labels: tuple[str, ...]
    mean: tuple[float, ...]  # of each label in the training data; the head is linear in (value - mean) / scale
    scale: tuple[float, ...]  # classes: 0 and 1

    def __post_init__(self) -> None:
        if self.task not in (CLASSES, REGRESSION):
            raise EinthovenError(f"head: task {CLASSES} or {REGRESSION}: the value given is not.")
        if not len(self.labels) == len(self.mean) == len(self.scale) > 0:
            raise EinthovenError("head: as many means and scales as labels, at least one: the value given is not.")


class Classifier(nn.Module):
    """Strips in millivolts [b, 12, t] -> logits, or standardised values, [b, labels]."""

    def __init__(self, ecg: EcgEncoder, head: Head, card: dict[str, Any], dropout: float = 0.0) -> None:
        super().__init__()
        self.ecg_config, self.head, self.card = ecg, head, card  # the card goes to config.json as it is
        self.ecg = ResNet1d(ecg)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(self.ecg.dim, len(head.labels))
        nn.init.zeros_(self.linear.weight)  # an untrained head says the same of every ECG
        nn.init.zeros_(self.linear.bias)

    def forward(self, strip: Tensor) -> Tensor:
        return self.linear(self.dropout(self.ecg(strip)))

    @property
    def strip_samples(self) -> int:
        return self.ecg_config.strip_samples

    @property
    def device(self) -> torch.device:
        return self.linear.weight.device

    @torch.inference_mode()
    def predict_strips(self, strips: Floats) -> npt.NDArray[np.float64]:
        """Recordings as [n, s, 12, t] strips in mV -> [n, labels]. The head reads the mean features of the strips."""
        self.eval()
        n, s = strips.shape[:2]
        features = self.ecg(torch.from_numpy(strips).flatten(0, 1).to(self.device)).view(n, s, -1).mean(dim=1)
        out = self.linear(features).double()
        if self.head.task == CLASSES:
            return out.sigmoid().cpu().numpy()
        values: npt.NDArray[np.float64] = out.cpu().numpy() * np.array(self.head.scale) + np.array(self.head.mean)
        return values

    def predict(
        self, array: npt.ArrayLike, sampling_rate: float, leads: Sequence[str] = schema.LEADS
    ) -> npt.NDArray[np.float64]:
        """What the classifier says of ECGs.

        Args:
            array: millivolts, [leads, samples] or [n, leads, samples]; NaN where nothing was recorded.
            sampling_rate: hertz, of `array`.
            leads: names of the leads of `array`, in its order; any subset of the twelve, any case.

        Returns:
            Probabilities, or values in the labels' units, of `head.labels`: [labels] or [n, labels].
        """
        batch = several(array, "predict")
        strips = from_millivolts(batch, sampling_rate, leads, self.ecg_config.sampling_rate, self.strip_samples, STRIPS)
        parts = [self.predict_strips(strips[i : i + 64]) for i in range(0, len(strips), 64)]
        found = np.concatenate(parts or [np.empty((0, len(self.head.labels)))])
        return found if np.ndim(array) == 3 else found[0]

    def predict_rows(
        self,
        store: Store,
        rows: npt.NDArray[np.integer[Any]],
        progress: Callable[[int, int], None] = lambda done, total: None,
        batch: int = 64,
    ) -> npt.NDArray[np.float64]:
        """What the classifier says of rows of a waveform store: [n, labels]."""
        parts = [np.empty((0, len(self.head.labels)))]
        for start in range(0, len(rows), batch):
            block = store.read(rows[start : start + batch])
            rate = self.ecg_config.sampling_rate
            parts.append(self.predict_strips(from_store(block, store.sampling_rate, rate, self.strip_samples, STRIPS)))
            progress(min(start + batch, len(rows)), len(rows))
        return np.concatenate(parts)

    def save(self, directory: Path | str) -> None:
        """Write `config.json` and `model.safetensors`; the directory appears whole or not at all."""
        refuse_foreign(Path(directory), "config.json")
        described = {"ecg": to_dict(self.ecg_config), "head": to_dict(self.head), "card": self.card}
        config = {"format": FORMAT, "kind": KIND, **described}
        with atomic(Path(directory)) as temporary:
            temporary.mkdir()
            (temporary / "config.json").write_text(
                json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8"
            )
            save_weights(self, temporary)


def load_classifier(directory: Path | str, device: str | torch.device | None = None) -> Classifier:
    """Load what `einthoven finetune` wrote, onto a GPU if there is one and `device` names no other.

    Strict: a missing, unknown or misshapen part is an error. Needs no network.
    """
    path = Path(directory)
    refuse_altered(path)
    values = _read_config(path)
    refuse_oversize([values["ecg"], values["head"]], path)
    ecg = from_dict(EcgEncoder, values["ecg"], f"{path}/config.json: ecg")
    head = from_dict(Head, values["head"], f"{path}/config.json: head")
    classifier = Classifier(ecg, head, values["card"])
    load_weights(classifier, path)
    return classifier.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except OSError:
        raise EinthovenError(f"{path}: no config.json, so no classifier. `einthoven finetune` makes one.") from None
    except (ValueError, RecursionError) as error:
        raise EinthovenError(f"{path}/config.json is not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("kind") != KIND:
        raise EinthovenError(f"{path} holds no classifier. `einthoven finetune` makes one of a model and labels.")
    known = {"format": int, "kind": str, "ecg": dict, "head": dict, "card": dict}
    if values.get("format") != FORMAT:
        raise EinthovenError(f"{path}: classifier format {values.get('format')}; this einthoven reads {FORMAT}.")
    if {name: type(value) for name, value in values.items()} != known:
        raise EinthovenError(f"{path}/config.json: expected exactly the keys {', '.join(known)}, as they are written.")
    return values
