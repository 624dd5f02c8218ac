import pytest
import torch
from mmengine.registry import init_default_scope
from mmpretrain.structures import DataSample
from torch import nn

from mfef_mmrazor.models import (
    DualAttentionConnector,
    DualAttentionNeck,
    GlobalMaxPooling,
    MFEFDistiller,
    MultiScaleConnector,
    MultiScaleNeck,
    OnlineDistill,
)
from mfef_mmrazor.models.builder import build


def student(depth=8):
    init_default_scope('mmpretrain')
    return dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='CifarResNet', depth=depth),
        neck=[
            dict(type='MultiScaleNeck', in_channels=64),
            dict(type='DualAttentionNeck', in_channels=64),
            dict(type='GlobalAveragePooling'),
        ],
        head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
    )


@pytest.mark.parametrize(
    'neck, connector',
    [
        (MultiScaleNeck(16), MultiScaleConnector(16)),
        (DualAttentionNeck(16), DualAttentionConnector(16)),
    ],
)
def test_a_neck_is_its_connector_on_the_last_map(neck, connector):
    connector.load_state_dict(neck.state_dict())
    earlier, last = torch.rand(2, 8, 8, 8), torch.rand(2, 16, 4, 4)
    first, second = neck((earlier, last))
    assert first is earlier
    assert torch.equal(second, connector(last))


def test_the_extraction_is_in_the_students_own_path():
    network = build(student()).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.bias)
    images = torch.rand(2, 3, 32, 32)
    (feature,) = network.backbone(images)
    extract, attend, _ = network.neck
    expected = network.head.fc(attend((extract((feature,))[0],))[0].mean(dim=(2, 3)))
    torch.testing.assert_close(network(images), expected)
    extra = sum(p.numel() for p in network.parameters()) - 78_042 + 5 * 65
    assert extra == 14_680 + 680


@pytest.mark.parametrize('depths', [(8, 8), (8, 14, 8)])
def test_mfef_fuses_what_the_necks_give(depths):
    torch.manual_seed(0)
    distiller = MFEFDistiller(
        64,
        5,
        multi_scale=None,
        attention=None,
        num_students=len(depths),
        recorders=dict(feature=dict(type='ModuleOutputs', source='neck.1')),
    )
    model = OnlineDistill([student(depth) for depth in depths], distiller)
    samples = [DataSample().set_gt_label(i) for i in range(5)]
    images = torch.rand(5, 3, 32, 32)
    model.loss(images, samples)['distill.loss_fused'].backward()
    for network in model.students:
        assert all(p.grad is not None for p in network.neck.parameters())
        assert network.head.fc.weight.grad is None
    model.eval()
    maps = [network.neck[:2](network.backbone(images))[-1] for network in model.students]
    _, fused = distiller.fused_classifier(maps)
    torch.testing.assert_close(model.predict_logits(images)['fused'], fused)


def test_global_max_pooling():
    x = torch.randn(3, 5, 4, 6)
    assert torch.equal(GlobalMaxPooling()((x,))[0], x.amax(dim=(2, 3)))
