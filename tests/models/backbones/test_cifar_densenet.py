import pytest
import torch
from counting import check_backbone, check_sizes
from torch import nn
from torch.nn import functional as F

from mfef_mmrazor.models import CifarDenseNet

SIZES = [
    ('densenet-bc-40-12', 176_122, 188_092, '72.38'),
    ('densenet-40-12', 1_059_298, 1_100_428, '282.96'),
]


@pytest.mark.parametrize('name, of_10, of_100, macs', SIZES)
def test_size(name, of_10, of_100, macs):
    check_sizes(name, of_10, of_100, macs)


@pytest.mark.parametrize(
    'bottleneck, shapes',
    [
        (True, [(18, 16, 16), (15, 8, 8), (27, 8, 8)]),
        (False, [(48, 16, 16), (72, 8, 8), (96, 8, 8)]),
    ],
)
def test_maps_and_gradients(bottleneck, shapes):
    network = CifarDenseNet(10, bottleneck=bottleneck, out_indices=[0, 1, 2])
    check_backbone(network, *shapes)


@pytest.mark.parametrize('bottleneck', [True, False])
def test_it_is_the_hand_written_network(bottleneck):
    torch.manual_seed(0)
    network = CifarDenseNet(16, growth_rate=4, bottleneck=bottleneck).double()

    def normalized(x):
        """As a fresh batch norm in training mode, then ReLU."""
        mean, var = x.mean(dim=(0, 2, 3), keepdim=True), x.var(dim=(0, 2, 3), correction=0)
        return ((x - mean) / (var[:, None, None] + 1e-5).sqrt()).clamp(min=0)

    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    x = F.conv2d(images, network.stem.weight, padding=1)
    for stage, transition in zip(network.stages, network.transitions, strict=True):
        assert len(stage.block) == (2 if bottleneck else 4)
        for layer in stage.block:
            new = F.conv2d(normalized(x), layer.conv1.weight) if bottleneck else x
            weight = layer.conv2.weight if bottleneck else layer[2].weight
            x = torch.cat([x, F.conv2d(normalized(new), weight, padding=1)], dim=1)
        x = normalized(x)
        if stage is not network.stages[-1]:
            x = F.avg_pool2d(F.conv2d(x, transition.conv.weight), 2)
    (last,) = network(images)
    assert torch.allclose(last, x, rtol=0, atol=1e-10)


def test_other_arguments_are_those_of_mmpretrain():
    network = CifarDenseNet(10, bottleneck=False, in_channels=1, frozen_stages=1, drop_rate=0.2)
    assert network(torch.rand(2, 1, 32, 32))[0].shape == (2, 96, 8, 8)
    assert not any(p.requires_grad for p in network.stages[0].parameters())
    assert all(p.requires_grad for p in network.stages[1].parameters())
    assert {m.p for m in network.modules() if isinstance(m, nn.Dropout)} == {0.2}


@pytest.mark.parametrize('depth, bottleneck', [(39, True), (13, True), (4, False), (12, False)])
def test_impossible_depth(depth, bottleneck):
    with pytest.raises(ValueError, match=rf'depth={depth}, expected [63]n \+ 4 with bottleneck='):
        CifarDenseNet(depth, bottleneck=bottleneck)
