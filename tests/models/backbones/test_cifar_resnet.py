import pytest
import torch
from mmpretrain.registry import MODELS
from torch import nn

from mfef_mmrazor.models import CifarResNet
from mfef_mmrazor.models.backbones.cifar_resnet import ZeroPadShortcut

# depth, shortcut, parameters with 10 and with 100 classes, millions of multiply-adds with 100
SIZES = [
    (20, 'projection', 272_474, 278_324, 40.82),
    (32, 'projection', 466_906, 472_756, 69.13),
    (56, 'projection', 855_770, 861_620, 125.75),
    (110, 'projection', 1_730_714, 1_736_564, 253.16),
    (20, 'zero_pad', 269_722, 275_572, 40.56),
    (32, 'zero_pad', 464_154, 470_004, 68.87),
    (56, 'zero_pad', 853_018, 858_868, 125.49),
    (110, 'zero_pad', 1_727_962, 1_733_812, 252.89),
]


def multiply_adds(network, size):
    """Of all convolutions and linear layers, for one image."""
    counts = []

    def count(layer, inputs, output):
        if isinstance(layer, nn.Conv2d):
            one_output = layer.in_channels // layer.groups * layer.kernel_size[0] ** 2
        else:
            one_output = layer.in_features
        counts.append(output.numel() * one_output)

    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            module.register_forward_hook(count)
    with torch.no_grad():
        network.eval()(torch.rand(1, 3, size, size))
    return sum(counts)


@pytest.mark.parametrize('depth, shortcut, of_10, of_100, millions', SIZES)
def test_size_of_the_classifier(depth, shortcut, of_10, of_100, millions):
    for classes, parameters in ((10, of_10), (100, of_100)):
        network = MODELS.build(
            dict(
                _scope_='mmpretrain',
                type='ImageClassifier',
                backbone=dict(type='CifarResNet', depth=depth, shortcut=shortcut),
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=classes, in_channels=64),
            )
        )
        assert sum(p.numel() for p in network.parameters()) == parameters
        macs = multiply_adds(network, 32) + 64 * (100 - classes)
        assert round(macs / 1e6, 2) == millions


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


def test_unknown_shortcut():
    with pytest.raises(ValueError, match="shortcut='A', expected 'projection' or 'zero_pad'"):
        CifarResNet(depth=8, shortcut='A')
