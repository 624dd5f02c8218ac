import pytest
import torch
from reference import LABELS, W40, assert_same, gradients, kd_with_gradient, records
from torch import nn

from mfef_mmrazor.functional import attended_logits
from mfef_mmrazor.models import OKDDipDistiller


def okddip(students=3, **options):
    torch.manual_seed(0)
    distiller = OKDDipDistiller(**{**dict(in_channels=16, num_students=students), **options})
    nn.init.normal_(distiller.query.weight), nn.init.normal_(distiller.key.weight)
    return distiller.double()


def mixtures(distiller, caught):
    """Targets of the peers, sample by sample."""
    peers = caught['logits'][1:]
    pooled = [x.flatten(2).mean(dim=2) for x in caught['feature'][1:]]
    targets = []
    for f in pooled:
        rows = []
        for b in range(len(LABELS)):
            query = distiller.query.weight @ f[b]
            score = torch.stack([query @ (distiller.key.weight @ other[b]) for other in pooled])
            share = score.exp() / score.exp().sum()
            rows.append(sum(s * z[b] for s, z in zip(share, peers, strict=True)))
        targets.append(torch.stack(rows))
    return targets


@pytest.mark.parametrize('students', [3, 4, 5])
def test_peers_learn_from_their_mixtures_and_the_leader_from_their_mean(students, epoch):
    epoch(40)
    distiller, caught = okddip(students), records(students)
    losses = distiller.compute_distill_losses(caught, LABELS)
    leader, *peers = caught['logits']
    pairs = zip(mixtures(distiller, caught), peers, strict=True)
    expected = dict(
        loss_peers=W40 * sum(kd_with_gradient(target, z, 3.0) for target, z in pairs),
        loss_leader=W40 * kd_with_gradient(sum(peers) / len(peers), leader, 3.0),
    )
    assert_same(losses, expected, distiller, caught)
    assert distiller.fused_logits(caught) is None


def test_queries_and_keys_learn_through_the_targets_alone():
    distiller, caught = okddip(), records(3)
    shared = dict(distiller.named_parameters())
    assert sorted(shared) == ['key.weight', 'query.weight']
    assert shared['key.weight'].shape == (2, 16)
    losses = distiller.compute_distill_losses(caught, LABELS)
    assert all(g.abs().sum() > 1e-6 for g in gradients(losses['loss_peers'], shared).values())
    assert all((g == 0).all() for g in gradients(losses['loss_leader'], shared).values())
    detached = okddip(loss_transfer=dict(teacher_detach=True))
    frozen = detached.compute_distill_losses(caught, LABELS)['loss_peers']
    assert all(
        (g == 0).all() for g in gradients(frozen, dict(detached.named_parameters())).values()
    )


def test_the_leader_teaches_nobody_but_its_loss_reaches_the_peers():
    distiller, caught = okddip(4), records(4)
    losses = distiller.compute_distill_losses(caught, LABELS)
    logits = dict(enumerate(caught['logits']))
    reached = [bool((g != 0).any()) for g in gradients(losses['loss_leader'], logits).values()]
    assert reached == [True] * 4
    reached = [bool((g != 0).any()) for g in gradients(losses['loss_peers'], logits).values()]
    assert reached == [False] + [True] * 3
    leaders_map = gradients(sum(losses.values()), dict(x=caught['feature'][0]))
    assert (leaders_map['x'] == 0).all()


def test_the_leader_may_be_another_network():
    distiller, caught = okddip(), records(3, [32, 16, 16])
    assert len(distiller.peer_targets(caught)) == 2


def test_under_autocast_the_targets_are_of_full_precision():
    distiller, caught = okddip().float(), records(3)
    caught = {name: [x.detach().float() for x in xs] for name, xs in caught.items()}
    with torch.autocast('cpu', torch.bfloat16):
        losses = distiller.compute_distill_losses(caught, LABELS)
        targets = distiller.peer_targets(caught)
        pooled = [x.mean(dim=(2, 3)) for x in caught['feature'][1:]]
        queries = [distiller.query(f).float() for f in pooled]
        keys = [distiller.key(f).float() for f in pooled]
    assert {x.dtype for x in [*targets, *losses.values()]} == {torch.float32}
    # not of that type alone: but for the two layers, nothing is rounded to half precision
    expected = attended_logits(queries, keys, caught['logits'][1:])
    torch.testing.assert_close(targets, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(num_students=2), 'at least 3 students, but there are 2: list another one'),
        (dict(reduction=32), 'reduction=32 leaves no unit of in_channels=16: expected 1 to 16'),
        (dict(reduction=0), 'reduction=0 leaves no unit'),
        (dict(in_channels=[16] * 3), r'in_channels=\[16, 16, 16\], expected one number for all'),
        (dict(tau=0), 'tau=0, but a temperature must be positive'),
        (dict(ramp_up_epochs=-1), 'length is -1 epochs'),
    ],
)
def test_impossible_options(options, message):
    with pytest.raises(ValueError, match=message):
        okddip(**options)


def test_a_peers_map_other_than_announced():
    with pytest.raises(ValueError, match=r'feature of student2 is \(5, 8, 6, 6\).*\[16, 16\]'):
        okddip().compute_distill_losses(records(3, [16, 16, 8]), LABELS)
