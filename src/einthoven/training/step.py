"""One step of the contrastive loop: the losses of all spaces and their gradients."""

import torch
from torch import Tensor, nn

from einthoven.batches import Batch
from einthoven.config import Training
from einthoven.contrast import equal, gather, info_nce, inverse_temperature, sigmoid_loss, word_loss
from einthoven.model import COARSE, FINE, Model
from einthoven.spaces import Views
from einthoven.training.caching import Embeddings, backward_in_chunks


def backward(model: Model, wrapped: nn.Module, batch: Batch, options: Training, kind: str) -> Tensor:
    """Add the gradients of a step to the parameters of `model`, which `wrapped` wraps for DDP; return the loss.

    The contrastive losses over the batches of all ranks, and `options.words` times the prediction of the words. Equal
    texts and equal sets of codes are positives; other recordings of a patient are neither positive nor negative.
    """
    told = None if batch.has_text is None else batch.has_text.sum().clamp(min=1)

    def encode(part: Batch) -> tuple[Embeddings, Tensor | None]:
        with torch.autocast(part.strip.device.type, torch.bfloat16, enabled=kind == "bf16"):
            out = wrapped(part.strip, part.tokens, part.mask, part.codes, part.text_features)
        own = None
        if out.words is not None and told is not None and part.tokens is not None and part.has_text is not None:
            own = options.words * word_loss(out.words, part.tokens, model.content, part.has_text / told)
        views: Views = out.views
        return (views.ecg_fine, views.codes_fine, views.ecg_coarse, views.codes_coarse, views.text_coarse), own

    def contrast(*views: Tensor | None) -> Tensor:
        return contrastive_loss(model, Views(*views), batch, options)

    return backward_in_chunks(wrapped, batch.split(options.chunk), encode, contrast)


def contrastive_loss(model: Model, views: Views, batch: Batch, options: Training) -> Tensor:
    """The weighted losses of all spaces. Outside of autocast: bf16 cannot tell such small differences of cosines."""
    scale, ignored = inverse_temperature(model.log_scale), equal(gather(batch.subject))
    total = scale.sum() * 0.0
    for weight, space, left, right, group, present in (
        (options.fine, FINE, views.ecg_fine, views.codes_fine, batch.code_set, batch.has_codes),
        (options.coarse, COARSE, views.ecg_coarse, views.text_coarse, batch.text, batch.has_text),
        (options.codes_text, COARSE, views.codes_coarse, views.text_coarse, batch.text, both(batch)),
    ):
        if not weight or left is None or right is None or group is None or present is None:
            continue
        groups = gather(group)
        alone = torch.eye(len(groups), dtype=torch.bool, device=groups.device)
        positives = equal(groups) if options.multi_positive else alone
        pair, masks = (gather(left), gather(right), scale[space]), (positives, ignored, gather(present))
        if options.loss == "sigmoid":
            total = total + weight * sigmoid_loss(*pair, model.bias[space], *masks)
        else:
            total = total + weight * info_nce(*pair, *masks)
    return total


def both(batch: Batch) -> Tensor | None:
    """The rows that have codes and a text."""
    return None if batch.has_codes is None or batch.has_text is None else batch.has_codes & batch.has_text
