"""The ways in which a student's network may be named."""

import pytest
import torch
from mmengine.model import BaseModel
from mmpretrain import get_model

from mfef_mmrazor.models import CifarResNet
from mfef_mmrazor.models.students import build_student, resolve_student, split_initial_weights

RESNET = 'mmpretrain::resnet/resnet18_8xb32_in1k.py'


def test_cfg_path_is_the_network_of_that_config():
    student = build_student(0, dict(cfg_path=RESNET, pretrained=False))
    expected = get_model('resnet18_8xb32_in1k')
    assert student.state_dict().keys() == expected.state_dict().keys()
    assert torch.equal(student.data_preprocessor.mean, expected.data_preprocessor.mean)


def test_what_stands_beside_cfg_path_changes_the_network():
    cfg = dict(cfg_path=RESNET, head=dict(num_classes=3), backbone=dict(stem_channels=32))
    found = resolve_student(cfg)
    assert found['head']['num_classes'] == 3 and found['head']['in_channels'] == 512
    assert found['backbone']['stem_channels'] == 32 and found['backbone']['depth'] == 18
    assert 'cfg_path' in cfg and resolve_student(found) == found
    assert resolve_student(dict(cfg_path=RESNET, pretrained=True))['pretrained'].startswith('http')


@pytest.mark.parametrize(
    'cfg, error, message',
    [
        (dict(cfg_path='mmpretrain::resnet/resnet17.py'), FileNotFoundError, 'resnet17.py'),
        (dict(cfg_path='resnet18.py'), FileNotFoundError, 'resnet18.py.*expected .<package>::'),
        (dict(cfg_path='mmdet::retinanet/r50.py'), ImportError, 'mmdet is not installed'),
        (dict(type='mmdet.RetinaNet'), ImportError, 'student1: mmdet.RetinaNet.*not supported'),
        (dict(type='mmpretrain.LinearClsHead', num_classes=2, in_channels=2), TypeError,
         'student1: found LinearClsHead, expected an mmengine BaseModel'),
    ],
)  # fmt: skip
def test_mistakes_are_named(cfg, error, message):
    with pytest.raises(error, match=message):
        build_student(1, cfg)


def test_the_checkpoint_of_the_whole_network_is_split_off():
    whole = dict(type='Pretrained', checkpoint='a.pth')
    part = dict(type='Pretrained', checkpoint='a.pth', prefix='backbone.')
    assert split_initial_weights(dict(type='A', pretrained='a.pth')) == (dict(type='A'), 'a.pth')
    assert split_initial_weights(dict(type='A', init_cfg=whole)) == (dict(type='A'), 'a.pth')
    for cfg in (dict(type='TimmClassifier', pretrained=True), dict(type='A', init_cfg=part)):
        assert split_initial_weights(cfg) == (cfg, None)


def test_one_config_can_be_given_twice():
    """mmpretrain adds to the list of probabilities that it is given."""
    mixes = dict(augments=[dict(type='Mixup', alpha=0.8)], probs=[0.5])
    cfg = dict(resolve_student(dict(cfg_path=RESNET)), train_cfg=mixes)
    first, second = (build_student(i, cfg) for i in range(2))
    assert first.data_preprocessor.batch_augments.probs == [0.5, 0.5]
    assert second.data_preprocessor.batch_augments.probs == [0.5, 0.5]


def test_a_student_whose_backbone_is_built_or_no_config():
    class Named(BaseModel):
        def __init__(self, backbone):
            super().__init__()
            self.fc = torch.nn.Linear(1, 1)

        def forward(self, inputs, mode):
            return self.fc(inputs)

    assert isinstance(build_student(0, dict(type=Named, backbone='resnet18')), Named)
    built = CifarResNet(depth=8)
    student = build_student(0, dict(type='mmpretrain.ImageClassifier', backbone=built))
    assert student.backbone is not None


def test_a_backbones_own_checkpoint_comes_before_that_of_all_students(tmp_path):
    backbone = dict(type='CifarResNet', depth=8)
    network = dict(type='mmpretrain.ImageClassifier', backbone=backbone)
    own, common = (build_student(0, network).backbone.state_dict() for _ in range(2))
    for name, weights in (('own', own), ('common', common)):
        torch.save({f'backbone.{k}': v for k, v in weights.items()}, tmp_path / f'{name}.pth')
    init = dict(type='Pretrained', checkpoint=str(tmp_path / 'own.pth'), prefix='backbone.')
    student = dict(network, backbone=dict(backbone, init_cfg=init))
    found = build_student(0, student, str(tmp_path / 'common.pth')).backbone.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in found.items())
