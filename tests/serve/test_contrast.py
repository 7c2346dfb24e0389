"""WCAG 2.2: contrast of the pairs of colours that the style sheet puts together, in both themes."""

import re
from importlib.resources import files

import pytest

STYLE = (files("einthoven") / "serve" / "static" / "style.css").read_text(encoding="utf-8")
TEXT, SIGN = 4.5, 3.0  # AA: of text, and of what a control or a mark is told by
PAIRS = [
    ("ink", "ground", TEXT),
    ("ink", "card", TEXT),
    ("ink", "rose-ground", TEXT),
    ("soft", "ground", TEXT),
    ("soft", "card", TEXT),
    ("soft", "rose-ground", TEXT),
    ("rose", "ground", TEXT),
    ("rose", "card", TEXT),
    ("rose", "rose-ground", TEXT),
    ("button-ink", "button", TEXT),
    ("edge", "card", SIGN),
    ("edge", "ground", SIGN),
    ("button", "card", SIGN),
    ("mark", "card", SIGN),
    ("mark", "ground", SIGN),
]


def themes() -> dict[str, dict[str, str]]:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    read = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block)) for block in (light, dark)]
    return {"light": read[0], "dark": read[0] | read[1]}


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_the_measure_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the grey that just fails


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "back", "least"), PAIRS)
def test_a_pair_of_colours_is_told_apart(theme: str, front: str, back: str, least: float) -> None:
    colours = themes()[theme]
    assert contrast(colours[front], colours[back]) >= least


def test_both_themes_set_every_colour() -> None:
    light, dark = re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)
    names = [set(re.findall(r"--([\w-]+): #", block)) for block in (light, dark)]
    assert names[0] == names[1]


def test_no_colour_is_outside_of_the_themes() -> None:
    rules = re.sub(r":root \{.*?\}", "", STYLE, flags=re.DOTALL)
    assert set(re.findall(r"#[0-9a-f]{3,6}\b(?=[;\s])", rules)) <= {"#fffafa"}  # the paper's own
