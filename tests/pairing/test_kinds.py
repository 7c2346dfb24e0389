from hypothesis import given
from hypothesis import strategies as st

from einthoven.config import CODE_KINDS, Pairing
from einthoven.pairing.kinds import kinds_of


def judged(codes: list[str], config: Pairing) -> dict[str, tuple[str | None, bool]]:
    found = kinds_of(codes, config)
    kinds = zip(found.kinds.to_pylist(), found.static.to_pylist(), strict=True)
    return dict(zip(found.codes.to_pylist(), kinds, strict=True))


def test_the_first_pattern_that_matches_decides_and_the_ignored_are_of_no_kind() -> None:
    codes = [
        "DIAGNOSIS//ICD//10//I48",
        "MEDICATION//STOP//x",
        "MEDICATION//START//x",
        "LAB//1",
        "GENDER//F",
        "HCPCS//G1",
    ]
    assert judged(codes, Pairing(static_codes=("GENDER//*",))) == {
        "DIAGNOSIS//ICD//10//I48": ("diagnosis", False),
        "GENDER//F": (None, True),
        "HCPCS//G1": ("procedure", False),
        "MEDICATION//START//x": ("medication", False),
    }
    config = Pairing(code_kinds={"heart": ("*//I[2-5]*",), "all": ("*",)})
    assert judged(codes, config)["DIAGNOSIS//ICD//10//I48"] == ("heart", False)
    assert judged(codes, config)["LAB//1"] == ("all", False)


@given(st.lists(st.text(max_size=12)))
def test_ranks_are_the_order_of_the_codes_and_case_counts(codes: list[str]) -> None:
    found = kinds_of(codes, Pairing(code_kinds={**CODE_KINDS, "rest": ("*",)}))
    ranked = found.codes.to_pylist()
    assert ranked == sorted(set(codes) - {c for c in codes if c.startswith("MEDICATION//STOP//")})
    assert not any(
        c.lower().startswith("diagnosis//") and k == "diagnosis"
        for c, k in zip(ranked, found.kinds.to_pylist(), strict=True)
        if not c.startswith("DIAGNOSIS//")
    )
