import pytest
import torch
from counting import agrees, check_backbone, check_sizes, multiply_adds
from torch import nn

from mfef_mmrazor.models import CifarResNet
from mfef_mmrazor.models.backbones.cifar_resnet import ZeroPadShortcut

SIZES = [
    ('resnet8', 78_042, 83_892, '12.51'),
    ('resnet14', 175_258, 181_108, '26.66'),
    ('resnet20', 272_474, 278_324, '40.82'),
    ('resnet32', 466_906, 472_756, '69.13'),
    ('resnet44', 661_338, 667_188, '97.44'),
    ('resnet56', 855_770, 861_620, '125.75'),
    ('resnet110', 1_730_714, 1_736_564, '253.16'),
    ('resnet110-bottleneck', 1_147_738, 1_170_868, '167.45'),
    ('resnet164-bottleneck', 1_704_154, 1_727_284, '247.67'),
    ('resnet8x4', 1_210_410, 1_233_540, '177.07'),
    ('resnet32x4', 7_410_730, 7_433_860, '1083.04'),
    ('wrn-20-8-bottleneck', 6_848_090, 6_871_220, '1022.83'),
]

# depth, parameters of the classifier with 10 and with 100 classes, millions of multiply-adds
ZERO_PAD_SIZES = [
    (20, 269_722, 275_572, '40.56'),
    (32, 464_154, 470_004, '68.87'),
    (56, 853_018, 858_868, '125.49'),
    (110, 1_727_962, 1_733_812, '252.89'),
]


@pytest.mark.parametrize('name, of_10, of_100, macs', SIZES)
def test_size(name, of_10, of_100, macs):
    check_sizes(name, of_10, of_100, macs)


@pytest.mark.parametrize('depth, of_10, of_100, macs', ZERO_PAD_SIZES)
def test_size_with_zero_pad_shortcuts(depth, of_10, of_100, macs):
    network = CifarResNet(depth=depth, shortcut='zero_pad')
    parameters = sum(p.numel() for p in network.parameters())
    assert (parameters + 65 * 10, parameters + 65 * 100) == (of_10, of_100)
    assert agrees(multiply_adds(network, 32) + 64 * 100, macs)


@pytest.mark.parametrize('shortcut', ['projection', 'zero_pad'])
@pytest.mark.parametrize(
    'block, depth, widen_factor', [('basic', 8, 1), ('bottleneck', 11, 1), ('bottleneck', 20, 2)]
)
def test_maps_and_gradients(block, depth, widen_factor, shortcut):
    network = CifarResNet(
        depth, shortcut, block=block, widen_factor=widen_factor, out_indices=(0, 1, 2)
    )
    channels = 16 if block == 'basic' else 64
    shapes = [(channels * 2**i, 32 // 2**i, 32 // 2**i) for i in range(3)]
    check_backbone(network, *shapes)


def test_wide_bottlenecks_are_wide_inside():
    network = CifarResNet(depth=20, block='bottleneck', widen_factor=8)
    for stage, inside in ((network.layer1, 128), (network.layer2, 256), (network.layer3, 512)):
        assert len(stage) == 2
        for block in stage:
            assert block.conv2.weight.shape == (inside, inside, 3, 3)
            assert block.conv3.weight.shape == (inside // 2, inside, 1, 1)


@pytest.mark.parametrize('shortcut', ['projection', 'zero_pad'])
def test_it_is_the_hand_written_network(shortcut):
    torch.manual_seed(0)
    network = CifarResNet(depth=14, shortcut=shortcut).double()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    y = network.bn1(network.conv1(x)).clamp(min=0)
    for stage, stride in ((network.layer1, 1), (network.layer2, 2), (network.layer3, 2)):
        assert len(stage) == 2
        for index, block in enumerate(stage):
            step = stride if index == 0 else 1
            out = nn.functional.conv2d(y, block.conv1.weight, stride=step, padding=1)
            out = nn.functional.conv2d(
                block.norm1(out).clamp(min=0), block.conv2.weight, stride=1, padding=1
            )
            if step == 2 and shortcut == 'projection':
                conv, norm = block.downsample
                y = norm(nn.functional.conv2d(y, conv.weight, stride=2))
            elif step == 2:
                half = torch.zeros_like(y[:, : y.shape[1] // 2, ::2, ::2])
                y = torch.cat([half, y[:, :, ::2, ::2], half], dim=1)
            y = (block.norm2(out) + y).clamp(min=0)
    (last,) = network(x)
    assert last.shape == (2, 64, 8, 8)
    assert torch.allclose(last, y, rtol=0, atol=1e-12)


def test_zero_pad_shortcut_has_no_parameters_and_loses_no_channel():
    shortcut, x = ZeroPadShortcut(5), torch.rand(1, 3, 6, 6)
    out = shortcut(x)
    assert not list(shortcut.parameters())
    assert torch.equal(out[:, 2:5], x[:, :, ::2, ::2])
    assert out.shape == (1, 8, 3, 3) and out[:, :2].sum() == out[:, 5:].sum() == 0


def test_no_block_starts_switched_off():
    network = CifarResNet(depth=8)
    network.init_weights()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 9 and all((norm.weight == 1).all() for norm in norms)


def test_other_arguments_are_those_of_mmpretrain():
    network = CifarResNet(depth=8, out_indices=(0, 1, 2), frozen_stages=1)
    maps = network(torch.rand(1, 3, 32, 32))
    assert [tuple(x.shape[1:]) for x in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert not any(p.requires_grad for p in network.layer1.parameters())
    assert all(p.requires_grad for p in network.layer2.parameters())


@pytest.mark.parametrize('depth', [2, 7, 18, 52])
def test_impossible_depth(depth):
    with pytest.raises(ValueError, match=rf'depth={depth}, expected 6n \+ 2'):
        CifarResNet(depth=depth)


@pytest.mark.parametrize('depth', [2, 8, 32, 111])
def test_impossible_depth_with_bottlenecks(depth):
    with pytest.raises(ValueError, match=rf'depth={depth}, expected 9n \+ 2'):
        CifarResNet(depth=depth, block='bottleneck')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(shortcut='A'), "shortcut='A', expected 'projection' or 'zero_pad'"),
        (dict(block='wide'), "block='wide', expected 'basic' or 'bottleneck'"),
        (dict(widen_factor=2), 'widen_factor=2 with basic blocks: .* by base_channels'),
        (dict(block='bottleneck', widen_factor=0), 'widen_factor=0 with bottleneck blocks'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        CifarResNet(depth=20, **arguments)
