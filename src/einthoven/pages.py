"""What the HTML pages have in common: one template around them, and figures as inline SVG in the page's colours."""

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MODEL, CONTROL = "#010203", "#0a0b01", "#0a0b02"
SERIES_COLOURS = ("#0a0c00", "#0a0c01", "#0a0c02", "#0a0c03", "#0a0c04", "#0a0c05")
COLOURS = {INK: "currentColor", MODEL: "var(--model)", CONTROL: "var(--control)"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(SERIES_COLOURS)
}
"""Colours Matplotlib draws with -> what the page puts in their place, so that figures follow light and dark."""


def render(template: Path, **values: Any) -> str:
    """A page: `template` extends `page.html.j2`, which lies here. Whatever is put into it is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template.name).render(values)


def figure(
    caption: str, draw: Callable[[Axes], None], said: str | None = None, size: tuple[float, float] = (6.4, 4)
) -> Markup:
    """One pair of axes as inline SVG: the same bytes for the same data, its colours those of the page.

    `said` is what a screen reader says of it; without it the caption. `size` is in inches, as Matplotlib has it.
    """
    style = {"svg.fonttype": "none", "svg.hashsalt": caption, "text.parse_math": False, "font.family": "sans-serif"}
    ink = dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK)
    quiet = {"axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False, "font.size": 11}
    with matplotlib.rc_context({**style, **ink, **quiet}):
        drawn = Figure(figsize=size, layout="constrained")
        draw(drawn.add_subplot())
        written = io.StringIO()
        drawn.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    svg = written.getvalue()
    svg = re.sub(r'<g id="[^"]*">', "<g>", svg[svg.index("<svg") :])  # these ids repeat from figure to figure
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for stand_in, colour in COLOURS.items():
        svg = svg.replace(stand_in, colour)
    opening = f'<svg role="img" aria-label="{escape(said or caption)}" '
    return Markup(re.sub(r' width="[^"]*pt"| height="[^"]*pt"', "", svg).replace("<svg ", opening, 1))
