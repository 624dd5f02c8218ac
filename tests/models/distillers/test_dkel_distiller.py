import copy
import math

import pytest
import torch
from reference import LABELS, W40, assert_same, cross_entropy, kd, records
from tiny import SAMPLES, Tiny, by_hand, views
from torch import nn

from mfef_mmrazor.engine.hooks.distiller_update_hook import announce_updates
from mfef_mmrazor.models import DKELDistiller, OnlineDistill

RESNET8 = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
)


def dkel(students=3, **options):
    torch.manual_seed(0)
    distiller = DKELDistiller(4, 5, num_students=students, **options)
    nn.init.normal_(distiller.head.fc.weight)  # far from uniform, so that no loss is near zero
    return OnlineDistill([Tiny() for _ in range(students)], distiller).double()


def steps(model, number, seed=1):
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    announce_updates(model, optimizer)
    for i in range(number):
        optimizer.zero_grad()
        sum(model.loss(views(len(model.students), seed + i), SAMPLES).values()).backward()
        optimizer.step()


@pytest.mark.parametrize('decay', [0.5, 0.0, 9.0])
@pytest.mark.parametrize('students', [2, 3, 4])
def test_the_ensemble_of_the_mean_teachers_teaches_and_then_each_of_them(students, decay, epoch):
    epoch(2)
    model = dkel(students, decay=decay, ramp_up_epochs=4)
    distiller, caught = model.distiller, records(students, channels=4)
    learnt = dict(logits=caught['logits'], feature=caught['feature'])
    caught['image'] = images = views(students)
    for teacher in distiller.mean_teachers:
        for p in teacher.parameters():
            nn.init.normal_(p)
    means = [
        by_hand({k: p.detach() for k, p in teacher.module.named_parameters()}, view)
        for teacher, view in zip(distiller.mean_teachers, images, strict=True)
    ]
    z, others = caught['logits'], range(students)
    pooled = torch.cat([x.flatten(2).mean(dim=2) for x in caught['feature']], dim=1)
    fused = pooled @ distiller.head.fc.weight.T + distiller.head.fc.bias
    d = {0.5: math.exp(-1), 0.0: 1.0, 9.0: 0.0}[decay]  # exp(-18) is below 0.01
    each = sum(kd(means[j], z[i], 3.0) for i in others for j in others if i != j)
    ensembles = [
        sum(mean for j, mean in enumerate(means) if j != i) / (students - 1) for i in others
    ]
    together = sum(kd(mean, x, 3.0) for mean, x in zip(ensembles, z, strict=True))
    expected = dict(
        loss_fused=cross_entropy(fused),
        loss_transfer=W40 * sum(kd(fused, x, 3.0) for x in z),
        loss_peers=W40 * (1 - d) * each / (students - 1),
        loss_ensemble=W40 * d * together,
    )
    losses = distiller.compute_distill_losses(caught, LABELS)
    for name, weight in (('loss_peers', 1 - d), ('loss_ensemble', d)):
        if weight == 0:
            assert losses.pop(name) == expected.pop(name) == 0
    head = nn.ModuleDict(dict(head=distiller.head))  # all there is to train
    assert_same(losses, expected, head, learnt)


def test_the_ensemble_ends_when_it_weighs_less_than_a_hundredth(epoch):
    distiller = dkel().distiller
    for number, expected in ((0, 1.0), (9, math.exp(-4.5)), (10, 0.0)):
        epoch(number)
        assert distiller.ensemble_weight() == pytest.approx(expected)


@pytest.mark.parametrize('options, momentum', [(dict(momentum=0.25), 0.25), (dict(), 0.001)])
def test_teachers_start_from_other_weights_and_come_nearer_at_one_pace(options, momentum):
    model = dkel(**options)
    pairs = list(zip(model.students, model.distiller.mean_teachers, strict=True))
    expected = [copy.deepcopy(dict(t.module.named_parameters())) for _, t in pairs]
    for (student, _), start in zip(pairs, expected, strict=True):
        for name, weight in student.named_parameters():
            same_by_definition = name.startswith('backbone.1')  # batch norm starts at 1 and 0
            assert torch.equal(weight, start[name]) == same_by_definition, name
    for i in range(3):
        steps(model, 1, seed=i)
        for (student, teacher), weights in zip(pairs, expected, strict=True):
            for name, weight in student.named_parameters():
                weights[name] = torch.lerp(weights[name], weight.detach(), momentum)
                found = teacher.module.get_parameter(name)
                torch.testing.assert_close(found, weights[name].detach(), rtol=0, atol=1e-12)
                assert not found.requires_grad


def test_a_pretrained_backbone_decouples_nothing_and_the_log_says_so(tmp_path, log):
    path = tmp_path / 'backbone.pth'
    model = OnlineDistill([RESNET8] * 2, dict(type='DKELDistiller'))
    torch.save(model.students[0].state_dict(), path)
    assert not any('starts from' in line for line in log)
    student = copy.deepcopy(RESNET8)
    student['backbone']['init_cfg'] = dict(
        type='Pretrained', checkpoint=str(path), prefix='backbone.'
    )
    OnlineDistill([student] * 2, dict(type='DKELDistiller'))
    warnings = [line for line in log if 'starts from' in line]
    assert len(warnings) == 2  # one a student
    for i, warning in enumerate(warnings):
        assert f'student{i} starts from 9 of its weights' in warning and 'head.fc' not in warning


def test_weights_that_start_at_zero_in_every_network_are_not_named(log):
    class Zeros(Tiny):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(2, 2))

    OnlineDistill([Zeros() for _ in range(2)], DKELDistiller(4, 5, num_students=2))
    assert not any('starts from' in line for line in log)


def test_the_students_start_as_they_do_in_any_method():
    models = []
    dkel_cfg = dict(type='DKELDistiller', in_channels=64, num_classes=5)
    for distiller in (dict(type='DMLDistiller'), dkel_cfg):
        torch.manual_seed(0)
        models.append(OnlineDistill([RESNET8] * 3, distiller))
    ours, others = models[1].students, models[0].students
    assert all(
        torch.equal(a, b)
        for one, other in zip(ours, others, strict=True)
        for a, b in zip(one.parameters(), other.parameters(), strict=True)
    )
    teacher = models[1].distiller.mean_teachers[1].module
    for name in ('backbone.conv1.weight', 'backbone.layer3.0.conv2.weight', 'head.fc.weight'):
        own, fresh = ours[1].get_parameter(name), teacher.get_parameter(name)
        assert not torch.equal(own, fresh)
        assert fresh.std() == pytest.approx(own.std().item(), rel=0.2)  # of the same kind


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped():
    whole, first = dkel(), dkel()
    steps(whole, 5)
    steps(first, 2)
    second = dkel()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, 3, seed=3)
    expected = whole.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.state_dict().items())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_channels=[64]), r'in_channels=\[64\] names 1 students, but there are 3'),
        (dict(momentum=1), "momentum=1, the share of a student's weights"),
        (dict(decay=-1), 'decay=-1, expected 0 or more'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
        (dict(ramp_up_epochs=-1), 'length is -1 epochs'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        DKELDistiller(**{**dict(in_channels=64, num_classes=10), **options})
