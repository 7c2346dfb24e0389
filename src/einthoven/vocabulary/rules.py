"""All that decides how a code is spelled and what stands for it: the tables that a vocabulary is stored with."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import pyarrow as pa

from einthoven import config
from einthoven.vocabulary import icd9, medications
from einthoven.vocabulary.codes import MEDICATION, STOP, canonical, chain, wider
from einthoven.vocabulary.medications import Medications

VERSION: Final = 1
"""Of the rules in codes.py, icd9.py and medications.py: to be raised when one of them tells a code otherwise."""


@dataclass(frozen=True)
class Rules:
    """Spelling and back-off. Equal rules tell every code alike, whatever tables the package ships by then."""

    medications: Medications = field(default_factory=medications.shipped)
    parents: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of codes that do not tell their own
    ingredients: Mapping[str, str] = field(default_factory=dict)  # "MEDICATION//RxNorm//866924" -> "metoprolol"
    icd9: Mapping[str, str] = field(default_factory=dict)  # ICD-9-CM -> ICD-10-CM; empty: left as they are

    def canonical(self, code: str) -> str:
        """The one spelling of a code."""
        code = icd9.as_icd10(canonical(code, self.medications), self.icd9)
        named = self.ingredients.get(code)
        return code if named is None else f"{_prefix(code)}{named}"

    def chain(self, code: str) -> tuple[tuple[str, str], ...]:
        """The wider codes of a canonical one, nearest first, and what each is (codes.wider, or "parent")."""
        return chain(code, self.parents, self.medications)

    def as_json(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "names": dict(self.medications.names),
            "classes": dict(self.medications.classes),
            "parents": {code: list(above) for code, above in self.parents.items()},
            "ingredients": dict(self.ingredients),
            "icd9": dict(self.icd9),
        }


def _prefix(code: str) -> str:
    stopped = f"{MEDICATION}//{STOP}//"
    return stopped if code.startswith(stopped) else f"{MEDICATION}//"


def rules_of(settings: config.Vocabulary, codes: pa.Table | None = None) -> Rules:
    """The rules of a recipe and of a study's CODES (schema.CODES; None: none).

    From CODES come parents, of codes such as SNOMED's, and the names of coded medications. EinthovenError: a table
    that the recipe names is not there or is wrong.
    """
    drugs = medications.load(settings.medications)
    older = icd9.load(settings.icd9_table) if settings.icd9_as_icd10 else {}
    rows = [] if codes is None else codes.select(["code", "description", "parent_codes"]).to_pylist()
    ingredients = _ingredients(rows, drugs)
    plain = Rules(drugs, {}, ingredients, older)
    parents: dict[str, tuple[str, ...]] = {}
    for row in sorted(rows, key=lambda row: str(row["code"])):
        code = plain.canonical(row["code"])
        above = tuple(dict.fromkeys(plain.canonical(parent) for parent in row["parent_codes"] or ()))
        if above and above != (code,) and wider(code, drugs) is None:
            parents.setdefault(code, above)
    return Rules(drugs, parents, ingredients, older)


def _ingredients(rows: Iterable[Mapping[str, Any]], drugs: Medications) -> dict[str, str]:
    """Canonical codes of medications with a description -> the ingredient that it names, if it names a known one."""
    found: dict[str, str] = {}
    for row in rows:
        code = canonical(row["code"], drugs)
        if row["description"] and code.startswith(f"{MEDICATION}//") and code.count("//") > 1:
            named = drugs.ingredient(row["description"])
            if drugs.knows(named):
                found[code] = min(named, found.get(code, named))
    return found
