import hashlib

import numpy as np
import pytest
import torch

from einthoven.config import EcgEncoder
from einthoven.encoders.ecg import Conv, ResNet1d, as_images, minmax

DEEP = (3, 4, 6, 3)


def strips(n: int = 2, samples: int = 500) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).standard_normal((n, 12, samples)).astype(np.float32))


def test_the_default_encoder_is_the_one_of_saved_models() -> None:
    """Names, shapes and output as they were before there were other blocks."""
    torch.manual_seed(0)
    model = ResNet1d(EcgEncoder()).eval()
    named = "\n".join(f"{name} {tuple(value.shape)}" for name, value in model.state_dict().items())
    assert hashlib.sha256(named.encode()).hexdigest().startswith("2943b0972550676f")
    with torch.inference_mode():
        features = model(strips())
    stored = [
        [0.0019169020, 0, 0, 0, 0.0086432481, 0.0023106253, 0, 0.0069506648],
        [0.0016964698, 0, 0, 0, 0.0098849759, 0.0022441233, 0, 0.0084581645],
    ]
    assert np.allclose(features[:, ::73], stored, rtol=1e-3, atol=1e-6)
    assert float(features.sum()) == pytest.approx(6.087556, rel=1e-3)


# with a kernel of 9 weights a block has as many as one of 3 x 3: the published numbers (He 2016, as torchvision counts
# them) less the stem and the classifier; a first block that halves has a shortcut of 64 x 64 where an image's has none
@pytest.mark.parametrize(
    ("blocks", "bottleneck", "published", "classifier", "shortcut"),
    [
        ((2, 2, 2, 2), False, 11_689_512, 513_000, 4_224),
        (DEEP, False, 21_797_672, 513_000, 4_224),
        (DEEP, True, 25_557_032, 2_049_000, 0),
    ],
    ids=["ResNet-18", "ResNet-34", "ResNet-50"],
)
def test_depths_have_the_parameters_that_were_published(blocks, bottleneck, published, classifier, shortcut) -> None:
    model = ResNet1d(EcgEncoder(blocks=blocks, bottleneck=bottleneck, kernel=9))
    stem_2d = 3 * 64 * 49 + 2 * 64
    assert sum(p.numel() for p in model.body.parameters()) == published - classifier - stem_2d + shortcut


@pytest.mark.parametrize(("bottleneck", "dim"), [(False, 512), (True, 2048)])
def test_features_are_as_wide_as_the_last_block(bottleneck: bool, dim: int) -> None:
    model = ResNet1d(EcgEncoder(blocks=DEEP, bottleneck=bottleneck)).eval()
    assert model.dim == dim
    with torch.inference_mode():
        assert model(strips(1, 250)).shape == (1, dim)


def test_layers_along_the_deepest_path_are_those_of_the_name() -> None:
    for config, depth in (
        (EcgEncoder(width=8), 18),
        (EcgEncoder(width=8, blocks=DEEP), 34),
        (EcgEncoder(width=8, blocks=DEEP, bottleneck=True), 50),
    ):
        convolutions = [name for name, _ in ResNet1d(config).named_modules() if ".conv" in name]
        assert len(convolutions) + 2 == depth  # the stem; the last layer of the name is the classifier


@pytest.mark.parametrize("bottleneck", [False, True])
def test_the_gradient_reaches_every_parameter(bottleneck: bool) -> None:
    torch.manual_seed(0)
    model = ResNet1d(EcgEncoder(width=8, blocks=(2, 2), bottleneck=bottleneck))
    for name, parameter in model.named_parameters():
        if name.endswith("weight") and not parameter.any():  # as the first step of training leaves them
            torch.nn.init.normal_(parameter)
    model(strips(4)).square().sum().backward()
    # the pooling's bias moves all scores of a head alike, which its softmax cannot see
    still = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert set(still) <= {"pool.score.bias"}


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_new_encoder_passes_only_its_shortcuts(bottleneck: bool) -> None:
    model = ResNet1d(EcgEncoder(width=8, blocks=(2,), bottleneck=bottleneck))
    x = torch.rand(2, 8 * model.body[0].expansion, 1, 50)
    assert torch.equal(model.body[1](x), x)


@pytest.mark.parametrize(("kernel", "stride", "padding"), [(15, 2, 7), (5, 1, 2), (1, 1, 0)])
def test_a_convolution_of_images_of_height_1_is_one_along_time(kernel: int, stride: int, padding: int) -> None:
    conv, strip = Conv(12, 8, kernel, stride, padding), strips(3)
    expected = torch.nn.functional.conv1d(strip, conv.weight, None, stride, padding)
    found = conv(as_images(strip))
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(found.squeeze(2), expected, atol=1e-5)


@pytest.mark.parametrize("bottleneck", [False, True])
@pytest.mark.parametrize("samples", [1, 7, 500])
def test_one_lead_and_any_length_do(bottleneck: bool, samples: int) -> None:
    model = ResNet1d(EcgEncoder(width=8, blocks=(1, 1), bottleneck=bottleneck)).eval()
    strip = strips(2, samples)
    strip[:, 1:] = 0
    with torch.inference_mode():
        features = model(strip)
        strip[0, 0] += 3  # an offset
        assert torch.allclose(model(strip), features, atol=1e-4)
    assert features.isfinite().all()
    assert samples == 1 or not torch.allclose(features[0], features[1])


def test_minmax_is_that_of_each_strip_over_its_recorded_leads() -> None:
    strip = strips(3) + 5  # an offset: zeros are not between minimum and maximum
    strip[0, 4:], strip[1] = 0, 0
    scaled = minmax(strip)
    for i, leads in ((0, 4), (2, 12)):
        x = strip[i, :leads]
        assert torch.allclose(scaled[i, :leads], (x - x.min()) / (x.max() - x.min() + 1e-8))
        assert float(scaled[i, :leads].min()) == 0 and float(scaled[i, :leads].max()) == pytest.approx(1)
    assert not scaled[0, 4:].any() and not scaled[1].any()
    assert torch.allclose(minmax(3 * strip[2:] - 1), scaled[2:], atol=1e-5)  # no gain and no offset


def test_scaling_is_a_part_of_the_encoder() -> None:
    torch.manual_seed(0)
    plain, scaled = (ResNet1d(EcgEncoder(width=8, blocks=(1, 1), scaling=name)).eval() for name in ("none", "minmax"))
    scaled.load_state_dict(plain.state_dict())
    with torch.inference_mode():
        assert torch.allclose(scaled(strips()), scaled(2 * strips() + 1), atol=1e-4)
        assert not torch.allclose(plain(strips()), plain(2 * strips()), atol=1e-4)
        assert torch.equal(scaled(strips()), scaled.pool(scaled.map(minmax(strips()))))


@pytest.mark.parametrize("samples", [1, 32, 33, 500])
@pytest.mark.parametrize("blocks", [(1,), (2, 2, 2, 2)])
def test_the_map_has_one_step_per_stride_of_the_strip(samples: int, blocks: tuple[int, ...]) -> None:
    model = ResNet1d(EcgEncoder(width=8, blocks=blocks)).eval()
    with torch.inference_mode():
        assert model.map(strips(1, samples)).shape[-1] == -(-samples // model.stride)


@pytest.mark.parametrize("blocks", [(1,), (2, 1), (1, 1, 1, 1)])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_what_the_first_layers_say_is_mean_and_deviation_of_their_maps(blocks: tuple[int, ...], bottleneck: bool):
    encoder = ResNet1d(EcgEncoder(width=8, blocks=blocks, bottleneck=bottleneck)).eval()
    strips = torch.randn(3, 12, 300)
    seen: list[torch.Tensor] = []
    ends = [sum(blocks[: i + 1]) - 1 for i in range(len(blocks))][:2]
    for module in (encoder.stem, *(encoder.body[i] for i in ends)):
        module.register_forward_hook(lambda _, given, found: seen.append(found))
    with torch.no_grad():
        features, early = encoder.with_early(strips)
        maps = list(seen)
        assert torch.equal(features, encoder(strips)) and early.shape == (3, encoder.early_dim)
    expected = [
        [
            value
            for one in maps
            for told in (one[i, :, 0].mean(dim=1), one[i, :, 0].var(dim=1, correction=0).sqrt())
            for value in told
        ]
        for i in range(3)
    ]
    torch.testing.assert_close(early, torch.tensor(expected), rtol=1e-4, atol=1e-5)
