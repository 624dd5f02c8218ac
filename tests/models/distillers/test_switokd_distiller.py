import math

import pytest
import torch
from mmpretrain.structures import DataSample
from reference import LABELS, assert_same, kd, records

from mfef_mmrazor.engine.hooks.distiller_update_hook import announce_updates
from mfef_mmrazor.models import OnlineDistill, SwitOKDDistiller
from mfef_mmrazor.models.distillers.online_distiller import Progress

STUDENT = dict(
    type='mmpretrain.ImageClassifier',
    backbone=dict(type='CifarResNet', depth=8),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=5, in_channels=64),
)


def expert(student, teacher):
    """The rule, sample by sample and class by class."""
    y = torch.eye(5, dtype=torch.float64)[LABELS].tolist()
    p_s, p_t = student.softmax(dim=1).tolist(), teacher.softmax(dim=1).tolist()

    def distance(a, b):
        rows = [
            sum(abs(u - v) for u, v in zip(x, z, strict=True)) for x, z in zip(a, b, strict=True)
        ]
        return sum(rows) / len(rows)

    s, t, gap = distance(p_s, y), distance(p_t, y), distance(p_s, p_t)
    return gap > s - math.exp(-t / (t + s)) * t and t < s


def knowing(number, *knowledge):
    """Records of students, each with its labels' logits raised by so much."""
    caught = dict(logits=records(number)['logits'])
    hint = torch.eye(5, dtype=torch.float64)[LABELS]
    with torch.no_grad():
        for z, much in zip(caught['logits'], knowledge, strict=True):
            z += much * hint
    return caught


CASES = [  # students, teachers, what each knows; who is paused
    (2, 1, [0, 2], [1]),
    (2, 1, [0, 0.5], []),
    (2, 1, [2, 0], []),
    (3, 2, [0, 2, -1], [1]),
    (3, 2, [0, 1, 4], [1, 2]),
    (3, 1, [0, 0.5, 2], [2]),
    (3, 1, [0, 2, 2], []),  # too far ahead of the first student only
    (4, 2, [0, 0, 1.5, 1.5], [2]),
]


@pytest.mark.parametrize('number, teachers, knowledge, paused', CASES)
def test_who_learns_from_whom(number, teachers, knowledge, paused):
    distiller = SwitOKDDistiller(teachers, tau=2.0, num_students=number)
    caught = knowing(number, *knowledge)
    z = caught['logits']
    losses = distiller.compute_distill_losses(caught, LABELS)
    first = number - teachers
    modes = {(s, t): expert(z[s], z[t]) for s in range(first) for t in range(first, number)}
    expected = sum(
        kd(z[j], z[i], 2.0)
        for i in range(number)
        for j in range(number)
        if i != j and not modes.get((j, i), False)
    )
    share = losses.pop('expert_share')
    assert share == sum(modes.values()) / len(modes) and not share.requires_grad
    assert_same(losses, dict(loss_mutual=expected), distiller, caught)
    assert distiller.paused == paused


def test_in_learning_mode_it_is_dml_and_in_expert_mode_the_student_alone_learns():
    distiller = SwitOKDDistiller()
    for knowledge, learners in (([0, 0.5], 2), ([0, 2], 1)):
        caught = knowing(2, *knowledge)
        distiller.compute_distill_losses(caught, LABELS)['loss_mutual'].backward()
        assert sum(z.grad is not None for z in caught['logits']) == learners


def test_the_share_that_is_logged_is_of_the_epoch_also_where_epochs_have_fractions():
    distiller, found = SwitOKDDistiller(), []
    for iteration, share in enumerate((1.0, 0.0, 0.0, 1.0)):  # two an epoch
        distiller.progress = Progress(epoch=iteration / 2, iteration=iteration)
        found.append(distiller.mean_of_epoch(share))
    assert found == [1.0, 0.5, 0.0, 0.5]


def test_mixed_labels():
    caught = knowing(2, 0, 2)
    scores = torch.eye(5, dtype=torch.float64)[LABELS]
    assert SwitOKDDistiller().expert_pairs(caught['logits'], scores) == {(0, 1): True}
    assert SwitOKDDistiller().expert_pairs(caught['logits'], 0 * scores + 0.2) == {(0, 1): False}


def model():
    torch.manual_seed(0)
    return OnlineDistill(students=[STUDENT, STUDENT], distiller=dict(type='SwitOKDDistiller'))


def step(online, optimizer):
    samples = [DataSample().set_gt_label(int(label)) for label in LABELS]
    losses = online.loss(torch.randn(5, 3, 16, 16), samples)
    optimizer.zero_grad()
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    optimizer.step()


@pytest.mark.parametrize('fused', [False, True])
def test_it_stops_where_nobody_tells_of_the_optimizers_steps(fused):
    online = model()
    online.students[0].backbone.requires_grad_(False)  # what stands still hides nothing
    optimizer = torch.optim.SGD(
        [p for p in online.parameters() if p.requires_grad], 0.1, fused=fused
    )
    step(online, optimizer)
    with pytest.raises(ValueError, match='SwitOKDDistiller has to act .*DistillerUpdateHook'):
        step(online, optimizer)


def test_a_stopped_distillation_pauses_nobody():
    online = model()
    optimizer = torch.optim.SGD(online.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    announce_updates(online, optimizer)
    step(online, optimizer)
    for stopped in (False, True):
        online.distillation_stopped = stopped
        step(online, optimizer)
        online.distiller.paused = [1]
        before = online.students[1].head.fc.weight.clone()
        optimizer.step()
        assert torch.equal(before, online.students[1].head.fc.weight) != stopped


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_teachers=0), 'num_teachers=0, expected 1 to 1 of the 2 students'),
        (dict(num_teachers=2), 'num_teachers=2, expected 1 to 1'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        SwitOKDDistiller(**options)


def test_a_trunk_cannot_be_paused():
    with pytest.raises(ValueError, match='shared_stages: SwitOKDDistiller needs students that are'):
        OnlineDistill([STUDENT, STUDENT], dict(type='SwitOKDDistiller'), shared_stages=1)
