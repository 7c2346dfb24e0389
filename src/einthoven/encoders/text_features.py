"""Features of texts, each text encoded once; what a frozen encoder makes of them is kept in the study for the next run.

On disk are hashes of the texts and vectors, no text.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from einthoven import schema
from einthoven.encoders.text import TextTransformer
from einthoven.errors import EinthovenError
from einthoven.schema import Table
from einthoven.study import lock, read_table, remove, write_table

Floats = npt.NDArray[np.float32]
Tokenize = Callable[[Sequence[str]], tuple[Tensor, Tensor]]
Progress = Callable[[int, int], None]

PART = 16_384
"""Texts in a file: what a killed run has to encode again, at most."""


def silent(done: int, total: int) -> None:
    """Progress for callers who show none."""


@torch.inference_mode()
def encode_texts(
    encoder: TextTransformer, tokenize: Tokenize, texts: Sequence[str], batch: int = 64, progress: Progress = silent
) -> Floats:
    """Features [n, c] of `texts`, outside of autocast. Texts of like length share a batch: little padding."""
    device = next(encoder.parameters()).device
    order = np.argsort([len(text) for text in texts], kind="stable")
    features = np.empty((len(texts), encoder.dim), np.float32)
    for start in range(0, len(order), batch):
        rows = order[start : start + batch]
        tokens, mask = tokenize([texts[row] for row in rows])
        features[rows] = encoder(tokens.to(device), mask.to(device)).cpu().numpy()
        progress(min(start + batch, len(order)), len(order))
    return features


def encoder_digest(encoder: TextTransformer, tokenizer: Any, max_tokens: int) -> str:
    """Of all that features depend on: weights, architecture, tokenizer, where a text is cut, pooling."""
    body: Any = encoder.body
    passing = ("transformers_version", "architectures")
    config = {k: v for k, v in body.config.to_dict().items() if k not in passing and not k.startswith("_")}
    backend = getattr(tokenizer, "backend_tokenizer", None)
    words = tokenizer.get_vocab() if backend is None else json.loads(backend.to_str())
    if backend is not None:
        words |= {"truncation": None, "padding": None}  # as the last call left them
    described = [config, type(tokenizer).__name__, words, max_tokens, "mean"]
    digest = hashlib.sha256(json.dumps(described, sort_keys=True, default=str).encode())
    for name, weight in sorted(body.state_dict().items()):
        if not name.startswith("pooler."):  # which is not used, and random where a checkpoint lacks it
            digest.update(f"{name} {tuple(weight.shape)} {weight.dtype}\n".encode())
            digest.update(weight.cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


class KeptFeatures:
    """What a frozen encoder makes of texts, read from the study where an earlier run has left it there."""

    def __init__(
        self,
        encoder: TextTransformer,
        tokenizer: Any,
        tokenize: Tokenize,
        max_tokens: int,
        study: Path,
        progress: Progress = silent,
    ) -> None:
        self.encoder, self.tokenize, self.study, self.progress = encoder, tokenize, study, progress
        self.folder = Path(schema.TEXT_FEATURES.path) / encoder_digest(encoder, tokenizer, max_tokens)

    def of(self, texts: Sequence[str]) -> Tensor:
        """Features [n, c] of distinct texts, in float32; what is not kept yet is encoded and kept."""
        hashes = [hashlib.sha256(text.encode()).digest() for text in texts]
        features = np.empty((len(texts), self.encoder.dim), np.float32)
        missing = np.flatnonzero(~self._read(hashes, features))
        if len(missing):
            with lock(self.study / self.folder):
                for left in (self.study / self.folder).glob(".*.tmp"):  # by a killed process: the lock says it is gone
                    remove(left)
                self._encode(texts, hashes, sorted(missing, key=lambda row: len(texts[row])), features)
        return torch.from_numpy(features)

    def _read(self, hashes: Sequence[bytes], features: Floats) -> npt.NDArray[np.bool_]:
        """Fill the rows of `features` that are kept; return which."""
        wanted, kept = pa.array(hashes, pa.binary(32)), np.zeros(len(hashes), bool)
        for path in sorted((self.study / self.folder).glob("*.parquet")):
            try:
                part = read_table(self._table(path.name), self.study)
            except EinthovenError as error:
                raise EinthovenError(f"{error} Here it is enough to delete it: its texts are encoded again.") from None
            rows = pc.index_in(part["text_hash"], value_set=wanted)
            found = rows.drop_null().to_numpy()
            vectors = part["vector"].filter(pc.is_valid(rows)).combine_chunks().flatten().to_numpy()
            features[found], kept[found] = vectors.reshape(len(found), features.shape[1]), True
        return kept

    def _encode(self, texts: Sequence[str], hashes: Sequence[bytes], missing: list[int], features: Floats) -> None:
        for start in range(0, len(missing), PART):
            rows = missing[start : start + PART]

            def report(done: int, total: int, before: int = start) -> None:
                self.progress(before + done, len(missing))

            made = encode_texts(self.encoder, self.tokenize, [texts[row] for row in rows], progress=report)
            features[rows] = made
            offsets = np.arange(len(made) + 1, dtype=np.int32) * made.shape[1]
            vectors = pa.ListArray.from_arrays(pa.array(offsets), pa.array(made.ravel()))
            number = len(list((self.study / self.folder).glob("*.parquet")))
            columns = {"text_hash": pa.array([hashes[row] for row in rows], pa.binary(32)), "vector": vectors}
            write_table(self._table(f"{number:05d}.parquet"), self.study, pa.table(columns))

    def _table(self, name: str) -> Table:
        return Table(str(self.folder / name), schema.TEXT_FEATURES.columns)
