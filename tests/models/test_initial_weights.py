"""One plain checkpoint starts a network, under the names of several libraries."""

import copy
import re

import pytest
import torch
import torchvision
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS as NETWORKS

from mfef_mmrazor.models import initial_weights
from mfef_mmrazor.models.builder import build
from mfef_mmrazor.models.initial_weights import load_initial_weights, warn_of_twins
from mfef_mmrazor.models.students import resolve_student


def small(num_classes=10, **kwargs):
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=64)
    return build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='CifarResNet', depth=8),
            neck=dict(type='GlobalAveragePooling'),
            head=head,
            **kwargs,
        )
    )


def saved(content, tmp_path):
    torch.save(content, tmp_path / 'plain.pth')
    return str(tmp_path / 'plain.pth')


@pytest.mark.parametrize(
    'wrap',
    [
        lambda weights: weights,
        lambda weights: dict(state_dict=weights, meta=dict(epoch=3)),
        lambda weights: dict(model={f'module.{k}': v for k, v in weights.items()}),
        lambda weights: dict(state_dict={f'architecture.{k}': v for k, v in weights.items()}),
        lambda weights: {
            f'module._orig_mod.module.architecture.{k}': v for k, v in weights.items()
        },
    ],
    ids=['bare', 'mmengine', 'parallel', 'first student', 'parallel, compiled, first student'],
)
def test_what_libraries_wrap_weights_in(wrap, tmp_path, log):
    source, network = small(), small()
    load_initial_weights(network, saved(wrap(source.state_dict()), tmp_path), 'student1')
    for key, value in source.state_dict().items():
        torch.testing.assert_close(network.state_dict()[key], value, rtol=0, atol=0)
    number = sum(not key.endswith('num_batches_tracked') for key in source.state_dict())
    assert log[-1].startswith(f'student1: loaded {number} of {number} weights from')


def test_a_deeper_network_is_told(tmp_path, log):
    deeper = small()
    deeper.backbone.layer1.add_module('1', copy.deepcopy(deeper.backbone.layer1[0]))
    load_initial_weights(small(), saved(deeper.state_dict(), tmp_path), 'student0')
    assert '; not in this network: backbone.layer1.1.conv1.weight' in log[-1]
    classified = {**small().backbone.state_dict(), 'fc.weight': torch.ones(3, 8)}
    load_initial_weights(small(), saved(classified, tmp_path), 'student0')
    assert 'not in this network' not in log[-1]


def test_a_backbone_alone_and_a_head_for_other_classes(tmp_path, log):
    source, network = small(), small(num_classes=7)
    bare = saved(source.backbone.state_dict(), tmp_path)
    load_initial_weights(network, bare, 'student0')
    assert torch.equal(network.backbone.conv1.weight, source.backbone.conv1.weight)
    assert log[-1].endswith('initialised anew: head.fc.weight, head.fc.bias')
    parallel = {f'module.{key}': value for key, value in source.backbone.state_dict().items()}
    load_initial_weights(network, saved(parallel, tmp_path), 'student0')
    assert log[-1].endswith('initialised anew: head.fc.weight, head.fc.bias')
    before = network.head.fc.weight.clone()
    load_initial_weights(network, saved(source.state_dict(), tmp_path), 'student0')
    assert torch.equal(network.head.fc.weight, before)
    assert re.search(r'loaded (\d+) of (\d+) weights', log[-1]).groups() == ('45', '47')


@pytest.mark.parametrize(
    'name, config',
    [
        ('resnet18', 'resnet/resnet18_8xb32_in1k.py'),
        ('mobilenet_v2', 'mobilenet_v2/mobilenet-v2_8xb32_in1k.py'),
        ('shufflenet_v2_x1_0', 'shufflenet_v2/shufflenet-v2-1x_16xb64_in1k.py'),
    ],
)
@torch.no_grad()
def test_torchvisions_networks_give_the_same_logits(name, config, tmp_path):
    torch.manual_seed(0)
    source = torchvision.models.get_model(name).eval()
    network = build(resolve_student(dict(cfg_path=f'mmpretrain::{config}'))).eval()
    load_initial_weights(network, saved(source.state_dict(), tmp_path), name)
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(network(images, mode='tensor'), source(images))


@torch.no_grad()
def test_timms_names_of_a_vision_transformer(tmp_path, log):
    network = build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='VisionTransformer', arch='deit-t', img_size=32),
            head=dict(type='VisionTransformerClsHead', num_classes=10, in_channels=192),
        )
    )
    here_and_timm = (
        ('layers', 'blocks'), ('ln1', 'norm1'), ('ln2', 'norm2'), ('projection', 'proj'),
        ('ffn.blocks.0.0', 'mlp.fc1'), ('ffn.blocks.1', 'mlp.fc2'), ('head.blocks.head', 'head'),
    )  # fmt: skip
    as_timm = {}
    for key, value in network.state_dict().items():
        name = key.removeprefix('backbone.')
        for here, timm in here_and_timm:
            name = name.replace(here, timm)
        if name.startswith('norm1.'):
            name = name.replace('norm1', 'norm')
        as_timm[name] = torch.randn_like(value)
    assert {'blocks.0.mlp.fc1.weight', 'norm.weight', 'head.bias', 'cls_token'} <= set(as_timm)
    load_initial_weights(network, saved(as_timm, tmp_path), 'vit')
    assert torch.equal(
        network.backbone.layers[3].ffn.layers[1].bias, as_timm['blocks.3.mlp.fc2.bias']
    )
    assert f'loaded {len(as_timm)} of {len(as_timm)}' in log[-1]


def test_what_cannot_start_it_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='student2: checkpoint not found: no.pth'):
        load_initial_weights(small(), 'no.pth', 'student2')
    other = saved(torch.nn.Linear(3, 2).state_dict(), tmp_path)
    with pytest.raises(ValueError, match='student2: none of its 45 .*plain.pth.*weight, bias'):
        load_initial_weights(small(), other, 'student2')
    (tmp_path / 'text.pth').write_text('no tensors')
    with pytest.raises(ValueError, match='text.pth cannot be read as a checkpoint'):
        load_initial_weights(small(), str(tmp_path / 'text.pth'), 'student2')


def test_equal_students_are_announced(log):
    first, second, third = small(), small(), small()
    log.clear()
    warn_of_twins([x.state_dict() for x in (first, second, third)])
    assert not log
    third.load_state_dict(second.state_dict())
    warn_of_twins([x.state_dict() for x in (first, second, third)])
    assert len(log) == 1 and log[0].startswith('student1 and student2 have the same weights')


def with_part(path, **options):
    """A network whose backbone alone has initial weights."""
    head = dict(type='LinearClsHead', num_classes=10, in_channels=64)
    init = dict(type='Pretrained', checkpoint=path, **options)
    return build(
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=dict(type='CifarResNet', depth=8, init_cfg=init),
            neck=dict(type='GlobalAveragePooling'),
            head=head,
        )
    )


def test_the_init_cfg_of_a_part(tmp_path, log):
    source = small()
    weights = {f'module.{key}': value for key, value in source.state_dict().items()}
    network = with_part(saved(weights, tmp_path), prefix='backbone')
    network.init_weights()
    for key, value in source.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[key], value)
    assert not torch.equal(network.head.fc.weight, source.head.fc.weight)
    assert any(line.startswith('CifarResNet: loaded 45 of 45 weights') for line in log)


def test_an_init_cfg_of_which_nothing_fits_is_an_error(tmp_path):
    path = saved(small().state_dict(), tmp_path)
    with pytest.raises(ValueError, match='CifarResNet: none of its 45 weights is in .*plain'):
        with_part(path, prefix='head.').init_weights()
    for prefix in ('neck', 'back'):
        message = rf"no weight in .*plain.pth starts with '{prefix}\.'.*found names like backbone"
        with pytest.raises(ValueError, match=message):
            with_part(path, prefix=prefix).init_weights()
    with pytest.raises(FileNotFoundError, match='CifarResNet: checkpoint not found: no.pth'):
        with_part('no.pth').init_weights()


def test_networks_of_mmpretrain_alone_are_checked_as_well(tmp_path):
    path = saved(torch.nn.Linear(3, 2).state_dict(), tmp_path)
    backbone = dict(type='ResNet', depth=18, init_cfg=dict(type='Pretrained', checkpoint=path))
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        network = NETWORKS.build(dict(type='ImageClassifier', backbone=backbone))
    with pytest.raises(ValueError, match='ResNet: none of its .* weights is in'):
        network.init_weights()


def vit(size, **head):
    backbone = dict(type='VisionTransformer', arch='deit-t', img_size=size)
    head = dict(type='VisionTransformerClsHead', num_classes=10, in_channels=192) | head
    return build(dict(type='mmpretrain.ImageClassifier', backbone=backbone, head=head))


def test_position_embeddings_are_resized_as_the_network_does_it(tmp_path, log, monkeypatch):
    converted = []
    monkeypatch.setattr(initial_weights, '_converted', lambda *args: converted.append(args) or {})
    source, network, expected = vit(32), vit(48, num_classes=7), vit(48)
    for value in source.parameters():
        torch.nn.init.normal_(value)
    load_initial_weights(network, saved(source.state_dict(), tmp_path), 'student0')
    assert log[-1].endswith('initialised anew: head.layers.head.weight, head.layers.head.bias')
    expected.load_state_dict(source.state_dict())
    for key, value in expected.backbone.state_dict().items():
        assert torch.equal(network.backbone.state_dict()[key], value)
    assert not converted  # slow, and of no use where all names are known


def test_a_head_alone_is_not_enough(tmp_path):
    """As torchvision's RegNet, of whose names mmpretrain knows that of a bias."""
    other = saved({'head.fc.bias': torch.zeros(10), 'stem.0.weight': torch.zeros(3)}, tmp_path)
    with pytest.raises(ValueError, match='none of its 45 .*found names like head.fc.bias'):
        load_initial_weights(small(), other, 'student0')
