"""Every method takes a step with networks, heads, losses and recipes that users bring."""

import copy

import numpy as np
import pytest
import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmpretrain.structures import DataSample
from test_all_distillers import METHODS
from torch import nn

from mfef_mmrazor.models import OnlineDistill
from mfef_mmrazor.models.builder import build

every_method = pytest.mark.parametrize('method', METHODS)

CLASSES = 3
WEIGHTS = [1.0, 5.0, 20.0]
CONVNET = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=64),
)
VIT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(
        type='VisionTransformer',
        arch=dict(embed_dims=16, num_layers=2, num_heads=2, feedforward_channels=32),
        img_size=32,
        patch_size=8,
    ),
    head=dict(type='VisionTransformerClsHead', num_classes=CLASSES, in_channels=16),
)
CONVNEXT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='ConvNeXt', arch=dict(depths=[1] * 4, channels=[8, 16, 24, 32])),
    head=dict(type='LinearClsHead', num_classes=CLASSES, in_channels=32),
)
# methods that record the maps of earlier stages too: their channels, by network
STAGES = {
    'DCCLDistiller': ([16, 32, 64], [16, 24, 32]),
    'DCMDistiller': ([16, 32], [16, 24]),
    'FFSDDistiller': ([16, 32, 64], [16, 24, 32]),
}
STAGES_OF_CONVNEXT = dict(
    stage1=dict(type='ModuleOutputs', source='backbone.stages.1'),
    stage2=dict(type='ModuleOutputs', source='backbone.stages.2'),
)


def arguments(method, convnext=False):
    if method in STAGES:
        if convnext:
            return dict(in_channels=STAGES[method][1], recorders=STAGES_OF_CONVNEXT)
        return dict(in_channels=STAGES[method][0])
    if method == 'ConfigurableOnlineDistiller':
        return dict(
            distill_losses=dict(loss_mutual=dict(type='KLDivergence', tau=1)),
            loss_forward_mappings=dict(
                loss_mutual=dict(
                    preds_S=dict(recorder='logits', student='i'),
                    preds_T=dict(recorder='logits', student='j', detach=True),
                )
            ),
        )
    return {}


def online(method, student, convnext=False, preprocessor=None, **options):
    torch.manual_seed(0)
    distiller = {'type': method, **arguments(method, convnext), **options}
    students = [copy.deepcopy(student) for _ in range(3)]
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        return OnlineDistill(students, distiller, data_preprocessor=preprocessor)


def batch():
    inputs = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return inputs, [DataSample().set_gt_label(i % CLASSES) for i in range(4)]


def assert_a_step_works(model, inputs, data_samples):
    losses = model.loss(inputs, data_samples)
    assert {'student0.loss', 'student1.loss', 'student2.loss'} <= set(losses)
    sum(x for name, x in losses.items() if 'loss' in name).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name
    model.eval()
    for name, predictions in model.predict_all(inputs, data_samples).items():
        assert all(0 <= p.pred_score.min() <= p.pred_score.max() <= 1 for p in predictions), name


@every_method
def test_a_convnext(method):
    assert_a_step_works(online(method, CONVNEXT, convnext=True), *batch())


@every_method
def test_a_vision_transformer(method):
    if method in STAGES:
        led_on = f"'stage1': student0 has no module .*{method} .*distiller.recorders.*MFEFDistiller"
        with pytest.raises(KeyError, match=led_on):
            online(method, VIT)
    else:
        assert_a_step_works(online(method, VIT), *batch())


def test_mfef_of_three_kinds_of_networks():
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        model = OnlineDistill([CONVNET, VIT, CONVNEXT], dict(type='MFEFDistiller'))
    assert model.distiller.adapters.in_channels == [64, 16, 32]
    assert_a_step_works(model, *batch())
    assert all(parameter.grad is not None for parameter in model.parameters())


ONE_LABEL_ONLY = {'KDCLDistiller': 'min-logit', 'MCLDistiller': 'contrast'}


@every_method
def test_mixup_of_the_students_own_recipe(method):
    mixed = dict(CONVNET, train_cfg=dict(augments=dict(type='Mixup', alpha=1.0)))
    model = online(method, mixed, preprocessor=dict(type='mmpretrain.ClsDataPreprocessor'))
    inputs, samples = batch()
    np.random.seed(0)
    torch.manual_seed(0)  # which images are mixed
    data = model.data_preprocessor(dict(inputs=list(inputs), data_samples=samples), training=True)
    scores = torch.stack([sample.gt_score for sample in data['data_samples']])
    assert scores.shape == (4, CLASSES) and ((scores > 0) & (scores < 1)).any()
    if method in ONE_LABEL_ONLY:
        with pytest.raises(ValueError, match=ONE_LABEL_ONLY[method]):
            model.loss(**data)
    else:
        assert_a_step_works(model, **data)


@every_method
def test_class_weights_reach_every_classifier(method):
    weighted = copy.deepcopy(CONVNET)
    weighted['head']['loss'] = dict(type='CrossEntropyLoss', class_weight=WEIGHTS)
    model = online(method, weighted)
    for module in model.modules():
        for name in ('loss_module', 'loss_ce'):
            if hasattr(module, name):
                assert getattr(module, name).class_weight == WEIGHTS
    assert_a_step_works(model, *batch())


@every_method
def test_several_labels_for_an_image(method):
    student = copy.deepcopy(CONVNET)
    student['head']['type'] = 'MultiLabelLinearClsHead'
    if method in ('KDCLDistiller', 'MCLDistiller', 'SwitOKDDistiller'):
        with pytest.raises(ValueError, match=f'{method}: .* defined for one label per image'):
            online(method, student)
        return
    options = {}
    if method == 'ConfigurableOnlineDistiller':
        with pytest.raises(ValueError, match="losses.loss_mutual .* type='BernoulliKLDivergence'"):
            online(method, student)
        options = dict(distill_losses=dict(loss_mutual=dict(type='BernoulliKLDivergence')))
    inputs, _ = batch()
    samples = [DataSample().set_gt_label(y) for y in ([0, 1], [2], [1], [])]
    assert_a_step_works(online(method, student, **options), inputs, samples)


@every_method
def test_students_from_a_config_file_and_from_a_checkpoint(method, convnet_file):
    """One of mmpretrain's configs, changed, and the weights of one plain network to start from."""
    checkpoint, weights = convnet_file
    student = dict(
        cfg_path='mmpretrain::resnet/resnet18_8xb16_cifar10.py',
        backbone=dict(_delete_=True, type='CifarResNet', depth=8),
        head=dict(num_classes=CLASSES, in_channels=64),
        pretrained=str(checkpoint),
    )
    model = online(method, student)
    for own in model.students:
        for key, value in own.backbone.state_dict().items():
            assert torch.equal(value, weights[f'backbone.{key}']), key
    assert_a_step_works(model, *batch())


@pytest.fixture(scope='module')
def convnet_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp('network')
    torch.manual_seed(7)
    weights = build(CONVNET).state_dict()
    torch.save(dict(state_dict=weights), folder / 'convnet.pth')
    return folder / 'convnet.pth', weights


@pytest.mark.parametrize('method', ['MFEFDistiller', 'FFLDistiller', 'FFSDDistiller'])
def test_class_weights_raise_the_recall_of_rare_classes_of_every_predictor(method):
    draw = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 40 + [1] * 8 + [2] * 2)
    kinds = torch.randn(CLASSES, 3, 1, 1, generator=draw)

    def images(labels):
        return kinds[labels] + 1.5 * torch.randn(len(labels), 3, 8, 8, generator=draw)

    def mean_recalls(weights):
        student = copy.deepcopy(CONVNET)
        student['head']['loss'] = dict(type='CrossEntropyLoss', class_weight=weights)
        model = online(method, student).train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
        for _ in range(20):
            optimizer.zero_grad()
            losses = model.loss(inputs, samples)
            sum(x for name, x in losses.items() if 'loss' in name).backward()
            optimizer.step()
        logits = model.eval().predict_logits(fresh)
        # as many images of each class: the mean of the recalls is the accuracy
        return {name: (z.argmax(1) == new).float().mean().item() for name, z in logits.items()}

    inputs, samples = images(labels), [DataSample().set_gt_label(int(y)) for y in labels]
    new = torch.arange(CLASSES).repeat_interleave(40)
    fresh = images(new)
    plain, weighted = mean_recalls(None), mean_recalls(WEIGHTS)
    assert 'fused' in plain
    for name in plain:
        assert weighted[name] > plain[name] + 0.05, (name, weighted, plain)


class HeadAlone(BaseModel):
    """A network with a classifier, and no part that is called its backbone."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(12, 5)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        logits = self.head(inputs.flatten(1))
        if mode == 'tensor':
            return logits
        labels = torch.cat([sample.gt_label for sample in data_samples])
        return dict(loss=nn.functional.cross_entropy(logits, labels))


@pytest.mark.parametrize('method', ['Independent', 'DML', 'KDCL', 'CLILR'])
def test_methods_on_logits_need_no_map(method):
    model = OnlineDistill([HeadAlone(), HeadAlone()], dict(type=f'{method}Distiller'))
    losses = model.loss(torch.randn(4, 3, 2, 2), [DataSample().set_gt_label(i) for i in range(4)])
    assert all(loss.isfinite() for loss in losses.values())
    assert set(model.distiller.recorders[0].recorders) == {'logits'}
