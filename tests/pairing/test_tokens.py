from pathlib import Path

import pyarrow as pa

from einthoven.config import TextEncoder
from einthoven.pairing.tokens import token_counts
from einthoven.wordpiece import tokenizer_of, train_word_piece

REPORTS = ["sinus rhythm normal ecg", "atrial fibrillation", None, "sinus rhythm"]
SAMPLE = pa.table(
    {
        "split": ["train", "train", "test", "test"],
        "subject_id": [1, 2, 3, 3],
        "text": pa.array(REPORTS, pa.large_string()),
        "note_ids": [["a", "b"], ["c"], [], ["a"]],
        "entity_text": pa.array(
            [None, "atrial fibrillation", None, "sinus rhythm, atrial fibrillation"], pa.large_string()
        ),
        "entity_note_ids": [[], ["c"], [], ["a", "a"]],
    }
)
KINDS = {"a": "ecg", "b": "clinical", "c": "ecg"}


def test_counts_are_those_of_the_vocabulary_that_training_makes() -> None:
    found = token_counts(SAMPLE, KINDS, TextEncoder(vocabulary=60, floor=1))
    tokenizer = train_word_piece([text for text in REPORTS[:2] if text], 60)
    lengths = sorted(len(tokenizer.encode(text).ids) for text in REPORTS if text)
    assert found["report"]["with_text"] == 3 and found["entity"]["with_text"] == 2
    assert found["report"]["mean"] == round(sum(lengths) / 3, 1)
    assert found["report"]["median"] == lengths[1]
    assert found["report"]["notes"] == {"clinical": 0.25, "ecg": 0.75}
    assert found["entity"]["notes"] == {"ecg": 0.5}


def test_of_words_that_too_few_have_nothing_is_counted() -> None:
    found = token_counts(SAMPLE, KINDS, TextEncoder(floor=2))
    assert found == {"tokenizer": "no word is in the reports of 2 patients, so nothing was counted"}


def test_an_encoder_on_disk_counts_with_its_own_tokenizer(tmp_path: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "sinus", "rhythm", "atrial", "fibrillation"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    found = token_counts(SAMPLE, KINDS, TextEncoder(pretrained=str(tmp_path)))
    assert found["tokenizer"] == tmp_path.name
    assert found["entity"]["mean"] == (4 + 7) / 2  # [CLS] atrial fibrillation [SEP]; the comma is unknown
    train_word_piece(["sinus rhythm"], 40).save(str(tmp_path / "tokenizer.json"))
    assert tokenizer_of(tmp_path).token_to_id("atrial") is None  # the full tokenizer takes precedence


def test_a_study_without_reports_has_no_counts() -> None:
    assert token_counts(SAMPLE.slice(2, 1), KINDS, TextEncoder()) == {}
