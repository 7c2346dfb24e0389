"""docs/scale.md says what results/*.json say."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "results")
    return importlib.import_module("scale")


def test_the_projection_is_made_of_the_committed_figures(scale: ModuleType) -> None:
    page = scale.PAGE.read_text(encoding="utf-8")
    assert scale.with_projection(page, scale.load()) == page


def test_a_projection_is_the_rate_times_the_size(scale: ModuleType) -> None:
    measured = scale.load()
    measured["ingest"]["records_per_processor_second"] = 2500
    measured["pairing"]["40Mx2M"]["seconds"] = 20
    measured["compute"] |= {"training_gflop_per_triplet": 1.0, "dim": 256, "features": 512}
    rows = {what: said for what, said, _ in scale.rows_of(measured)}
    assert rows["ingest from WFDB"].startswith("1.0 processor hours: 0.9 minutes of 64 cores")  # 9 M / 2500 / 3600
    assert rows["pairing of codes, one machine"] == "1.5 minutes"
    # 30 x 4.5 M x 10^9 / (8 x 31.2 x 10^12) s = 541 s
    assert rows["training, 8 GPUs, 30 epochs of 4.5 M triplets"] == "0.15 hours (estimated: 0.14 x 10^18 operations)"
    assert rows["waveforms, 12 leads, 10 s, int16"] == "1.08 TB at 500 Hz, 0.22 TB at 100 Hz"
