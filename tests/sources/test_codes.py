"""Codes of all sources meet in one vocabulary, with their categories; persons' events follow one rule."""

from pathlib import Path

import ibis
import pyarrow as pa
import pytest

from einthoven import schema
from einthoven.config import CODE_KINDS
from einthoven.sources.codes import VOCABULARIES, category, person_events, vocabulary, write_codes, written
from einthoven.study import read_table


@pytest.mark.parametrize(
    ("code", "expected", "above"),
    [
        ("DIAGNOSIS//ICD//10//i48.91", "DIAGNOSIS//ICD//10//I4891", "DIAGNOSIS//ICD//10//I48"),
        ("DIAGNOSIS//ICD//10//I10", "DIAGNOSIS//ICD//10//I10", None),
        ("DIAGNOSIS//ICD//9//427.31", "DIAGNOSIS//ICD//9//42731", "DIAGNOSIS//ICD//9//427"),
        ("DIAGNOSIS//ICD//9//E885.9", "DIAGNOSIS//ICD//9//E8859", "DIAGNOSIS//ICD//9//E885"),
        ("DIAGNOSIS//ICD//9//E885", "DIAGNOSIS//ICD//9//E885", None),
        ("DIAGNOSIS//ICD//10//E88.59", "DIAGNOSIS//ICD//10//E8859", "DIAGNOSIS//ICD//10//E88"),
        ("PROCEDURE//ICD//9//54.91", "PROCEDURE//ICD//9//5491", "PROCEDURE//ICD//9//54"),
        ("PROCEDURE//ICD//10//0W9G3ZZ", "PROCEDURE//ICD//10//0W9G3ZZ", "PROCEDURE//ICD//10//0W9"),
        ("PROCEDURE//HCPCS//G0378", "HCPCS//G0378", None),
        ("PROCEDURE//HCPCS//93000", "PROCEDURE//CPT//93000", None),
        ("PROCEDURE//HCPCS//0042T", "PROCEDURE//CPT//0042T", None),
        ("PROCEDURE//HCPCS//1036F", "PROCEDURE//CPT//1036F", None),
        ("PROCEDURE//CPT//93000", "PROCEDURE//CPT//93000", None),
        ("MEDICATION//START//HCPCS//J0171", "MEDICATION//START//HCPCS//J0171", None),
        ("ICD//10//I48.0", "ICD//10//I480", None),  # of a mention, which has no kind
        ("DIAGNOSIS//SOURCE//K92.2", "DIAGNOSIS//SOURCE//K92.2", None),
        ("MEDICATION//START//NDC//0006-0019-58", "MEDICATION//START//NDC//0006-0019-58", None),
        ("DIAGNOSIS//ours.example/icd//x.1", "DIAGNOSIS//ours.example/icd//x.1", None),
    ],
)
def test_codes_are_written_in_one_way(code: str, expected: str, above: str | None) -> None:
    found = written(ibis.literal(code))
    assert found.to_pyarrow().as_py() == expected and written(found).to_pyarrow().as_py() == expected
    assert category(found).to_pyarrow().as_py() == above


def test_vocabularies_of_omop_and_fhir_meet() -> None:
    for omop, fhir in {
        "ICD10CM": "http://hl7.org/fhir/sid/icd-10-cm",
        "ICD10GM": "http://fhir.de/CodeSystem/bfarm/icd-10-gm",
        "ICD9Proc": "urn:oid:2.16.840.1.113883.6.104",
        "CPT4": "http://www.ama-assn.org/go/cpt",
    }.items():
        assert VOCABULARIES[omop] == vocabulary(fhir) is not None
    for same in ("SNOMED", "RxNorm", "ATC", "NDC", "HCPCS", "LOINC"):  # OMOP's names are ours
        assert same not in VOCABULARIES and same in VOCABULARIES.values()


def test_procedures_of_every_source_are_procedures_by_default() -> None:
    for code in ("PROCEDURE//CPT//93000", "HCPCS//G0378", "PROCEDURE//ICD//9//5491"):
        assert any(ibis.literal(code).like(p.replace("*", "%")).to_pyarrow().as_py() for p in CODE_KINDS["procedure"])


def test_the_events_of_persons() -> None:
    words = ["F", "male", "Other", "ambiguous", "unknown", "U", None]
    people = pa.table({"subject_id": range(7), "gender": words, "death": pa.nulls(7, pa.timestamp("us"))})
    genders, deaths = person_events(ibis.memtable(people))
    assert genders.columns == tuple(schema.EVENTS.columns.names) == deaths.columns
    found = genders.order_by("subject_id").to_pyarrow().to_pylist()
    assert [row["code"] for row in found] == [
        f"GENDER//{word}" for word in ("F", "M", "OTHER", "OTHER", "UNKNOWN", "UNKNOWN")
    ]
    assert {row["time"] for row in found} == {None} and deaths.count().to_pyarrow().as_py() == 0


def test_the_first_table_names_a_code(tmp_path: Path) -> None:
    events = ibis.memtable(pa.table({"code": ["DIAGNOSIS//ICD//10//I4891", "GENDER//F", "DIAGNOSIS//ICD//10//I4891"]}))
    own = {"code": ["DIAGNOSIS//ICD//10//I4891"] * 2, "description": ["b", "a"]}
    others = {"code": ["DIAGNOSIS//ICD//10//I4891", "DIAGNOSIS//ICD//10//I48", "x"], "description": ["0", "AF", "x"]}
    assert write_codes(tmp_path, events, [ibis.memtable(pa.table(own)), ibis.memtable(pa.table(others))]) == 3
    assert read_table(schema.CODES, tmp_path).to_pylist() == [
        {"code": "DIAGNOSIS//ICD//10//I48", "description": "AF", "parent_codes": []},
        {"code": "DIAGNOSIS//ICD//10//I4891", "description": "a", "parent_codes": ["DIAGNOSIS//ICD//10//I48"]},
        {"code": "GENDER//F", "description": None, "parent_codes": []},
    ]
