"""The vocabulary: closed-form cases, what always holds, what is refused, and the codes of real patients."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from einthoven import config, schema
from einthoven.errors import EinthovenError
from einthoven.pairing.splits import split_of
from einthoven.sources import mimic
from einthoven.study import read_table, write_table
from einthoven.vocabulary.medications import Medications
from einthoven.vocabulary.patients import patients_of, train_patients
from einthoven.vocabulary.rules import Rules, rules_of
from einthoven.vocabulary.vocabulary import SPECIAL, UNK, Vocabulary, build, load

DEMO = Path(__file__).resolve().parents[3] / "shared" / "data" / "mimic-iv-demo-2.2"
SMALL = Rules(Medications({"metoprolol": "metoprolol", "lopressor": "metoprolol"}, {"metoprolol": "C07AB02"}))
D = "DIAGNOSIS//ICD//10//"


def codes_of(vocabulary: Vocabulary) -> dict[str, int]:
    pairs = zip(vocabulary.tokens, vocabulary.patients, strict=True)
    return {token: count for token, count in pairs if token not in SPECIAL}


def test_rare_codes_fall_to_the_nearest_code_that_reaches_the_floor() -> None:
    seen = {
        "ICD10CM/I48.91": [1, 2, 3],
        f"{D}I4891": [3, 4],  # the same code: four patients
        f"{D}I480": [5],
        f"{D}I481": [5, 6],
        f"{D}I482": [7],  # I48 of three: 5, 6, 7
        f"{D}I501": [1],
        f"{D}I21": [8, 9],  # with I50's the chapter has three: 1, 8, 9
        f"{D}J45": [1, 2],  # alone in its chapter: no token
        "MEDICATION//Lopressor": [1, 2],
        "MEDICATION//START//Metoprolol 25 mg": [3],
    }
    vocabulary = build(seen, 3, SMALL)
    assert vocabulary.tokens[:5] == SPECIAL and vocabulary.patients[:5] == (0, 0, 0, 0, 0)
    assert list(codes_of(vocabulary).items()) == [
        (f"{D}I00-I99", 3),
        (f"{D}I48", 3),
        (f"{D}I4891", 4),
        ("MEDICATION//metoprolol", 3),
    ]
    written = [f"{D}I48.91", f"{D}I480", f"{D}I4811", f"{D}I21", f"{D}I999", f"{D}J45", "lopressor", "[MASK]", ""]
    assert vocabulary.encode(written).tolist() == [7, 6, 6, 5, 5, UNK, UNK, UNK, UNK]
    assert vocabulary.encode([]).dtype == np.int64 and vocabulary.encode([]).shape == (0,)


def test_a_patient_counts_once_however_many_rare_codes() -> None:
    with pytest.raises(EinthovenError, match="lower the floor"):
        build({f"{D}I480": [1], f"{D}I481": [1], f"{D}I482": [2]}, 3, SMALL)
    assert list(codes_of(build({f"{D}I480": [1], f"{D}I481": [1, 1], f"{D}I482": [2]}, 2, SMALL))) == [f"{D}I48"]


def test_coverage_by_kind_and_step() -> None:
    vocabulary = build(
        {f"{D}I4891": [1, 2], f"{D}I480": [1], f"{D}I481": [3], "MEDICATION//metoprolol": [1, 2]}, 2, SMALL
    )
    held_out = [f"{D}I4891"] * 2 + [f"{D}I4892", f"{D}J45", "MEDICATION//lopressor"]
    expected = {
        "diagnosis": {"codes": 4, "exact": 0.5, "category": 0.25, "unknown": 0.25},
        "medication": {"codes": 1, "exact": 1.0, "unknown": 0.0},
        "all": {"codes": 5, "exact": 0.6, "category": 0.2, "unknown": 0.2},
    }
    assert vocabulary.coverage(held_out) == expected
    assert vocabulary.coverage(Counter(held_out)) == vocabulary.coverage(iter(held_out)) == expected
    assert vocabulary.coverage([]) == {}


def test_parents_and_names_of_a_study() -> None:
    rows = [
        {"code": "SCP//IMI", "description": None, "parent_codes": ["SCP_CLASS//MI"]},
        {
            "code": "MEDICATION//START//RxNorm//866924",
            "description": "Metoprolol 25 MG Oral Tablet",
            "parent_codes": [],
        },
        {"code": "MEDICATION//START//RxNorm//1", "description": "no such thing", "parent_codes": ["ATC/C07AB"]},
        {"code": f"{D}I4891", "description": "AF", "parent_codes": [f"{D}Z99"]},
    ]
    rules = rules_of(config.Vocabulary(), pa.Table.from_pylist(rows, schema=schema.CODES.columns))
    assert rules.canonical("RxNorm/866924") == "MEDICATION//metoprolol"
    assert rules.canonical("MEDICATION//STOP//RxNorm//866924") == "MEDICATION//STOP//RxNorm//866924"
    assert rules.canonical("RxNorm/1") == "MEDICATION//RxNorm//1"
    assert rules.chain("MEDICATION//RxNorm//1")[0] == ("MEDICATION//ATC//C07AB", "parent")
    assert rules.chain("SCP//IMI") == (("SCP_CLASS//MI", "parent"),)
    assert rules.chain(f"{D}I4891")[0] == (f"{D}I489", "code")


codes = st.sampled_from([f"{D}I{n}" for n in (10, 20, 21, 210, 211, 4891, 481)]) | st.sampled_from(
    ["ICD10CM/I48.1", "HCPCS//93000", "CPT4/93005", "ICD9Proc/37.22", "MEDICATION//metoprolol", "SCP//A", "x", ""]
)
patients = st.sets(st.integers(0, 8), max_size=6)
seen = st.dictionaries(codes, patients, min_size=1)


def built(found: dict[str, set[int]], floor: int) -> Vocabulary | None:
    try:
        return build(found, floor, SMALL)
    except EinthovenError:
        return None


@given(seen, seen, st.integers(1, 4))
def test_more_patients_never_take_a_token_away(
    some: dict[str, set[int]], more: dict[str, set[int]], floor: int
) -> None:
    few = built(some, floor)
    both = {code: some.get(code, set()) | more.get(code, set()) for code in {**some, **more}}
    rare = {code: subjects for code, subjects in more.items() if code not in some and len(subjects) < floor}
    if few is not None:
        exact = {code for code in some if few.token_of(code)[1] == "exact"}
        frequent = {code for code in exact if len(some[code]) >= floor}
        for other in (built(both, floor), built({**some, **rare}, floor)):
            assert other is not None
            assert all(other.token_of(code)[1] == "exact" for code in frequent)


@given(seen, st.integers(1, 4))
def test_no_token_stands_for_fewer_patients_than_the_floor(found: dict[str, set[int]], floor: int) -> None:
    vocabulary = built(found, floor)
    if vocabulary is None:
        return
    members: dict[int, set[int]] = {}
    for code, subjects in found.items():
        members.setdefault(vocabulary.token_of(code)[0], set()).update(subjects)
    for token in range(len(SPECIAL), len(vocabulary)):
        assert len(members[token]) == vocabulary.patients[token] >= floor


@settings(max_examples=50)
@given(st.lists(st.text(max_size=30) | codes, max_size=20), seen)
def test_any_code_encodes_and_alike_after_reading(
    tmp_path_factory: pytest.TempPathFactory, written: list[str], found: dict[str, set[int]]
) -> None:
    vocabulary = built({**found, "SCP//A": {1, 2}}, 2)
    assert vocabulary is not None
    path = tmp_path_factory.getbasetemp() / "vocabulary.json"
    vocabulary.save(path)
    again = load(path, vocabulary.digest)
    assert again == vocabulary and again.digest == vocabulary.digest
    ids = vocabulary.encode(written)
    assert ((ids == UNK) | ((ids >= len(SPECIAL)) & (ids < len(vocabulary)))).all()
    assert (again.encode(written) == ids).all()
    assert vocabulary.encode(vocabulary.tokens[5:]).tolist() == list(range(5, len(vocabulary)))


def test_the_order_of_the_input_does_not_matter() -> None:
    found = {f"{D}I{n}": {n % 7, n % 5} for n in range(10, 60)}
    backwards = dict(reversed(found.items()))
    assert build(found, 2, SMALL).digest == build(backwards, 2, SMALL).digest
    assert build(found, 2, SMALL).digest != build(found, 1, SMALL).digest
    assert build(found, 2, SMALL).digest != build(found, 2, Rules()).digest


def test_a_file_that_is_not_the_models_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vocabulary.json"
    vocabulary = build({f"{D}I10": [1, 2]}, 2, SMALL)
    vocabulary.save(path)
    with pytest.raises(EinthovenError, match="not the vocabulary that the model was trained with"):
        load(path, build({f"{D}I11": [1, 2]}, 2, SMALL).digest)
    good = json.loads(path.read_text())

    def refused(changed: Any, said: str) -> None:
        path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
        with pytest.raises(EinthovenError, match=said) as caught:
            load(path)
        assert str(path) in str(caught.value)

    refused("no json", "not a JSON file")
    refused("[" * 100_000, "not a JSON file")
    refused([], "not a vocabulary")
    refused(good | {"more": 1}, "not a vocabulary")
    refused(good | {"floor": True}, "not a vocabulary")
    refused(good | {"tokens": good["tokens"] * 2}, "not a vocabulary")
    refused(good | {"tokens": [*good["tokens"][:5], 5]}, "not a vocabulary")
    refused(good | {"rules": good["rules"] | {"parents": {"a": "b"}}}, "not a vocabulary")
    refused(good | {"version": 2}, "format 2 and rules 1")
    refused(good | {"rules": good["rules"] | {"version": 9}}, "format 1 and rules 9")
    refused(good | {"floor": 1}, "was changed")
    refused(good | {"rules": good["rules"] | {"icd9": {"4019": "I10"}}}, "was changed")
    with pytest.raises(EinthovenError, match="No such file"):
        load(tmp_path / "none.json")


def test_patients_are_counted_from_the_train_split_of_pairs(tmp_path: Path) -> None:
    pairs = [
        (1, "train", ["a", "b", "a"]),
        (1, "train", ["b"]),
        (2, "test", ["a"]),
        (2**62, "train", ["a"]),
        (3, "train", []),
    ]
    rows = [
        {"recording_id": str(n), "subject_id": who, "split": split, "codes": codes}
        for n, (who, split, codes) in enumerate(pairs)
    ]
    write_table(schema.PAIRS, tmp_path, pa.Table.from_pylist(rows, schema=schema.PAIRS.columns))
    found = {code: subjects.tolist() for code, subjects in train_patients(tmp_path).items()}
    assert found == {"a": [1, 2**62], "b": [1]}
    write_table(schema.PAIRS, tmp_path, pa.Table.from_pylist(rows[2:3], schema=schema.PAIRS.columns))
    assert train_patients(tmp_path) == {}
    with pytest.raises(EinthovenError, match="is missing"):
        train_patients(tmp_path / "none")


def test_a_million_codes_a_second() -> None:
    distinct = [f"{D}{letter}{n}" for letter in "ABCDEFGHIJ" for n in range(10, 60)]
    vocabulary = build({code: [1] for code in distinct}, 1, SMALL)
    sequence = distinct * 400
    vocabulary.encode(distinct)
    start = time.process_time()
    ids = vocabulary.encode(sequence)
    assert time.process_time() - start < len(sequence) / 1e6  # a fifth of it on an idle machine
    assert ids.reshape(400, -1)[7].tolist() == list(range(5, 505))


def test_the_codes_of_the_mimic_demo(tmp_path: Path) -> None:
    """Real patients, 77 to count and 23 held out: the rates of docs/vocabulary.md."""
    if not DEMO.exists():
        pytest.skip(f"{DEMO} is not on this machine")
    mimic.ingest(config.Source(name="mimic"), DEMO, tmp_path)
    events = read_table(schema.EVENTS, tmp_path).select(["subject_id", "code"])
    coded = pc.match_substring_regex(events["code"], r"^(DIAGNOSIS|PROCEDURE|HCPCS|MEDICATION//START)//")
    events = events.filter(coded)
    train = pa.array([split_of(subject) == "train" for subject in events["subject_id"].to_pylist()])
    rules = rules_of(config.Vocabulary(), read_table(schema.CODES, tmp_path))
    vocabulary = build(patients_of(events.filter(train)), 5, rules)
    covered = vocabulary.coverage(events.filter(pc.invert(train))["code"].to_pylist())
    assert covered["all"]["codes"] == 6284 and covered["all"]["exact"] > 0.74 and covered["all"]["unknown"] < 0.008
    assert covered["diagnosis"]["unknown"] == 0.0 and covered["medication"]["exact"] > 0.90
    assert 400 < len(vocabulary) < 480
