import pytest
import torch
from counting import check_backbone, check_sizes, student
from mmpretrain.models import VGG
from torch import nn

from mfef_mmrazor.models import CifarVGG

SIZES = [
    ('vgg8', 3_918_858, 3_965_028, '67.88'),
    ('vgg13', 9_416_010, 9_462_180, '228.31'),
    ('vgg16', 14_728_266, 14_774_436, '313.25'),
    ('vgg19', 20_040_522, 20_086_692, '398.18'),
    ('vgg16-fc512', 15_253_578, 15_299_748, '313.77'),
    ('vgg19-fc512', 20_565_834, 20_612_004, '398.71'),
    ('vgg8-repdistiller', 3_918_858, 3_965_028, '96.19'),
    ('vgg13-repdistiller', 9_416_010, 9_462_180, '284.94'),
]


@pytest.mark.parametrize('name, of_10, of_100, macs', SIZES)
def test_size(name, of_10, of_100, macs):
    check_sizes(name, of_10, of_100, macs)


def test_maps_and_gradients():
    shapes = (64, 16, 16), (128, 8, 8), (256, 4, 4), (512, 2, 2)
    check_backbone(CifarVGG(8, out_indices=(0, 1, 2, 4)), *shapes)
    shapes = (256, 4, 4), (512, 4, 4), (512, 4, 4)
    check_backbone(CifarVGG(8, 'repdistiller', out_indices=(2, 3, 4)), *shapes)


def test_with_its_neck_it_is_the_network_with_five_poolings():
    network = student('vgg16_cifar').eval()
    reference = VGG(depth=16, norm_cfg=dict(type='BN'))
    reference.eval()
    reference.features.load_state_dict(network.backbone.features.state_dict())
    images = torch.randn(2, 3, 32, 32)
    (pooled,) = reference(images)
    assert pooled.shape == (2, 512, 1, 1)
    assert torch.equal(network.extract_feat(images)[0], pooled.flatten(1))
    assert torch.equal(network(images), network.head.fc(pooled.flatten(1)))


def test_repdistillers_has_three_poolings_and_averages():
    network = student('vgg8-repdistiller_cifar')
    pools = [m for m in network.backbone.modules() if isinstance(m, nn.MaxPool2d)]
    images = torch.randn(2, 3, 32, 32)
    (last,) = network.backbone(images)
    assert len(pools) == 3
    assert torch.allclose(network.neck((last,))[0], last.mean(dim=(2, 3)), atol=1e-6)


def test_three_layer_head():
    head = student('vgg16-fc512_cifar', 100).head
    linear = [m for m in head.modules() if isinstance(m, nn.Linear)]
    assert [(m.in_features, m.out_features) for m in linear] == [
        (512, 512),
        (512, 512),
        (512, 100),
    ]
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.5, 0.5]


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r'depth=12, expected one of \[8, 11, 13, 16, 19\]'):
        CifarVGG(12)
    with pytest.raises(ValueError, match="variant='x', expected 'standard' or 'repdistiller'"):
        CifarVGG(8, variant='x')
