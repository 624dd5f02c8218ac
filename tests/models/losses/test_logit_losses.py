import pytest
import torch
from mmpretrain.structures import DataSample
from mmrazor.registry import MODELS
from torch import nn

from mfef_mmrazor.models import (
    BernoulliKLDivergence,
    CLILRDistiller,
    DMLDistiller,
    FFLDistiller,
    KDCLDistiller,
    MCLDistiller,
    OKDDipDistiller,
    OnlineDistill,
    PCLDistiller,
    StandardizedKLDivergence,
)
from mfef_mmrazor.models.losses.logit_losses import DivergenceAdapter, build_loss

LABELS = torch.tensor([0, 3, 1, 4, 2])


def leaves(number):
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(5, 6, dtype=torch.float64, generator=generator).requires_grad_()
        for _ in range(number)
    ]


def softmax(z):
    return z.exp() / z.exp().sum(dim=1, keepdim=True)


def kl(p, q):
    return (p * (p.log() - q.log())).sum() / len(p)


def dist(student, teacher, tau):
    """One minus Pearson's correlation, over the classes and over the batch."""
    s, t = softmax(student / tau), softmax(teacher / tau)

    def correlation(a, b):
        a, b = a - a.mean(dim=1, keepdim=True), b - b.mean(dim=1, keepdim=True)
        return ((a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))).mean()

    return tau**2 * (2 - correlation(s, t) - correlation(s.T, t.T))


def dkd(student, teacher, tau):
    """True class against the rest, and the rest among itself."""
    s, t = softmax(student / tau), softmax(teacher / tau)
    true = torch.nn.functional.one_hot(LABELS, 6).bool()
    binary = [torch.stack([p[true], (p * ~true).sum(dim=1)], dim=1) for p in (t, s)]
    others = [p[~true].view(5, 5) / (p * ~true).sum(dim=1, keepdim=True) for p in (t, s)]
    return tau**2 * (kl(*binary) + kl(*others))


def standardized_kd(student, teacher, tau):
    s, t = (
        (z - z.mean(dim=1, keepdim=True)) / z.var(dim=1, keepdim=True).sqrt()
        for z in (student, teacher)
    )
    return tau**2 * kl(softmax(t / tau), softmax(s / tau))


SWAPS = dict(DISTLoss=dist, DKDLoss=dkd, StandardizedKLDivergence=standardized_kd)
KL = 'StandardizedKLDivergence'
every_swap = pytest.mark.parametrize('name', SWAPS)


def assert_same_gradients(value, expected, inputs):
    assert value.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = (
        torch.autograd.grad(x, inputs, retain_graph=True, allow_unused=True)
        for x in (value, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    'name, detached', [*((name, True) for name in SWAPS), ('DISTLoss', False), (KL, False)]
)
def test_the_student_learns_and_the_teacher_only_if_it_is_to(name, detached):
    student, teacher = leaves(2)
    loss = build_loss(dict(type=name, loss_weight=0.5), 'KLDivergence', 2.0, detached)
    if isinstance(loss, DivergenceAdapter):
        loss.labels = LABELS
    target = teacher.detach() if detached else teacher
    expected = 0.5 * SWAPS[name](student, target, 2.0)
    assert_same_gradients(loss(student, teacher), expected, [student, teacher])


@every_swap
def test_in_methods_it_takes_the_place_of_kl(name):
    z = leaves(3)
    swap, d = dict(type=name), SWAPS[name]
    maps = [torch.rand(5, 4, 3, 3, dtype=torch.float64) for _ in z]
    caught = dict(logits=z, feature=maps)
    common = dict(num_students=3, tau=2.0)
    methods = dict(
        loss_mutual=DMLDistiller(loss_mutual=swap, **common),
        loss_transfer=CLILRDistiller(loss_transfer=swap, ramp_up_epochs=0, **common),
        loss_ensemble=FFLDistiller(4, 6, loss_ensemble=swap, ramp_up_epochs=0, **common),
    )
    if name != 'DKDLoss':
        methods['loss_leader'] = OKDDipDistiller(
            4, 2, loss_transfer=swap, ramp_up_epochs=0, **common
        )
    for distiller in methods.values():
        distiller.double().hand_out(LABELS)
    found = {
        term: distiller.compute_distill_losses(caught, LABELS)[term]
        for term, distiller in methods.items()
    }
    a, b, c = z
    x, y, w = (each.detach() for each in z)
    fused = methods['loss_ensemble'].fused_logits(caught)
    expected = dict(
        loss_mutual=sum(d(s, t, 2.0) for s, t in [(a, y), (a, w), (b, x), (b, w), (c, x), (c, y)])
        / 2,
        loss_transfer=d(a, (y + w) / 2, 2.0) + d(b, (x + w) / 2, 2.0) + d(c, (x + y) / 2, 2.0),
        loss_ensemble=d(fused, (x + y + w) / 3, 2.0),
        loss_leader=d(a, (b + c) / 2, 2.0),  # whose targets learn, with any loss
    )
    for term, value in found.items():
        assert term in expected and value > 1e-3
        assert_same_gradients(value, expected[term], z)


def test_a_step_of_a_model_hands_out_its_labels():
    student = dict(
        type='mmpretrain.ImageClassifier',
        backbone=dict(type='CifarResNet', depth=8),
        neck=dict(type='GlobalAveragePooling'),
        head=dict(type='LinearClsHead', num_classes=6, in_channels=64),
    )
    kdcl = dict(type='KDCLDistiller', variant='naive', loss_transfer=dict(type='DKDLoss'))
    model = OnlineDistill(students=[student, student], distiller=kdcl)
    inputs = torch.randn(5, 3, 16, 16)
    losses = model.loss(inputs, [DataSample().set_gt_label(int(label)) for label in LABELS])
    assert losses['distill.loss_transfer'] > 0
    mixed = [DataSample().set_gt_score(torch.full((6,), 1 / 6)) for _ in LABELS]
    with pytest.raises(ValueError, match=r'DKDLoss: the labels are \(5, 6\)'):
        model.loss(inputs, mixed)


def test_weights_and_temperatures_of_a_method_reach_the_loss():
    pcl = PCLDistiller(4, 6, num_students=3, loss_peers=dict(type='DISTLoss'))
    assert (pcl.loss_peers.tau, pcl.loss_peers.loss_weight) == (3.0, 0.5)
    kdcl = KDCLDistiller(loss_weight=0.3, loss_transfer=dict(type='DKDLoss', tau=5.0, beta=8.0))
    inner = kdcl.loss_transfer.loss
    assert (inner.tau, inner.loss_weight, inner.beta) == (5.0, 0.3, 8.0)


@MODELS.register_module()
class MeanDifference(nn.Module):
    """A loss as simple as can be, which takes no argument."""

    def forward(self, preds_S, preds_T):
        return (preds_S - preds_T).abs().mean()


def test_a_loss_needs_neither_a_temperature_nor_a_weight():
    student, teacher = leaves(2)
    difference = (student - teacher.detach()).abs()
    own = dict(type='MeanDifference')
    assert_same_gradients(
        FFLDistiller(4, 6, loss_transfer=own).loss_transfer(student, teacher),
        difference.mean(),
        [student, teacher],
    )
    weighted = KDCLDistiller(loss_weight=0.3, loss_transfer=own).loss_transfer(student, teacher)
    assert_same_gradients(weighted, 0.3 * difference.mean(), [student, teacher])
    l1 = KDCLDistiller(loss_weight=0.3, loss_transfer=dict(type='mmrazor.L1Loss', loss_weight=2.0))
    assert_same_gradients(
        l1.loss_transfer(student, teacher), 2 * difference.mean(), [student, teacher]
    )


@MODELS.register_module()
class DifferenceAtTheTrueClass(nn.Module):
    """Likewise, but for the labels."""

    def forward(self, preds_S, preds_T, gt_labels):
        return (preds_S - preds_T).abs().gather(1, gt_labels[:, None]).mean()


def test_a_loss_that_asks_for_labels_is_weighed_by_the_method_as_well():
    student, teacher = leaves(2)
    cfg = dict(type='DifferenceAtTheTrueClass')
    loss = KDCLDistiller(loss_weight=0.3, loss_transfer=cfg).loss_transfer
    loss.labels = LABELS
    rows = zip(student, teacher.detach(), LABELS, strict=True)
    expected = sum((s[label] - t[label]).abs() for s, t, label in rows) / len(LABELS)
    assert_same_gradients(loss(student, teacher), 0.3 * expected, [student, teacher])


@MODELS.register_module()
class OwnKL(StandardizedKLDivergence):
    """A loss that hands its arguments on."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)


def test_a_loss_keeps_its_own_weight_and_gets_the_temperature_through_its_base():
    distances = FFLDistiller(4, 6, loss_transfer=dict(type='DistanceWiseRKD')).loss_transfer
    assert distances.loss.loss_weight == 25.0
    own = FFLDistiller(4, 6, loss_transfer=dict(type='OwnKL'), tau=5.0).loss_transfer
    assert isinstance(own, OwnKL) and own.tau == 5.0


@pytest.mark.parametrize('cfg', [None, StandardizedKLDivergence()], ids=['none', 'built'])
def test_a_loss_is_a_config(cfg):
    with pytest.raises(TypeError, match=r"expected the config of a loss, as dict\(type='KLDiv"):
        PCLDistiller(4, 6, num_students=3, loss_transfer=cfg)


@pytest.mark.parametrize('tau', [0, -1.0, '3'])
def test_a_temperature_of_its_own_is_checked_as_the_methods_is(tau):
    with pytest.raises(ValueError, match=f'tau={tau!r}, but a temperature must be positive'):
        FFLDistiller(4, 6, loss_transfer=dict(tau=tau))


def test_dkd_cannot_teach_where_the_targets_learn():
    with pytest.raises(ValueError, match='DKDLoss gives the teacher no finite gradient'):
        OKDDipDistiller(4, 2, loss_transfer=dict(type='DKDLoss'))


def test_no_classes_among_similarities():
    with pytest.raises(ValueError, match='loss_soft_icl: DKDLoss needs the true class'):
        MCLDistiller(in_channels=64, loss_soft_icl=dict(type='DKDLoss'))


def test_of_two_classes_standardised_logits_are_always_the_same():
    with pytest.raises(ValueError, match='need 3 classes or more, found 2'):
        StandardizedKLDivergence()(torch.randn(4, 2), torch.randn(4, 2))


def test_standardized_logits_forget_scale_and_shift():
    a, b = leaves(2)
    loss = MODELS.build(dict(_scope_='mmrazor', type='StandardizedKLDivergence', tau=2.0))
    assert isinstance(loss, StandardizedKLDivergence)
    assert loss(a, b).item() == pytest.approx(loss(3 * a - 1, 0.5 * b + 2).item(), abs=1e-6)
    assert loss(a, b) > 0.01


def test_logits_without_a_spread_do_not_drown_the_other_gradients():
    teacher = leaves(2)[1]
    student = torch.zeros_like(teacher, requires_grad=True)  # of a head that starts at zero
    StandardizedKLDivergence()(student, teacher).backward()
    assert 0 < student.grad.norm() < 100


@pytest.mark.parametrize('tau', [1.0, 3.0])
def test_bernoulli_kl_is_a_divergence_of_each_label(tau):
    student, teacher = leaves(2)
    p, q = (1 / (1 + (-z / tau).exp()) for z in (teacher, student))
    expected = tau**2 * (kl(p, q) + kl(1 - p, 1 - q))
    loss = BernoulliKLDivergence(tau=tau, loss_weight=0.5)(student, teacher)
    torch.testing.assert_close(loss, 0.5 * expected)
    ours, theirs = (torch.autograd.grad(x, student, retain_graph=True) for x in (loss, expected))
    torch.testing.assert_close(ours[0], 0.5 * theirs[0])
    assert torch.autograd.grad(loss, teacher, allow_unused=True, retain_graph=True) == (None,)
    taught = BernoulliKLDivergence(tau=tau, teacher_detach=False)(student, teacher)
    assert torch.autograd.grad(taught, teacher)[0].abs().max() > 0


def test_bernoulli_kl_of_extreme_logits_is_finite():
    z = torch.tensor([[200.0, -200.0]], requires_grad=True)
    loss = BernoulliKLDivergence()(z, -z)
    assert loss.item() == pytest.approx(400)
    loss.backward()
    assert z.grad.isfinite().all()
