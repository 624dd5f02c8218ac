import pytest
import torch
from counting import check_backbone, check_sizes
from torch.nn import functional as F

from mfef_mmrazor.models import WideResNet

SIZES = [
    ('wrn-16-1', 175_066, 180_916, '26.66'),
    ('wrn-16-2', 691_674, 703_284, '101.12'),
    ('wrn-40-1', 563_930, 569_780, '83.29'),
    ('wrn-40-2', 2_243_546, 2_255_156, '327.61'),
    ('wrn-16-2-ffsd', 692_810, 704_420, '129.43'),
    ('wrn-40-2-ffsd', 2_246_474, 2_258_084, '355.92'),
]


@pytest.mark.parametrize('name, of_10, of_100, macs', SIZES)
def test_size(name, of_10, of_100, macs):
    check_sizes(name, of_10, of_100, macs)


@pytest.mark.parametrize('variant', ['standard', 'ffsd'])
def test_maps_and_gradients(variant):
    check_backbone(
        WideResNet(16, 2, variant, out_indices=(0, 1, 2)), (32, 32, 32), (64, 16, 16), (128, 8, 8)
    )


@pytest.mark.parametrize('variant', ['standard', 'ffsd'])
@pytest.mark.parametrize('widen_factor', [1, 2])
def test_it_is_the_hand_written_network(variant, widen_factor):
    torch.manual_seed(0)
    network = WideResNet(16, widen_factor, variant).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)

    def conv(layer, x, stride=1):
        padding = layer.weight.shape[-1] // 2
        return F.conv2d(x, layer.weight, layer.bias, stride, padding)

    y = conv(network.conv1, x)
    for stage, stride in zip(network.stages, (1, 2, 2), strict=True):
        assert len(stage) == 2
        for index, block in enumerate(stage):
            step = stride if index == 0 else 1
            strides = (1, step) if variant == 'ffsd' else (step, 1)
            active = block.norm1(y).clamp(min=0)
            out = block.norm2(conv(block.conv1, active, strides[0])).clamp(min=0)
            out = conv(block.conv2, out, strides[1])
            if index == 0 and y.shape[1] != out.shape[1]:
                y = conv(block.shortcut, y if variant == 'ffsd' else active, step)
            y = y + out
    y = network.norm(y).clamp(min=0)
    (last,) = network(x)
    assert torch.allclose(last, y, rtol=0, atol=1e-10)


def test_only_the_variant_has_biases_and_forgets_its_statistics():
    for variant, momentum in (('standard', 0.1), ('ffsd', 0.9)):
        network = WideResNet(10, variant=variant)
        assert network.norm.momentum == momentum
        assert (network.conv1.bias is not None) == (variant == 'ffsd')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(depth=18), r'depth=18, expected 6n \+ 4'),
        (dict(depth=4), r'depth=4, expected 6n \+ 4'),
        (dict(depth=16, widen_factor=0), 'widen_factor=0, expected a positive'),
        (dict(depth=16, variant='x'), "variant='x', expected 'standard' or 'ffsd'"),
        (dict(depth=16, out_indices=(3,)), r'out_indices=\(3,\), but the stages are 0, 1 and 2'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        WideResNet(**arguments)
