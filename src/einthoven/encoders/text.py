"""Text encoder: any Hugging Face encoder with mean pooling, or a small BERT trained from scratch.

The article uses GatorTron; `pretrained = "UFNLP/gatortron-base"` or the path of a downloaded copy loads it.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from einthoven.config import TextEncoder
from einthoven.errors import EinthovenError
from einthoven.wordpiece import END, MASK, PAD, START, UNKNOWN, train_word_piece

GROUPS = 4
"""Groups of like length into which a processor's batch of texts is split."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """The tokenizer of `wordpiece.train_word_piece`, as Hugging Face's encoders take one."""
    from transformers import PreTrainedTokenizerFast

    names = {"pad_token": PAD, "unk_token": UNKNOWN, "cls_token": START, "sep_token": END, "mask_token": MASK}
    return PreTrainedTokenizerFast(tokenizer_object=train_word_piece(texts, vocabulary), **names)


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
