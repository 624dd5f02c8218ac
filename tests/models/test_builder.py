import pytest
from mmpretrain.models import LinearClsHead
from torch import nn

from mfef_mmrazor.models import MapAdapter, MultiScaleConnector
from mfef_mmrazor.models.builder import build, find, nearest


def test_a_config_wins_over_the_defaults_and_is_left_alone():
    cfg = dict(scales=2)
    block = build(cfg, type='MultiScaleConnector', in_channels=8, scales=4)
    assert isinstance(block, MultiScaleConnector) and len(block.convs) == 1
    assert cfg == dict(scales=2)
    assert isinstance(
        build(dict(type='MapAdapter', out_channels=4), type='MultiScaleConnector', in_channels=8),
        MapAdapter,
    )


def test_parts_are_looked_for_in_the_scope_of_the_prefix():
    network = build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='CifarResNet', depth=8),
            head=dict(type='LinearClsHead', num_classes=3, in_channels=64),
        )
    )
    assert type(network.head) is LinearClsHead


def test_a_type_without_a_prefix_is_mmrazors_or_mmpretrains():
    assert type(build(dict(type='GlobalAveragePooling'))).__module__.startswith('mmpretrain')
    assert find(dict(type='SearchableImageClassifier')).__module__.startswith('mmrazor')
    # as a config with classes for types is written to a checkpoint
    assert find(dict(type='mmpretrain.models.LinearClsHead')) is LinearClsHead


def test_a_type_may_be_a_class():
    assert isinstance(build(dict(type=nn.Linear), in_features=2, out_features=3), nn.Linear)
    with pytest.raises(TypeError, match="Linear has no argument 'in_featurs'; nearest: in_feature"):
        build(dict(type=nn.Linear, in_featurs=2))


@pytest.mark.parametrize(
    'cfg, error, message',
    [
        (None, TypeError, 'expected a config dict, got NoneType'),
        ('MapAdapter', TypeError, "expected a config dict, got str: 'MapAdapter'"),
        (dict(scales=4), KeyError, r"needs a 'type', got only \['scales'\]"),
        (
            dict(type='MapAdaptor'),
            KeyError,
            'MapAdaptor is not registered in mmrazor or mmpretrain; .*Adapter',
        ),
        (
            dict(type='mmdet.RetinaNet'),
            ImportError,
            'mmdet.RetinaNet: the package mmdet is not installed',
        ),
        (
            dict(type='mmpretrain.CifarResnet'),
            KeyError,
            'CifarResnet is not registered in mmpretrain; nearest: .*CifarResNet',
        ),
        (
            dict(type='MultiScaleConnector', in_channels=8, scale=2),
            TypeError,
            "MultiScaleConnector has no argument 'scale'; nearest: scales.* It takes: in_",
        ),
    ],
)
def test_mistakes_are_named(cfg, error, message):
    with pytest.raises(error, match=message):
        build(cfg)


def test_nearest_names():
    assert nearest('bakbone', ['head', 'backbone']) == '; nearest: backbone'
    assert nearest('xyz', ['head', 'backbone']) == ''
