import random

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from einthoven.config import TextEncoder
from einthoven.encoders.text import TextTransformer, small_bert, train_tokenizer

WORDS = ["sinusrhythmus", "lagetyp", "normal", "vorhofflimmern", "linksschenkelblock", "ischämie", "wahrscheinlich"]
TEXTS = [" ".join(random.Random(i).choices(WORDS, k=4)) for i in range(40)]


def test_the_same_texts_give_the_same_vocabulary() -> None:
    first = train_tokenizer(TEXTS, 80).get_vocab()
    for seed in range(5):
        shuffled = random.Random(seed).sample(TEXTS, len(TEXTS))
        assert train_tokenizer(shuffled, 80).get_vocab() == first


def test_case_and_accents_fold_and_known_letters_are_never_unknown() -> None:
    tokenizer = train_tokenizer(TEXTS, 80)
    assert tokenizer("ISCHÄMIE")["input_ids"] == tokenizer("ischamie")["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer("normalflimmern")["input_ids"]
    assert tokenizer.pad_token_id == 0
    assert sorted(tokenizer.all_special_ids) == [0, 1, 2, 3, 4]


@given(st.text(max_size=60))
def test_any_text_tokenizes(text: str) -> None:
    ids = TOKENIZER(text)["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)


TOKENIZER = train_tokenizer(TEXTS, 80)


def test_features_are_the_mean_over_real_tokens() -> None:
    from transformers import AutoModel

    torch.manual_seed(0)
    body = AutoModel.from_config(small_bert(TextEncoder(hidden=16, layers=1, heads=2), 80)).eval()
    encoder = TextTransformer(body, frozen=False).eval()
    tokens = torch.tensor([[2, 9, 10, 3, 0, 0]])
    mask = (tokens != 0).long()
    states = body(input_ids=tokens[:, :4]).last_hidden_state
    assert np.allclose(encoder(tokens, mask).detach(), states.mean(dim=1).detach(), atol=1e-5)


def test_a_batch_gives_each_text_what_it_gets_alone() -> None:
    from transformers import AutoModel

    torch.manual_seed(0)
    body = AutoModel.from_config(small_bert(TextEncoder(hidden=16, layers=2, heads=2), 80))
    encoder = TextTransformer(body, frozen=False).eval()
    lengths = torch.tensor([3, 9, 1, 7, 7, 2, 5, 9, 4, 6])
    mask = (torch.arange(9)[None] < lengths[:, None]).long()
    tokens = torch.randint(5, 80, (10, 9)) * mask
    alone = torch.cat([encoder(tokens[i : i + 1, :n], mask[i : i + 1, :n]) for i, n in enumerate(lengths.tolist())])
    assert torch.allclose(encoder(tokens, mask), alone, atol=1e-5)
