import pytest
import torch
from torch import nn

from mfef_mmrazor.models import FeatureFusionConnector


@pytest.mark.parametrize(
    'channels, students, classes, parameters',
    [
        (64, 2, 10, 10_378),
        (64, 2, 100, 16_228),
        (64, 3, 10, 15_178),
        (64, 3, 100, 21_028),
        (64, 4, 10, 19_978),
        (64, 4, 100, 25_828),
        (128, 2, 10, 37_130),
        (128, 2, 100, 48_740),
        (256, 2, 10, 139_786),
        (256, 2, 100, 162_916),
        (512, 2, 10, 541_706),
        (512, 2, 100, 587_876),
    ],
)
def test_parameters_with_a_linear_classifier(channels, students, classes, parameters):
    fusion = FeatureFusionConnector([channels] * students, channels)
    both = nn.Sequential(fusion, nn.Linear(channels, classes))
    assert sum(p.numel() for p in both.parameters()) == parameters


@pytest.mark.parametrize('in_channels', [[8, 8], [8, 4, 6]])
def test_it_is_the_fusion_module_of_ffl_given_its_weights(in_channels):
    torch.manual_seed(0)
    total = sum(in_channels)
    ffl = nn.Sequential(
        nn.Conv2d(total, total, 3, padding=1, groups=total, bias=False),
        nn.BatchNorm2d(total),
        nn.ReLU(),
        nn.Conv2d(total, 8, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
    ).double()
    fusion = FeatureFusionConnector(in_channels, 8).double()
    # in both, the weights come in the order of the forward pass
    mine, theirs = fusion.state_dict(), ffl.state_dict()
    fusion.load_state_dict(dict(zip(mine, theirs.values(), strict=True)))
    maps = [torch.randn(3, c, 5, 4, dtype=torch.float64) for c in in_channels]
    assert torch.allclose(fusion(maps), ffl(torch.cat(maps, dim=1)), rtol=0, atol=1e-12)
    fusion.eval(), ffl.eval()
    assert torch.allclose(fusion(maps), ffl(torch.cat(maps, dim=1)), rtol=0, atol=1e-12)


def test_init_cfg_reaches_the_convolutions():
    init_cfg = dict(type='Constant', layer='Conv2d', val=0.25)
    fusion = FeatureFusionConnector([8, 8], 8, init_cfg=init_cfg)
    fusion.init_weights()
    convs = [m for m in fusion.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 2 and all((conv.weight == 0.25).all() for conv in convs)


@pytest.mark.parametrize('in_channels', [64, [64], []])
def test_it_needs_two_maps(in_channels):
    with pytest.raises(ValueError, match='in_channels=.*at least two maps'):
        FeatureFusionConnector(in_channels, 64)


@pytest.mark.parametrize(
    'shapes',
    [
        [(2, 8, 4, 4)],
        [(2, 8, 4, 4)] * 3,
        [(2, 8, 4, 4), (2, 8, 2, 2)],
        [(2, 8, 4, 4), (2, 8, 4, 2)],
        [(2, 4, 4, 4), (2, 12, 4, 4)],
    ],
)
def test_maps_it_was_not_made_for(shapes):
    fusion = FeatureFusionConnector([8, 8], 8)
    with pytest.raises(ValueError, match=r'expected 2 maps of one height and width with \[8, 8\]'):
        fusion([torch.rand(shape) for shape in shapes])
