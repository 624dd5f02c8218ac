import itertools

import pytest
import torch
from reference import LABELS, W40, assert_same, batch_norm, cross_entropy, kd, records, separable
from torch import nn

from mfef_mmrazor.models import DCCLDistiller, MapKLDivergence, MFEFDistiller

STAGES = ('stage1', 'stage2', 'feature')


def dccl(students=2, **options):
    torch.manual_seed(0)
    distiller = DCCLDistiller([3, 4, 6], 5, num_students=students, **options)
    nn.init.normal_(distiller.fused_classifier.head.fc.weight)
    return distiller.double()


def caught_of(students, sizes=(8, 4, 2)):
    maps = {
        stage: records(students, channels, size, seed=size)['feature']
        for stage, channels, size in zip(STAGES, (3, 4, 6), sizes, strict=True)
    }
    return dict(logits=records(students)['logits'], **maps)


def projected(block, x):
    """Patches that do not overlap, each a sum over its pixels."""
    weight = block.conv.weight
    r = weight.shape[-1]
    patches = x.reshape(*x.shape[:2], x.shape[2] // r, r, x.shape[3] // r, r)
    x = torch.einsum('bchiwj,ocij->bohw', patches, weight)
    return batch_norm(x, block.bn).clamp(min=0)


@pytest.mark.parametrize('students, sizes', [(2, (8, 4, 2)), (3, (8, 4, 2)), (4, (12, 4, 2))])
def test_maps_of_all_stages_students_and_the_fused_classifier_teach(students, sizes, epoch):
    epoch(40)
    strides = [a // b for a, b in itertools.pairwise(sizes)]
    distiller, caught = dccl(students, strides=strides), caught_of(students, sizes)
    losses = distiller.compute_distill_losses(caught, LABELS)

    z, pairs = (
        caught['logits'],
        [(i, j) for i in range(students) for j in range(students) if i != j],
    )
    maps = separable(distiller.fused_classifier.fusion.fuse, torch.cat(caught['feature'], dim=1))
    head = distiller.fused_classifier.head.fc
    fused = maps.mean(dim=(2, 3)) @ head.weight.T + head.bias
    known = []
    for i, projections in enumerate(distiller.knowledge):
        one, two, three = (caught[stage][i] for stage in STAGES)
        known.append(
            [
                one,
                two + projected(projections[1][0], one),
                three + projected(projections[2][0], one) + projected(projections[2][1], two),
            ]
        )
    expected = dict(
        loss_fused=cross_entropy(fused),
        loss_mutual=W40 * sum(kd(z[j], z[i], 3.0) for i, j in pairs) / (students - 1),
        loss_transfer=W40 * sum(kd(fused, x, 3.0) for x in z),
        loss_feedback=W40 * sum(kd(x, fused, 3.0) for x in z),
        loss_map=W40
        * sum(
            kd(known[j][s].reshape(5, -1), known[i][s].reshape(5, -1), 3.0)
            for i, j in pairs
            for s in range(3)
        )
        / (students - 1),
    )
    assert_same(losses, expected, distiller, caught)
    torch.testing.assert_close(distiller.fused_logits(caught), fused)


def test_parts_can_be_replaced():
    distiller = dccl(loss_map=dict(type='AttentionMapLoss', loss_weight=5.0), ramp_up_epochs=0)
    losses = distiller.compute_distill_losses(caught_of(2), LABELS)
    assert losses['loss_map'] > 0
    assert dccl(loss_map=dict(tau=1.0, loss_weight=0.5)).loss_map.tau == 1.0
    for kind in ('mmrazor.MapKLDivergence', MapKLDivergence, 'KLDivergence'):
        assert dccl(loss_map=dict(type=kind), tau=5.0).loss_map.tau == 5.0


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_channels=64), 'in_channels=64, expected the channels of 3 stages'),
        (dict(in_channels=[16, 32]), r'in_channels=\[16, 32\], expected .* of 3 stages'),
        (
            dict(in_channels=[[16, 32, 64], [8, 32, 64]]),
            'whole maps can be compared only where all students have the same channels',
        ),
        (dict(strides=[2]), r'strides=\[2\], expected 2 whole numbers'),
        (dict(strides=2), 'strides=2, expected 2 whole numbers'),
        (dict(strides=[0, 2]), r'strides=\[0, 2\], expected 2 whole numbers, 1 or more'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        DCCLDistiller(**{**dict(in_channels=[16, 32, 64], num_classes=10), **options})


def test_maps_other_than_announced():
    caught = caught_of(2)
    with pytest.raises(ValueError, match=r'strides: .* \[\(1, 1\), \(2, 2\)\], expected one size'):
        dccl(strides=(2, 4)).stage_knowledge(caught)
    caught['stage2'][1] = torch.zeros(5, 7, 4, 4, dtype=torch.float64)
    with pytest.raises(ValueError, match=r'stage2 of student1 is \(5, 7, 4, 4\)'):
        dccl().stage_knowledge(caught)


def test_mfefs_maps_can_learn_by_the_same_loss():
    torch.manual_seed(0)
    mfef = MFEFDistiller(
        8, 5, attention=None, loss_map=dict(type='MapKLDivergence', tau=2.0), ramp_up_epochs=0
    ).double()
    caught = records(2, 8)
    loss = mfef.compute_distill_losses(caught, LABELS)['loss_map']
    built = MapKLDivergence()
    assert MFEFDistiller(8, 5, loss_map=built).loss_map is built
    assert MFEFDistiller(8, 5, loss_map=dict(type='MapKLDivergence'), tau=5.0).loss_map.tau == 5.0
    fused_map, _ = mfef.fused_classifier(mfef.informative_maps(caught))
    expected = sum(kd(fused_map.flatten(1), x.flatten(1), 2.0) for x in caught['feature'])
    assert abs(loss - expected) < 1e-10
