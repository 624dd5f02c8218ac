import pytest
import torch
from torch import nn

from mfef_mmrazor.models import DANetConnector, DualAttentionConnector
from mfef_mmrazor.models.connectors.dual_attention import ChannelGate, SpatialGate

X = torch.randn(3, 32, 6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def gate_of(attention, kind):
    (gate,) = [module for module in attention.modules() if isinstance(module, kind)]
    return gate


def channel_gate(attention, x):
    first, _, second = gate_of(attention, ChannelGate).mlp
    gate = 0
    for pooled in (x.flatten(2).mean(dim=2), x.flatten(2).max(dim=2).values):
        hidden = (pooled @ first.weight.T + first.bias).clamp(min=0)
        gate = gate + hidden @ second.weight.T + second.bias
    return 1 / (1 + torch.exp(-gate[:, :, None, None]))


def spatial_gate(attention, x):
    conv, bn = (getattr(gate_of(attention, SpatialGate).conv, name) for name in ('conv', 'bn'))
    pooled = torch.stack([x.max(dim=1).values, x.mean(dim=1)], dim=1)
    y = nn.functional.conv2d(pooled, conv.weight, padding=conv.kernel_size[0] // 2)
    y = (y - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight + bn.bias
    return 1 / (1 + torch.exp(-y))


GATES = dict(channel=channel_gate, spatial=spatial_gate)


@pytest.mark.parametrize(
    'channels, reduction, parameters',
    [(64, 16, 680), (64, 8, 1_196), (64, 4, 2_228), (256, 16, 8_564), (512, 16, 33_412)],
)
def test_parameters(channels, reduction, parameters):
    attention = DualAttentionConnector(channels, reduction)
    assert sum(p.numel() for p in attention.parameters()) == parameters


@pytest.mark.parametrize(
    'order', [('channel', 'spatial'), ('spatial', 'channel'), ('channel',), ('spatial',)]
)
def test_it_is_the_hand_written_gates_in_the_order_asked_for(order):
    torch.manual_seed(0)
    attention = DualAttentionConnector(32, 4, kernel_size=3, order=order).double().eval()
    expected = X
    for name in order:
        expected = expected * GATES[name](attention, expected)
    assert torch.allclose(attention(X), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('training', [True, False])
def test_identity_start_is_the_identity_until_it_has_learnt(training):
    attention = DualAttentionConnector(32, 4, identity_start=True).double().train(training)
    assert torch.equal(attention(X), X)
    out = attention(X)
    out.square().sum().backward()
    for gate in attention.gates:
        assert all(p.grad.abs().sum() > 0 for p in gate.last.parameters())
        nn.init.normal_(next(gate.last.parameters()))
    expected = X
    for name in ('channel', 'spatial'):
        expected = expected * 2 * GATES[name](attention, expected)
    assert torch.allclose(attention.eval()(X), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('training', [True, False])
def test_it_only_weakens(training):
    attention = DualAttentionConnector(32).double().train(training)
    out = attention(X)
    assert out.shape == X.shape
    assert (out.abs() < X.abs()).all() and (out * X > 0).all()


def test_zeroed_gates_are_a_half_each():
    attention = DualAttentionConnector(32).double()
    for p in attention.parameters():
        nn.init.zeros_(p)
    assert torch.allclose(attention(X), 0.25 * X, rtol=1e-15)


def test_the_spatial_gates_statistics_move_by_a_hundredth_a_step():
    """As in CBAM's own code; a tenth is usual."""
    torch.manual_seed(0)
    attention = DualAttentionConnector(32, order=('spatial',)).double()
    attention(X)
    conv, bn = (getattr(gate_of(attention, SpatialGate).conv, name) for name in ('conv', 'bn'))
    pooled = torch.stack([X.max(dim=1).values, X.mean(dim=1)], dim=1)
    mean = nn.functional.conv2d(pooled, conv.weight, padding=3).mean()
    torch.testing.assert_close(bn.running_mean, 0.01 * mean[None])


def test_init_cfg_reaches_the_gates():
    layers = ['Conv2d', 'Linear']
    init_cfg = dict(type='Constant', layer=layers, val=0.25, bias=0.5)
    attention = DualAttentionConnector(32, init_cfg=init_cfg)
    attention.init_weights()
    assert (gate_of(attention, ChannelGate).mlp[0].weight == 0.25).all()
    assert (gate_of(attention, SpatialGate).conv.conv.weight == 0.25).all()


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(reduction=65), 'reduction=65 leaves no unit of in_channels=64'),
        (dict(reduction=0), 'reduction=0 leaves no unit'),
        (dict(kernel_size=4), 'kernel_size=4'),
        (dict(order=()), r'order=\(\)'),
        (dict(order=('channel', 'pixel')), "'pixel'.*set it to None"),
        (dict(order='channel'), "order='channel', expected a sequence"),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        DualAttentionConnector(64, **options)


def test_danet_in_half_precision_takes_large_maps():
    """Of 64 pixels of 40, the sum of squares is above what float16 holds."""
    feature = torch.full((1, 8, 8, 8), 40.0, dtype=torch.float16)
    out = DANetConnector(8).half()(feature)
    assert torch.equal(out, feature)


def test_danet_is_the_identity_at_first_and_learns_to_be_more():
    attention = DANetConnector(32).double()
    out = attention(X)
    assert torch.equal(out, X)
    out.pow(2).sum().backward()
    assert attention.position_scale.grad.abs() > 0 and attention.channel_scale.grad.abs() > 0


def test_danet_is_the_hand_written_double_loop():
    torch.manual_seed(0)
    attention = DANetConnector(32).double()
    nn.init.constant_(attention.position_scale, 0.7)
    nn.init.constant_(attention.channel_scale, -0.3)
    q, k, v = (conv(X).flatten(2) for conv in (attention.query, attention.key, attention.value))
    x = X.flatten(2)
    assert q.shape[1] == k.shape[1] == 4
    expected = torch.empty_like(x)
    for b in range(len(x)):
        for pixel in range(x.shape[2]):
            weights = torch.softmax(q[b, :, pixel] @ k[b], dim=0)
            position = (v[b] * weights).sum(dim=1)
            expected[b, :, pixel] = x[b, :, pixel] + 0.5 * 0.7 * position
        for channel in range(x.shape[1]):
            energy = x[b] @ x[b, channel]
            weights = torch.softmax(energy.max() - energy, dim=0)
            expected[b, channel] += 0.5 * -0.3 * (weights[:, None] * x[b]).sum(dim=0)
    assert torch.allclose(attention(X).flatten(2), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize('reduction', [0, 65])
def test_danet_impossible_reduction(reduction):
    with pytest.raises(ValueError, match=f'reduction={reduction} leaves no channel'):
        DANetConnector(64, reduction)
