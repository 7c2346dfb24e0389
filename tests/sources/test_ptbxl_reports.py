"""PTB-XL's texts: reports become the wording alone, statement literals a dict or an error."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.sources.ptbxl import clean_report
from einthoven.sources.ptbxl_rows import parse_statements

PACKED = Path(__file__).resolve().parents[3] / "shared" / "data" / "ptbxl-1.0.3-100hz" / "ptbxl_metadata_reports.csv"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sinusrhythmus normales ekg", "sinusrhythmus normales ekg"),
        (
            "linkstyp   unvollstÄndiger   block 4.46                  unbestÄtigter bericht",
            "linkstyp unvollständiger block",
        ),
        ("linkstyp 4.46         unbe", "linkstyp"),
        ("linkstyp 4.46    ", "linkstyp"),
        ("linkstyp unbestÄtigter bericht", "linkstyp"),
        ("linkstyp 4.46    unbestÄtigter bericht Edit: NORM 100, (NST_)", "linkstyp"),
        ("sinus rhythm. Edit: LVH 80, Sokolow 4,4", "sinus rhythm."),
        ("sinus rhythm. unconfirmed report", "sinus rhythm."),
        ("amplitudenkriterien f#r lvh, #bergang in v4", "amplitudenkriterien für lvh, übergang in v4"),
        ("infarkt     alter unbest.", "infarkt alter unbest."),
        ("t neg in v 4", "t neg in v 4"),
        ("x" * 200 + " linksbelastung 4.4", "x" * 200 + " linksbelastung"),
        ("pr 0.22", "pr 0.22"),
        ("trace only requested.", None),
        ("trace only requested. Edit: NORM 100, TOR, ", None),
        ("4.46      unbestÄtigter bericht", None),
        ("  ", None),
        ("-- 12", None),
    ],
)
def test_clean_report(text: str, expected: str | None) -> None:
    assert clean_report(text) == expected


WORDS = st.sampled_from(
    ["4.46", "4.", "4", "4.4", "unbestÄtigter", "unbe", "bericht", "Edit:", "f#r", "##", "ekg", "v4", "İ", "\n"]
)


@given(st.one_of(st.text(), st.lists(WORDS, max_size=90).map(" ".join)))
def test_clean_report_is_idempotent(text: str) -> None:
    once = clean_report(text)
    assert once is None or clean_report(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{1: 2}",
        "{'A': True}",
        "{'A': -1}",
        "{'A': 1e999}",
        "{'A B': 1}",
        "{'': 1}",
        "{'A': [1]}",
        "__import__('os')",
        "(" * 3000,
        "{'A': 1}" * 2000,
        "{'A': 1" + " " * 5000 + "}",
        "\0",
        "{[]: 1}",
    ],
)
def test_statements_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        parse_statements(text)


@pytest.mark.skipif(not PACKED.exists(), reason=f"{PACKED} is not on this machine")
def test_every_real_report() -> None:
    with PACKED.open(encoding="utf-8", newline="") as file:
        reports = [row["report"] for row in csv.DictReader(file) if row["report"].strip()]
    cleaned = [clean_report(report) for report in reports]
    kept = [text for text in cleaned if text is not None]
    assert {r.lower().partition("edit:")[0].strip() for r, c in zip(reports, cleaned, strict=True) if c is None} == {
        "trace only requested."
    }
    assert not [
        text for text in kept if "4.46" in text or "unbestätigt" in text or "edit:" in text or text != text.lower()
    ]
    assert all(clean_report(text) == text for text in kept)
