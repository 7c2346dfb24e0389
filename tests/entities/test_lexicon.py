"""The lexicon: what is read, what is refused and where, what a user's file does to the shipped one."""

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einthoven import schema
from einthoven.config import Entities
from einthoven.entities.lexicon import COLUMNS, Term, load, read, read_shipped, write
from einthoven.entities.words import BREAK, fold, split
from einthoven.errors import EinthovenError

HEAD = "\t".join(COLUMNS)
ROW = "big heart\tcardiomegaly\tfinding\tICD//10//I517\ten\t"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "own.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_users_file_extends_overrides_and_replaces(tmp_path: Path) -> None:
    own = str(written(tmp_path, HEAD, ROW, "Heart Failure\tpump failure\tdisease\t\ten\t"))
    extended = {term.key: term for term in load(Entities(lexicon=own)) if not term.exact}
    assert extended["big", "heart"].preferred == "cardiomegaly"
    assert extended["heart", "failure"].preferred == "pump failure"
    assert len(extended) > 20_000
    assert len(load(Entities(lexicon=own, replace=True))) == 2


def test_columns_in_any_order(tmp_path: Path) -> None:
    (term,) = read(written(tmp_path, "case\tlanguage\tcode\tlabel\tpreferred\tterm", "exact\tde\t\tsymptom\tp\tPE"))
    assert term == Term("PE", "p", "symptom", None, "de", True)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "row 1: expected the tab-separated columns"),
        (["term\tlabel"], "row 1: expected the tab-separated columns"),
        ([HEAD, ROW, "only three\tcells\there"], "row 3: 3 cells; expected 6"),
        ([HEAD, "\tx\tfinding\t\ten\t"], "row 2: column 'term'"),
        ([HEAD, "12 %\tx\tfinding\t\ten\t"], "row 2: column 'term'"),
        ([HEAD, " ".join("abcdefghijklm") + "\tx\tfinding\t\ten\t"], "row 2: column 'term'"),
        ([HEAD, "x y\t\tfinding\t\ten\t"], "row 2: column 'preferred'"),
        ([HEAD, "x y\tz\tillness\t\ten\t"], "row 2: column 'label': expected one of disease"),
        ([HEAD, "x y\tz\tfinding\t\tEnglish\t"], "row 2: column 'language'"),
        ([HEAD, "x y\tz\tfinding\t\ten\tyes"], "row 2: column 'case'"),
        ([HEAD, ROW, ROW.upper().replace("FINDING", "finding").replace("EN", "en")], "same words as row 2"),
    ],
)
def test_a_mistake_is_named_with_file_row_and_column(tmp_path: Path, lines: list[str], said: str) -> None:
    path = written(tmp_path, *lines)
    with pytest.raises(EinthovenError, match=r"own\.tsv: ") as caught:
        read(path)
    assert said in str(caught.value)


def test_what_is_no_text_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "own.tsv").write_bytes(b"\xff\xfe\x00")
    for path, said in ((tmp_path / "own.tsv", "not UTF-8"), (tmp_path, "directory"), (tmp_path / "no.tsv", "No such")):
        with pytest.raises(EinthovenError, match=said):
            read(path)
    with pytest.raises(EinthovenError, match="a lexicon where `replace` is set"):
        load(Entities(replace=True))


def test_the_shipped_lexicon_is_small_and_quick() -> None:
    path = Path(__file__).parents[2] / "src" / "einthoven" / "entities" / "lexicon.tsv"
    assert path.stat().st_size < 3e6
    start = time.process_time()
    terms = read_shipped()
    assert time.process_time() - start < 3  # 0.4 s on an idle machine
    assert {term.label for term in terms} == set(schema.ENTITY_LABELS)
    assert {term.language for term in terms} == {"en", "de", "sv"}


labels = st.sampled_from(schema.ENTITY_LABELS)
# at most MAX_WORDS characters: a word may be a single sign
terms = st.text("abcXYZäöåß 1-.", min_size=1, max_size=12).map(str.strip).filter(lambda t: any(map(str.isalpha, t)))


@given(st.lists(st.builds(Term, terms, terms, labels, st.none() | st.just("a//b"), st.just("sv"), st.booleans())))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, found: list[Term]) -> None:
    unique = list({(term.exact, term.key): term for term in found}.values())
    path = tmp_path_factory.getbasetemp() / "round.tsv"
    write(path, unique)
    assert set(read(path)) == set(unique)


@given(st.text(max_size=300))
def test_words_are_where_they_say(text: str) -> None:
    words = split(text)
    for word, start, end in zip(words.words, words.starts, words.ends, strict=True):
        assert text[start:end] == ("" if start == end else word)
        assert (word == BREAK and start == end) or not word.isspace()
    assert words.starts == sorted(words.starts)


@pytest.mark.parametrize(
    "alike",
    [
        ("Ischaemia", "ischemia", "ISCHÄMIA"),
        ("UNBESTAeTIGT", "unbestätigt"),
        ("f#r", "fuer", "für"),
        ("Down's", "Down", "down’s"),
        ("murmurs", "Murmur"),
        ("oedema", "edema", "ödema"),
        ("Ménière", "meniere"),
    ],
)
def test_spellings_compare_alike(alike: tuple[str, ...]) -> None:
    assert len(set(map(fold, alike))) == 1


def test_unlike_words_stay_unlike() -> None:
    assert fold("toe") != fold("to") and fold("stenosis") == "stenosis" and fold("pus") != fold("pu")
