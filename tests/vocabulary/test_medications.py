"""Names of drugs: hand-checked cases, the tables, and the names of the shared data."""

import csv
import gzip
from collections import Counter
from pathlib import Path

import pytest

from einthoven.errors import EinthovenError
from einthoven.vocabulary.medications import AND, load, read, shipped

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Metoprolol Succinate XL 50 mg Tab", "metoprolol"),
        ("HYDROmorphone (Dilaudid)", "hydromorphone"),
        ("Toprol-XL", "metoprolol"),
        ("0.9% Sodium Chloride (Mini Bag Plus)", "sodium chloride"),
        ("Potassium Chl 20 mEq / 1000 mL D5 1/2 NS", "glucose + potassium chloride + sodium chloride"),
        ("Warfarin Sodium 5 MG Oral Tablet", "warfarin"),
        ("Magnesium Sulfate", "magnesium sulfate"),
        ("Syringe (0.9% Sodium Chloride)", "sodium chloride"),
        ("Acetaminophen 300 MG / HYDROcodone Bitartrate 5 MG [Vicodin]", "acetaminophen + hydrocodone"),
        ("Vicodin", "acetaminophen + hydrocodone"),
        ("Amoxicillin-Clavulanic Acid", "amoxicillin + clavulanic acid"),
        ("Augmentin", "amoxicillin + clavulanic acid"),
        ("Fluticasone-Salmeterol Diskus (100/50)", "fluticasone + salmeterol"),
        ("Aspirin EC 81mg", "aspirin"),
        ("Vitamin B 12 5 MG/ML Injectable Solution", "cyanocobalamin"),
        ("{28 (Norethindrone 0.35 MG Oral Tablet) } Pack [Camila 28 Day]", "norethisterone"),
        ("PHENObarbital Alcohol Withdrawal Dose Taper (Days 2-7)", "phenobarbital"),
        ("insulin human, isophane 70 UNT/ML / Regular Insulin, Human 30 UNT/ML", "insulin"),
        ("Xyzabumab 5 mg/mL Inj", "xyzabumab"),
        ("Xyzabumab 5 mg / Metoprolol 5 mg", "metoprolol + xyzabumab"),
        ("Vial", "vial"),
        ("Potassium", "potassium"),
        ("", ""),
    ],
)
def test_names(name: str, expected: str) -> None:
    assert shipped().ingredient(name) == expected


def test_every_ingredient_is_its_own_name() -> None:
    drugs = shipped()
    singles = {single for one in drugs.names.values() for single in one.split(AND)}
    assert {single for single in singles if drugs.ingredient(single) != single} == set()
    assert len(drugs.names) > 4000 and sum(one in drugs.classes for one in singles) / len(singles) > 0.98


def write(folder: Path, *rows: str) -> Path:
    path = folder / "own.tsv"
    path.write_text("\n".join(("name\tingredient\tclass", *rows)) + "\n", encoding="utf-8")
    return path


def test_a_users_table_overrules(tmp_path: Path) -> None:
    rows = (
        "Wonder Pill\tmetoprolol\t",
        "Combo\tb + A\tours",
        "acetaminophen\tparacetamol\t",
        "warfarin\twarfarin\tmine",
    )
    drugs = load(str(write(tmp_path, *rows)))
    assert drugs.ingredient("WONDER PILL 5 mg") == "metoprolol" and drugs.classes["metoprolol"] == "C07AB02"
    assert drugs.ingredient("combo tab") == "a + b" and drugs.classes["a + b"] == "ours"
    assert drugs.ingredient("Tylenol") == "paracetamol" and drugs.classes["paracetamol"] == "N02BE01"
    assert drugs.ingredient("Percocet") == "oxycodone + paracetamol"
    assert drugs.classes["warfarin"] == "mine"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["x\ty"], "row 2: 2 cells; expected 3"),
        (["\ty\t"], "row 2: column 'name'"),
        (["-\ty\t"], "row 2: column 'name'"),
        (["x\t\t"], "row 2: column 'ingredient'"),
        (["x\ty\t", "X\tz\t"], "row 3: column 'name'"),
        (["x\ty\ta", "z\ty\tb"], "row 3: column 'class'"),
        (["x\ty\t", "y\tz\t"], "y is also the name of another"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, rows: list[str], said: str) -> None:
    with pytest.raises(EinthovenError, match=r"own\.tsv: ") as caught:
        read(write(tmp_path, *rows))
    assert said in str(caught.value)


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "heading").write_text("a\tb\n")
    for name, said in (("bytes", "not UTF-8"), ("heading", "row 1"), ("none", "No such"), (".", "directory")):
        with pytest.raises(EinthovenError, match=said):
            read(tmp_path / name)


@pytest.mark.parametrize(
    ("file", "column", "distinct", "most", "known"),
    [
        ("mimic-iv-demo-2.2/hosp/prescriptions.csv.gz", "drug", 631, 400, 0.96),
        ("synthea-r4-code-events/events.csv.gz", "display", 124, 99, 1.0),
    ],
)
def test_names_of_the_shared_data(file: str, column: str, distinct: int, most: int, known: float) -> None:
    """Distinct names -> ingredients, and the share of orders whose every ingredient is of the table."""
    if not (DATA / file).exists():
        pytest.skip(f"{DATA / file} is not on this machine")
    with gzip.open(DATA / file, "rt", encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row.get("resource", "MedicationRequest") == "MedicationRequest"]
    names = Counter(row[column] for row in rows)
    drugs = shipped()
    spelled = {name: drugs.ingredient(name) for name in names}
    assert len(names) == distinct and len(set(spelled.values())) <= most
    assert sum(n for name, n in names.items() if drugs.knows(spelled[name])) / names.total() >= known
