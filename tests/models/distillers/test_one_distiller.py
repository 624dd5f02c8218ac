import pytest
import torch
from reference import LABELS, W40, assert_same, cross_entropy, gradients, kd, records
from torch import nn
from torch.nn import functional as F

from mfef_mmrazor.models import ONEDistiller


def one(students=2, in_channels=16, **options):
    torch.manual_seed(0)
    distiller = ONEDistiller(in_channels, num_students=students, **options)
    for parameter in distiller.gate[1].parameters():
        nn.init.uniform_(parameter, 0.5, 1.5)
    return distiller.double()


def gate_of(distiller, maps):
    """The gate's weights in training mode, by hand."""
    linear, norm, _ = distiller.gate
    x = torch.cat([x.flatten(2).sum(2) / x[0, 0].numel() for x in maps], dim=1) @ linear.weight.t()
    centred = x - x.mean(dim=0)
    x = centred / (centred.pow(2).mean(dim=0) + 1e-5).sqrt() * norm.weight + norm.bias
    x = x.clamp(min=0).exp()
    return x / x.sum(dim=1, keepdim=True)


def ensemble_of(distiller, caught, maps=None):
    gate = gate_of(distiller, caught['feature'] if maps is None else maps)
    return sum(gate[:, i : i + 1] * z for i, z in enumerate(caught['logits']))


@pytest.mark.parametrize('students', [2, 3, 4])
@pytest.mark.parametrize('options', [dict(), dict(detach_features=True)])
def test_the_gated_ensemble_learns_from_the_labels_and_teaches(students, options, epoch):
    epoch(40)
    distiller, caught = one(students, **options), records(students)
    losses = distiller.compute_distill_losses(caught, LABELS)
    maps = [x.detach() for x in caught['feature']] if options else caught['feature']
    ensemble = ensemble_of(distiller, caught, maps)
    expected = dict(
        loss_fused=cross_entropy(ensemble),
        loss_transfer=W40 * sum(kd(ensemble, z, 3.0) for z in caught['logits']),
    )
    assert_same(losses, expected, distiller, caught)
    assert torch.allclose(distiller.fused_logits(caught), ensemble, rtol=0, atol=1e-10)


def test_the_gate_learns_from_the_ensembles_cross_entropy_alone():
    distiller, caught = one(3), records(3)
    losses = distiller.compute_distill_losses(caught, LABELS)
    gate = dict(distiller.gate.named_parameters())
    assert all(g.abs().sum() > 1e-6 for g in gradients(losses['loss_fused'], gate).values())
    assert all((g == 0).all() for g in gradients(losses['loss_transfer'], gate).values())


@pytest.mark.parametrize('detach', [False, True])
def test_detached_features_are_not_trained_by_the_gate(detach):
    distiller, caught = one(detach_features=detach), records(2)
    loss = distiller.compute_distill_losses(caught, LABELS)['loss_fused']
    reached = gradients(loss, dict(enumerate(caught['feature'] + caught['logits'])))
    assert [bool((g != 0).any()) for g in reached.values()] == [not detach] * 2 + [True] * 2


def test_gate_weights_are_shares_and_follow_the_image():
    weights = one(3).gate_weights(records(3)['feature'])
    assert weights.shape == (5, 3) and (weights > 0).all()
    assert torch.allclose(weights.sum(dim=1), torch.ones(5, dtype=torch.float64))
    assert weights.std(dim=0).min() > 1e-3


def test_students_of_other_channels_and_sizes():
    distiller, caught = one(2, [16, 24]), records(2, [16, 24])
    caught['feature'][1] = torch.rand(5, 24, 3, 3, dtype=torch.float64)
    expected = ensemble_of(distiller, caught)
    assert torch.allclose(distiller.fused_logits(caught), expected, rtol=0, atol=1e-10)


def test_in_evaluation_the_gate_does_not_depend_on_the_batch():
    distiller, caught = one().eval(), records(2)
    first = {name: [x[:1] for x in xs] for name, xs in caught.items()}
    whole, single = distiller.fused_logits(caught)[:1], distiller.fused_logits(first)
    assert torch.allclose(whole, single, rtol=0, atol=1e-12)


def test_the_ensembles_loss_takes_soft_labels():
    soft = one(loss_ce=dict(use_soft=True))
    scores = F.one_hot(LABELS, 5).double()
    value = soft.compute_distill_losses(records(2), scores)['loss_fused']
    expected = one().compute_distill_losses(records(2), LABELS)['loss_fused']
    assert value.item() == pytest.approx(expected.item(), abs=1e-10)


def test_under_autocast_the_ensemble_is_of_full_precision():
    distiller, caught = one().float(), records(2)
    caught = {name: [x.detach().float() for x in xs] for name, xs in caught.items()}
    with torch.autocast('cpu', torch.bfloat16):
        losses = distiller.compute_distill_losses(caught, LABELS)
        weights = distiller.gate_weights(caught['feature'])
        ensemble = distiller.fused_logits(caught)
    assert {x.dtype for x in [weights, ensemble, *losses.values()]} == {torch.float32}
    expected = sum(weights[:, i : i + 1] * z for i, z in enumerate(caught['logits']))
    assert torch.allclose(ensemble, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(in_channels=[16] * 3), r'in_channels=\[16, 16, 16\] names 3 students.* are 2'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
        (dict(ramp_up_epochs=-1), 'length is -1 epochs'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        ONEDistiller(**{**dict(in_channels=16), **options})


def test_a_batch_of_one_image_trains_nothing():
    caught = {name: [x[:1] for x in values] for name, values in records(2).items()}
    distiller = one()
    with pytest.raises(ValueError, match='found a batch of one image.*drop_last=True'):
        distiller.compute_distill_losses(caught, LABELS[:1])
    assert distiller.eval().fused_logits(caught).shape == caught['logits'][0].shape


def test_a_map_other_than_announced():
    caught = records(2, [16, 8])
    with pytest.raises(ValueError, match=r'feature of student1 is \(5, 8, 6, 6\).*\[16, 16\]'):
        one().compute_distill_losses(caught, LABELS)
