"""Names of drugs -> ingredients and classes: "Metoprolol Succinate XL 50 mg Tab" -> metoprolol -> C07AB.

A name is searched for the names of a table, which is shipped (`lexicons/build.py`) and which a user's own overrules.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from einthoven.errors import EinthovenError

COLUMNS: Final = ("name", "ingredient", "class")
MAX_BYTES: Final = 64 << 20
MAX_NAME: Final = 1000  # characters of a name that are looked at
AND: Final = " + "
"""Between the ingredients of a combination, which are in the order of the alphabet."""

ATC: Final = re.compile(r"[A-Z](?:\d\d(?:[A-Z](?:[A-Z](?:\d\d)?)?)?)?")
"""A code of the Anatomical Therapeutic Chemical classification, of any of its five levels."""

_WORD: Final = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_][^\W_]*")
_BRACKETED: Final = re.compile(r"[(\[{][^()\[\]{}]*[)\]}]")
_PARTS: Final = re.compile(r"[/+]")
_NUMBER: Final = re.compile(r"\d+(?:[.,]\d+)*")
_PLURAL: Final = re.compile(r"(?<=[a-z]{4})(?<![siu])s$")

_SALTS: Final = (
    "acetate acetonide anhydrous besylate besilate bitartrate bromide butyrate calcium carbonate chloride citrate "
    "decanoate dihydrate dipropionate disodium edisylate fumarate gluconate glucuronate hcl hyclate hydrobromide "
    "hydrochloride hydrocholoride hydroxide iodide lactate magnesium malate maleate meglumine mesylate mesilate "
    "monohydrate monohyd mononitrate na napsylate nitrate oxide pamoate phosphate polacrilex potassium propionate "
    "salicylate sod sodium stearate succ succinate sulfate sulphate tartrate tosylate trihydrate valerate xinafoate "
    "zinc iron axetil proxetil medoxomil"
)
_FORMS: Final = (
    "ace adult aerosol ampul ampule auto automatic autoinjector bag base bottle buccal buffered bulk cap caplet "
    "capsule capsules cartridge cassette cheweable chewable chew cr cream crystal dental device disintegrating disk "
    "diskus dispersible dose dr drip drop drops drug dry ear ec effervescent elixir emulsion enema enteric coated "
    "extended release delayed immediate sustained controlled modified er film flush foam for fragile frozen fs gel "
    "granules gtt gum hfa im implant infusion ing inhal inhalant inhalation inhaler inh inhaled inj injectable "
    "injection intramuscular intranasal intrauterine intravenous ir iv ivpb irrigation jelly kit la liquid loading "
    "lotion lozenge lozenges mdi metered mini minibag mist mouthwash mucosal nasal neb nebulizer nebulization nf "
    "odt of oil oint ointment once daily oph ophth ophthalmic opth oral os otic pack packet paste patch pca "
    "pen pf piggyback po powder prefilled premix preservative free pr prn pump rectal rectally ring rinse sa sachet "
    "sc sl sliding scale sol soln solution solvent spray sprinkle sprinkles sr sublingual sugar supp supp "
    "supplement supply suppository supps susp suspension swab sustained syr syringe syrup system tab tablet tablets "
    "tabs taper tb the to topical topically transdermal troche tube vag vaginal vaginally vial wafer with without "
    "xl xr xt multivial day days hour hours each per in and or w"
)
_UNITS: Final = (
    "mg mcg ug g gm gram grams kg ng ml l dl cc meq mmol unit units unt iu hr h min actuat actuation mgml mcgml "
    "inert ingredient injector percent million mu puff puffs sq cm nda"
)
_SALT_WORDS: Final = frozenset(_SALTS.split())
_USELESS: Final = _SALT_WORDS | frozenset(_FORMS.split()) | frozenset(_UNITS.split())


@dataclass(frozen=True)
class Medications:
    """A table of medication names. `names` and `classes` are all there is: equal tables name drugs alike."""

    names: Mapping[str, str]  # words of a name, as `key` gives them -> ingredient
    classes: Mapping[str, str]  # ingredient -> ATC code of any level, or any other class
    _longest: int = field(init=False, repr=False, compare=False)
    _substances: Mapping[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_longest", max((name.count(" ") + 1 for name in self.names), default=0))
        substances = {code: one for one, code in sorted(self.classes.items(), reverse=True) if len(code) == 7}
        object.__setattr__(self, "_substances", substances)

    def ingredient(self, name: str) -> str:
        """The ingredient of a drug's name, of a combination "a + b"; an unknown drug's name without dose and form.

        What stands in brackets counts only where the rest names no known drug: there it is a brand, a purpose or a
        route; a pack, "{21 (…) / 7 (…)}", is all that is in it. A name of dose and form alone ("Vial") stays as it
        is, in small letters.
        """
        text = _plain(name)[:MAX_NAME]
        outside = text
        while not outside.startswith("{") and (less := _BRACKETED.sub(" ", outside)) != outside:
            outside = less
        for one, known in ((outside, True), (text, True), (outside, False), (text, False)):
            if found := self._of(one, known):
                return _joined(found)
        return " ".join(text.split())

    def _of(self, text: str, known: bool) -> set[str]:
        """Ingredients of a text. `known`: at least one of the table, else none at all."""
        found: list[str] = []
        rest: list[list[str]] = []
        for part in _PARTS.split(text):
            words = list(_words(part))
            kept = [w for w in words if len(w) > 1 and w not in _USELESS and not _NUMBER.fullmatch(w)]
            names = self._named(words) or self._named(kept)
            found += names
            if not names:
                rest.append(kept)
        if not found:
            return set() if known else {" ".join(words) for words in rest if words}
        found += [words[0] for words in rest if len(words) == 1]  # "/ xyz 5 MG" beside a known one; more are no name
        return set(found)

    def _named(self, words: list[str]) -> list[str]:
        """Ingredients of the table's names among words, the longest first from the left; salts only if alone."""
        found: list[str] = []
        salts: list[str] = []
        place = 0
        while place < len(words):
            for length in range(min(self._longest, len(words) - place), 0, -1):
                name = " ".join(words[place : place + length])
                if name in self.names:
                    (salts if name in _SALT_WORDS else found).append(self.names[name])
                    break
            else:
                length = 1
            place += length
        return found or salts

    def knows(self, ingredient: str) -> bool:
        """Whether each part of an ingredient, as `ingredient` gives it, is a name of the table."""
        return all(key(single) in self.names for single in ingredient.split(AND))

    def of_atc(self, code: str) -> str | None:
        """The ingredient of an ATC code of the fifth level; None: the table names none."""
        return self._substances.get(code)

    def over(self, other: "Medications") -> "Medications":
        """This table where both know a name or an ingredient, `other` elsewhere; it renames ingredients of `other`."""
        renamed = {
            one: _joined(self.names.get(key(single), single) for single in one.split(AND))
            for one in {*other.names.values(), *other.classes}
        }
        classes = {renamed[one]: group for one, group in other.classes.items()}
        names = {name: renamed[one] for name, one in other.names.items()}
        return Medications({**names, **self.names}, {**classes, **self.classes})


def _joined(ingredients: Iterable[str]) -> str:
    """The ingredients as one combination; one of them may be a combination."""
    return AND.join(sorted({single for one in ingredients for single in one.split(AND)}))


def _words(text: str) -> Iterator[str]:
    """Words and numbers in small letters, without plural; "81mg" is two words, "d5w" and "b12" are one."""
    for found in _WORD.finditer(text):
        yield _PLURAL.sub("", found.group())


def key(name: str) -> str:
    """A name as the words that are compared."""
    return " ".join(_words(_plain(name)))


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def read(path: Path) -> Medications:
    """A table as UTF-8 TSV without quotes; the first line names the COLUMNS, in any order; `class` may be empty.

    The ingredient of a combination is "a + b". Class is an ATC code, or any words. EinthovenError names file, row
    (the heading is row 1) and column: a name twice, an ingredient with two classes, an empty cell.
    """
    lines = _lines(path)
    heading = lines[0].split("\t") if lines else []
    if sorted(heading) != sorted(COLUMNS):
        raise EinthovenError(f"{path}: row 1: expected the tab-separated columns {', '.join(COLUMNS)}.")
    names: dict[str, str] = {}
    classes: dict[str, str] = {}
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split("\t")
        if not line.strip():
            continue
        if len(cells) != len(COLUMNS):
            raise EinthovenError(f"{path}: row {number}: {len(cells)} cells; expected {len(COLUMNS)}, tab-separated.")
        name, ingredient, group = (cells[heading.index(column)].strip() for column in COLUMNS)
        _enter(names, classes, (name, ingredient, group), f"{path}: row {number}")
    for single in sorted({single for one in (*names.values(), *classes) for single in one.split(AND)}):
        if names.setdefault(key(single), single) != single:
            raise EinthovenError(f"{path}: column 'ingredient': {single} is also the name of another ingredient.")
    return Medications(names, classes)


def _enter(names: dict[str, str], classes: dict[str, str], row: tuple[str, str, str], where: str) -> None:
    name, group = key(row[0]), row[2]
    parts = re.split(r"[+/]", re.sub(r"[()\[\]{}]", " ", _plain(row[1])))
    ingredient = _joined(" ".join(one.split()) for one in parts if key(one))
    if not name:
        raise EinthovenError(f"{where}: column 'name': expected a name with a letter or a number.")
    if not ingredient:
        raise EinthovenError(f"{where}: column 'ingredient': expected the ingredient, or `a + b`.")
    if names.setdefault(name, ingredient) != ingredient:
        raise EinthovenError(f"{where}: column 'name': the same name has another ingredient above. Keep one.")
    if group and classes.setdefault(ingredient, group) != group:
        raise EinthovenError(f"{where}: column 'class': the ingredient has another class above. Keep one.")


def _lines(path: Path) -> list[str]:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise EinthovenError(f"{path}: larger than {MAX_BYTES >> 20} MB; expected a table of medications as TSV.")
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        said = "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
        raise EinthovenError(f"{path}: {said}; expected a table of medications as a TSV file in UTF-8.") from None


def write(path: Path, rows: Iterable[tuple[str, str, str]]) -> None:
    """Write a table that `read` reads."""
    lines = ["\t".join(COLUMNS), *map("\t".join, rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8", newline="\n")


@cache
def shipped() -> Medications:
    """The table of the package: single substances of the ATC, brands and the spellings of charts."""
    with as_file(files("einthoven.vocabulary") / "medications.tsv") as path:
        return read(path)


def load(own: str | None) -> Medications:
    """The shipped table, overruled by the user's TSV if there is one."""
    return shipped() if own is None else read(Path(own)).over(shipped())
