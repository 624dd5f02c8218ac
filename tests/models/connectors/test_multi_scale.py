import pytest
import torch
from torch import nn

from mfef_mmrazor.models import MultiScaleConnector

# channels, scales, widths of the convolutions, their weights, the same with batch norm
SIZES = [
    (64, 2, [32], 9_216, 9_280),
    (64, 4, [16, 24, 28], 14_544, 14_680),
    (64, 8, [8, 12, 14, 15, 15, 15, 15], 11_736, 11_924),
    (128, 4, [32, 48, 56], 58_176, 58_448),
    (256, 4, [64, 96, 112], 232_704, 233_248),
    (512, 4, [128, 192, 224], 930_816, 931_904),
    (132, 4, [33, 49, 57], 60_651, 60_929),
    (456, 4, [114, 171, 199], 736_542, 737_510),
]


def randomise(module):
    """Random weights and batch statistics, in float64."""
    generator = torch.Generator().manual_seed(0)
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            low = 0.5 if 'running_var' in name else -0.5
            value.uniform_(low, low + 1, generator=generator)
    return module.double()


def reference(block, x, scales):
    """The block by hand, from its weights alone."""
    own = list(x.chunk(scales, dim=1))
    out, passed = [own[0]], None
    for i in range(1, scales):
        y = own[i] if passed is None else torch.cat([own[i], passed], dim=1)
        conv, bn = block.convs[i - 1].conv, block.convs[i - 1].bn
        y = nn.functional.conv2d(y, conv.weight, padding=1)
        if block.training:
            mean, var = y.mean(dim=(0, 2, 3)), y.var(dim=(0, 2, 3), correction=0)
        else:
            mean, var = bn.running_mean, bn.running_var
        mean, var, gain, bias = (v.view(-1, 1, 1) for v in (mean, var, bn.weight, bn.bias))
        y = (gain * (y - mean) / (var + bn.eps).sqrt() + bias).clamp(min=0)
        keep = y.shape[1] if i == scales - 1 else -(-y.shape[1] // 2)
        out.append(y[:, :keep])
        passed = y[:, keep:]
    return torch.cat(out, dim=1)


@pytest.mark.parametrize('channels, scales, widths, weights, parameters', SIZES)
def test_widths_and_parameters(channels, scales, widths, weights, parameters):
    block = MultiScaleConnector(channels, scales=scales)
    convs = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
    assert [conv.out_channels for conv in convs] == widths
    assert sum(conv.weight.numel() for conv in convs) == weights
    assert sum(p.numel() for p in block.parameters()) == parameters


@pytest.mark.parametrize(
    'channels, order',
    [(16, [0, 1, 2, 3, 4, 5, 8, 9, 10, 12, 13, 14, 15, 11, 6, 7]), (8, [0, 1, 2, 4, 5, 6, 7, 3])],
)
def test_with_identity_convolutions_it_is_the_known_permutation(channels, order):
    block = MultiScaleConnector(channels, scales=4).double().eval()
    for module in block.convs:
        nn.init.dirac_(module.conv.weight)
        module.bn.running_var.fill_(1 - module.bn.eps)
    x = torch.rand(2, channels, 5, 5, dtype=torch.float64)
    assert torch.allclose(block(x), x[:, order], rtol=0, atol=1e-14)


@pytest.mark.parametrize('training', [True, False])
@pytest.mark.parametrize('channels, scales', [(8, 2), (16, 4), (24, 4), (16, 8), (12, 3)])
def test_it_is_the_hand_written_loop(channels, scales, training):
    block = randomise(MultiScaleConnector(channels, scales=scales)).train(training)
    x = torch.randn(2, channels, 6, 5, dtype=torch.float64)
    expected = reference(block, x, scales)
    out = block(x)
    assert torch.allclose(out, expected, rtol=0, atol=1e-12)
    assert torch.equal(out[:, : channels // scales], x[:, : channels // scales])
    block.residual = True
    assert torch.allclose(block(x), expected + x, rtol=0, atol=1e-12)


def test_groups_see_1_3_5_and_7_pixels_and_only_groups_before_them():
    block = randomise(MultiScaleConnector(16, scales=4)).eval()
    for module in block.convs:  # everything stays positive, so that no ReLU hides a change
        module.conv.weight.data.abs_()
        module.bn.weight.data.abs_()
        module.bn.bias.data.fill_(10.0)
    kept = [4, 2, 3, 7]
    x = torch.rand(1, 16, 13, 13, dtype=torch.float64)

    def reach(channel):
        """Side of the square around the middle in which each group's output changes."""
        touched = x.clone()
        touched[0, channel, 6, 6] += 1.0
        changed = (block(touched) != block(x))[0].split(kept)
        sides = []
        for group in changed:
            rows, columns = (group.any(dim=0).any(dim=d).nonzero() for d in (1, 0))
            if len(rows):
                assert rows.min() + rows.max() == columns.min() + columns.max() == 12
                assert len(rows) == len(columns)
            sides.append(len(rows))
        return sides

    assert reach(0) == [1, 0, 0, 0]
    assert reach(4) == [0, 3, 5, 7]
    assert reach(8) == [0, 0, 3, 5]
    assert reach(12) == [0, 0, 0, 3]


def test_every_weight_learns_and_the_input_is_left_alone():
    torch.manual_seed(0)
    block = MultiScaleConnector(16)
    x = torch.randn(4, 16, 5, 5)
    before = x.clone()
    block(x).pow(2).sum().backward()
    assert torch.equal(x, before)
    assert all(p.grad.abs().sum() > 0 for p in block.parameters())


def test_init_cfg_reaches_the_convolutions():
    block = MultiScaleConnector(8, init_cfg=dict(type='Constant', layer='Conv2d', val=0.25))
    block.init_weights()
    assert all((module.conv.weight == 0.25).all() for module in block.convs)


def test_impossible_scales():
    with pytest.raises(ValueError, match='scales=1, expected .* at least 2'):
        MultiScaleConnector(64, scales=1)
    with pytest.raises(ValueError, match='scales=2.0, expected a whole number'):
        MultiScaleConnector(64, scales=2.0)
    with pytest.raises(ValueError, match=r'scales=5 .*scales that fit: \[2, 4, 8, 16\]'):
        MultiScaleConnector(64, scales=5)
