"""The ECG encoder of a model, with its heads, as an ONNX file that is checked before it is there."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from einthoven import schema
from einthoven.errors import EinthovenError
from einthoven.model import STRIPS, Model
from einthoven.model_directory import load
from einthoven.simulation.findings import draw_findings
from einthoven.simulation.heart import simulate
from einthoven.study import atomic, sha256
from einthoven.waveforms.strips import Floats, from_store, lead_mask
from einthoven.weights import FILE

SUFFIX: Final = ".onnx"
INPUT: Final = "strips"
OPSET: Final = 17
TOLERANCE: Final = 1e-4
"""The largest difference from PyTorch, of any value, with which a file is written."""

CHECKED: Final = 24
"""Simulated recordings that the file is checked on, in each of `SUBSETS` of the leads."""

SUBSETS: Final = (schema.LEADS, ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"), ("I", "II"), ("I",))


@dataclass(frozen=True)
class Exported:
    """What an ONNX file gives for strips [n, 12, t], and how near to PyTorch it is."""

    outputs: dict[str, int]  # name -> dimension
    difference: float  # the largest, of any value
    strips: int  # checked

    def __str__(self) -> str:
        given = ", ".join(f"{name} [n, {dim}]" for name, dim in self.outputs.items())
        return (
            f"{given}; largest difference from PyTorch on {self.strips} simulated strips {self.difference:.1e} "
            f"(allowed {TOLERANCE:.0e})"
        )


class EcgTower(nn.Module):
    """Strips in millivolts [n, 12, t] -> features [n, c], and unit vectors [n, d] in each space that the model has."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.ecg, self.spaces = model.ecg, model.spaces

    def forward(self, strips: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.named(strips).values())

    def named(self, strips: Tensor) -> dict[str, Tensor]:
        features = self.ecg(strips)
        views = self.spaces(features)
        # one tensor may not be two outputs: in a shared space fine and coarse are the same
        spaces = {"coarse": views.ecg_coarse, "fine": None if views.ecg_fine is None else views.ecg_fine.clone()}
        return {"features": features} | {name: view for name, view in spaces.items() if view is not None}


def export_onnx(directory: Path, out: Path) -> Exported:
    """Write the ECG encoder of a model directory to `out`, after ONNX Runtime has given what PyTorch gives.

    The file takes `strips`, float32 millivolts [n, 12, t], leads in the order of `schema.LEADS`, zeros where nothing
    was recorded, and gives `features`, `coarse` and `fine`, those that the model has. Rate, length and leads are among
    its metadata.

    Raises:
        EinthovenError: no model, another suffix, the extra `onnx` is not installed, or a difference above `TOLERANCE`:
            then nothing is written.
    """
    if out.suffix != SUFFIX:
        raise EinthovenError(f"export onnx {out}: expected a file name that ends in {SUFFIX}.")
    try:
        import onnx
        import onnxruntime  # noqa: F401 - before any work
    except ModuleNotFoundError:
        raise EinthovenError("export onnx needs two packages: pip install 'einthoven[onnx]'.") from None
    model = load(directory, "cpu")
    tower = EcgTower(model).eval()
    strips = trial_strips(model)
    with torch.inference_mode():
        expected = {name: value.numpy() for name, value in tower.named(torch.from_numpy(strips)).items()}
    described = onnx.load_from_string(_traced(tower, torch.from_numpy(strips[:2]), list(expected)))
    onnx.helper.set_model_props(described, metadata(model, sha256(directory / FILE)))
    onnx.checker.check_model(described, full_check=True)
    written = described.SerializeToString()
    worst = largest_difference(written, strips, expected)
    with atomic(out) as temporary:
        temporary.write_bytes(written)
    return Exported({name: value.shape[1] for name, value in expected.items()}, worst, len(strips))


def metadata(model: Model, weights: str) -> dict[str, str]:
    """What a user of the file has to know, as text by name."""
    config = model.ecg_config
    return {
        "producer": "einthoven",
        "einthoven_version": version("einthoven"),
        "weights_sha256": weights,
        "sampling_rate_hz": str(config.sampling_rate),
        "strip_samples": str(config.strip_samples),
        "strips_per_recording": str(STRIPS),
        "leads": ",".join(schema.LEADS),
        "unit": "mV",
        "missing_lead": "0",
        "data_kind": str(model.card.get("data_kind", "unknown")),
        "use": "Research use only. Not a medical device.",
    }


def trial_strips(model: Model, seed: int = 0) -> Floats:
    """Strips of simulated recordings [n, 12, t]: with all leads and with fewer, one that ends early, one of zeros."""
    rng = np.random.default_rng(seed)
    stored = simulate(draw_findings(CHECKED, rng), rng)
    config, length = model.ecg_config, model.strip_samples
    strips = from_store(stored, 500, config.sampling_rate, length, STRIPS).reshape(-1, 12, length)
    found = [np.where(lead_mask(leads)[:, None], strips, 0) for leads in SUBSETS]
    short = strips[:1].copy()
    short[..., length // 2 :] = 0
    return np.concatenate([*found, short, np.zeros_like(short)]).astype(np.float32)


def largest_difference(written: bytes, strips: Floats, expected: dict[str, Any]) -> float:
    """Between ONNX Runtime, in batches of several sizes, and `expected`; above `TOLERANCE` an EinthovenError."""
    import onnxruntime

    session = onnxruntime.InferenceSession(written, providers=["CPUExecutionProvider"])
    worst = 0.0
    for part in _batches(len(strips)):
        for name, got in zip(expected, session.run(list(expected), {INPUT: strips[part]}), strict=True):
            difference = float(np.abs(got - expected[name][part]).max())
            worst = max(worst, difference if np.isfinite(difference) else np.inf)
    if worst > TOLERANCE:
        raise EinthovenError(
            f"export onnx: ONNX Runtime differs from PyTorch by {worst:.1e}, more than {TOLERANCE:.0e}; nothing was "
            "written. Try other versions of torch and onnxruntime (constraints.txt names those that are tested)."
        )
    return worst


def _batches(n: int) -> list[slice]:
    """All of n in one of 1, one of 2 and the rest: the number of strips must be free."""
    return [slice(0, 1), slice(1, 3), slice(3, n)]


def _traced(tower: EcgTower, example: Tensor, outputs: Sequence[str]) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():  # of a tracer that is deprecated: the other one needs onnxscript
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tower,
            (example,),
            file,  # type: ignore[arg-type]
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=list(outputs),
            dynamic_axes={name: {0: "n"} for name in (INPUT, *outputs)},
        )
    return file.getvalue()
