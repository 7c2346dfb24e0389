"""What is read of PAIRS batch by batch is what reading it whole gives."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from einthoven import schema
from einthoven.encoders import code_records
from einthoven.encoders.code_records import Records, code_sets, encode_records
from einthoven.study import read_table, write_table
from einthoven.training import paired_columns
from einthoven.training.aligned_pairs import sampled, vocabulary_texts
from einthoven.training.paired_columns import distinct_texts, records_at, texts_at, training_pairs
from einthoven.vocabulary.patients import patients_of, train_patients
from einthoven.vocabulary.vocabulary import build

N = 57
KINDS = ("finding",)


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Recordings in an order that is not that of their ids; some without a text, codes or a signal; equal texts."""
    monkeypatch.setattr(paired_columns, "BATCH", 10)
    monkeypatch.setattr(code_records, "PART", 7)
    random = np.random.default_rng(3)
    ids = [f"r{i:03d}" for i in random.permutation(N)]
    codes = [[f"DX//{c}" for c in random.integers(0, 9, random.integers(0, 6))] for _ in range(N)]
    shared = {
        "recording_id": ids,
        "subject_id": np.arange(N) // 3,
        "split": [schema.SPLITS[i // 3 % 3] for i in range(N)],
        "row": pa.array([None if i % 11 == 4 else i for i in range(N)], pa.int64()),
    }
    pairs = {
        **shared,
        "codes": codes,
        "code_kinds": [["finding"] * len(of) for of in codes],
        "code_days": [random.normal(size=len(of)) for of in codes],
        "text": [None if i % 5 == 2 else f"report {i % 13}" for i in range(N)],
        "entity_text": pa.nulls(N),
    }
    for table, rows in ((schema.PAIRS, pairs), (schema.RECORDINGS, shared | {"age": random.uniform(20, 90, N)})):
        absent = {f.name: pa.nulls(N, f.type) for f in table.columns if f.name not in rows}
        write_table(table, tmp_path, pa.table(rows | absent))
    return tmp_path


@pytest.mark.parametrize("modalities", [("ecg",), ("ecg", "text"), ("ecg", "codes"), ("ecg", "codes", "text")])
def test_pairs_are_those_with_a_signal_and_another_modality(study: Path, modalities: tuple[str, ...]) -> None:
    whole = {row["recording_id"]: row for row in read_table(schema.PAIRS, study).to_pylist()}
    wanted = [
        name
        for name, row in sorted(whole.items())
        if row["row"] is not None
        and (
            modalities == ("ecg",)
            or ("text" in modalities and row["text"] is not None)
            or ("codes" in modalities and row["codes"])
        )
    ]
    found = training_pairs(study, "report", modalities)
    assert found["recording_id"].to_pylist() == wanted
    ages = {row["recording_id"]: row["age"] for row in read_table(schema.RECORDINGS, study).to_pylist()}
    assert found["age"].to_pylist() == [ages[name] for name in wanted]


def test_texts_and_codes_are_those_of_the_table_read_whole(study: Path) -> None:
    whole = {row["recording_id"]: row for row in read_table(schema.PAIRS, study).to_pylist()}
    pairs = sampled(training_pairs(study, "report", ("ecg", "codes", "text")), 30, seed=1)
    assert len(pairs) == 30
    rows = [whole[name] for name in pairs["recording_id"].to_pylist()]
    numbers, places = distinct_texts(pairs)
    texts = [text for part in texts_at(study, "report", places) for text in part]
    assert len(set(texts)) == len(texts)
    subjects = pairs["subject_id"].to_numpy()
    for floor in (1, 2, 3):  # words are "report" and a number
        held = {text: {row["subject_id"] for row in rows if row["text"] == text} for text in texts}
        common = [text if len(held[text]) >= floor else "report" for text in texts]
        assert vocabulary_texts(study, "report", places, numbers, subjects, floor) == common
        assert floor == 1 or ("report" in common and (floor == 3 or len(set(common)) > 1))
    assert [None if number < 0 else texts[number] for number in numbers] == [row["text"] for row in rows]
    vocabulary = build(train_patients(study), 1)
    records = records_at(pairs, study, vocabulary, KINDS)
    expected = encode_records(pa.Table.from_pylist(rows, schema.PAIRS.columns), pairs["age"], vocabulary, KINDS)
    for name in ("tokens", "kinds", "days", "offsets", "ages"):
        assert np.array_equal(getattr(records, name), getattr(expected, name)), name
    naive = [frozenset(part.tolist()) for part in np.split(records.tokens, records.offsets[1:-1])]
    sets = code_sets(records)
    assert all((naive[i] == naive[j]) == (sets[i] == sets[j]) for i in range(30) for j in range(30))


def test_no_pair_has_a_code(study: Path) -> None:
    none = Records(*(np.zeros(0, t) for t in (np.int32, np.int8, np.float32)), np.zeros(4, np.int64), np.ones(3))
    assert len(set(code_sets(none))) == 1
    assert code_sets(none.take(np.zeros(0, np.int64))).shape == (0,)


def test_patients_of_codes_are_counted_as_in_one_table(study: Path) -> None:
    rows = read_table(schema.PAIRS, study).to_pylist()
    had = [(row["subject_id"], code) for row in rows if row["split"] == "train" for code in row["codes"]]
    expected = patients_of(pa.table({"subject_id": [s for s, _ in had], "code": [c for _, c in had]}))
    found = train_patients(study)
    assert list(found) == list(expected)
    assert all(np.array_equal(found[code], expected[code]) for code in expected)
