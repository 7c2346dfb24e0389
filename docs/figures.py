"""Draw the figures of docs/method.md: python docs/figures.py writes docs/figures/; a test holds them up to date."""

from html import escape
from pathlib import Path

FOLDER = Path(__file__).parent / "figures"
INK, PAPER, LINE = "#1f2933", "#ffffff", "#7b8794"
ECG, CODES, TEXT, PLAIN = "#fde2e1", "#e0ecf8", "#e3f1df", "#f0f2f4"
"""Fills: one colour for each modality, everywhere."""


class Drawing:
    """Boxes, arrows and words on a white sheet; one unit is one pixel."""

    def __init__(self, width: int, height: int, said: str) -> None:
        self.width, self.height, self.said, self.parts = width, height, said, [""]

    def box(self, x: int, y: int, w: int, h: int, *lines: str, fill: str = PLAIN) -> None:
        self.parts.append(
            f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="{fill}" stroke="{LINE}" stroke-width="1"/>'
        )
        for number, line in enumerate(lines):
            self.word(x + w // 2, y + h // 2 + 5 + round(18 * (number - (len(lines) - 1) / 2)), line)

    def word(self, x: int, y: int, text: str, size: int = 14, anchor: str = "middle", weight: str = "normal") -> None:
        self.parts.append(
            f'<text x="{x}" y="{y}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}" '
            f'fill="{INK}">{escape(text)}</text>'
        )

    def arrow(self, x1: int, y1: int, x2: int, y2: int) -> None:
        self.parts.append(f'<path d="M{x1} {y1}L{x2} {y2}" stroke="{INK}" stroke-width="1.5" marker-end="url(#tip)"/>')

    def bar(self, x1: int, x2: int, y: int, fill: str) -> None:
        self.parts.append(
            f'<rect x="{x1}" y="{y}" width="{x2 - x1}" height="30" rx="4" fill="{fill}" stroke="{LINE}"/>'
        )

    def svg(self) -> str:
        tip = (
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
            f'orient="auto-start-reverse"><path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>'
        )
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" role="img" '
            f'font-family="sans-serif"><title>{escape(self.said)}</title>{tip}'
            f'<rect width="{self.width}" height="{self.height}" rx="8" fill="{PAPER}"/>'
            + "\n".join(self.parts)
            + "</svg>\n"
        )


def flow() -> Drawing:
    """How data flow: one way, through tables."""
    drawn = Drawing(920, 250, "Sources become tables, tables pairs; pairs train a model, which embeds recordings")
    for number, name in enumerate(("PTB-XL, Challenges", "MIMIC-IV", "MEDS, OMOP, FHIR")):
        drawn.box(15, 40 + 60 * number, 150, 44, name)
        drawn.arrow(165, 62 + 60 * number, 203, 62 + 60 * number)
    drawn.box(205, 40, 150, 44, "recordings, signals", fill=ECG)
    drawn.box(205, 100, 150, 44, "events, codes", fill=CODES)
    drawn.box(205, 160, 150, 44, "notes, terms", fill=TEXT)
    for number in range(3):
        drawn.arrow(355, 62 + 60 * number, 403, 115 + 7 * number)
    drawn.box(405, 95, 90, 54, "pairs")
    drawn.arrow(495, 122, 533, 122)
    drawn.box(535, 95, 90, 54, "training")
    drawn.arrow(625, 122, 663, 122)
    drawn.box(665, 95, 90, 54, "model")
    for number, name in enumerate(("search", "evaluation", "fine-tuning")):
        drawn.box(793, 40 + 60 * number, 112, 44, name)
        drawn.arrow(755, 115 + 7 * number, 791, 62 + 60 * number)
    for x, name in ((90, "sources"), (280, "a study: tables on disk"), (450, "windows"), (710, "a directory")):
        drawn.word(x, 24, name, 13, weight="bold")
    drawn.word(460, 236, "tables to the left of training, tensors to its right; nothing flows back", 13)
    return drawn


def spaces() -> Drawing:
    """The three arrangements of spaces."""
    drawn = Drawing(920, 330, "Fine and coarse, disjoint, and shared spaces of ECG, codes and text")
    for left, name in ((20, "fine and coarse (FAC)"), (330, "disjoint"), (640, "shared")):
        drawn.word(left + 130, 26, name, 15, weight="bold")
        for place, (what, fill) in enumerate((("codes", CODES), ("ECG", ECG), ("text", TEXT))):
            drawn.box(left + 90 * place, 262, 80, 40, what, fill=fill)
    drawn.box(20, 150, 170, 46, "fine: codes ↔ ECG")
    drawn.box(110, 56, 170, 46, "coarse: ↔ text")
    drawn.arrow(60, 262, 60, 198)
    drawn.arrow(150, 262, 150, 198)
    drawn.arrow(150, 150, 165, 104)
    drawn.word(78, 128, "one common head", 12)
    drawn.arrow(240, 262, 240, 104)
    drawn.box(330, 150, 125, 46, "codes ↔ ECG")
    drawn.box(475, 150, 125, 46, "ECG ↔ text")
    drawn.arrow(370, 262, 370, 198)
    drawn.arrow(450, 262, 430, 198)
    drawn.arrow(470, 262, 500, 198)
    drawn.arrow(550, 262, 550, 198)
    drawn.box(640, 150, 260, 46, "codes ↔ ECG ↔ text")
    for place in range(3):
        drawn.arrow(680 + 90 * place, 262, 680 + 90 * place, 198)
    drawn.word(465, 128, "codes have no way to text", 12)
    drawn.word(770, 128, "one space for all", 12)
    return drawn


def windows() -> Drawing:
    """What of a chart belongs to one ECG."""
    drawn = Drawing(920, 230, "Windows around an ECG: codes and terms within 365 days, reports within 30 days")
    middle, year, month = 460, 380, 60
    bars = ((year, CODES, "codes in time order"), (year, TEXT, "clinical terms, each once"), (month, TEXT, "reports"))
    for number, (days, fill, name) in enumerate(bars):
        drawn.bar(middle - days, middle + days, 60 + 40 * number, fill)
        drawn.word(middle - 76, 80 + 40 * number, name, anchor="end")
    drawn.arrow(60, 192, 862, 192)
    drawn.word(876, 197, "time", 13, "start")
    drawn.parts.append(f'<path d="M{middle} 44V200" stroke="#c0392b" stroke-width="2"/>')
    drawn.word(middle, 36, "the ECG", 14, weight="bold")
    for days, x in ((-365, middle - year), (-30, middle - month), (30, middle + month), (365, middle + year)):
        drawn.word(x, 214, f"{days:+d} d".replace("-", "−"), 12)
    return drawn


def all_figures() -> dict[str, str]:
    return {f"{make.__name__}.svg": make().svg() for make in (flow, spaces, windows)}


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in all_figures().items():
        (FOLDER / name).write_text(svg, encoding="utf-8")
