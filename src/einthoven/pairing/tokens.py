"""How many tokens the two concatenations of notes take, and which notes they come from (article: 354 against 266)."""

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from einthoven.config import TextEncoder
from einthoven.errors import EinthovenError
from einthoven.wordpiece import common_words, tokenizer_of, train_word_piece

SAMPLE: Final = 20_000
"""Pairs whose texts are tokenized: enough for means to three digits, and seconds at any size of a study."""

STRATEGIES: Final = {"report": ("text", "note_ids"), "entity": ("entity_text", "entity_note_ids")}


def token_counts(sample: pa.Table, kinds: Mapping[str, str], encoder: TextEncoder) -> dict[str, Any]:
    """Statistics of both concatenations over a sample of pairs; `kinds` gives the kind of each note id.

    The tokenizer is that of `encoder`: its own where it is on disk, else, as training does it, a WordPiece vocabulary
    made from the report concatenations of the train split. Means are over the pairs that have a text.
    """
    train = sample.filter(pc.and_(pc.equal(sample["split"], "train"), pc.is_valid(sample["text"])))
    if encoder.pretrained is not None and Path(encoder.pretrained).is_dir():
        try:
            name, tokenizer = Path(encoder.pretrained).name, tokenizer_of(Path(encoder.pretrained))
        except EinthovenError:  # a statistic is no reason to have no pairs
            return {"tokenizer": "that of the text encoder could not be read, so nothing was counted"}
    else:
        if not len(train):
            return {}
        patients: defaultdict[str, set[int]] = defaultdict(set)  # of each distinct text
        for text, one in zip(train["text"].to_pylist(), train["subject_id"].to_pylist(), strict=True):
            patients[text].add(one)
        try:
            common = common_words(list(patients), list(patients.values()), encoder.floor)
        except EinthovenError:
            return {"tokenizer": f"no word is in the reports of {encoder.floor} patients, so nothing was counted"}
        tokenizer = train_word_piece(set(common), encoder.vocabulary)
        name = f"WordPiece of {tokenizer.get_vocab_size()} entries made from the study's reports"
    found: dict[str, Any] = {"tokenizer": name, "sample": len(sample)}
    for strategy, (text, note_ids) in STRATEGIES.items():
        found[strategy] = _lengths(tokenizer, sample[text]) | {"notes": _notes(sample[note_ids], kinds)}
    return found


def _lengths(tokenizer: Any, texts: pa.ChunkedArray) -> dict[str, float]:
    known = texts.drop_null().to_pylist()
    lengths = np.array([len(found.ids) for found in tokenizer.encode_batch(known)])
    if not len(lengths):
        return {"with_text": 0}
    middle, high = np.quantile(lengths, (0.5, 0.95))
    return {
        "with_text": len(lengths),
        "mean": round(float(lengths.mean()), 1),
        "median": float(middle),
        "p95": float(high),
    }


def _notes(note_ids: pa.ChunkedArray, kinds: Mapping[str, str]) -> dict[str, float]:
    """Notes per pair, by kind. A note that gave several terms counts once."""
    counts: dict[str, int] = {}
    for names in note_ids.to_pylist():
        for name in set(names):
            counts[kinds[name]] = counts.get(kinds[name], 0) + 1
    return {kind: round(count / len(note_ids), 3) for kind, count in sorted(counts.items())}
