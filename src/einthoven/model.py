"""The model: encoders and heads as one class, and the directory it is saved in."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from einthoven import schema
from einthoven.config import EcgEncoder, Space, TextEncoder, from_dict, to_dict
from einthoven.contrast import inverse_temperature
from einthoven.encoders.ecg import ResNet1d
from einthoven.encoders.text import TextTransformer, load_pretrained, small_bert, train_tokenizer
from einthoven.errors import EinthovenError
from einthoven.spaces import Head
from einthoven.study import atomic, refuse_foreign

FORMAT = 1
"""Version of the model directory; a directory of another version is refused, not guessed at."""

STRIPS = 3
"""Strips per recording at inference, evenly spaced; their unit vectors are averaged."""

Floats = npt.NDArray[np.floating[Any]]


class Model(nn.Module):
    """An ECG encoder and a text encoder that meet in one space."""

    content: Tensor  # bool [vocabulary]: which tokens are words

    def __init__(
        self, ecg: EcgEncoder, text: TextEncoder, space: Space, body: nn.Module, tokenizer: Any, card: dict[str, Any]
    ) -> None:
        super().__init__()
        self.ecg_config, self.text_config, self.space_config = ecg, text, space
        self.tokenizer = tokenizer
        self.card = card  # what the model was trained on; written to config.json as it is
        self.ecg = ResNet1d(ecg)
        self.ecg_head = Head(self.ecg.dim, space)
        self.text = TextTransformer(body, text.frozen)
        self.text_head = Head(self.text.dim, space)
        # predicts the words of the report during training; at inference it is not used
        self.words = nn.Linear(self.ecg.dim, int(body.config.vocab_size))  # type: ignore[union-attr, arg-type]
        content = torch.ones(self.words.out_features, dtype=torch.bool)
        content[tokenizer.all_special_ids] = False
        self.register_buffer("content", content, persistent=False)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / space.temperature)))

    @classmethod
    def create(cls, ecg: EcgEncoder, text: TextEncoder, space: Space, texts: Sequence[str]) -> "Model":
        """A model with new weights; without `text.pretrained` the tokenizer is trained on `texts`."""
        if text.pretrained is not None:
            body, tokenizer = load_pretrained(text)
            if tokenizer.mask_token_id is None or tokenizer.pad_token_id is None:
                raise EinthovenError(f"text encoder {text.pretrained!r} has no mask or no padding token.")
            return cls(ecg, text, space, body, tokenizer, {})
        tokenizer = train_tokenizer(texts, text.vocabulary)
        return cls(ecg, text, space, _body(small_bert(text, len(tokenizer))), tokenizer, {})

    def untrained(self, seed: int) -> "Model":
        """The same encoders and heads with random weights: the control every result is shown beside."""
        body: Any = self.text.body
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            fresh = Model(
                self.ecg_config, self.text_config, self.space_config, _body(body.config), self.tokenizer, self.card
            )
        return fresh.to(self.device).eval()

    @property
    def strip_samples(self) -> int:
        config = self.ecg_config
        return round(config.strip_seconds * config.sampling_rate)

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    def scale(self) -> Tensor:
        """Inverse temperature, bounded."""
        return inverse_temperature(self.log_scale)

    def forward(self, strip: Tensor, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Unit vectors of both modalities, each [b, d], the words' logits [b, v] and the inverse temperature.

        One call for all, so that DDP sees every parameter in one forward pass.
        """
        features = self.ecg(strip)
        return self.ecg_head(features), self.text_head(self.text(tokens, mask)), self.words(features), self.scale()

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, [n, t]; t is the longest text, cut at `max_tokens`."""
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.text_config.max_tokens, return_tensors="pt"
        )
        return batch["input_ids"], batch["attention_mask"]

    @torch.inference_mode()
    def encode_strips(self, strips: Tensor) -> tuple[Tensor, Tensor]:
        """Recordings as [n, s, 12, t] strips in mV -> (unit vectors [n, d], features [n, c]), means over strips."""
        n, s = strips.shape[:2]
        features = self.ecg(strips.flatten(0, 1).to(self.device))
        vectors = self.ecg_head(features).view(n, s, -1).mean(dim=1)
        return nn.functional.normalize(vectors, dim=-1), features.view(n, s, -1).mean(dim=1)

    def encode_ecg(
        self, array: npt.ArrayLike, sampling_rate: float, leads: Sequence[str] = schema.LEADS
    ) -> npt.NDArray[np.float32]:
        """Embed ECGs.

        Args:
            array: millivolts, [leads, samples] or [n, leads, samples]; NaN where nothing was recorded. Any length:
                what is longer than a strip is covered by evenly spaced strips, what is shorter is padded.
            sampling_rate: hertz, of `array`.
            leads: names of the leads of `array`, in its order; any subset of the twelve, any case.

        Returns:
            Unit vectors, [d] or [n, d].
        """
        from einthoven.waveforms.strips import from_millivolts

        signal = np.asarray(array, dtype=np.float32)
        if signal.ndim not in (2, 3):
            raise EinthovenError(f"encode_ecg: expected [leads, samples] or [n, leads, samples], got {signal.shape}.")
        batch = signal if signal.ndim == 3 else signal[None]
        strips = from_millivolts(batch, sampling_rate, leads, self.ecg_config.sampling_rate, self.strip_samples, STRIPS)
        self.eval()
        out = [self.encode_strips(torch.from_numpy(part))[0] for part in _chunks(strips, 64)]
        vectors = torch.cat(out).cpu().numpy() if out else np.empty((0, 0), np.float32)
        return vectors if signal.ndim == 3 else vectors[0]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch: int = 64) -> npt.NDArray[np.float32]:
        """Embed texts: unit vectors [n, d]. Equal texts are embedded once, so they are equal to the bit."""
        if isinstance(texts, str):
            raise EinthovenError("encode_text takes a list of texts, not one string: encode_text([text]).")
        self.eval()
        distinct = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        vectors = np.empty((len(distinct), self.space_config.dim), np.float32)
        order = sorted(distinct, key=len)  # texts of like length share a batch: little padding
        for start in range(0, len(order), batch):
            part = order[start : start + batch]
            tokens, mask = self.tokenize(part)
            out = self.text_head(self.text(tokens.to(self.device), mask.to(self.device)))
            vectors[[distinct[text] for text in part]] = out.float().cpu().numpy()
        return vectors[[distinct[text] for text in texts]]

    def save(self, directory: Path | str) -> None:
        """Write `config.json`, `model.safetensors` and `tokenizer/`; the directory appears whole or not at all."""
        refuse_foreign(Path(directory), "config.json")
        body: Any = self.text.body
        config = {
            "format": FORMAT,
            "ecg": to_dict(self.ecg_config),
            "text": to_dict(self.text_config),
            "space": to_dict(self.space_config),
            "text_body": body.config.to_dict(),
            "card": self.card,
        }
        with atomic(Path(directory)) as temporary:
            temporary.mkdir()
            (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n")
            save_file(
                {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()},
                temporary / "model.safetensors",
            )
            self.tokenizer.save_pretrained(temporary / "tokenizer")


def load(directory: Path | str, device: str | torch.device | None = None) -> Model:
    """Load a model directory, onto a GPU if there is one and `device` names no other.

    Strict: a missing, unknown or misshapen part is an error. Needs no network.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    path = Path(directory)
    values = _read_config(path)
    from transformers import AutoTokenizer

    tokenizer_path = path / "tokenizer"
    if not (tokenizer_path / "tokenizer.json").exists():
        raise EinthovenError(f"{tokenizer_path}: no tokenizer.json. The model directory is incomplete; copy it again.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing more precise
        raise EinthovenError(f"{tokenizer_path} is not a readable tokenizer: {type(error).__name__}.") from None
    ecg = from_dict(EcgEncoder, values["ecg"], f"{path}/config.json: ecg")
    text = from_dict(TextEncoder, values["text"], f"{path}/config.json: text")
    space = from_dict(Space, values["space"], f"{path}/config.json: space")
    body = _body(_body_config(values["text_body"], path))
    if len(tokenizer) != body.config.vocab_size and text.pretrained is None:  # type: ignore[union-attr]
        raise EinthovenError(
            f"{path}: the tokenizer has {len(tokenizer)} entries, the text encoder "
            f"{body.config.vocab_size}. They belong to different models."  # type: ignore[union-attr]
        )
    model = Model(ecg, text, space, body, tokenizer, values["card"])
    try:
        model.load_state_dict(load_file(path / "model.safetensors"), strict=True)
    except FileNotFoundError:
        raise EinthovenError(f"{path}/model.safetensors is missing: the model directory is incomplete.") from None
    except (RuntimeError, SafetensorError) as error:
        first = " ".join(str(error).split())[:300]
        raise EinthovenError(f"{path}/model.safetensors does not fit config.json: {first}") from None
    return model.to(device).eval()


def _read_config(path: Path) -> dict[str, Any]:
    try:
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EinthovenError(
            f"{path}: no config.json, so not a model directory. `einthoven align` makes one."
        ) from None
    except ValueError as error:
        raise EinthovenError(f"{path}/config.json is not JSON: {error}") from None
    known = {"ecg", "text", "space", "text_body", "card", "format"}
    if not isinstance(values, dict) or set(values) != known:
        raise EinthovenError(f"{path}/config.json: expected exactly the keys {', '.join(sorted(known))}.")
    if values["format"] != FORMAT:
        raise EinthovenError(f"{path}: model format {values['format']}; this version of einthoven reads {FORMAT}.")
    return values


def _body_config(values: Any, path: Path) -> Any:
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(**values)
    except (TypeError, ValueError, KeyError) as error:
        raise EinthovenError(f"{path}/config.json: text_body is no known encoder: {error}") from None


def _body(config: Any) -> nn.Module:
    from transformers import AutoModel

    body: nn.Module = AutoModel.from_config(config)
    return body


def _chunks(array: Floats, size: int) -> list[Floats]:
    return [array[i : i + size] for i in range(0, len(array), size)]
