"""ONNX: every kind of model gives what PyTorch gives, also on what the export itself did not try; else no file."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from einthoven import cli, onnx_export
from einthoven.config import CodeEncoder, EcgEncoder, Space, TextEncoder
from einthoven.encoders.codes import create
from einthoven.errors import EinthovenError
from einthoven.model import CodePart, Model
from einthoven.onnx_export import EcgTower, export_onnx, largest_difference, trial_strips
from einthoven.schema import LEADS
from einthoven.simulation.heart import simulate
from einthoven.study import sha256
from einthoven.vocabulary.medications import Medications
from einthoven.vocabulary.rules import Rules
from einthoven.vocabulary.vocabulary import build

SMALL = {"width": 8, "blocks": (1, 1)}


def model(modalities: tuple[str, ...], arrangement: str = "fac", **ecg: object) -> Model:
    """A model with weights that are not those of a beginning, where blocks are shortcuts and pooling is a mean."""
    torch.manual_seed(0)
    space = Space(modalities=modalities, arrangement=arrangement, dim=8, coarse_dim=6, hidden=16)
    text, codes = TextEncoder(hidden=16, layers=1, heads=2, vocabulary=200), None
    if "codes" in modalities:
        vocabulary = build({"DX//A": [1], "DX//B": [2]}, 1, Rules(Medications({}, {})))
        codes = CodePart(create(CodeEncoder(hidden=16, layers=1, heads=2), vocabulary, ("finding",)), vocabulary)
    made = Model.create(EcgEncoder(**{**SMALL, **ecg}), text, space, ["sinus rhythm"], codes)
    with torch.no_grad():
        for value in made.ecg.parameters():
            value += 0.1 * torch.randn_like(value)
    return made.eval()


TEXT, THREE = ("ecg", "text"), ("ecg", "codes", "text")
KINDS = {
    "text": (TEXT, "fac", {}, {"features": 16, "coarse": 8}),
    "no text": (("ecg", "codes"), "fac", {}, {"features": 16, "fine": 8}),
    "ECG alone": (("ecg",), "fac", {}, {"features": 16, "fine": 8}),
    "three": (THREE, "fac", {}, {"features": 16, "coarse": 6, "fine": 8}),
    "disjoint": (THREE, "disjoint", {}, {"features": 16, "coarse": 6, "fine": 8}),
    "shared": (THREE, "shared", {}, {"features": 16, "coarse": 8, "fine": 8}),
    "min-max": (TEXT, "fac", {"scaling": "minmax"}, {"features": 16, "coarse": 8}),
    "another rate": (TEXT, "fac", {"sampling_rate": 250, "strip_seconds": 2.5}, {"features": 16, "coarse": 8}),
    "bottleneck": (TEXT, "fac", {"bottleneck": True, "blocks": (1, 2, 1)}, {"features": 128, "coarse": 8}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_the_same_in_onnx(tmp_path: Path, kind: str) -> None:
    modalities, arrangement, ecg, dims = KINDS[kind]
    made, file = model(modalities, arrangement, **ecg), tmp_path / "ecg.onnx"
    made.save(tmp_path / "model")
    done = export_onnx(tmp_path / "model", file)
    assert done.outputs == dims and done.difference < 1e-4
    assert f"features [n, {dims['features']}]" in str(done) and "allowed 1e-04" in str(done)
    rate, length = made.ecg_config.sampling_rate, made.strip_samples
    strips = simulate([frozenset({"AFIB"})] * 5, np.random.default_rng(9), rate)[..., :length].astype(np.float32) / 1000
    strips[1, 2:] = 0  # leads I and II alone
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for part in (strips, strips[:1]):
        expected = EcgTower(made).named(torch.from_numpy(part))
        for name, got in zip(dims, session.run(list(dims), {"strips": part}), strict=True):
            assert got.shape == (len(part), dims[name])
            assert np.abs(got - expected[name].detach().numpy()).max() < 1e-4


def test_the_file_says_what_it_takes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model(TEXT).save(tmp_path / "model")
    file = tmp_path / "ecg.onnx"
    cli.app(["export", "onnx", str(tmp_path / "model"), str(file)], standalone_mode=False)
    assert "features [n, 16], coarse [n, 8]; largest difference from PyTorch" in " ".join(
        capsys.readouterr().out.split()
    )
    said = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert said["weights_sha256"] == sha256(tmp_path / "model" / "model.safetensors")
    assert said["leads"].split(",") == list(LEADS)
    assert (said["sampling_rate_hz"], said["strip_samples"], said["unit"]) == ("100", "500", "mV")
    assert said["einthoven_version"] and said["data_kind"] == "unknown"


def test_what_is_checked_has_all_leads_some_leads_and_none() -> None:
    strips = trial_strips(model(("ecg",)))
    recorded = (np.abs(strips).max(axis=-1) > 0).sum(axis=1)
    assert set(recorded) == {12, 8, 2, 1, 0}
    assert 0.1 < np.abs(strips).max() < 20


def test_a_difference_above_the_tolerance_is_refused_and_leaves_no_file(tmp_path: Path, monkeypatch) -> None:
    made, file = model(("ecg",)), tmp_path / "ecg.onnx"
    made.save(tmp_path / "model")
    export_onnx(tmp_path / "model", file)
    strips = trial_strips(made)
    expected = {name: value.detach().numpy() for name, value in EcgTower(made).named(torch.from_numpy(strips)).items()}
    assert largest_difference(file.read_bytes(), strips, expected) < 1e-4
    with pytest.raises(EinthovenError, match="differs from PyTorch by"):
        largest_difference(file.read_bytes(), strips, expected | {"features": expected["features"] + 2e-4})
    with pytest.raises(EinthovenError, match="by inf"):
        largest_difference(file.read_bytes(), strips, expected | {"fine": expected["fine"] * np.float32(np.nan)})
    monkeypatch.setattr(onnx_export, "TOLERANCE", -1.0)  # nothing is good enough
    with pytest.raises(EinthovenError, match="nothing was written"):
        export_onnx(tmp_path / "model", tmp_path / "other.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ecg.onnx", "model"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["onnx", "model", "ecg.bin"], "ends in .onnx"),
        (["onnx", "nowhere", "ecg.onnx"], "not a model directory"),
        (["torchscript", "model", "ecg.onnx"], "known: meds, onnx"),
    ],
)
def test_what_cannot_be_exported_is_told(tmp_path: Path, monkeypatch, arguments: list[str], message: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EinthovenError, match=message):
        cli.app(["export", *arguments], standalone_mode=False)
