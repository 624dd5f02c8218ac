import torch
from torch import nn

from mfef_mmrazor.models import MapAdapter


def test_it_is_convolution_batch_norm_and_relu():
    torch.manual_seed(0)
    adapter = MapAdapter(12, 8)
    assert sum(p.numel() for p in adapter.parameters()) == 12 * 8 + 2 * 8
    plain = nn.Sequential(nn.Conv2d(12, 8, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
    theirs = plain.state_dict().values()
    adapter.load_state_dict(dict(zip(adapter.state_dict(), theirs, strict=True)))
    x = torch.randn(3, 12, 5, 4)
    before = x.clone()
    assert torch.equal(adapter(x), plain(x)) and torch.equal(x, before)


def test_init_cfg_reaches_the_convolution():
    adapter = MapAdapter(12, 8, init_cfg=dict(type='Constant', layer='Conv2d', val=0.25))
    adapter.init_weights()
    assert (adapter.conv.conv.weight == 0.25).all()
