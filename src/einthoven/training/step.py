"""One step of the contrastive loop: the losses of all spaces and their gradients."""

from collections.abc import Sequence

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
    rows = [None if has is None else mean_count(has) for has in (batch.has_text, batch.has_codes)]

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
    text, codes = text_positives(model, batch, options), code_positives(model, batch, options)
    for weight, space, left, right, belong, present in (
        (options.fine, FINE, views.ecg_fine, views.codes_fine, codes, batch.has_codes),
        (options.coarse, COARSE, views.ecg_coarse, views.text_coarse, text, batch.has_text),
        (options.codes_text, COARSE, views.codes_coarse, views.text_coarse, text, both(batch)),
    ):
        if not weight or left is None or right is None or belong is None or present is None:
            continue
        pair, masks = (gather(left), gather(right), scale[space]), (belong, ignored, gather(present))
        if options.loss == "sigmoid":
            total = total + weight * sigmoid_loss(*pair, model.bias[space], *masks)
        else:
            total = total + weight * info_nce(*pair, *masks)
    return total


def text_positives(model: Model, batch: Batch, options: Training) -> Tensor | None:
    """Which ECGs the texts of all ranks belong to, bool [n, n]; None: the model has no texts."""
    if batch.text is None or batch.tokens is None or batch.whole_text is None:
        return None
    return positives(batch.text, batch.text_query, batch.whole_text, batch.tokens, model.content, options)


def code_positives(model: Model, batch: Batch, options: Training) -> Tensor | None:
    """The same of the coded records."""
    if batch.code_set is None or batch.codes is None or batch.whole_codes is None:
        return None
    shown, content = batch.codes.tokens, model.code_content
    return positives(batch.code_set, batch.code_query, batch.whole_codes, shown, content, options)


def positives(
    group: Tensor, query: Tensor | None, whole: Tensor, shown: Tensor, content: Tensor, options: Training
) -> Tensor:
    """Bool [n, n] over the batches of all ranks: the same group, and what has all that a query shows.

    group int64 [b]; query bool [b], None: none is; whole [b, l] and shown [b, k], tokens; content bool [v].
    """
    groups = gather(group)
    if not options.multi_positive:
        return torch.eye(len(groups), dtype=torch.bool, device=groups.device)
    if query is None:
        return equal(groups)
    has, asked = (gather(multi_hot(tokens, content)) for tokens in (whole, shown))
    return answers(has, asked, gather(query), equal(groups))


def mean_count(has: Tensor) -> Tensor:
    """How many rows of a rank have it, bool [b], in the mean over ranks; at least one in all together."""
    everyone = gather(has)
    return everyone.sum().clamp(min=1) * (len(has) / len(everyone))


def told(model: Model, out: Outputs, part: Batch, rows: Sequence[Tensor | None], options: Training) -> Tensor | None:
    """The loss of predicting words and codes; `rows` of a whole batch have them. None: the model has neither.

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
