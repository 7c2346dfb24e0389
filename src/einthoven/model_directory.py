"""A model from its directory, here or on the Hub. Strict: what is missing, unknown or misshapen is an error."""

import json
from pathlib import Path
from typing import Any

import torch

from einthoven.config import EcgEncoder, Space, TextEncoder, from_dict
from einthoven.encoders.text import TextPart, text_body
from einthoven.errors import EinthovenError
from einthoven.hub import directory_of
from einthoven.model import FORMAT, CodePart, Model, rebuilt
from einthoven.vocabulary import vocabulary as vocabularies
from einthoven.weights import load_weights, misfit, refuse_oversize


def load(directory: Path | str, device: str | torch.device | None = None, *, local_files_only: bool = False) -> Model:
    """Load a model, onto a GPU if there is one and `device` names no other.

    Strict: a missing, unknown or misshapen part is an error. A directory needs no network.

    Args:
        directory: of a model; or, where there is none of that name, "owner/name" or "owner/name@revision" on the Hub,
            which is fetched once (`hub.directory_of`).
        device: where the weights go.
        local_files_only: of the Hub's models only take one that was fetched before.
    """
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    path = directory_of(directory, local_files_only)
    values = read_config(path)
    refuse_oversize([values[part] for part in ("ecg", "space", "text", "codes")], path)
    ecg = from_dict(EcgEncoder, values["ecg"], f"{path}/config.json: ecg")
    space = from_dict(Space, values["space"], f"{path}/config.json: space")
    text = None if values["text"] is None else _saved_text(values["text"], path)
    codes = None
    if values["codes"] is not None:
        codes = _saved_codes(values["codes"], path)
    try:
        model = Model(ecg, space, text, codes, values["card"])
    except (RuntimeError, TypeError, ValueError) as error:  # sizes that torch or the spaces cannot be
        raise misfit(path, error) from None
    load_weights(model, path, "model directory")
    model.directory = path
    return model.to(device).eval()


def _saved_text(values: dict[str, Any], path: Path) -> TextPart:
    from transformers import AutoTokenizer

    tokenizer_path = path / "tokenizer"
    if not (tokenizer_path / "tokenizer.json").exists():
        raise EinthovenError(f"{tokenizer_path}: no tokenizer.json. The model directory is incomplete; copy it again.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_path, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # the tokenizers library raises nothing more precise
        raise EinthovenError(f"{tokenizer_path} is not a readable tokenizer: {type(error).__name__}.") from None
    config = from_dict(TextEncoder, values.get("encoder"), f"{path}/config.json: text")
    body = _body(values.get("body"), path)
    size: int = body.config.vocab_size
    if len(tokenizer) != size and config.pretrained is None:
        raise EinthovenError(
            f"{path}: the tokenizer has {len(tokenizer)} entries, the text encoder {size}. "
            "They belong to different models."
        )
    return TextPart(config, body, tokenizer)


def _saved_codes(values: Any, path: Path) -> CodePart:
    if not isinstance(values, dict) or set(values) != {"encoder", "kinds", "body", "vocabulary"}:
        raise EinthovenError(f"{path}/config.json: codes: expected encoder, kinds, body and vocabulary.")
    vocabulary = vocabularies.load(path / vocabularies.FILE, values["vocabulary"])
    try:
        return CodePart(rebuilt(values, f"{path}/config.json: codes"), vocabulary)
    except EinthovenError:
        raise
    except Exception as error:  # a wrong value makes transformers raise anything
        raise EinthovenError(f"{path}/config.json: codes: body is no known encoder: {type(error).__name__}") from None


def read_config(path: Path) -> dict[str, Any]:
    """Of a model directory `config.json`: its keys and its format are checked, the parts are not."""
    try:
        values = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise EinthovenError(
            f"{path}: no config.json, so not a model directory. `einthoven align` makes one."
        ) from None
    except (ValueError, RecursionError) as error:
        raise EinthovenError(f"{path}/config.json is not JSON: {error}") from None
    known = {"ecg", "text", "codes", "space", "card", "format"}
    if not isinstance(values, dict) or set(values) != known:
        raise EinthovenError(f"{path}/config.json: expected exactly the keys {', '.join(sorted(known))}.")
    if values["format"] != FORMAT:
        raise EinthovenError(f"{path}: model format {values['format']}; this version of einthoven reads {FORMAT}.")
    return values


def _body(values: Any, path: Path) -> Any:
    from transformers import AutoConfig

    try:
        return text_body(AutoConfig.for_model(**values))
    except Exception as error:  # as of codes
        raise EinthovenError(f"{path}/config.json: text: body is no known encoder: {type(error).__name__}.") from None
