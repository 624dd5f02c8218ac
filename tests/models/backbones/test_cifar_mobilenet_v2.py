import pytest
import torch
from counting import check_backbone, check_sizes
from mmpretrain.models import MobileNetV2
from torch import nn

from mfef_mmrazor.models import CifarMobileNetV2

SIZES = [
    ('mobilenet-v2-x1.0', '2.24', '2.35', '88.1'),  # as chenyaofo's README rounds them
    ('mobilenet-v2-x1.0', 2_236_682, 2_351_972, '88.09'),
    ('mobilenet-v2-x0.5-repdistiller', 697_546, 812_836, '6.52'),
]


@pytest.mark.parametrize('name, of_10, of_100, macs', SIZES)
def test_size(name, of_10, of_100, macs):
    check_sizes(name, of_10, of_100, macs)


@pytest.mark.parametrize('variant, first', [('standard', 32), ('repdistiller', 16)])
def test_maps_and_gradients(variant, first):
    channels = [8, 16, 16, 32] if variant == 'standard' else [8, 12, 16, 32]
    halved = [1, 1, 2, 4]
    shapes = [(c, first // h, first // h) for c, h in zip(channels, halved, strict=True)]
    network = CifarMobileNetV2(0.5, variant, out_indices=(0, 1, 2, 3, 7))
    check_backbone(network, *shapes, (1280, first // 8, first // 8))


def test_standard_has_mmpretrains_weights():
    """So its function differs in the strides alone."""
    ours, theirs = CifarMobileNetV2(0.5), MobileNetV2(0.5)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }
    strides = [
        [m.stride[0] for m in network.modules() if isinstance(m, nn.Conv2d)]
        for network in (ours, theirs)
    ]
    assert [i for i, (a, b) in enumerate(zip(*strides, strict=True)) if a != b] == [0, 4]
    assert MobileNetV2.arch_settings[1] == [6, 24, 2, 2]


def test_repdistillers_block_and_activation():
    network = CifarMobileNetV2(0.5, 'repdistiller')
    kernels = [m.kernel_size[0] for m in network.layer1[0].modules() if isinstance(m, nn.Conv2d)]
    assert kernels == [1, 3, 1]
    assert not any(isinstance(m, nn.ReLU6) for m in network.modules())
    assert any(isinstance(m, nn.ReLU) for m in network.layer1[0].conv[0].modules())
    (last,) = network(torch.rand(2, 3, 32, 32))
    assert last.shape == (2, 1280, 2, 2)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="variant='x', expected 'standard' or 'repdistiller'"):
        CifarMobileNetV2(variant='x')
    with pytest.raises(ValueError, match='widen_factor=0.3, but .* needs a multiple of 1/4'):
        CifarMobileNetV2(0.3, variant='repdistiller')
