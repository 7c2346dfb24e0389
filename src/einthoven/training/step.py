"""One step of the contrastive loop: the losses of all spaces and their gradients."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from einthoven.batches import Batch
from einthoven.config import Training
from einthoven.contrast import (
    answers,
    equal,
    gather,
    info_nce,
    inverse_temperature,
    multi_hot,
    sigmoid_loss,
    word_loss,
)
from einthoven.model import COARSE, FINE, Model, Outputs
from einthoven.spaces import Views
from einthoven.training.caching import Embeddings, backward_in_chunks


def backward(model: Model, wrapped: nn.Module, batch: Batch, options: Training, kind: str) -> Tensor:
    """Add the gradients of a step to the parameters of `model`, which `wrapped` wraps for DDP; return the loss.

    The contrastive losses over the batches of all ranks, and `options.words` times the prediction of the words. Equal
    texts and equal sets of codes are positives; other recordings of a patient are neither positive nor negative.
    """
    rows = [None if has is None else has.sum().clamp(min=1) for has in (batch.has_text, batch.has_codes)]

    def encode(part: Batch) -> tuple[Embeddings, Tensor | None]:
        with torch.autocast(part.strip.device.type, torch.bfloat16, enabled=kind == "bf16"):
            out = wrapped(part.strip, part.tokens, part.mask, part.codes, part.text_features)
        views: Views = out.views
        own = told(model, out, part, rows, options)
        return (views.ecg_fine, views.codes_fine, views.ecg_coarse, views.codes_coarse, views.text_coarse), own

    def contrast(*views: Tensor | None) -> Tensor:
        return contrastive_loss(model, Views(*views), batch, options)

    return backward_in_chunks(wrapped, batch.split(options.chunk), encode, contrast)


def contrastive_loss(model: Model, views: Views, batch: Batch, options: Training) -> Tensor:
    """The weighted losses of all spaces. Outside of autocast: bf16 cannot tell such small differences of cosines."""
    scale, ignored = inverse_temperature(model.log_scale), equal(gather(batch.subject))
    total = scale.sum() * 0.0
    text, codes = Side.of_text(model, batch), Side.of_codes(model, batch)
    for weight, space, left, right, side, present in (
        (options.fine, FINE, views.ecg_fine, views.codes_fine, codes, batch.has_codes),
        (options.coarse, COARSE, views.ecg_coarse, views.text_coarse, text, batch.has_text),
        (options.codes_text, COARSE, views.codes_coarse, views.text_coarse, text, both(batch)),
    ):
        if not weight or left is None or right is None or side is None or present is None:
            continue
        pair, masks = (gather(left), gather(right), scale[space]), (side.positives(options), ignored, gather(present))
        if options.loss == "sigmoid":
            total = total + weight * sigmoid_loss(*pair, model.bias[space], *masks)
        else:
            total = total + weight * info_nce(*pair, *masks)
    return total


@dataclass(frozen=True)
class Side:
    """What decides which ECGs the texts or the records of a batch belong to."""

    group: Tensor  # int64 [b]; equal numbers: equal text or the same codes
    whole: Tensor  # int64 [b, l], tokens
    shown: Tensor  # int64 [b, k], tokens
    query: Tensor  # bool [b]; of which a part is shown
    content: Tensor  # bool [v]; which tokens are words or codes

    @classmethod
    def of_text(cls, model: Model, batch: Batch) -> "Side | None":
        if batch.text is None or batch.whole_text is None or batch.tokens is None or batch.text_query is None:
            return None
        return cls(batch.text, batch.whole_text, batch.tokens, batch.text_query, model.content)

    @classmethod
    def of_codes(cls, model: Model, batch: Batch) -> "Side | None":
        if batch.code_set is None or batch.whole_codes is None or batch.codes is None or batch.code_query is None:
            return None
        return cls(batch.code_set, batch.whole_codes, batch.codes.tokens, batch.code_query, model.code_content)

    def positives(self, options: Training) -> Tensor:
        """bool [n, n] over the batches of all ranks."""
        groups = gather(self.group)
        if not options.multi_positive:
            return torch.eye(len(groups), dtype=torch.bool, device=groups.device)
        has, asked = (gather(multi_hot(tokens, self.content)) for tokens in (self.whole, self.shown))
        return answers(has, asked, gather(self.query), equal(groups))


def told(model: Model, out: Outputs, part: Batch, rows: Sequence[Tensor | None], options: Training) -> Tensor | None:
    """The loss of predicting words and codes; `rows` of the whole batch have them. None: the model has neither.

    What has a weight of 0 is computed, too: DDP waits for the gradient of every parameter.
    """
    total: Tensor | None = None
    for weight, logits, tokens, has, count, content in (
        (options.words, out.words, part.whole_text, part.has_text, rows[0], model.content),
        (options.code_words, out.code_words, part.whole_codes, part.has_codes, rows[1], model.code_content),
    ):
        if logits is not None and tokens is not None and has is not None and count is not None:
            found = weight * word_loss(logits, tokens, content, has / count)
            total = found if total is None else total + found
    return total


def both(batch: Batch) -> Tensor | None:
    """The rows that have codes and a text."""
    return None if batch.has_codes is None or batch.has_text is None else batch.has_codes & batch.has_text
