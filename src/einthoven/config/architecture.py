"""The encoders and the spaces in which they meet."""

from dataclasses import dataclass

from einthoven.config.values import require


@dataclass(frozen=True, kw_only=True)
class EcgEncoder:
    """A 1-D ResNet over a strip. The paper does not publish its layers: these are our choices."""

    sampling_rate: int = 100  # Hz the model sees
    strip_seconds: float = 5.0  # article: 5-second 12-lead segments
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)  # ResNet-18; ResNet-34 and ResNet-50: (3, 4, 6, 3)
    bottleneck: bool = False  # blocks of three convolutions, four times as wide at their ends: ResNet-50
    kernel: int = 5
    dropout: float = 0.1
    scaling: str = "none"  # millivolts, without each lead's offset; or "minmax": each strip to [0, 1] (MERL)

    def __post_init__(self) -> None:
        require(self.scaling in ("none", "minmax"), "ecg: scaling none or minmax")
        require(self.sampling_rate > 0 and self.strip_seconds > 0, "ecg: sampling_rate and strip_seconds above 0")
        require(bool(self.blocks) and min(self.blocks) > 0, "ecg: blocks, a list of numbers above 0")
        require(self.width > 0 and self.width % 8 == 0, "ecg: width a multiple of 8 (the heads of its pooling)")
        require(self.kernel % 2 == 1, "ecg: kernel odd")
        require(0 <= self.dropout < 1, "ecg: dropout from 0 to below 1")

    @property
    def strip_samples(self) -> int:
        """Samples of a strip."""
        return round(self.strip_seconds * self.sampling_rate)


@dataclass(frozen=True, kw_only=True)
class TextEncoder:
    """`pretrained` names a Hugging Face model or a directory; without it a small BERT is trained from scratch."""

    pretrained: str | None = None
    frozen: bool = False  # only with `pretrained`: each text is encoded once, whole: word_dropout does nothing
    frozen_layers: int = 0  # only with `pretrained`: so many layers, and the embeddings before them, are not trained
    max_tokens: int = 64
    vocabulary: int = 3000  # WordPiece entries; from scratch only, as are the rest
    floor: int = 5  # patients of the train split whose notes have a word; of rarer ones no entry is made
    hidden: int = 192
    layers: int = 3
    heads: int = 4
    dropout: float = 0.1

    def __post_init__(self) -> None:
        kept = self.frozen or self.frozen_layers != 0
        require(self.pretrained is not None or not kept, "text: `pretrained` where `frozen` or `frozen_layers` is set")
        require(self.frozen_layers >= 0, "text: frozen_layers zero or more")
        require(self.max_tokens > 2, "text: max_tokens above 2")
        require(min(self.hidden, self.layers, self.heads) > 0, "text: hidden, layers and heads above 0")
        require(self.hidden % self.heads == 0, "text: hidden a multiple of heads")
        require(self.vocabulary > 5 and self.floor > 0, "text: vocabulary above 5, the special tokens; floor above 0")
        require(0 <= self.dropout < 1, "text: dropout from 0 to below 1")


@dataclass(frozen=True, kw_only=True)
class CodeEncoder:
    """sEHR-BERT over a coded record. `pretrained`: what `einthoven pretrain` wrote, or a BERT of Hugging Face."""

    pretrained: str | None = None
    max_codes: int = 256  # of a record, those nearest to the ECG
    hidden: int = 192  # not with `pretrained`, as are the rest: they are its own
    layers: int = 4
    heads: int = 6
    dropout: float = 0.1
    time: str = "sinusoidal"  # how days from the ECG are told, or "buckets"
    age: bool = True  # the age at the ECG is told
    visits: bool = True  # codes are told apart by visit

    def __post_init__(self) -> None:
        require(min(self.hidden, self.layers, self.heads) > 0, "codes: hidden, layers and heads above 0")
        require(self.hidden % self.heads == 0, "codes: hidden a multiple of heads")
        require(self.max_codes > 0, "codes: max_codes above 0")
        require(0 <= self.dropout < 1, "codes: dropout from 0 to below 1")
        require(self.time in ("sinusoidal", "buckets"), "codes: time sinusoidal or buckets")


@dataclass(frozen=True, kw_only=True)
class Space:
    """Which modalities a model has, and the spaces in which they meet (spaces.py)."""

    modalities: tuple[str, ...] = ("ecg", "text")  # "ecg" and one or both of "codes" and "text"; alone: baselines
    arrangement: str = "fac"  # of three modalities: "fac" (fine and coarse), "disjoint" or "shared"
    dim: int = 256  # of the fine space, and of the only one
    coarse_dim: int = 256
    hidden: int = 512
    temperature: float = 0.07  # initial; learned, one for each space

    def __post_init__(self) -> None:
        require(
            set(self.modalities) in ({"ecg"}, {"ecg", "codes"}, {"ecg", "text"}, {"ecg", "codes", "text"}),
            'space: modalities "ecg", alone or with one or both of "codes" and "text"',
        )
        require(self.arrangement in ("fac", "disjoint", "shared"), "space: arrangement fac, disjoint or shared")
        require(min(self.dim, self.coarse_dim, self.hidden) > 0, "space: dim, coarse_dim and hidden above 0")
        require(self.temperature > 0, "space: temperature above 0")
