"""ECG encoder: a 1-D ResNet (He 2016, with convolutions along time) and attention pooling over time.

The article says only "a 1-D CNN on 5-second 12-lead segments"; the layers are our choice.
"""

from itertools import accumulate
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from einthoven.config import EcgEncoder
from einthoven.encoders.batch_norm import BatchNorm

EARLY: Final = 3
"""Maps that `with_early` looks at: the stem's, and those of the first stages."""


class Conv(nn.Conv1d):
    """A convolution along time, without a bias, of images of height 1, [b, c_in, 1, t].

    Those alone have a layout with the channels last, in which a processor trains a fifth faster (LOG.md).
    """

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__(c_in, c_out, kernel, stride, padding, bias=False)
        self.steps, self.margins = (1, stride), (0, padding)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.unsqueeze(2), None, self.steps, self.margins)


class Block(nn.Module):
    """Two convolutions and a shortcut, [b, c_in, 1, t] -> [b, width, 1, t / stride]."""

    expansion = 1

    def __init__(self, c_in: int, width: int, stride: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = Conv(c_in, width, kernel, stride, kernel // 2)
        self.norm1 = BatchNorm(width)
        self.conv2 = Conv(width, width, kernel, 1, kernel // 2)
        self.norm2 = BatchNorm(width)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = _shortcut(c_in, width, stride)
        nn.init.zeros_(self.norm2.weight)  # each block starts as its shortcut (Goyal 2017)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(F.relu(self.norm1(self.conv1(x))))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A convolution along time between two of 1 sample, and a shortcut, [b, c_in, 1, t] -> [b, 4 width, 1, t / s]."""

    expansion = 4

    def __init__(self, c_in: int, width: int, stride: int, kernel: int, dropout: float) -> None:
        super().__init__()
        c_out = self.expansion * width
        self.conv1 = Conv(c_in, width, 1)
        self.norm1 = BatchNorm(width)
        # the stride is here, not at conv1, which would skip every other sample unseen (Goyal 2017)
        self.conv2 = Conv(width, width, kernel, stride, kernel // 2)
        self.norm2 = BatchNorm(width)
        self.conv3 = Conv(width, c_out, 1)
        self.norm3 = BatchNorm(c_out)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = _shortcut(c_in, c_out, stride)
        nn.init.zeros_(self.norm3.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        y = self.dropout(F.relu(self.norm2(self.conv2(y))))
        return F.relu(self.norm3(self.conv3(y)) + self.shortcut(x))


def _shortcut(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    if stride == 1 and c_in == c_out:
        return nn.Sequential()
    # averaging before the 1x1 convolution loses no samples to the stride (He 2019, ResNet-D)
    pool = nn.AvgPool2d((1, stride), ceil_mode=True) if stride != 1 else nn.Identity()
    return nn.Sequential(pool, Conv(c_in, c_out, 1), BatchNorm(c_out))


class AttentionPooling(nn.Module):
    """Weighted mean over time, [b, c, t] -> [b, c]; each head weighs its own share of the channels."""

    def __init__(self, channels: int, heads: int = 8) -> None:
        super().__init__()
        self.heads = heads
        self.score = nn.Conv1d(channels, heads, 1)
        nn.init.zeros_(self.score.weight)  # starts as the plain mean

    def forward(self, x: Tensor) -> Tensor:
        b, c, t = x.shape
        weights = self.score(x).float().softmax(dim=-1)  # [b, h, t]
        return torch.einsum("bhct,bht->bhc", x.float().view(b, self.heads, c // self.heads, t), weights).reshape(b, c)


class ResNet1d(nn.Module):
    """Strips in millivolts [b, 12, t] -> features [b, `dim`]. A lead that was not recorded is all zero.

    ResNet-18 by default; ResNet-34 has `blocks` (3, 4, 6, 3), ResNet-50 those and `bottleneck`.
    """

    def __init__(self, config: EcgEncoder) -> None:
        super().__init__()
        widths = [config.width * 2**i for i in range(len(config.blocks))]
        self.stem = nn.Sequential(Conv(12, config.width, 15, 2, 7), BatchNorm(config.width), nn.ReLU())
        block = Bottleneck if config.bottleneck else Block
        layers: list[nn.Module] = []
        c_in = config.width
        for width, depth in zip(widths, config.blocks, strict=True):
            for i in range(depth):
                layers.append(block(c_in, width, 2 if i == 0 else 1, config.kernel, config.dropout))
                c_in = block.expansion * width
        self.body = nn.Sequential(*layers)
        self.ends = set(accumulate(config.blocks[: EARLY - 1]))  # blocks after which a stage has ended, from 1
        self.early_dim = 2 * (config.width + sum(block.expansion * width for width in widths[: EARLY - 1]))
        self.pool = AttentionPooling(c_in)
        self.dim = c_in
        self.stride = 2 ** (1 + len(widths))  # samples of the strip per step of the map before the pooling
        self.scaled = SCALINGS[config.scaling]

    def forward(self, strip: Tensor) -> Tensor:
        return self.pool(self.map(self.scaled(strip)))

    def with_early(self, strip: Tensor) -> tuple[Tensor, Tensor]:
        """Features, and [b, e]: mean and standard deviation over time of every channel of the first maps.

        What was wrong with the recording shows there, before the later layers learn not to mind it (Lee 2018, "A simple
        unified framework for detecting out-of-distribution samples", section 2.2, reads all layers).
        """
        x = self.stem(as_images(self.scaled(strip)))
        maps = [x]
        for number, block in enumerate(self.body, start=1):
            x = block(x)
            if number in self.ends:
                maps.append(x)
        flat = [x.float().squeeze(2) for x in maps]
        told = [part for x in flat for part in (x.mean(dim=-1), x.std(dim=-1, correction=0))]
        return self.pool(x.squeeze(2).contiguous()), torch.cat(told, dim=-1)

    def map(self, scaled: Tensor) -> Tensor:
        """Scaled strips [b, 12, t] -> features over time [b, `dim`, t / `stride`, rounded up]."""
        found: Tensor = self.body(self.stem(as_images(scaled)))
        return found.squeeze(2).contiguous()


def as_images(strip: Tensor) -> Tensor:
    """[b, 12, t] -> [b, 12, 1, t], the channels last in memory."""
    return strip.unsqueeze(2).contiguous(memory_format=torch.channels_last)


def centred(strip: Tensor) -> Tensor:
    """Millivolts without the offset of each lead, which means nothing; a lead that is all zero stays so."""
    return strip - strip.mean(dim=-1, keepdim=True)


def minmax(strip: Tensor) -> Tensor:
    """Each strip [12, t] to [0, 1] by the minimum and maximum of all its samples, as MERL does with whole recordings.

    Gains and offsets of the whole strip go, offsets between leads stay. Leads that are all zero, not recorded, have no
    part in minimum and maximum and stay zero: a recorded lead is zero where it has the strip's minimum, not throughout.
    """
    recorded = strip.abs().amax(dim=-1, keepdim=True) > 0
    low = strip.masked_fill(~recorded, torch.inf).amin(dim=(1, 2), keepdim=True)
    high = strip.masked_fill(~recorded, -torch.inf).amax(dim=(1, 2), keepdim=True)
    return torch.where(recorded, (strip - low) / (high - low + 1e-8), 0.0)


SCALINGS: Final = {"none": centred, "minmax": minmax}
