"""Context: each sentence says what its mention is; scopes end where they should; pseudo-triggers do nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven.config import Entities
from einthoven.entities.lexicon import Term, load
from einthoven.entities.matcher import Matcher, longest
from einthoven.entities.triggers import ATTRIBUTES, sections, triggers

MATCHER = Matcher(load(Entities()))


def said(text: str) -> list[tuple[str, set[str]]]:
    return [
        (text[m.start : m.end], {name for name in ATTRIBUTES if getattr(m.flags, name)}) for m in MATCHER.find(text)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("No chest pain, history of MI.", [{"negated"}, {"historical"}]),
        ("Denies fever or chills but reports cough.", [{"negated"}, {"negated"}, set()]),
        ("No evidence of AF; LBBB.", [{"negated"}, set()]),
        ("No increase in edema.", [set()]),
        ("Not only dyspnea but also syncope.", [set(), set()]),
        ("No change in gait.", [{"negated"}]),
        ("MI was ruled out.", [{"negated"}]),
        ("Chest pain: no. Fever: denied.", [{"negated"}, {"negated"}]),
        ("Pneumonia is unlikely.", [{"negated"}]),
        ("Pt on warfarin, denies any recent chest pain\nor palpitations.", [set(), {"negated"}, {"negated"}]),
        ("No fever\n\nCough", [{"negated"}, set()]),
        ("Cannot rule out anterior infarct, age undetermined", [{"uncertain"}]),
        ("AF cannot be excluded.", [{"uncertain"}]),
        ("rule out low EF", [{"uncertain"}]),
        ("Possible AF or atrial flutter.", [{"uncertain"}, {"uncertain"}]),
        ("?PE", [{"uncertain"}]),
        ("PE? Chest pain.", [set(), set()]),
        ("Findings consistent with heart failure.", [set()]),
        ("s/p CABG, prior PCI", [{"historical"}, {"historical"}]),
        ("No history of stroke.", [{"negated"}]),
        ("A 6 month history of dyspnea.", [set()]),
        ("Old anteroseptal infarct.", [{"historical"}]),
        ("A 70-year-old man with angina.", [set()]),
        ("Father had MI at 50.", [{"family"}]),
        ("FHx of CAD.", [{"family"}]),
        ("GF with CAD.", [{"family"}]),
        ("Positive for diabetes in his father.", [{"family"}]),
        ("The patient has asthma and her mother has eczema.", [set(), {"family"}]),
        ("Mother reports fever.", [set()]),
        ("He lives with his father. Syncope.", [set()]),
        ("His brother, although he is thin, has hypertension.", [{"family"}]),
        ("Father died of MI, and he has hypertension.", [{"family"}, set()]),
        ("No family history of sudden cardiac death.", [{"negated", "family"}]),
        ("Return if palpitations occur.", [{"hypothetical"}]),
        ("Risks include infection and bleeding.", [{"hypothetical"}, {"hypothetical"}]),
        ("Aspirin as needed for headache.", [set(), {"hypothetical"}]),
        ("Family History:\nDiabetes, stroke\nAllergies: none", [{"family"}, {"family"}, {"negated"}]),
        ("PMH: HTN, DM\nMedications: aspirin", [{"historical"}, {"historical"}, set()]),
        ("PMH:\nHTN\nCOPD\nMEDS:\naspirin", [{"historical"}, {"historical"}, set()]),
        ("FAMILY HISTORY\n\nStroke\n\nASSESSMENT\n\nAngina", [{"family"}, set()]),
    ],
)
def test_english(text: str, expected: list[set[str]]) -> None:
    assert [flags for _, flags in said(text)] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Kein Vorhofflimmern, aber AV-Block I.", [{"negated"}, set()]),
        ("V. a. Vorhofflimmern", [{"uncertain"}]),
        ("anteroseptaler infarkt nicht auszuschliessen t abnorm", [{"uncertain"}, set()]),
        ("anteroseptaler infarkt nicht auszuschließen", [{"uncertain"}]),
        ("qrs(t) abnorm inferiorer infarkt möglich", [set(), {"uncertain"}]),
        ("inferiorer infarkt alter unbest. t abnorm", [set(), set()]),
        ("inferiorer infarkt wahrscheinlich alt", [{"historical"}]),
        ("st & t abnorm, wahrscheinlich laterale ischämie oder linksbelastung", [set(), {"uncertain"}, {"uncertain"}]),
        ("Z. n. Herzinfarkt. Lungenembolie ausgeschlossen", [{"historical"}, {"negated"}]),
        ("mässige amplitudenkriterien f#r linkshypertrophie", [set()]),
        ("inga tecken på ischemi", [{"negated"}]),
        ("misstänkt vänster kammarhypertrofi", [{"uncertain"}]),
        ("lateral myokardskada kan ej uteslutas", [{"uncertain"}]),
        ("inferior infarkt ålder ej bestämmbar", [set()]),
        ("ej förmaksflimmer men sinustakykardi", [{"negated"}, set()]),
    ],
)
def test_german_and_swedish(text: str, expected: list[set[str]]) -> None:
    assert [flags for _, flags in said(text)] == expected


def test_the_longest_term_wins_within_word_boundaries() -> None:
    assert [term for term, _ in said("incomplete right bundle branch block")] == [
        "incomplete right bundle branch block"
    ]
    assert said("stroker preischemic feverfew") == []
    assert [term for term, _ in said("MS and ms; AS as is")] == ["MS", "AS"]
    assert [term for term, _ in said("atrial\nfibrillation")] == []  # a short line ends a sentence
    assert said("") == [] and said(" \n\n") == []


spans = st.tuples(st.integers(0, 30), st.integers(1, 5)).map(lambda one: (one[0], one[0] + one[1], 0))


@given(st.lists(spans))
def test_longest_leaves_no_overlap_and_drops_only_what_overlaps_something_as_long(
    found: list[tuple[int, int, int]],
) -> None:
    kept = longest(found)
    words = [word for start, end, _ in kept for word in range(start, end)]
    assert len(words) == len(set(words))
    for start, end, _ in found:
        assert any(s < end and start < e and e - s >= end - start for s, e, _ in kept)


@given(
    st.lists(
        st.sampled_from([*list(triggers())[::9], "chest pain", "AF", ".", ",", "\n\n", "father:", "he"]), max_size=25
    )
)
def test_any_note_gets_through(parts: list[str]) -> None:
    text = " ".join(parts)
    for mention in MATCHER.find(text):
        assert 0 <= mention.start < mention.end <= len(text) and isinstance(mention.term, Term)


def test_the_table_is_sound() -> None:
    table = [trigger for found in triggers().values() for trigger in found]
    for trigger in table:
        assert trigger.direction in ("before", "after", "ends", "none")
        named = [one for one in trigger.attribute.split(",") if one]
        assert set(named) <= set(ATTRIBUTES) and (trigger.direction in ("ends", "none") or len(named) == 1)
    assert set(sections().values()) <= set(ATTRIBUTES)


def test_a_long_sentence_takes_no_longer_than_its_length() -> None:
    text = "no chest pain , father AF " * 20_000
    assert len(MATCHER.find(text)) == 40_000
