import pytest
import torch
from mmengine.runner.checkpoint import load_state_dict

from mfef_mmrazor.models import OnlineDistill
from mfef_mmrazor.models.distillers.fused_classifier import (
    FusedClassifier,
    MapAdapters,
    classify,
)

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


def test_sizes_that_are_brought_together_are_told_of_once(log):
    adapters = MapAdapters([4, 4])
    for side in (3, 3, 6):
        adapters([torch.rand(2, 4, 6, 6), torch.rand(2, 4, side, side)])
    assert sum('average-pooled to (3, 3)' in line for line in log) == 1


def test_a_map_in_channels_last_gets_its_gradient_so_and_needs_none():
    head, seen = FusedClassifier(4, num_maps=2, num_classes=3).head, []
    plain = torch.rand(2, 4, 3, 3)
    x = plain.to(memory_format=torch.channels_last).requires_grad_()
    logits = classify(head, x)
    x.register_hook(seen.append)
    logits.sum().backward()
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(seen[0], head.fc.weight.sum(dim=0)[None, :, None, None] / 9)
    with torch.no_grad():
        assert torch.allclose(classify(head, x.detach()), classify(head, plain))
