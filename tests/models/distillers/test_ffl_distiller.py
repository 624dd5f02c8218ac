import pytest
import torch
from reference import LABELS, W40, assert_same, cross_entropy, kd, records, separable
from torch import nn

from mfef_mmrazor.models import FFLDistiller, MFEFDistiller


def ffl(students=2, kind=FFLDistiller, **options):
    torch.manual_seed(0)
    distiller = kind(16, 5, num_students=students, **options)
    nn.init.normal_(
        distiller.fused_classifier.head.fc.weight
    )  # far from uniform, so that no loss is near zero
    return distiller.double()


def classify_fused(distiller, maps):
    x = separable(distiller.fused_classifier.fusion.fuse, torch.cat(maps, dim=1)).mean(dim=(2, 3))
    return (
        x @ distiller.fused_classifier.head.fc.weight.t() + distiller.fused_classifier.head.fc.bias
    )


@pytest.mark.parametrize('options', [dict(), dict(detach_features=True)])
@pytest.mark.parametrize('students', [2, 3, 4])
def test_the_fused_classifier_and_the_students_teach_each_other(students, options, epoch):
    epoch(40)
    distiller, caught = ffl(students, **options), records(students)
    losses = distiller.compute_distill_losses(caught, LABELS)
    maps = [x.detach() for x in caught['feature']] if options else caught['feature']
    z, fused = caught['logits'], classify_fused(distiller, maps)
    expected = dict(
        loss_fused=cross_entropy(fused),
        loss_ensemble=W40 * kd(sum(z) / students, fused, 3.0),
        loss_transfer=W40 * sum(kd(fused, x, 3.0) for x in z),
    )
    assert_same(losses, expected, distiller, caught)


@pytest.mark.parametrize('students', [2, 3, 4])
def test_it_is_mfef_whose_connectors_do_nothing(students, epoch):
    epoch(40)
    mfef = ffl(students, MFEFDistiller, attention=dict(reduction=4), enhanced_head=None)
    for part in (mfef.multi_scale, mfef.attention):
        for i in range(students):
            part[i] = nn.Identity()
    distiller, caught = ffl(students), records(students)
    distiller.load_state_dict(mfef.state_dict())
    losses = distiller.compute_distill_losses(caught, LABELS)
    expected = mfef.compute_distill_losses(caught, LABELS)
    for term, value in losses.items():
        leaves = caught['logits'] + caught['feature']
        ours, theirs = (
            torch.autograd.grad(
                x, [*leaves, *module.parameters()], retain_graph=True, allow_unused=True
            )
            for x, module in ((value, distiller), (expected[term], mfef))
        )
        assert torch.equal(value, expected[term])
        for a, b in zip(ours, theirs, strict=True):
            assert (a is None and b is None) or torch.equal(a, b)


def test_it_has_the_parameters_of_the_paper():
    for students, parameters in ((2, 16_228), (3, 21_028), (4, 25_828)):
        distiller = FFLDistiller(in_channels=64, num_classes=100, num_students=students)
        assert sum(p.numel() for p in distiller.parameters()) == parameters


def test_impossible_options():
    with pytest.raises(ValueError, match=r'in_channels=\[64\] names 1 students, but there are 2'):
        FFLDistiller(in_channels=[64], num_classes=10)
    with pytest.raises(ValueError, match='tau=-3, but a temperature must be positive'):
        FFLDistiller(in_channels=64, num_classes=10, tau=-3)
    with pytest.raises(ValueError, match='feature of student0 is'):
        ffl().compute_distill_losses(records(2, channels=8), LABELS)
