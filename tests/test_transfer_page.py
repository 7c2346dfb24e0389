"""results/transfer.py: one plan of runs, the page and the figure are made of the JSON alone."""

import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from einthoven.evaluation.finetuned import Run
from einthoven.training.labelled import Labelled

ROOT = Path(__file__).parents[1]


@pytest.fixture
def transfer(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "results")
    return importlib.import_module("transfer")


def results(transfer: ModuleType) -> dict[str, Any]:
    """Of four labelled recordings, three-way right and scratch wrong in one of two subsets."""
    values = np.array([[1.0], [0.0], [1.0], [0.0]])
    goal = Labelled(tuple("abcd"), np.arange(4), np.arange(4), values)
    good, bad = np.array([[0.9], [0.1], [0.8], [0.2]]), np.array([[0.1], [0.9], [0.2], [0.8]])
    found = {
        transfer.MAIN: [Run(0.01, subset, good, {}) for subset in (0, 1)],
        transfer.SCRATCH: [Run(0.01, subset, part, {}) for subset, part in enumerate((good, bad))],
    }
    measured = transfer.tuned(found, goal, ("MI",))
    bounded = {"value": 0.7, "low": 0.6, "high": 0.8}
    probe = {f: {"macro": bounded, "subsets": [0.7]} for f in ("0.01", "0.1", "1")}
    return {
        "command": "make transfer", "split": "validation", "seed": 0, "subsets": 2, "counts": goal.counts(),
        "labelled": {f: [{"recordings": 10 * i, "patients": 9}] for i, f in enumerate(("0.01", "0.1", "1"), 1)},
        transfer.PROBE: {transfer.MAIN: probe, transfer.RANDOM: probe},
        transfer.TUNED: measured["models"], "leads": measured["leads"],
    }  # fmt: skip


def test_means_and_leads_are_those_of_the_subsets(transfer: ModuleType) -> None:
    found = results(transfer)
    assert found[transfer.TUNED][transfer.SCRATCH]["0.01"]["subsets"] == [1.0, 0.0]
    assert found[transfer.TUNED][transfer.SCRATCH]["0.01"]["macro"]["value"] == 0.5
    assert found["leads"][transfer.SCRATCH]["0.01"]["value"] == 0.5


def test_the_plan_has_each_run_once_and_shares_those_from_scratch(transfer: ModuleType, tmp_path: Path) -> None:
    plan = transfer.tunings([transfer.MAIN, transfer.SCRATCH], [1.0, 0.01], 3)
    assert [(run.fraction, run.subset) for run in plan] == 2 * [(0.01, 0), (0.01, 1), (0.01, 2)] + 2 * [(1.0, 0)]
    places = [run.place(tmp_path) for run in plan]
    assert len(set(places)) == len(plan)
    assert tmp_path / "models" / "supervised-from-scratch" / "0.01-2" in places  # where `make baselines` has it


def test_page_and_figure_are_made_of_the_json(transfer: ModuleType) -> None:
    found = json.loads(json.dumps(results(transfer)))
    page = transfer.with_table(transfer.PAGE.read_text(encoding="utf-8"), found)
    assert "| three-way (fac) | linear probe | 0.700 (0.600–0.800) |" in page
    assert "| supervised from scratch | trained | 0.500" in page and "1%, 10 recordings" in page
    assert transfer.with_table(page, found) == page
    svg = transfer.drawn(found)
    assert svg == transfer.drawn(found) and svg.count("three-way (fac)") == 1 and "<svg" in svg


def test_results_are_the_committed_ones(transfer: ModuleType) -> None:
    if not transfer.RESULTS.exists():
        pytest.skip("results/transfer.json is made by `make transfer`, which was not run yet")
    page = transfer.PAGE.read_text(encoding="utf-8")
    assert transfer.with_table(page, json.loads(transfer.RESULTS.read_text(encoding="utf-8"))) == page
