"""Text encoder: any Hugging Face encoder with mean pooling, or a small BERT trained from scratch.

The article uses GatorTron; `pretrained = "UFNLP/gatortron-base"` or the path of a downloaded copy loads it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.config import TextEncoder
from einthoven.errors import EinthovenError

PAD, UNKNOWN, START, END, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"


GROUPS = 4
"""Groups of like length into which a processor's batch of texts is split."""

SPECIAL = (PAD, UNKNOWN, START, END, MASK)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A lower-casing, accent-folding WordPiece tokenizer (Devlin 2019) with a vocabulary of its own.

    The same texts, in any order, give the same vocabulary.
    """
    from tokenizers import processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = sorted(texts)
    draft = _word_piece({})
    # The trainer numbers the inner pieces ("##a") in the order of a hash map that differs from run to run, and breaks
    # ties by those numbers. Naming them beforehand, as if they were special, fixes the numbers.
    letters = sorted({letter for text in texts for letter in draft.normalizer.normalize_str(text)})
    inner = [f"##{letter}" for letter in letters if not letter.isspace()]
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary, special_tokens=[*SPECIAL, *inner], show_progress=False)
    draft.train_from_iterator(texts, trainer)
    tokenizer = _word_piece(draft.get_vocab())  # afresh: in the draft the inner pieces count as special
    ids = [(name, tokenizer.token_to_id(name)) for name in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ids)
    names = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": START, "sep_token": END, "mask_token": MASK}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _word_piece(vocabulary: dict[str, int]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def small_bert(config: TextEncoder, vocabulary: int) -> Any:
    """The Hugging Face configuration of the BERT that is trained from scratch."""
    from transformers import BertConfig

    return BertConfig(
        vocab_size=vocabulary,
        hidden_size=config.hidden,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.hidden,
        max_position_embeddings=max(512, config.max_tokens),
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        pad_token_id=0,
    )


def load_pretrained(config: TextEncoder) -> tuple[nn.Module, Any]:
    """The named encoder and its tokenizer, from a directory or (if the machine has a network) the Hub."""
    from transformers import AutoModel, AutoTokenizer

    try:
        body = AutoModel.from_pretrained(config.pretrained, use_safetensors=True)
        return body, AutoTokenizer.from_pretrained(config.pretrained)
    except (OSError, ValueError) as error:
        raise EinthovenError(
            f"text encoder {config.pretrained!r} could not be loaded: {str(error).splitlines()[0]} Give the path of "
            "a downloaded copy with model.safetensors, or leave out `pretrained` to train a small BERT from scratch."
        ) from None


class TextTransformer(nn.Module):
    """Token ids [b, t] -> features [b, `dim`]: the mean over the tokens that are not padding."""

    def __init__(self, body: nn.Module, frozen: bool) -> None:
        super().__init__()
        self.body = body
        self.frozen = frozen
        self.dim = int(body.config.hidden_size)  # type: ignore[union-attr, arg-type]
        for name, parameter in body.named_parameters():
            # the pooler is never used: left trainable it would stall DDP, which waits for its gradient
            parameter.requires_grad_(not frozen and not name.startswith("pooler."))

    def train(self, mode: bool = True) -> "TextTransformer":
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        if tokens.device.type != "cpu" or len(tokens) < 2 * GROUPS:
            return self._encode(tokens, mask)
        # A processor pays for padding: texts of like length are encoded together. Elsewhere reading lengths would wait.
        lengths = mask.sum(dim=1)
        parts = lengths.argsort(stable=True).chunk(GROUPS)
        widths = [int(lengths[part].max()) for part in parts]
        encoded = [self._encode(tokens[p, :w], mask[p, :w]) for p, w in zip(parts, widths, strict=True)]
        return torch.cat(encoded)[torch.cat(parts).argsort()]

    def _encode(self, tokens: Tensor, mask: Tensor) -> Tensor:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            states = self.body(input_ids=tokens, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(states.dtype)
        return ((states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).float()
