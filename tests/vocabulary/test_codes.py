"""Spellings and back-off of codes, by hand-worked cases and properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.vocabulary.codes import ancestors, canonical, kind_of, wider


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("DIAGNOSIS//ICD//10//I4891", "DIAGNOSIS//ICD//10//I4891"),
        ("ICD10CM/I48.91", "DIAGNOSIS//ICD//10//I4891"),
        ("ICD//10//I48.91", "DIAGNOSIS//ICD//10//I4891"),
        ("DIAGNOSIS//ICD-10-CM// i48.91 ", "DIAGNOSIS//ICD//10//I4891"),
        ("ICD9CM/427.31", "DIAGNOSIS//ICD//9//42731"),
        ("ICD9Proc/37.22", "PROCEDURE//ICD//9//3722"),
        ("PROCEDURE//ICD//9//3722", "PROCEDURE//ICD//9//3722"),
        ("ICD10PCS/02703dz", "PROCEDURE//ICD//10//02703DZ"),
        ("HCPCS//93000", "PROCEDURE//CPT//93000"),
        ("CPT4/93000", "PROCEDURE//CPT//93000"),
        ("PROCEDURE//CPT4//93000", "PROCEDURE//CPT//93000"),
        ("HCPCS//g0378", "PROCEDURE//HCPCS//G0378"),
        ("PROCEDURE//START//225402", "PROCEDURE//225402"),
        ("PROCEDURE//END//225402", "PROCEDURE//END//225402"),
        ("MEDICATION//START//Metoprolol Succinate XL 50 mg Tab", "MEDICATION//metoprolol"),
        ("MEDICATION//Lopressor", "MEDICATION//metoprolol"),
        ("MEDICATION//STOP//Lopressor", "MEDICATION//STOP//metoprolol"),
        ("MEDICATION//START//SOURCE//Lasix 40mg", "MEDICATION//furosemide"),
        ("MEDICATION//START//SOURCE//1234", "MEDICATION//SOURCE//1234"),
        ("ATC/C07AB02", "MEDICATION//metoprolol"),
        ("ATC//C07AB", "MEDICATION//ATC//C07AB"),
        ("RxNorm/866924", "MEDICATION//RxNorm//866924"),
        ("MEDICATION//START//RxNorm//866924", "MEDICATION//RxNorm//866924"),
        ("DIAGNOSIS//SNOMED//49436004", "DIAGNOSIS//SNOMED//49436004"),
        ("DX//SNOMED//164889003", "DX//SNOMED//164889003"),
        ("SCP//AFIB", "SCP//AFIB"),
        ("a/b", "a/b"),
        ("", ""),
    ],
)
def test_spellings(written: str, expected: str) -> None:
    assert canonical(written) == expected


def test_a_description_names_a_coded_medication() -> None:
    said = "24 HR metoprolol succinate 100 MG Extended Release Oral Tablet [Toprol]"
    assert canonical("RxNorm/866412", description=said) == "MEDICATION//metoprolol"
    assert canonical("ICD10CM/I10", description=said) == "DIAGNOSIS//ICD//10//I10"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("DIAGNOSIS//ICD//10//I4891", "I489 I48 I00-I99"),
        ("DIAGNOSIS//ICD//10//T889XXA", "T889 T88 S00-T88"),
        ("DIAGNOSIS//ICD//10//O9A22", "O9A2 O9A O00-O9A"),
        ("DIAGNOSIS//ICD//10//F001", "F00 F01-F99"),
        ("DIAGNOSIS//ICD//10//W01", "V00-Y99"),
        ("DIAGNOSIS//ICD//10//D50", "D50-D89"),
        ("DIAGNOSIS//ICD//10//D49", "C00-D49"),
        ("DIAGNOSIS//ICD//9//42731", "4273 427 390-459"),
        ("DIAGNOSIS//ICD//9//E8859", "E885 E000-E999"),
        ("DIAGNOSIS//ICD//9//V1582", "V158 V15 V01-V91"),
        ("DIAGNOSIS//ICD//9//0389", "038 001-139"),
        ("PROCEDURE//ICD//9//3722", "372 37 35-39"),
        ("PROCEDURE//ICD//9//0066", "006 00 00-00"),
        ("PROCEDURE//ICD//10//02703DZ", "027 02 0"),
        ("DIAGNOSIS//ICD//10//I00-I99", ""),
        ("DIAGNOSIS//ICD//10//I", ""),
        ("DIAGNOSIS//ICD//9//000", ""),
    ],
)
def test_icd_falls_back_to_category_and_chapter(code: str, expected: str) -> None:
    prefix = code.rpartition("//")[0]
    assert ancestors(code) == tuple(f"{prefix}//{value}" for value in expected.split())


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("PROCEDURE//CPT//93000", "CPT//92920-93799 CPT//90281-99199"),
        ("PROCEDURE//CPT//27235", "CPT//20100-29999 CPT//10004-69990"),
        ("PROCEDURE//CPT//99219", "CPT//99201-99499"),
        ("PROCEDURE//CPT//80048", "CPT//80047-89398"),
        ("PROCEDURE//CPT//0001F", "CPT//F"),
        ("PROCEDURE//HCPCS//G0378", "HCPCS//G"),
        ("PROCEDURE//HCPCS//G", ""),
        ("MEDICATION//metoprolol", "ATC//C07AB ATC//C07A ATC//C07 ATC//C"),
        ("MEDICATION//acetaminophen + codeine", "acetaminophen ATC//N02BE ATC//N02B ATC//N02 ATC//N"),
        ("MEDICATION//no such drug", ""),
        ("MEDICATION//STOP//metoprolol", ""),
        ("SCP//AFIB", ""),
    ],
)
def test_other_codes_fall_back(code: str, expected: str) -> None:
    prefix = code.partition("//")[0]
    assert ancestors(code) == tuple(f"{prefix}//{value}" for value in expected.split())


def test_parents_stand_for_codes_that_tell_none() -> None:
    parents = {
        "SCP//IMI": ("SCP_CLASS//MI", "SCP_SUBCLASS//IMI"),
        "SCP_SUBCLASS//IMI": ("SCP_CLASS//MI",),
        "DIAGNOSIS//SNOMED//49436004": ("DIAGNOSIS//ICD//10//I48",),
        "DIAGNOSIS//ICD//10//I10": ("DIAGNOSIS//ICD//10//Z99",),  # ICD tells its own
        "A": ("B",),
        "B": ("C", "A"),
        "C": ("A",),
    }
    assert ancestors("SCP//IMI", parents) == ("SCP_SUBCLASS//IMI", "SCP_CLASS//MI")
    expected = ("DIAGNOSIS//ICD//10//I48", "DIAGNOSIS//ICD//10//I00-I99")
    assert ancestors("DIAGNOSIS//SNOMED//49436004", parents) == expected
    assert ancestors("DIAGNOSIS//ICD//10//I10", parents) == ("DIAGNOSIS//ICD//10//I00-I99",)
    assert ancestors("A", parents) == ("B", "C")  # a circle ends


def test_kinds() -> None:
    codes = ("DIAGNOSIS//x", "PROCEDURE//x", "MEDICATION//x", "SCP//x", "DX//x", "GENDER//F", "")
    kinds = ["diagnosis", "procedure", "medication", "finding", "finding", "other", "other"]
    assert [kind_of(code) for code in codes] == kinds


systems = ("DIAGNOSIS//ICD//10//", "ICD9Proc/", "HCPCS//", "MEDICATION//START//", "MEDICATION//", "ATC/", "CPT4/", "")
values = st.text("abcXYZ0123 .-/+()[]{}äß%", max_size=25) | st.text(max_size=12)


@given(st.builds(str.__add__, st.sampled_from(systems), values))
def test_any_text_is_a_code_with_one_spelling(code: str) -> None:
    spelled = canonical(code)
    assert canonical(spelled) == spelled
    wide = ancestors(spelled)
    assert spelled not in wide and len(set(wide)) == len(wide)
    assert all(canonical(one) == one for one in wide)
    assert not wide or ((wider(spelled) or ("",))[0] == wide[0] and ancestors(wide[0]) == wide[1:])
