import pytest
import torch

from mfef_mmrazor.models.builder import build
from mfef_mmrazor.models.trunk import low_modules, share_low_modules


def network(type='CifarResNet', channels=64, **backbone):
    return build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type=type, **backbone),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=10, in_channels=channels),
        )
    ).eval()


def tiny_resnet(type='ResNet', **options):
    return network(type, depth=18, stem_channels=8, base_channels=8, channels=64, **options)


STEM = ['conv1', 'bn1', 'relu']
NETWORKS = {
    'CifarResNet': (lambda: network(depth=14), [*STEM, 'layer1', 'layer2']),
    'zero_pad': (lambda: network(depth=8, shortcut='zero_pad'), [*STEM, 'layer1', 'layer2']),
    'bottleneck': (
        lambda: network(depth=20, block='bottleneck', channels=256),
        [*STEM, 'layer1', 'layer2'],
    ),
    'WideResNet': (
        lambda: network('WideResNet', depth=10, widen_factor=2, channels=128),
        ['conv1', 'stages.0', 'stages.1'],
    ),
    'ResNet': (tiny_resnet, [*STEM, 'maxpool', 'layer1', 'layer2']),
    'ResNetV1d': (
        lambda: network('ResNetV1d', depth=18, stem_channels=8, base_channels=8),
        ['stem', 'maxpool', 'layer1', 'layer2'],
    ),
    'ResNet_CIFAR': (lambda: tiny_resnet('ResNet_CIFAR'), [*STEM, 'layer1', 'layer2']),
}


@pytest.mark.parametrize('name', NETWORKS)
def test_the_others_go_on_from_the_map_of_the_first(name):
    build_network, expected = NETWORKS[name]
    first, other = build_network(), build_network()
    plain = build_network()
    low = low_modules(first, 2)
    assert low == [f'backbone.{module}' for module in expected]
    plain.load_state_dict(other.state_dict())
    for module in low:
        plain.get_submodule(module).load_state_dict(first.get_submodule(module).state_dict())
    assert share_low_modules([first, other], 2) == low
    assert not any(key.startswith(tuple(f'{m}.' for m in low)) for key in other.state_dict())

    images, maps = torch.randn(2, 3, 32, 32), []
    first.get_submodule(low[-1]).register_forward_hook(lambda m, args, out: maps.append(out))
    first(images)
    assert torch.equal(other(maps[0]), plain(images))


def test_later_parts_may_differ():
    first, other = network(depth=8), network(depth=8)
    other.backbone.layer3 = torch.nn.Sequential(other.backbone.layer3, torch.nn.ReLU())
    assert share_low_modules([first, other], 2) == low_modules(first, 2)


@pytest.mark.parametrize(
    'other',
    [
        lambda: network(depth=14),
        lambda: network(depth=8, shortcut='zero_pad'),
        lambda: network(depth=8, stem_channels=32, base_channels=32, channels=128),
        lambda: network('WideResNet', depth=10),
    ],
)
def test_different_low_stages_cannot_be_shared_and_nothing_is_changed(other):
    students = [network(depth=8), network(depth=8), other()]
    keys = [list(student.state_dict()) for student in students]
    with pytest.raises(ValueError, match='stages=2, but .* of student2 are not built like those'):
        share_low_modules(students, 2)
    assert [list(student.state_dict()) for student in students] == keys


def test_what_is_no_number_of_low_stages():
    for student, stages, last in (
        (network(depth=8), 3, 2),
        (network(depth=8), -1, 2),
        (tiny_resnet(), 4, 3),
        (network('WideResNet', depth=10), 3, 2),
    ):
        with pytest.raises(ValueError, match=f'shared_stages={stages}, expected 0 to {last}'):
            low_modules(student, stages)


def test_other_backbones_are_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r'found a CifarDenseNet, expected .* CifarResNet, a Wide'):
        low_modules(network('CifarDenseNet', depth=10, bottleneck=False), 2)
    with pytest.raises(ValueError, match='found a Linear'):
        low_modules(torch.nn.Linear(1, 1), 2)
