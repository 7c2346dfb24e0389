"""Build entities/lexicon.tsv and vocabulary/medications.tsv from public lists and the hand-written tables here.

python lexicons/build.py ../shared/data/lexicons      # a folder with icd10cm_tabular_codes.csv.gz and atc_coding.csv.gz

Where two sources give the same words, the hand-written concept comes first, then medications, then ICD-10-CM titles.
README.md says where the lists come from and which licences they have.
"""

import argparse
import csv
import gzip
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from einthoven.entities.lexicon import MAX_WORDS, Term, write
from einthoven.entities.words import folded, split
from einthoven.vocabulary import medications as drug_table

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "src" / "einthoven"
TARGET = PACKAGE / "entities" / "lexicon.tsv"
DRUGS = PACKAGE / "vocabulary" / "medications.tsv"
LANGUAGES = {"english": "en", "german": "de", "swedish": "sv"}


CHAPTERS = "ABCDEFGHIJKLMNQR"
"""Diseases, malformations, symptoms. Injuries, causes, obstetrics and contacts with services are concepts by hand."""
FINDING_CHAPTERS = tuple(f"R{n}" for n in range(70, 95))
QUALIFIER = re.compile(
    r",? (?:unspecified(?: (?:organism|site|cause|type|eye|ear|side|lower limb|upper limb|extremity|severity|trimester|"
    r"state|stage|form|degree|joint|foot|knee|hip|ankle|hand|shoulder|wrist|elbow|lower leg|leg|arm|region))?|"
    r"not elsewhere classified|not otherwise specified|nos|nec|so stated|initial encounter)(?=$|,)",
    re.IGNORECASE,
)
BRACKETS = re.compile(r"\s*[(\[][^()\[\]]*[)\]]")
USELESS = re.compile(
    r"\b(?:other|unspecified|specified|elsewhere|without|due to|in diseases|in conditions|classified|complicating|"
    r"affecting|following|resulting|associated with|right|left|bilateral|multiple sites|encounter|status|history|"
    r"induced|causing|caused|as the cause|and other|external|certain|disorders? of|conditions? of|findings? of|"
    r"abnormal (?:findings|results|level)|involving|symptoms and signs|use|nontraffic|intractable)\b|\d{2}",
    re.IGNORECASE,
)
PHRASE = re.compile(r"^(?:in|with|of|at|on|not) | and ")
DANGLING = re.compile(r"\b(?:of|in|with|by|to|at|on|and|for|the|from)$")


def tsv(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def rows(path: Path) -> list[dict[str, str]]:
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def concepts() -> Iterator[Term]:
    """The hand-written table, with <site>, <part>, <organ> and <image> replaced by each of their values."""
    sites = tsv("sites.tsv")
    for concept in tsv("concepts.tsv"):
        for site in sites if "<site>" in concept["preferred"] else [None]:
            yield from _concept(concept, site)


def _concept(concept: dict[str, str], site: dict[str, str] | None) -> Iterator[Term]:
    preferred, label, code = concept["preferred"], concept["label"], concept["code"]
    said = {language: [t for t in concept[language].split("|") if t] for language in LANGUAGES}
    said["english"].insert(0, preferred)
    if site is not None:
        preferred = preferred.replace("<site>", site["english"])
        kind = re.search(r"<(\w+)>", code)
        filled = site[kind[1]] if kind else ""
        code = f"SCP//{filled}" if filled else ""
        said = {language: [t.replace("<site>", site[language]) for t in terms] for language, terms in said.items()}
    for language, terms in said.items():
        for term in terms:
            for word, meaning in _expanded(term, preferred):
                yield Term(word, meaning, label, code or None, LANGUAGES[language], exact=False)
    for term in filter(None, concept["exact"].split("|")):
        yield Term(term, preferred, label, code or None, "en", exact=True)


def _expanded(term: str, preferred: str) -> Iterator[tuple[str, str]]:
    """A term and its preferred form, for each value of the first placeholder of both."""
    values = {f"<{row['name']}>": row["values"].split("|") for row in tsv("values.tsv")}
    name = next((name for name in values if name in term or name in preferred), None)
    if name is None:
        yield term, preferred
        return
    for value in values[name]:
        yield from _expanded(term.replace(name, value), preferred.replace(name, value))


def substances(path: Path) -> dict[str, str]:
    """ATC names of single substances -> their code."""
    codes: dict[str, str] = {}
    for row in sorted(rows(path), key=lambda row: _systemic(row["atc_code"])):
        name = BRACKETS.sub("", row["atc_name"]).strip().casefold()
        if len(row["atc_code"]) == 7 and len(name) > 3 and not re.search(r"\band\b|combinations|,|\bother\b", name):
            codes.setdefault(name, row["atc_code"])
    return codes


def medications(path: Path) -> Iterator[Term]:
    """ATC names of substances, and the brands and synonyms written by hand."""
    codes = substances(path)
    for name, code in codes.items():
        yield Term(name, name, "medication", f"ATC//{code}", "en", exact=False)
    for row in tsv("brands.tsv"):
        for brand in (row["generic"], *filter(None, row["brands"].split("|"))):
            code = codes.get(row["generic"])
            yield Term(brand, row["generic"], "medication", code and f"ATC//{code}", "en", exact=False)


def drugs(path: Path) -> Iterator[tuple[str, str, str]]:
    """Rows of medications.tsv: of drugs.tsv, brands.tsv, then the ATC; the first to have a name keeps it."""
    codes = substances(path)
    said: dict[str, str] = {}
    classes: dict[str, str] = {}
    listed = [(row["ingredient"], row["names"], row["class"]) for row in tsv("drugs.tsv")]
    listed += [(row["generic"], row["brands"], "") for row in tsv("brands.tsv")]
    for named, names, group in (*listed, *((name, "", "") for name in codes)):
        singles = (said.get(drug_table.key(one), one) for one in re.split(r" and | \+ |/", named))
        ingredient = drug_table.AND.join(sorted(singles))
        alike = [named, *filter(None, names.split("|"))]
        for name in alike:
            if drug_table.AND not in name:
                said.setdefault(drug_table.key(name), ingredient)
        group = group or next((codes[name] for name in alike if name in codes), "")
        if group:
            classes.setdefault(ingredient, group)
    for name in codes:  # "dabigatran" of dabigatran etexilate, where it is nobody else's name
        short = drug_table.key(name).split(" ")
        if len(short) == 2 and len(short[0]) > 6 and ESTERS.fullmatch(short[1]):
            said.setdefault(short[0], said[drug_table.key(name)])
    return ((name, ingredient, classes.get(ingredient, "")) for name, ingredient in sorted(said.items()))


ESTERS = re.compile(
    r"acetate|acetonide|axetil|bromide|cilexetil|citrate|disoproxil|etexilate|fumarate|hydrochloride|maleate|medoxomil|"
    r"mesilate|nitrate|phosphate|pivoxil|propionate|proxetil|sodium|succinate|sulfate|tartrate|xinafoate"
)


def _systemic(code: str) -> tuple[int, str]:
    """Of several ATC codes of a substance the first that is swallowed or injected."""
    return ("CBNJRLHGMPVADS".find(code[0]) if not code.startswith(("A01", "C05")) else 99), code


def titles(path: Path) -> Iterator[Term]:
    """ICD-10-CM titles and inclusion terms in the words in which they may be said; shorter codes first."""
    import simple_icd_10_cm as icd

    for row in sorted(rows(path), key=lambda row: (len(row["code"]), row["code"])):
        code = row["code"]
        if code[0] not in CHAPTERS or "-" in code:
            continue
        label = "disease" if code[0] != "R" else "finding" if code.startswith(FINDING_CHAPTERS) else "symptom"
        included = icd.get_inclusion_term(code) if icd.is_valid_item(code) else []
        preferred = None
        for title in (row["description"], *included):
            for said in variants(title):
                preferred = preferred or said
                name = preferred if title == row["description"] else said
                yield Term(said, name, label, f"ICD//10//{code.replace('.', '')}", "en", exact=False)


def variants(title: str) -> list[str]:
    """The ways in which a title may be said: none if it only classifies.

    "Pneumonia, unspecified organism" -> pneumonia; "Essential (primary) hypertension" -> essential hypertension;
    "Hypothyroidism, congenital" -> congenital hypothyroidism; "Cramp and spasm" -> cramp and spasm, cramp, spasm.
    """
    plain = QUALIFIER.sub("", BRACKETS.sub("", re.sub(r"^Unspecified ", "", title))).strip(" ,;").casefold()
    plain = re.sub(r"\s+", " ", plain)
    if USELESS.search(plain):
        return []
    found = [plain]
    head, comma, tail = plain.partition(", ")
    if (
        comma
        and "," not in tail
        and len(tail.split()) <= 2
        and not re.search(r"^(?:in|with|of|at|on|not) | and ", tail)
    ):
        found = [f"{tail} {head}"]
    elif comma:
        return []
    both = re.fullmatch(r"(\w{5,}) and (\w{5,})", plain)
    found += [both[1], both[2]] if both else []
    return [said for said in found if len(said) > 3 and len(said.split()) <= 5 and not DANGLING.search(said)]


def merged(terms: Iterable[Term]) -> list[Term]:
    """The first term of each key, without those that no note would say."""
    first: dict[tuple[bool, tuple[str, ...]], Term] = {}
    for term in terms:
        if len(split(term.term).words) <= MAX_WORDS:
            first.setdefault((term.exact, term.key), term)
    dropped = (HERE / "dropped.txt").read_text(encoding="utf-8").split("\n")
    keys = {folded(term) for term in dropped}
    return [term for term in first.values() if term.exact or term.key not in keys]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lists", type=Path, help="folder of icd10cm_tabular_codes.csv.gz and atc_coding.csv.gz")
    parser.add_argument("--out", type=Path, default=TARGET)
    parser.add_argument("--drugs", type=Path, default=DRUGS)
    arguments = parser.parse_args()
    atc = arguments.lists / "atc_coding.csv.gz"
    drug_table.write(arguments.drugs, drugs(atc))
    terms = merged([*concepts(), *medications(atc), *titles(arguments.lists / "icd10cm_tabular_codes.csv.gz")])
    write(arguments.out, terms)
    print(f"{len(terms)} terms, {arguments.out.stat().st_size / 1e6:.2f} MB", file=sys.stderr)


if __name__ == "__main__":
    main()
