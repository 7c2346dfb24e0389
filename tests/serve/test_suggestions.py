import time
from typing import Any

from einthoven.search.archive import Archive
from einthoven.serve.searches import codes_in
from einthoven.serve.suggestions import SHOWN, Suggestion, Suggestions

SOME = Suggestions.made(
    [
        Suggestion("DIAGNOSIS//ICD//10//I252", "Old myocardial infarction", 40),
        Suggestion("SCP//IMI", "inferior myocardial infarction", 90),
        Suggestion("MEDICATION//metoprolol", "", 70),
        Suggestion("sinus rhythm. prolonged qt", "", 0),
    ]
)


def like(prefix: str) -> list[str]:
    return [one.value for one in SOME.like(prefix)]


def test_any_word_may_be_begun_and_the_most_frequent_comes_first() -> None:
    assert like("myoc") == like("  Myocardial  INF") == ["SCP//IMI", "DIAGNOSIS//ICD//10//I252"]
    assert like("old m") == like("i25") == like("diagnosis//icd") == ["DIAGNOSIS//ICD//10//I252"]
    assert like("metop") == ["MEDICATION//metoprolol"] and like("prolonged") == ["sinus rhythm. prolonged qt"]
    assert like("xyz") == [] and like("")[0] == "SCP//IMI"


def test_a_prefix_of_a_hundred_thousand_codes_takes_no_time() -> None:
    many = Suggestions.made(Suggestion(f"C//{i}", f"disease of the {i}th kind", i) for i in range(100_000))
    began = time.perf_counter()
    for prefix in ("d", "disease of", "99999th", "c//"):
        assert 0 < len(many.like(prefix)) <= SHOWN
    assert time.perf_counter() - began < 0.5


def test_an_archive_suggests_its_codes_with_their_meaning(archive: Archive) -> None:
    found = Suggestions.of(archive)
    (norm,) = [one for one in found.like("SCP//NORM") if one.value == "SCP//NORM"]
    assert norm.meaning and norm.patients > 0
    assert any(one.patients == 0 for one in found.like("sinus rhythm"))
    assert [one.value.partition("//")[0] for one in found.examples()][:2] == ["SCP", "DIAGNOSIS"]


def test_what_looks_like_codes_is_taken_for_codes(archive: Archive) -> None:
    assert codes_in("SCP//NORM", archive) == ("SCP//NORM",)
    assert (
        codes_in("SCP//NORM + SCP//SR", archive) == codes_in("SCP//NORM, SCP//SR", archive) == ("SCP//NORM", "SCP//SR")
    )
    assert codes_in("SCP//NOSUCH", archive) == ("SCP//NOSUCH",)  # refused later, with near ones
    for words in ("ST/T changes", "atrial fibrillation", "AFIB", "SCP//NORM without infarction", ""):
        assert codes_in(words, archive) == ()


def test_a_word_that_is_a_code_s_last_part_names_it(archive: Archive, ask: Any) -> None:
    assert [one.value for one in SOME.codes_named(" imi ")] == ["SCP//IMI"]
    assert [SOME.codes_named(words) for words in ("im", "inferior", "imi old", "", "rhythm")] == [[]] * 5
    place = ask("POST", "/search", data={"q": "NORM"}).headers["location"]
    assert 'name="q" value="SCP//NORM"' in ask("GET", place).text
    place = ask("POST", "/search", data={"q": "normal"}).headers["location"]
    assert "A code of this name" not in ask("GET", place).text
