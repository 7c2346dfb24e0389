"""The hand-labelled set (GOLD.md): what is measured, and that nothing denied or of the family is a finding."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from einthoven.config import Entities
from einthoven.entities.lexicon import load
from einthoven.entities.matcher import Matcher, Mention

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(
    not (DATA / "notes-mts-dialog").is_dir(), reason="the labelled public notes are not in ../shared/data"
)
RESULTS = json.loads((ROOT / "results" / "entities.json").read_text(encoding="utf-8"))

LET_THROUGH = {
    ("notes-mts-dialog/MTS-Dialog-TestSet-2-MEDIQA-Sum-2023.csv", "106", 349)
}  # women of a family, after a ";"
"""File, row and start of labelled mentions that are denied or of the family and yet enter as findings."""


def load_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("entity_results", ROOT / "results" / "entities.py")
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


SCRIPT = load_script()
Found = list[tuple[dict[str, Any], list[tuple[dict[str, Any] | None, Mention | None]]]]


@pytest.fixture(scope="module")
def found() -> Found:
    matcher = Matcher(load(Entities()))
    lines = SCRIPT.labelled(DATA)
    return [(line, SCRIPT.aligned(line["mentions"], matcher.find(line["text"]))) for line in lines]


@needs_data
def test_nothing_denied_or_of_the_family_is_a_finding(found: Found) -> None:
    through = {
        (line["file"], line["row"], gold["start"])
        for line, pairs in found
        for gold, mention in pairs
        if gold and mention and {"negated", "family"} & set(gold["attributes"])
        if not (mention.flags.negated or mention.flags.family or mention.flags.hypothetical)
    }
    assert through == LET_THROUGH


@needs_data
def test_the_committed_figures_are_those_of_the_code(found: Found) -> None:
    for part, committed in RESULTS["halves"].items():
        counts = sum((SCRIPT.counted(pairs) for line, pairs in found if line["half"] == part), start=SCRIPT.Counter())
        assert SCRIPT.scores(counts) == {name: value for name, value in committed.items() if name != "texts"}


def test_the_page_shows_the_committed_figures() -> None:
    page = (ROOT / "docs" / "entities.md").read_text(encoding="utf-8")
    assert SCRIPT.rendered(RESULTS) in page


def test_floors() -> None:
    floors = {"mention": (0.96, 0.93), "negated": (0.94, 0.98), "family": (0.99, 0.85)}
    for part in RESULTS["halves"].values():
        for name, (precision, recall) in floors.items():
            assert part[name]["precision"] >= precision and part[name]["recall"] >= recall, name


def test_the_set_has_what_it_says() -> None:
    lines = [json.loads(line) for line in SCRIPT.GOLD.read_text(encoding="utf-8").splitlines()]
    assert sum(len(line["mentions"]) for line in lines) == 646 + 181
    assert all("text" not in line and len(line["sha256"]) == 64 for line in lines)
    blind = [line for line in lines if line["half"] != "unseen"]
    assert all(line["half"] == ("development", "held-out")[int(line["sha256"][:8], 16) % 2] for line in blind)
