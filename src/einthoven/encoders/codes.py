"""sEHR-BERT, the encoder of coded records: a Hugging Face BERT over codes, kinds, days, visits and age.

BERT's position embedding is held at one place. Codes of one moment have no order, and the one they are stored in, by
their spelling, would tell a masked code by its neighbours; the order in time is told by the days.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from einthoven.config import CodeEncoder, from_dict, to_dict
from einthoven.encoders.code_records import STATIC, CodeBatch
from einthoven.errors import EinthovenError
from einthoven.study import atomic, refuse_altered, refuse_foreign
from einthoven.vocabulary import vocabulary as vocabularies
from einthoven.vocabulary.vocabulary import PAD, SPECIAL, Vocabulary
from einthoven.weights import load_weights, misfit, save_weights

FORMAT: Final = 1
"""Version of the directory; one of another version is refused."""

FILES: Final = ("config.json", "model.safetensors", vocabularies.FILE)

GROUPS: Final = 4
"""Groups of like length into which a processor's batch of records is split."""

HOUR: Final = 1 / 24
EDGES: Final = tuple(sign * day for sign in (-1, 1) for day in (HOUR, 1, 3, 7, 14, 30, 60, 90, 180, 365))
"""Days that bound the buckets of time."""

PERIODS: Final = 16
DAYS: Final = (1.0, 1460.0)
YEARS: Final = (4.0, 200.0)
"""Shortest and longest period of the sines of time and of age."""

OLDEST: Final = 90.0
"""Years; sources say no more than that a patient is over 89."""


def spread(dim: int) -> float:
    """Standard deviation of new weights: BERT's 0.02 at its width of 768, wider where the model is narrower.

    With 0.02 at a width of 32 attention hardly speaks, and eight records were not learnt by heart in 300 steps.
    """
    return 0.02 * math.sqrt(768 / dim)


def _embedding(count: int, dim: int) -> nn.Embedding:
    table = nn.Embedding(count, dim)
    nn.init.normal_(table.weight, std=spread(dim))
    return table


class Waves(nn.Module):
    """Numbers [...] -> [..., dim]: a linear map of the sines and cosines of PERIODS periods in geometric sequence."""

    rates: Tensor

    def __init__(self, dim: int, shortest: float, longest: float) -> None:
        super().__init__()
        periods = torch.logspace(math.log10(shortest), math.log10(longest), PERIODS)
        self.register_buffer("rates", 2 * math.pi / periods, persistent=False)
        self.linear = nn.Linear(2 * PERIODS, dim, bias=False)
        nn.init.normal_(self.linear.weight, std=spread(dim) / math.sqrt(PERIODS))

    def forward(self, values: Tensor) -> Tensor:
        angles = values.float().unsqueeze(-1) * self.rates
        return self.linear(torch.cat([angles.sin(), angles.cos()], dim=-1))


class Buckets(nn.Module):
    """Days [...] -> [..., dim]: one vector for each bucket, bounded by EDGES."""

    edges: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("edges", torch.tensor(sorted(EDGES)), persistent=False)
        self.table = _embedding(len(EDGES) + 1, dim)

    def forward(self, days: Tensor) -> Tensor:
        return self.table(torch.bucketize(days.float().contiguous(), self.edges))


class CodeTransformer(nn.Module):
    """A batch of records [b, l] -> features [b, `dim`]: the mean over [CLS] and the codes.

    Of an empty record they are the state of [CLS], which knows the age. `kinds` are those of the recipe's pairing.
    """

    def __init__(self, config: CodeEncoder, kinds: Sequence[str], body: nn.Module) -> None:
        super().__init__()
        self.config, self.kinds, self.body = config, tuple(kinds), body
        dim = self.dim = int(body.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.kind = _embedding(STATIC + 1 + len(kinds), dim)
        self.time = Buckets(dim) if config.time == "buckets" else Waves(dim, *DAYS)
        self.visit = _embedding(3, dim) if config.visits else None
        self.age = Waves(dim, *YEARS) if config.age else None
        self.unknown_age = nn.Parameter(torch.zeros(dim)) if config.age else None
        for name, parameter in body.named_parameters():  # never used, and DDP waits for the gradient of what may be
            parameter.requires_grad_(not name.startswith(("pooler.", "embeddings.position", "embeddings.token_type")))

    @property
    def codes(self) -> nn.Embedding:
        """The embedding of tokens, which the prediction of masked codes shares."""
        return self.body.get_input_embeddings()  # type: ignore[operator]

    def forward(self, batch: CodeBatch) -> Tensor:
        states = self.token_states(batch)
        weight = batch.mask.unsqueeze(-1).to(states.dtype)
        return ((states * weight).sum(dim=1) / weight.sum(dim=1)).float()

    def token_states(self, batch: CodeBatch) -> Tensor:
        """The state of every place [b, l, dim]; what stands where there is padding means nothing."""
        if batch.tokens.device.type != "cpu" or len(batch) < 2 * GROUPS:
            return self._encode(batch)
        # A processor pays for padding: records of like length go together. Elsewhere reading lengths would wait.
        lengths = batch.mask.sum(dim=1)
        rows = lengths.argsort(stable=True).chunk(GROUPS)
        parts = [self._encode(batch.part(r, int(lengths[r].max()))) for r in rows]
        wide = [nn.functional.pad(part, (0, 0, 0, batch.tokens.shape[1] - part.shape[1])) for part in parts]
        return torch.cat(wide)[torch.cat(rows).argsort()]

    def _encode(self, batch: CodeBatch) -> Tensor:
        embedded = self.codes(batch.tokens) + self.kind(batch.kinds)
        embedded = embedded + self.time(batch.days) * (batch.kinds > STATIC).unsqueeze(-1)
        if self.visit is not None:
            embedded = embedded + self.visit(batch.visits)
        if self.age is not None and self.unknown_age is not None:
            known = batch.age.isfinite()
            years = self.age(batch.age.nan_to_num(0.0, 0.0, 0.0).clamp(0.0, OLDEST))
            embedded = embedded + torch.where(known.unsqueeze(-1), years, self.unknown_age).unsqueeze(1)
        places = torch.zeros_like(batch.tokens)
        mask = None if bool(batch.mask.all()) and batch.mask.device.type == "cpu" else batch.mask
        output = self.body(inputs_embeds=embedded, attention_mask=mask, position_ids=places)
        return output.last_hidden_state


class MaskedCodes(nn.Module):
    """The encoder and what tells the masked codes: BERT's head, its last layer tied to the embedding of codes."""

    special: Tensor

    def __init__(self, encoder: CodeTransformer) -> None:
        super().__init__()
        self.encoder = encoder
        self.transform = nn.Sequential(nn.Linear(encoder.dim, encoder.dim), nn.GELU(), nn.LayerNorm(encoder.dim))
        self.bias = nn.Parameter(torch.zeros(encoder.codes.num_embeddings))
        special = torch.arange(encoder.codes.num_embeddings) < len(SPECIAL)
        self.register_buffer("special", special, persistent=False)

    def forward(self, batch: CodeBatch, places: tuple[Tensor, Tensor]) -> Tensor:
        """Logits [n, v] of the codes at `places`, rows and columns [n] of the batch; -inf for special tokens."""
        states = self.transform(self.encoder.token_states(batch)[places])
        logits = nn.functional.linear(states, self.encoder.codes.weight).float() + self.bias
        return logits.masked_fill(self.special, -math.inf)


def create(config: CodeEncoder, vocabulary: Vocabulary, kinds: Sequence[str]) -> CodeTransformer:
    """An encoder for the tokens of `vocabulary` and the kinds of codes `kinds`.

    With `config.pretrained` what `einthoven pretrain` wrote, if vocabulary and kinds are the same, or the body of any
    Hugging Face BERT, whose embeddings of words give way to new ones of codes. EinthovenError: it cannot be loaded.
    """
    if config.pretrained is None:
        return CodeTransformer(config, kinds, body_of(_small(config, len(vocabulary))))
    path = Path(config.pretrained)
    if _is_ours(path):
        encoder = load(path, vocabulary, kinds)[0].encoder
        encoder.config = CodeEncoder(**{**to_dict(encoder.config), "max_codes": config.max_codes})
        return encoder
    return CodeTransformer(config, kinds, _foreign(config.pretrained, len(vocabulary)))


def _small(config: CodeEncoder, tokens: int) -> dict[str, Any]:
    return {
        "vocab_size": tokens,
        "hidden_size": config.hidden,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.hidden,
        "max_position_embeddings": 1,
        "type_vocab_size": 1,
        "hidden_dropout_prob": config.dropout,
        "attention_probs_dropout_prob": config.dropout,
        "initializer_range": spread(config.hidden),
        "pad_token_id": PAD,
    }


def body_of(values: dict[str, Any]) -> nn.Module:
    """A BERT with new weights, of the values of its configuration."""
    from transformers import BertConfig, BertModel

    body: nn.Module = BertModel(BertConfig(**values, attn_implementation="sdpa"), add_pooling_layer=False)
    return body


def _foreign(name: str, tokens: int) -> nn.Module:
    from transformers import AutoConfig, AutoModel

    try:
        kind = AutoConfig.from_pretrained(name).model_type
        if kind != "bert":
            raise EinthovenError(f"codes: {name!r} is a {kind}; expected a BERT, or what `einthoven pretrain` wrote.")
        body = AutoModel.from_pretrained(name, use_safetensors=True, add_pooling_layer=False)
    except (OSError, ValueError) as error:
        raise EinthovenError(
            f"codes: {name!r} could not be loaded: {str(error).splitlines()[0]} Give a directory that `einthoven "
            "pretrain` wrote or the path of a downloaded BERT with model.safetensors, or leave out `pretrained`."
        ) from None
    embedding = nn.Embedding(tokens, body.config.hidden_size, padding_idx=PAD)
    nn.init.normal_(embedding.weight, std=body.config.initializer_range)
    embedding.weight.data[PAD] = 0
    body.set_input_embeddings(embedding)
    body.config.vocab_size, body.config.pad_token_id = tokens, PAD
    found: nn.Module = body
    return found


def save(model: MaskedCodes, vocabulary: Vocabulary, card: dict[str, Any], directory: Path) -> None:
    """Write FILES; the directory appears whole or not at all. `card` says what the model was trained on."""
    refuse_foreign(directory, "config.json")
    body: Any = model.encoder.body
    config = {
        "format": FORMAT,
        "codes": to_dict(model.encoder.config),
        "kinds": list(model.encoder.kinds),
        "vocabulary": vocabulary.digest,
        "body": body.config.to_diff_dict(),
        "card": card,
    }
    with atomic(directory) as temporary:
        temporary.mkdir()
        vocabulary.save(temporary / vocabularies.FILE)
        (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        save_weights(model, temporary)


def load(
    directory: Path, vocabulary: Vocabulary | None = None, kinds: Sequence[str] | None = None
) -> tuple[MaskedCodes, Vocabulary, dict[str, Any]]:
    """What `save` wrote, in evaluation mode: the model, its vocabulary and its card. Strict, and needs no network.

    EinthovenError: a part is missing or does not fit, or vocabulary or kinds are not those asked for.
    """
    refuse_altered(directory)
    values = _read_config(directory)
    own = vocabularies.load(directory / vocabularies.FILE, values["vocabulary"])
    if vocabulary is not None and vocabulary.digest != own.digest:
        raise EinthovenError(
            f"{directory}: trained with another vocabulary than the one it is to be used with: its tokens are other "
            f"codes. Use its own, {directory / vocabularies.FILE}."
        )
    if kinds is not None and tuple(kinds) != tuple(values["kinds"]):
        raise EinthovenError(
            f"{directory}: knows the kinds of code {', '.join(values['kinds'])}, not {', '.join(kinds)}. Use the same "
            "[pairing] code_kinds, in the same order."
        )
    config = from_dict(CodeEncoder, values["codes"], f"{directory}/config.json: codes")
    if values["body"].get("vocab_size") != len(own):
        raise EinthovenError(f"{directory}: config.json and {vocabularies.FILE} belong to different models.")
    try:
        body = body_of({key: v for key, v in values["body"].items() if key not in ("model_type", "architectures")})
        model = MaskedCodes(CodeTransformer(config, values["kinds"], body))
    except Exception as error:  # a wrong value makes transformers raise anything
        raise misfit(directory, error) from None
    load_weights(model, directory)
    return model.eval(), own, values["card"]


def _is_ours(directory: Path) -> bool:
    """Whether it has a config.json that no Hugging Face model has: its own keys, without a model type."""
    try:
        values = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(values, dict) and "model_type" not in values


def _read_config(directory: Path) -> dict[str, Any]:
    path = directory / "config.json"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        raise EinthovenError(f"{directory}: no config.json. `einthoven pretrain` makes such a directory.") from None
    except (ValueError, RecursionError) as error:
        raise EinthovenError(f"{path} is not JSON: {error}") from None
    shape = {"format": int, "codes": dict, "kinds": list, "vocabulary": str, "body": dict, "card": dict}
    if not isinstance(values, dict) or {key: type(value) for key, value in values.items()} != shape:
        raise EinthovenError(
            f"{path}: expected exactly the keys {', '.join(shape)}, as `einthoven pretrain` writes them."
        )
    if values["format"] != FORMAT:
        raise EinthovenError(f"{path}: format {values['format']}; this version of einthoven reads {FORMAT}.")
    return values
