"""A WordPiece vocabulary made from a study's own texts, and the tokenizers of encoders that are on disk."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from einthoven.errors import EinthovenError

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
SPECIAL: Final = (PAD, UNKNOWN, START, END, MASK)


def train_word_piece(texts: Iterable[str], vocabulary: int) -> Any:
    """A lower-casing, accent-folding WordPiece tokenizer (Devlin 2019) with a vocabulary of its own.

    The same texts, in any order, give the same vocabulary.
    """
    texts = sorted(texts)
    draft = _word_piece({})
    # The trainer numbers the inner pieces ("##a") in the order of a hash map that differs from run to run, and breaks
    # ties by those numbers. Naming them beforehand, as if they were special, fixes the numbers.
    written = set().union(*texts)  # each letter is normalised by itself
    letters = sorted({letter for raw in written for letter in draft.normalizer.normalize_str(raw)})
    inner = [f"##{letter}" for letter in letters if not letter.isspace()]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL, *inner], show_progress=False)
    draft.train_from_iterator(texts, trainer)
    tokenizer = _word_piece(draft.get_vocab())  # afresh: in the draft the inner pieces count as special
    ids = [(name, tokenizer.token_to_id(name)) for name in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
    return tokenizer


def common_words(texts: Sequence[str], patients: Sequence[Collection[int]], floor: int) -> list[str]:
    """The texts, of which the i-th is that of patients[i], with those words alone that texts of `floor` patients have.

    What a vocabulary is made of can be read in it: a name, however often one record repeats it, must not be there.
    """
    draft = _word_piece({})
    folded = (draft.normalizer.normalize_str(text) for text in texts)
    spelled = [" ".join(word for word, _ in draft.pre_tokenizer.pre_tokenize_str(text)) for text in folded]
    held_by: defaultdict[str, set[int]] = defaultdict(set)
    for text, some in zip(spelled, patients, strict=True):
        for word in text.split():
            if len(held_by[word]) < floor:
                held_by[word].update(some)
    common = {word for word, some in held_by.items() if len(some) >= floor}
    if not common:
        raise EinthovenError(
            f"text: no word is in the notes of {floor} patients of the train split. Lower text.floor or name a "
            "pretrained encoder (text.pretrained)."
        )
    return [" ".join(word for word in text.split() if word in common) for text in spelled]


def _word_piece(vocabulary: dict[str, int]) -> Any:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def tokenizer_of(encoder: Path) -> Any:
    """The tokenizer of an encoder's directory: its `tokenizer.json`, or the `vocab.txt` of a BERT such as GatorTron."""
    from tokenizers import BertWordPieceTokenizer

    fast, words = encoder / "tokenizer.json", encoder / "vocab.txt"
    try:
        if fast.exists():
            return Tokenizer.from_file(str(fast))
        if words.exists():
            return BertWordPieceTokenizer(str(words))
    except Exception as error:  # the tokenizers library raises nothing more precise
        raise EinthovenError(f"{encoder} holds no readable tokenizer: {type(error).__name__}.") from None
    raise EinthovenError(f"{encoder}: neither tokenizer.json nor vocab.txt; expected the directory of a text encoder.")
