import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict

from mfef_mmrazor.models import OnlineDistill
from mfef_mmrazor.models.distillers.fused_classifier import FusedClassifier, MapAdapters

STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
)


@pytest.mark.parametrize('method', ['MFEFDistiller', 'FFLDistiller'])
@pytest.mark.parametrize('load', [torch.nn.Module.load_state_dict, load_state_dict])
def test_weights_of_older_checkpoints_are_found(method, load):
    """There the fusion and the head were the distiller's own."""
    distiller = dict(type=method, in_channels=64, num_classes=5)
    trained, fresh = (OnlineDistill([STUDENT] * 2, distiller) for _ in range(2))
    older = {k.replace('.fused_classifier.', '.'): v for k, v in trained.state_dict().items()}
    assert {'distiller.head.fc.weight'} <= set(older) - set(trained.state_dict())
    load(fresh, older, strict=True)
    found = fresh.state_dict()
    assert all(torch.equal(found[name], value) for name, value in trained.state_dict().items())


def test_another_architecture_is_still_refused():
    distiller = dict(type='MFEFDistiller', in_channels=64, num_classes=5)
    model = OnlineDistill([STUDENT] * 2, distiller)
    weights = model.state_dict()
    weights['distiller.haed.fc.weight'] = weights.pop('distiller.fused_classifier.head.fc.weight')
    with pytest.raises(ValueError, match='unexpected: distiller.haed.fc.weight'):
        model.load_state_dict(weights)


def test_without_fusion_the_maps_are_averaged():
    fused = FusedClassifier(4, num_maps=2, num_classes=3, fusion=None)
    a, b = torch.rand(2, 4, 3, 3), torch.rand(2, 4, 3, 3)
    feature, logits = fused([a, b])
    torch.testing.assert_close(feature, (a + b) / 2)
    expected = fused.head.fc((a + b).flatten(2).mean(dim=2) / 2)
    torch.testing.assert_close(logits, expected)


def test_the_smallest_map_and_the_fewest_channels_win():
    adapters = MapAdapters([8, 4, 8])
    maps = [torch.rand(2, 8, 6, 4), torch.rand(2, 4, 3, 8), torch.rand(2, 8, 6, 8)]
    out = adapters(maps)
    assert [tuple(x.shape) for x in out] == [(2, 4, 3, 4)] * 3
    pooled = maps[1].unflatten(3, (4, 2)).mean(dim=4)
    torch.testing.assert_close(out[1], pooled)
