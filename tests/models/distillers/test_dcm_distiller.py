import pytest
import torch
from mmpretrain.structures import DataSample
from reference import LABELS, assert_same, batch_norm, cross_entropy, kd, records
from torch import nn

from mfef_mmrazor.models import DCMDistiller, OnlineDistill


def dcm(channels, **options):
    torch.manual_seed(0)
    return DCMDistiller(channels, 5, **options).double()


def caught_of(channels):
    """Records of students whose hidden maps have these channels."""
    stages = {
        f'stage{i + 1}': records(len(channels), [own[i] for own in channels], 8 - 4 * i, seed=i)
        for i in range(2)
    }
    return dict(
        logits=records(len(channels))['logits'],
        **{stage: found['feature'] for stage, found in stages.items()},
    )


def conv(x, weight, stride=1):
    """A 3x3 or 1x1 convolution as a sum of shifts."""
    size = weight.shape[-1]
    height, width = x.shape[2:]
    padded = nn.functional.pad(x, (size // 2,) * 4)
    full = sum(
        torch.einsum(
            'oc,bchw->bohw', weight[:, :, i, j], padded[:, :, i : i + height, j : j + width]
        )
        for i in range(size)
        for j in range(size)
    )
    return full[:, :, ::stride, ::stride]


def classified(classifier, x):
    for stage in classifier.stages:
        (block,) = stage
        shortcut, norm = block.downsample
        y = batch_norm(conv(x, block.conv1.weight, 2), block.bn1).clamp(min=0)
        y = batch_norm(conv(y, block.conv2.weight), block.bn2)
        x = (y + batch_norm(conv(x, shortcut.weight, 2), norm)).clamp(min=0)
    return x.mean(dim=(2, 3)) @ classifier.fc.weight.T + classifier.fc.bias


@pytest.mark.parametrize(
    'channels, tau', [([[4, 6]] * 2, 1.0), ([[4, 6], [6, 4], [2, 4]], 2.0), ([[4, 4]] * 4, 3.0)]
)
def test_every_classifier_learns_from_all_of_the_other_students(channels, tau):
    m = len(channels)
    distiller, caught = dcm(channels, num_students=m, tau=tau), caught_of(channels)
    losses = distiller.compute_distill_losses(caught, LABELS)
    outputs = [
        [
            classified(distiller.classifiers[i][0], caught['stage1'][i]),
            classified(distiller.classifiers[i][1], caught['stage2'][i]),
            caught['logits'][i],
        ]
        for i in range(m)
    ]
    pairs = [(i, j) for i in range(m) for j in range(m) if i != j]
    expected = dict(
        loss_hidden=sum(cross_entropy(z) for one in outputs for z in one[:2]),
        loss_mutual=sum(kd(b, a, tau) for i, j in pairs for a in outputs[i] for b in outputs[j])
        / (m - 1),
    )
    assert_same(losses, expected, distiller, caught)


def test_one_pair_of_channels_is_for_all_students():
    distiller = dcm([4, 6], num_students=3)
    assert distiller.in_channels == [[4, 6]] * 3
    depths = [[len(c.stages) for c in own] for own in distiller.classifiers]
    assert depths == [[2, 1]] * 3  # both end where the last stage does
    assert dcm([4, 6]).loss_mutual.tau == 1.0


def test_students_of_different_families():
    first, second = (
        dict(
            type='mmpretrain.ImageClassifier',
            backbone=backbone,
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=5, in_channels=channels),
        )
        for backbone, channels in (
            (dict(type='CifarResNet', depth=8), 64),
            (dict(type='WideResNet', depth=10, widen_factor=1), 64),
        )
    )
    wide = {
        f'stage{i + 1}': dict(type='ModuleOutputs', source=f'backbone.stages.{i}') for i in (0, 1)
    }
    distiller = dict(
        type='DCMDistiller', in_channels=[[16, 32], [16, 32]], num_classes=5, recorders=[{}, wide]
    )
    model = OnlineDistill(students=[first, second], distiller=distiller)
    samples = [DataSample().set_gt_label(int(label)) for label in LABELS]
    model.loss(torch.randn(5, 3, 16, 16), samples)['distill.loss_mutual'].backward()
    for student in model.students:  # the hidden stages are taught as well as the last one
        assert all(p.grad is not None for p in student.parameters())


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_channels=64), 'in_channels=64, expected the channels of 2 stages'),
        (dict(in_channels=[16, 32, 64]), r'in_channels=\[16, 32, 64\], .* of 2 stages'),
        (dict(in_channels=[16.0, 32]), r'in_channels=\[16.0, 32\], .* of 2 stages'),
        (dict(in_channels=[[16, 32]]), 'for each of the 2 students'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        DCMDistiller(**{**dict(in_channels=[16, 32], num_classes=10), **options})


def test_a_map_other_than_announced():
    with pytest.raises(ValueError, match=r'stage2 of student1 is \(5, 8, 4, 4\).*\[6, 6\]'):
        dcm([4, 6]).hidden_logits(caught_of([[4, 6], [4, 8]]))


class TinyHead(nn.Linear):
    """A user's own, without a number of stages."""

    def __init__(self, in_channels, num_classes):
        super().__init__(in_channels, num_classes)

    def forward(self, x):
        return super().forward(x.mean(dim=(2, 3)))


def test_a_classifier_of_the_users_own_need_not_take_every_argument():
    distiller = dcm([[8, 16]] * 2, classifier=dict(type=TinyHead))
    assert [x.in_features for x in distiller.classifiers[0]] == [8, 16]

    class TakesAll(nn.Module):
        def __init__(self, **arguments):
            super().__init__()
            self.arguments = arguments

    takes_all = dcm([[8, 16]] * 2, classifier=dict(type=TakesAll))
    assert [x.arguments['num_stages'] for x in takes_all.classifiers[0]] == [2, 1]
    assert all(
        loss.isfinite() for loss in
        distiller.compute_distill_losses(caught_of([[8, 16]] * 2), LABELS).values()
    )  # fmt: skip
