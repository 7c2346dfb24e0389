import json
from pathlib import Path

import numpy as np
import pytest
import torch

from einthoven import cli, pipeline
from einthoven.config import EcgEncoder, Evaluation, Pairing, Recipe, Source, Space, TextEncoder
from einthoven.embed import embed_rows
from einthoven.evaluation.leads import SUBSETS, measure_subsets
from einthoven.evaluation.report import table
from einthoven.model import Model
from einthoven.schema import LEADS
from einthoven.training.probes import fit_probes_of
from einthoven.waveforms.store import Store
from einthoven.waveforms.strips import millivolts


def silent(done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("leads") / "study"
    pipeline.ingest(Source(name="simulated", subjects=120), None, path)
    pipeline.pair(Recipe(pairing=Pairing(note_kinds=("ecg",))), path)
    return path


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(0)
    ecg = EcgEncoder(width=8, blocks=(1, 1), bottleneck=True)
    text = TextEncoder(hidden=16, layers=1, heads=2, vocabulary=100)
    return Model.create(ecg, text, Space(dim=8, hidden=16), ["normal ecg"]).eval()


@pytest.mark.parametrize("leads", SUBSETS.values(), ids=SUBSETS)
def test_fewer_leads_are_those_alone(study: Path, model: Model, leads: tuple[str, ...]) -> None:
    store, rows = Store.open(study), np.arange(5)
    vectors = embed_rows(model, store, rows, silent, leads).vectors
    signal = millivolts(store.read(rows))
    alone = model.encode_ecg(signal[:, [LEADS.index(name) for name in leads]], store.sampling_rate, leads)
    assert np.allclose(vectors, alone, atol=1e-5)
    assert not np.allclose(vectors, embed_rows(model, store, rows, silent).vectors, atol=1e-3)


def test_every_series_is_measured_with_every_subset_and_progress_only_grows(study: Path, model: Model) -> None:
    seen: list[tuple[str, tuple[int, ...]]] = []
    steps: list[int] = []

    def measure(series, found):
        seen.append((series, found.vectors.shape + found.features.shape))
        return {"first": float(found.vectors[0, 0])}

    encoders = {"model": model, "random_init": model.untrained(1)}
    rows = np.arange(70)
    found = measure_subsets(measure, encoders, Store.open(study), rows, lambda i, n, note: steps.append(i))
    assert seen == [("model", (70, 8, 70, 64)), ("random_init", (70, 8, 70, 64))] * 3
    assert steps == sorted(steps) and steps[-1] == 6 * 70
    assert {count: part["leads"] for count, part in found.items()} == {k: list(v) for k, v in SUBSETS.items()}
    assert all(int(count) == len(part["leads"]) for count, part in found.items())
    assert len({part[series]["first"] for part in found.values() for series in encoders}) == 6


def test_fewer_leads_stand_in_the_report_when_asked_for(study: Path, model: Model, tmp_path: Path, capsys) -> None:
    model.save(tmp_path / "model")
    fit_probes_of(model, study, tmp_path / "model", Evaluation(label_fractions=(1.0,)), silent)
    arguments = [
        "evaluate",
        str(tmp_path / "model"),
        str(study),
        "--split",
        "validation",
        "--out",
        str(tmp_path / "out"),
    ]
    settings = ["--set", "evaluation.lead_subsets=true", "--set", "evaluation.resamples=5"]
    cli.app([*arguments, *settings], standalone_mode=False)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["command"].endswith(" ".join(settings))
    assert set(metrics["leads"]) == set(SUBSETS)
    for part in metrics["leads"].values():
        assert set(part["model"]) == set(part["random_init"]) == {"retrieval", "zeroshot", "probe"}
        assert part["model"] != metrics["model"] and part["random_init"] != metrics["random_init"]
    plain = table({**metrics, "leads": {}})
    added = table(metrics)[len(plain) :]
    assert table(metrics) == plain + added and len(added) == 3 * (2 + 1 + 1)
    tasks = [f"Only leads {', '.join(LEADS[:6])}", "Only leads I, II", "Only lead I"]
    assert list(dict.fromkeys(row.task for row in added)) == tasks
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Only lead I" in capsys.readouterr().out and "Only lead I" in page and "fitted with all leads" in page
