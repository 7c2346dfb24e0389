"""The model: encoders and heads as one class."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor, nn

from einthoven import hub, schema
from einthoven.config import CodeEncoder, EcgEncoder, Pairing, Space, TextEncoder, from_dict, to_dict
from einthoven.encoders.code_records import CodeBatch, Records, encode_records
from einthoven.encoders.codes import CodeTransformer, body_of
from einthoven.encoders.ecg import ResNet1d
from einthoven.encoders.text import TextPart, TextTransformer, new_text, text_body
from einthoven.encoders.text_features import encode_texts
from einthoven.errors import EinthovenError
from einthoven.pairing.kinds import kinds_of
from einthoven.spaces import Spaces, Views
from einthoven.study import atomic, refuse_foreign
from einthoven.vocabulary import vocabulary as vocabularies
from einthoven.vocabulary.vocabulary import Vocabulary
from einthoven.weights import holds_weights, save_weights

FORMAT = 3
"""Version of the model directory; a directory of another version is refused, not guessed at."""

SIGMOID_BIAS = -10.0
"""Initial bias of the sigmoid loss (Zhai 2023, section 3.2)."""

FINE, COARSE = 0, 1
"""Places of the spaces in `Model.log_scale`, the inverse temperatures, and `Model.bias`, of the sigmoid loss."""

STRIPS = 3
"""Strips per recording at inference, evenly spaced; their unit vectors are averaged."""

NO_TEXT = 'this model has no text encoder; train one with "text" among [space] modalities.'
NO_CODES = 'this model has no encoder of codes; train one with "codes" among [space] modalities.'


@dataclass(frozen=True)
class CodePart:
    """What makes the encoder of coded records of a model."""

    encoder: CodeTransformer
    vocabulary: Vocabulary


@dataclass(frozen=True)
class Outputs:
    """Of a batch: unit vectors in the spaces, and logits of words and of codes [b, v]."""

    views: Views
    words: Tensor | None
    code_words: Tensor | None


@dataclass(frozen=True)
class Embedded:
    """ECGs as a model sees them. None: the model has not that space."""

    coarse: Tensor | None  # unit vectors [n, d], where text is
    fine: Tensor | None  # unit vectors [n, d], where codes are
    features: Tensor  # [n, c], the encoder's, before any head
    early: Tensor  # [n, e], what the first layers say of the signal (ResNet1d.with_early)

    def vectors(self, space: str | None = None) -> Tensor:
        """Unit vectors in a space, "coarse" or "fine"; by default coarse if there is one."""
        for name in ("coarse", "fine") if space is None else (space,):
            found: Tensor | None = getattr(self, name, None)
            if found is not None:
                return found
        raise EinthovenError(f"this model has no {space} space.")


class Model(nn.Module):
    """An ECG encoder, and encoders of text, of coded records or of both, that meet in one or two spaces."""

    content: Tensor  # bool [vocabulary]: which tokens are words
    code_content: Tensor  # bool [vocabulary]: which tokens are codes

    def __init__(
        self, ecg: EcgEncoder, space: Space, text: TextPart | None, codes: CodePart | None, card: dict[str, Any]
    ) -> None:
        super().__init__()
        self.ecg_config, self.space_config = ecg, space
        self.text_config = None if text is None else text.config
        self.tokenizer = None if text is None else text.tokenizer
        self.vocabulary = None if codes is None else codes.vocabulary
        self.card = card  # what the model was trained on; written to config.json as it is
        self.directory: Path | None = None  # where it was loaded from or saved to
        self.ecg = ResNet1d(ecg)
        self.text = None
        if text is not None:
            self.text = TextTransformer(text.body, text.config.frozen, text.config.frozen_layers)
        self.codes = None if codes is None else codes.encoder
        self.spaces = Spaces(
            space,
            self.ecg.dim,
            None if self.codes is None else self.codes.dim,
            None if self.text is None else self.text.dim,
        )
        self.words = self.code_words = None
        content = code_content = torch.zeros(0, dtype=torch.bool)
        if text is not None:
            # predicts the words of the report during training; at inference it is not used
            self.words = nn.Linear(self.ecg.dim, int(text.body.config.vocab_size))  # type: ignore[union-attr, arg-type]
            content = torch.ones(self.words.out_features, dtype=torch.bool)
            content[text.tokenizer.all_special_ids] = False
        if codes is not None:  # the same with the codes of the record
            self.code_words = nn.Linear(self.ecg.dim, len(codes.vocabulary))
            code_content = torch.arange(len(codes.vocabulary)) >= len(vocabularies.SPECIAL)
        self.register_buffer("content", content, persistent=False)
        self.register_buffer("code_content", code_content, persistent=False)
        self.log_scale = nn.Parameter(torch.full((2,), math.log(1 / space.temperature)))
        self.bias = nn.Parameter(torch.full((2,), SIGMOID_BIAS))

    @classmethod
    def create(
        cls, ecg: EcgEncoder, text: TextEncoder, space: Space, texts: Sequence[str] = (), codes: CodePart | None = None
    ) -> "Model":
        """A model of the modalities of `space`, with new weights; without `text.pretrained` the tokenizer is trained on
        `texts`."""
        if ("codes" in space.modalities) != (codes is not None):
            raise EinthovenError("space: `modalities` name codes exactly where there is an encoder of them.")
        return cls(ecg, space, new_text(text, texts) if "text" in space.modalities else None, codes, {})

    def untrained(self, seed: int) -> "Model":
        """The same encoders and heads with random weights: the control every result is shown beside."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            text = codes = None
            if self.text is not None and self.text_config is not None:
                body: Any = self.text.body
                text = TextPart(self.text_config, text_body(body.config), self.tokenizer)
            if self.codes is not None and self.vocabulary is not None:
                codes = CodePart(rebuilt(described(self.codes)), self.vocabulary)
            fresh = Model(self.ecg_config, self.space_config, text, codes, self.card)
        return fresh.to(self.device).eval()

    @property
    def strip_samples(self) -> int:
        return self.ecg_config.strip_samples

    @property
    def device(self) -> torch.device:
        return self.log_scale.device

    def forward(
        self,
        strip: Tensor,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
        codes: CodeBatch | None = None,
        text: Tensor | None = None,
    ) -> Outputs:
        """One call for all, so that DDP sees every parameter in one forward pass.

        `text`: features of the texts; with them the encoder of text is not run.
        """
        features = self.ecg(strip)
        if text is None and self.text is not None and tokens is not None and mask is not None:
            text = self.text(tokens, mask)
        record = None if self.codes is None or codes is None else self.codes(codes)
        words, code_words = (None if told is None else told(features) for told in (self.words, self.code_words))
        return Outputs(self.spaces(features, record, text), words, code_words)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token ids and mask, [n, t]; t is the longest text, cut at `max_tokens`."""
        if self.tokenizer is None or self.text_config is None:
            raise EinthovenError(NO_TEXT)
        batch = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self.text_config.max_tokens, return_tensors="pt"
        )
        return batch["input_ids"], batch["attention_mask"]

    @torch.inference_mode()
    def encode_strips(self, strips: Tensor) -> "Embedded":
        """Recordings as [n, s, 12, t] strips in mV -> their embeddings, means over strips."""
        n, s = strips.shape[:2]
        features, early = self.ecg.with_early(strips.flatten(0, 1).to(self.device))
        views = self.spaces(features)
        coarse, fine = (
            None if view is None else nn.functional.normalize(view.view(n, s, -1).mean(dim=1), dim=-1)
            for view in (views.ecg_coarse, views.ecg_fine)
        )
        return Embedded(coarse, fine, features.view(n, s, -1).mean(dim=1), early.view(n, s, -1).mean(dim=1))

    def encode_ecg(
        self,
        array: npt.ArrayLike,
        sampling_rate: float,
        leads: Sequence[str] = schema.LEADS,
        space: str | None = None,
    ) -> npt.NDArray[np.float32]:
        """Embed ECGs.

        Args:
            array: millivolts, [leads, samples] or [n, leads, samples]; NaN where nothing was recorded. Any length:
                what is longer than a strip is covered by evenly spaced strips, what is shorter is padded.
            sampling_rate: hertz, of `array`.
            leads: names of the leads of `array`, in its order; any subset of the twelve, any case.
            space: "fine", where codes are, or "coarse", where text is; by default coarse if the model has it.

        Returns:
            Unit vectors, [d] or [n, d].
        """
        from einthoven.waveforms.strips import from_millivolts, several

        batch = several(array, "encode_ecg")
        strips = from_millivolts(batch, sampling_rate, leads, self.ecg_config.sampling_rate, self.strip_samples, STRIPS)
        self.eval()
        parts = [torch.from_numpy(strips[i : i + 64]) for i in range(0, len(strips), 64)]
        out = [self.encode_strips(part).vectors(space) for part in parts]
        vectors = torch.cat(out).cpu().numpy() if out else np.empty((0, 0), np.float32)
        return vectors if np.ndim(array) == 3 else vectors[0]

    @torch.inference_mode()
    def encode_text(self, texts: Sequence[str], batch: int = 64) -> npt.NDArray[np.float32]:
        """Embed texts: unit vectors [n, d]. Equal texts are embedded once, so they are equal to the bit."""
        if isinstance(texts, str):
            raise EinthovenError("encode_text takes a list of texts, not one string: encode_text([text]).")
        place = {text: i for i, text in enumerate(dict.fromkeys(texts))}
        if not place:
            return np.empty((0, self.space_config.dim), np.float32)
        return self.project_text(self.text_features(list(place), batch))[[place[text] for text in texts]]

    def text_features(self, texts: Sequence[str], batch: int = 64) -> Tensor:
        """The text encoder's features [n, c], before the head."""
        if self.text is None:
            raise EinthovenError(NO_TEXT)
        if self.training:  # a walk through all modules takes a fifth of the time of one text
            self.eval()
        return torch.from_numpy(encode_texts(self.text, self.tokenize, texts, batch))

    @torch.inference_mode()
    def project_text(self, features: Tensor) -> npt.NDArray[np.float32]:
        """Features of texts [n, c] -> unit vectors [n, d]."""
        view = self.spaces(None, text=features.to(self.device)).text_coarse
        if view is None:
            raise EinthovenError(NO_TEXT)
        return view.float().cpu().numpy()

    @torch.inference_mode()
    def encode_records(self, records: Records, space: str = "fine", batch: int = 64) -> npt.NDArray[np.float32]:
        """Embed coded records, as `code_records.encode_records` makes them: unit vectors [n, d]."""
        if self.codes is None:
            raise EinthovenError(NO_CODES)
        self.eval()
        order = np.argsort(np.diff(records.offsets), kind="stable")  # records of like length share a batch
        found: list[Tensor] = []
        for start in range(0, len(order), batch):
            part = records.batch(order[start : start + batch], self.codes.config.max_codes)
            views = self.spaces(None, self.codes(part.to(self.device)))
            view = views.codes_fine if space == "fine" else views.codes_coarse
            if view is None:
                raise EinthovenError(f"this model has no codes in the {space} space.")
            found.append(view.float().cpu())
        if not found:
            return np.empty((0, self.space_config.dim), np.float32)
        return torch.cat(found).numpy()[np.argsort(order)]

    def encode_codes(
        self, records: Sequence[Sequence[str]], ages: Sequence[float] | None = None, space: str = "fine"
    ) -> npt.NDArray[np.float32]:
        """Embed lists of codes as if all were of the day of the ECG: unit vectors [n, d]. `ages` are in years.

        The kind of a code is told by the patterns that the model's pairs were made with. EinthovenError names a code
        that none of them takes.
        """
        if self.codes is None or self.vocabulary is None:
            raise EinthovenError(NO_CODES)
        if isinstance(records, str) or any(isinstance(record, str) for record in records):
            raise EinthovenError("encode_codes takes a list of lists of codes: encode_codes([[code]]).")
        patterns = {kind: tuple(of) for kind, of in self.card["code_kinds"].items()}
        known = kinds_of({code for record in records for code in record}, Pairing(code_kinds=patterns))
        kinds = dict(zip(known.codes.to_pylist(), known.kinds.to_pylist(), strict=True))
        for code in (code for record in records for code in record):
            if kinds.get(code) is None:
                raise EinthovenError(f"code {code!r} is of no kind that this model knows: {', '.join(patterns)}.")
        pairs = pa.table(
            {
                "codes": pa.array([list(record) for record in records], pa.list_(pa.string())),
                "code_kinds": pa.array([[kinds[code] for code in record] for record in records], pa.list_(pa.string())),
                "code_days": pa.array([[0.0] * len(record) for record in records], pa.list_(pa.float32())),
            }
        )
        years = [math.nan] * len(records) if ages is None else list(ages)
        return self.encode_records(encode_records(pairs, years, self.vocabulary, self.codes.kinds), space)

    def save(self, directory: Path | str) -> None:
        """Write `config.json`, `model.safetensors` and, where the model has them, `tokenizer/` and `vocabulary.json`.

        The directory appears whole or not at all.
        """
        refuse_foreign(Path(directory), "config.json")
        config: dict[str, Any] = {
            "format": FORMAT,
            "ecg": to_dict(self.ecg_config),
            "space": to_dict(self.space_config),
            "text": None,
            "codes": None,
            "card": self.card,
        }
        if self.text is not None and self.text_config is not None:
            text_body: Any = self.text.body
            config["text"] = {"encoder": to_dict(self.text_config), "body": text_body.config.to_dict()}
        if self.codes is not None and self.vocabulary is not None:
            config["codes"] = described(self.codes) | {"vocabulary": self.vocabulary.digest}
        with atomic(Path(directory)) as temporary:
            temporary.mkdir()
            (temporary / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str) + "\n")
            save_weights(self, temporary)
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(temporary / "tokenizer")
            if self.vocabulary is not None:
                self.vocabulary.save(temporary / vocabularies.FILE)
        self.directory = Path(directory)

    def push(self, name: str, private: bool = True) -> str:
        """Upload the model's directory to the Hub (`hub.push`); returns "owner/name@commit", which `load` takes."""
        if self.directory is None or not holds_weights(self, self.directory):
            raise EinthovenError("push: no directory holds this model as it is now; save(directory) it first.")
        return hub.push(self.directory, name, private)


def described(encoder: CodeTransformer) -> dict[str, Any]:
    """What `rebuilt` makes an encoder of."""
    body: Any = encoder.body
    return {
        "encoder": to_dict(encoder.config),
        "kinds": list(encoder.kinds),
        "body": {k: v for k, v in body.config.to_diff_dict().items() if k not in ("model_type", "architectures")},
    }


def rebuilt(values: dict[str, Any], where: str = "model") -> CodeTransformer:
    """An encoder of codes as `described`, with new weights."""
    config = from_dict(CodeEncoder, values["encoder"], where)
    return CodeTransformer(config, values["kinds"], body_of(values["body"]))
