"""The lexicon: which terms are looked for in notes, as a TSV that is shipped and that a user extends or replaces."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from einthoven import schema
from einthoven.config import Entities
from einthoven.entities.words import folded, split
from einthoven.errors import EinthovenError

COLUMNS: Final = ("term", "preferred", "label", "code", "language", "case")
EXACT: Final = "exact"
MAX_WORDS: Final = 12
MAX_BYTES: Final = 256 << 20


@dataclass(frozen=True, slots=True)
class Term:
    """One line of a lexicon."""

    term: str  # as notes say it
    preferred: str  # as the entity concatenation says it
    label: str  # one of ENTITY_LABELS
    code: str | None  # "ICD//10//I48", "SCP//AFIB", "ATC//B01AA03"
    language: str  # two letters
    exact: bool  # only in this spelling, case included: "MS", "PE"

    @property
    def key(self) -> tuple[str, ...]:
        """What two terms that match the same words share."""
        return tuple(split(self.term).words) if self.exact else folded(self.term)


def load(config: Entities) -> list[Term]:
    """The shipped lexicon, extended or replaced by the user's; where both have a term, the user's holds."""
    own = [] if config.lexicon is None else read(Path(config.lexicon))
    if config.replace:
        if not own:
            raise EinthovenError("entities: `replace` needs a `lexicon` with at least one term.")
        return own
    terms = {(term.exact, term.key): term for term in (*read_shipped(), *own)}
    return list(terms.values())


def read_shipped() -> list[Term]:
    """The lexicon of the package, built by `lexicons/build.py`."""
    with as_file(files("einthoven.entities") / "lexicon.tsv") as path:
        return read(path)


def read(path: Path) -> list[Term]:
    """Read a lexicon: UTF-8, tab-separated, without quotes; the first line names the COLUMNS, in any order.

    `code` and `case` may be empty; `case` is empty or "exact". EinthovenError names file, row (the heading is row 1)
    and column of what is wrong. A term that stands twice is an error, since one of its two meanings would be lost.
    """
    lines = _lines(path)
    heading = lines[0].split("\t") if lines else []
    if sorted(heading) != sorted(COLUMNS):
        raise EinthovenError(f"{path}: row 1: expected the tab-separated columns {', '.join(COLUMNS)}.")
    places = [heading.index(column) for column in COLUMNS]
    terms: list[Term] = []
    rows: dict[tuple[bool, tuple[str, ...]], int] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if len(cells) != len(COLUMNS):
            raise EinthovenError(f"{path}: row {number}: {len(cells)} cells; expected {len(COLUMNS)}, tab-separated.")
        term = _term([cells[place].strip() for place in places], f"{path}: row {number}")
        first = rows.setdefault((term.exact, term.key), number)
        if first != number:
            raise EinthovenError(
                f"{path}: row {number}: column 'term': matches the same words as row {first}. Keep one."
            )
        terms.append(term)
    return terms


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EinthovenError(f"{path}: larger than {MAX_BYTES >> 20} MB; expected a lexicon as a TSV file.")
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise EinthovenError(f"{path}: {said}; expected a lexicon as a TSV file in UTF-8.") from None


def _term(cells: list[str], where: str) -> Term:
    term, preferred, label, code, language, case = cells
    if not term or not 1 <= len(split(term).words) <= MAX_WORDS or not any(map(str.isalpha, term)):
        raise EinthovenError(f"{where}: column 'term': expected 1 to {MAX_WORDS} words with a letter among them.")
    if not preferred:
        raise EinthovenError(f"{where}: column 'preferred': empty; expected the words that stand for the term.")
    if label not in schema.ENTITY_LABELS:
        raise EinthovenError(f"{where}: column 'label': expected one of {', '.join(schema.ENTITY_LABELS)}.")
    if not (len(language) == 2 and language.isalpha() and language.islower()):
        raise EinthovenError(f"{where}: column 'language': expected two small letters such as en, de, sv.")
    if case not in ("", EXACT):
        raise EinthovenError(f"{where}: column 'case': expected nothing or {EXACT!r}.")
    return Term(term, preferred, label, code or None, language, case == EXACT)


def write(path: Path, terms: Iterable[Term]) -> None:
    """Write a lexicon that `read` reads, by term."""
    ordered = sorted(terms, key=lambda term: (term.term.casefold(), term.exact))
    rows = ((t.term, t.preferred, t.label, t.code or "", t.language, EXACT if t.exact else "") for t in ordered)
    text = "\n".join("\t".join(row) for row in (COLUMNS, *rows)) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
